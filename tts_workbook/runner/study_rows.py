"""From recorded results to what the figures of a study draw: rows, curves, the 2 x 2."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tts_workbook.runner.notebook_rules.effect_items import short_clip
from tts_workbook.trials.paired_effects import MARGINS, Effect, arm_values, by_pair
from tts_workbook.trials.statistics import Direction, decide
from tts_workbook.trials.trial_result import TrialResult


def effect_rows(
    found: Mapping[str, Effect], direction: Direction = "either"
) -> dict[str, dict[str, Any]]:
    """What `plot_effects` draws: a row per change, with the verdict on it in the claimed
    direction.
    """
    rows = {}
    for arm, one in found.items():
        rows[arm] = {
            "differences": one.contrast.differences,
            "groups": [short_clip(clip) for clip, _ in one.pairs],
            "mean": one.contrast.mean,
            "interval": one.contrast.finite_interval,
            "verdict": decide(one.contrast.interval, MARGINS[one.measure], direction),
        }
    return rows


def curve_rows(
    results: Sequence[TrialResult], names: Mapping[str, str]
) -> tuple[dict[str, list[Any]], dict[str, list[Any]]]:
    """What `plot_arm_curves` draws: the curves, and the shares with their steps, of the arms in
    `names` (arm -> label).
    """
    curves: dict[str, list[Any]] = {}
    shares: dict[str, list[Any]] = {}
    for arm, label in names.items():
        runs = list(by_pair(results, arm).values())
        if runs:
            curves[label] = [run.curves["over_constant"] for run in runs]
            shares[label] = [(run.curves["share_steps"], run.curves["shares"]) for run in runs]
    return curves, shares


def cell_means(
    results: Sequence[TrialResult], measure: str, broken: bool
) -> dict[str, dict[str, float]]:
    """Means of one measure in the 2 x 2 of memory norm and standardised targets:
    [standardised?][norm?].

    `broken`: the study's base has both and the arms take them away; else its base has neither and
    the arms put them in.
    """
    arms = {  # (norm changed, targets changed) -> arm
        (False, False): "base",
        (True, False): "memory_norm",
        (False, True): "standardise_targets",
        (True, True): "memory_norm and standardise_targets",
    }
    means: dict[str, dict[str, float]] = {}
    for standardised, row in ((False, "raw targets"), (True, "standardised")):
        means[row] = {}
        for norm, column in ((False, "no norm"), (True, "memory norm")):
            changed = (norm != broken, standardised != broken)
            values = arm_values(results, arms[changed], measure)
            means[row][column] = sum(values) / len(values)
    return means
