"""From effects over pairs to the items of a verdict: one sentence, one number, one interval, and
what would refute it.

The verdict of every item here is computed from an interval and a margin; no item has one written
into it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from tts_workbook.measure.trajectory import PLATEAU_BAND
from tts_workbook.runner.verdicts import Item
from tts_workbook.trials.paired_effects import MARGINS, Effect, arm_values, by_pair
from tts_workbook.trials.statistics import contrast, decide
from tts_workbook.trials.trial_result import TrialResult

MIN_UNANIMOUS = 3
UNITS = {
    "outcome": "of the best constant, mean over the budget",
    "tf_over_constant": "TF L1 / best constant",
    "fr_over_constant": "FR L1 / best constant",
    "text_use": "text use",
    "stoi": "STOI",
    "wer": "word error rate",
}


def ruling(id: str, claim: str, effect: Effect, direction: str, study: str, refuting: str) -> Item:
    """The item of one paired effect: supported, refuted or undecided by where its 95 % interval
    lies against the margin.
    """
    margin = MARGINS[effect.measure]
    return Item(
        id=id,
        claim=claim,
        verdict=decide(effect.contrast.interval, margin, direction),
        effect=effect.contrast.mean,
        unit=UNITS[effect.measure],
        interval=effect.contrast.finite_interval,
        n=effect.contrast.n,
        unit_of_replication="pairs (clip, seed)",
        threshold=-margin if direction == "decrease" else margin,
        provenance=provenance(study, effect),
        refuting_experiment=refuting,
    )


def provenance(study: str, effect: Effect) -> str:
    """Which study, what against what, p, and each clip by itself."""
    clips = ", ".join(f"{clip[-14:]} {value:+.3f}" for clip, value in effect.by_clip.items())
    adjusted = "" if effect.p_adjusted is None else f", Holm {effect.p_adjusted:.3f}"
    lost = f"; {effect.missing} pairs without the measure" if effect.missing else ""
    return (
        f"study {study}: {effect.arm} ({effect.arm_mean:.3f}) against {effect.base}"
        f" ({effect.base_mean:.3f}); p {effect.contrast.p:.4f}{adjusted}; by clip {clips}{lost}"
    )


def effect_rows(found: Mapping[str, Effect], direction: str = "either") -> dict[str, dict]:
    """What `plot_effects` draws: a row per change, with the verdict on it in the claimed
    direction.
    """
    return {
        arm: {
            "differences": one.contrast.differences,
            "groups": [clip[-14:] for clip, _ in one.pairs],
            "mean": one.contrast.mean,
            "interval": one.contrast.finite_interval,
            "verdict": decide(one.contrast.interval, MARGINS[one.measure], direction),
        }
        for arm, one in found.items()
    }


def curve_rows(results: Sequence[TrialResult], names: Mapping[str, str]) -> tuple[dict, dict]:
    """What `plot_arm_curves` draws: the curves, and the shares with their steps, of the arms in
    `names` (arm -> label).
    """
    chosen = {label: list(by_pair(results, arm).values()) for arm, label in names.items()}
    chosen = {label: runs for label, runs in chosen.items() if runs}
    return (
        {label: [run.curves["over_constant"] for run in runs] for label, runs in chosen.items()},
        {
            label: [(run.curves["share_steps"], run.curves["shares"]) for run in runs]
            for label, runs in chosen.items()
        },
    )


def cell_means(
    results: Sequence[TrialResult], measure: str, broken: bool
) -> dict[str, dict[str, float]]:
    """Means of one measure in the 2 x 2 of memory norm and standardised targets:
    [standardised?][norm?].

    `broken`: the study's base has both and the arms take them away; else its base has neither and
    the arms put them in.
    """
    arms = {
        (False, False): "base",
        (True, False): "memory_norm",
        (False, True): "standardise_targets",
        (True, True): "memory_norm and standardise_targets",
    }
    means: dict[str, dict[str, float]] = {"raw targets": {}, "standardised": {}}
    for standardised, row in ((False, "raw targets"), (True, "standardised")):
        for norm, column in ((False, "no norm"), (True, "memory norm")):
            changed = (norm, standardised) if not broken else (not norm, not standardised)
            values = arm_values(results, arms[changed], measure)
            means[row][column] = sum(values) / len(values)
    return means


def level_item(
    id: str,
    claim: str,
    values: Sequence[float],
    level: float,
    below: bool,
    unit: str,
    source: str,
    refuting: str,
) -> Item:
    """An item about a level: do these runs lie below (or above) it? Supported or refuted only when
    the whole interval does.
    """
    found = contrast([value - level for value in values], 1e-9, "decrease" if below else "increase")
    finite = found.finite_interval
    return Item(
        id=id,
        claim=claim,
        verdict=found.verdict,
        effect=found.mean + level,
        unit=unit,
        interval=None if finite is None else (finite[0] + level, finite[1] + level),
        n=found.n,
        unit_of_replication="runs (clip, seed)",
        threshold=level,
        provenance=source,
        refuting_experiment=refuting,
    )


def unanimous(
    id: str,
    claim: str,
    values: Sequence[float],
    level: float,
    unit: str,
    source: str,
    refuting: str,
) -> Item:
    """An item about runs too few for an interval: supported if all lie above the level, refuted if
    all lie below; fewer than 3 rule nothing.
    """
    agreed = (
        "supported" if min(values) > level else "refuted" if max(values) < level else "undecided"
    )
    verdict = agreed if len(values) >= MIN_UNANIMOUS else "undecided"
    return Item(
        id=id,
        claim=claim,
        verdict=verdict,
        effect=sum(values) / len(values),
        unit=unit,
        n=len(values),
        unit_of_replication="runs",
        threshold=level,
        refuting_experiment=refuting,
        provenance=(
            f"{source}; each run: {', '.join(f'{value:.3f}' for value in values)}; all must agree,"
            " no interval"
        ),
    )


def any_of(
    id: str, claim: str, effects: Mapping[str, Effect], direction: str, study: str, refuting: str
) -> Item:
    """A claim that at least one of several changes does something: supported if one does, refuted
    if all are refuted.
    """
    sign = -1 if direction == "decrease" else 1
    items = {
        arm: ruling(id, claim, one, direction, study, refuting) for arm, one in effects.items()
    }
    verdicts = {arm: item.verdict for arm, item in items.items()}
    strongest = max(effects, key=lambda arm: sign * effects[arm].contrast.mean)
    supported = [arm for arm, verdict in verdicts.items() if verdict == "supported"]
    chosen = (
        max(supported, key=lambda arm: sign * effects[arm].contrast.mean)
        if supported
        else strongest
    )
    verdict = (
        "supported"
        if supported
        else "refuted"
        if set(verdicts.values()) == {"refuted"}
        else "undecided"
    )
    values = items[chosen].to_dict()
    each = ", ".join(
        f"{arm} {effects[arm].contrast.mean:+.3f} {verdict}" for arm, verdict in verdicts.items()
    )
    return Item(
        **{
            **values,
            "interval": items[chosen].interval,
            "verdict": verdict,
            "provenance": f"{values['provenance']}; all of them: {each}",
        }
    )


def sticking(results: Sequence[TrialResult]) -> dict[str, list[TrialResult]]:
    """Arm -> its runs that had a plateau and are on the line at the end: the loss that sticks, as
    in the findings.

    At the end: the plateau lasts to the last step, or the mean of the last tenth lies within its
    band; a single step that leaves the band does not end a collapse (LOG.md, where this was widened
    and why).
    """
    stuck: dict[str, list[TrialResult]] = {}
    for result in results:
        steps, first = result.measures["plateau_steps"], result.measures["plateau_first"]
        at_the_line = abs(result.measures["final_over_constant"] - 1.0) <= PLATEAU_BAND
        if steps and (first + steps - 1 >= result.trial.steps or at_the_line):
            stuck.setdefault(result.trial.name, []).append(result)
    return stuck


def sticking_item(
    id: str, claim: str, results: Sequence[TrialResult], steps: int, source: str
) -> Item:
    """Does any mapped configuration of that budget stay on the best-constant line until the end of
    it?
    """
    chosen = [result for result in results if result.trial.steps == steps]
    stuck = sticking(chosen)
    longest = max((result.measures["plateau_steps"] for result in chosen), default=math.nan)
    names = "; ".join(f"{arm}: {len(runs)} runs" for arm, runs in stuck.items()) or "none"
    return Item(
        id=id,
        claim=claim,
        verdict="supported" if stuck else "refuted" if chosen else "undecided",
        effect=longest if chosen else None,
        unit="steps, longest plateau",
        n=len(chosen),
        unit_of_replication="runs",
        threshold=50,
        provenance=f"{source}; still on the line at the end: {names}",
        refuting_experiment=(
            "the same map at more seeds, clips and sizes; one run that sticks would turn a"
            " refutation"
        ),
    )
