"""From effects over pairs to the items of a verdict: one sentence, one number, one interval, and
what would refute it.

The verdict of every item here is computed from an interval and a margin; no item has one written
into it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from tts_core.errors import WorkbookError
from tts_workbook.measure.trajectory import PLATEAU_BAND, PLATEAU_MIN_STEPS
from tts_workbook.runner.verdicts import Item
from tts_workbook.trials.paired_effects import MARGINS, Effect
from tts_workbook.trials.statistics import Direction, Verdict, contrast, decide
from tts_workbook.trials.trial_result import TrialResult

MIN_UNANIMOUS = 3  # runs, below which agreement rules nothing
UNITS = {
    "outcome": "of the best constant, mean over the budget",
    "tf_over_constant": "TF L1 / best constant",
    "fr_over_constant": "FR L1 / best constant",
    "text_use": "text use",
    "stoi": "STOI",
    "wer": "word error rate",
}


def short_clip(clip: str) -> str:
    """The end of a clip's id, by which a reader tells it from the others."""
    return clip[-14:]


def measure_of(result: TrialResult, name: str) -> float:
    """What a run has of a measure; raises WorkbookError where it has none."""
    value = result.measures[name]
    if value is None:
        raise WorkbookError(f"a run of arm {result.trial.name!r} has no {name!r}")
    return value


def effect_item(
    id: str, claim: str, effect: Effect, direction: Direction, study: str, refuting: str
) -> Item:
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
        provenance=_provenance(study, effect),
        refuting_experiment=refuting,
    )


def _provenance(study: str, effect: Effect) -> str:
    """Which study, what against what, p, and each clip by itself."""
    clips = ", ".join(f"{short_clip(clip)} {value:+.3f}" for clip, value in effect.by_clip.items())
    adjusted = "" if effect.p_adjusted is None else f", Holm {effect.p_adjusted:.3f}"
    lost = f"; {effect.missing} pairs without the measure" if effect.missing else ""
    return (
        f"study {study}: {effect.arm} ({effect.arm_mean:.3f}) against {effect.base}"
        f" ({effect.base_mean:.3f}); p {effect.contrast.p:.4f}{adjusted}; by clip {clips}{lost}"
    )


def any_of_item(
    id: str,
    claim: str,
    effects: Mapping[str, Effect],
    direction: Direction,
    study: str,
    refuting: str,
) -> Item:
    """A claim that at least one of several changes does something: supported if one does, refuted
    if all are refuted. Its number is that of the strongest.
    """
    items = {
        arm: effect_item(id, claim, one, direction, study, refuting) for arm, one in effects.items()
    }
    supported = [arm for arm, item in items.items() if item.verdict == "supported"]
    sign = -1 if direction == "decrease" else 1
    strongest = max(supported or effects, key=lambda arm: sign * effects[arm].contrast.mean)
    verdict: Verdict = "undecided"
    if supported:
        verdict = "supported"
    elif all(item.verdict == "refuted" for item in items.values()):
        verdict = "refuted"
    chosen = items[strongest]
    each = ", ".join(
        f"{arm} {effects[arm].contrast.mean:+.3f} {item.verdict}" for arm, item in items.items()
    )
    return replace(chosen, verdict=verdict, provenance=f"{chosen.provenance}; all of them: {each}")


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


def unanimous_item(
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
    verdict: Verdict = "undecided"
    if len(values) >= MIN_UNANIMOUS and min(values) > level:
        verdict = "supported"
    elif len(values) >= MIN_UNANIMOUS and max(values) < level:
        verdict = "refuted"
    each = ", ".join(f"{value:.3f}" for value in values)
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
        provenance=f"{source}; each run: {each}; all must agree, no interval",
    )


def sticking(results: Sequence[TrialResult]) -> dict[str, list[TrialResult]]:
    """Arm -> its runs that had a plateau and are on the line at the end: the loss that sticks, as
    in the findings.
    """
    stuck: dict[str, list[TrialResult]] = {}
    for result in results:
        if _sticks(result):
            stuck.setdefault(result.trial.name, []).append(result)
    return stuck


def _sticks(result: TrialResult) -> bool:
    """At the end: the plateau lasts to the last step, or the mean of the last tenth lies within its
    band; a single step that leaves the band does not end a collapse (LOG.md, where this was widened
    and why).
    """
    steps = result.measures["plateau_steps"]
    if not steps:
        return False
    last = measure_of(result, "plateau_first") + steps - 1
    off_the_line = abs(measure_of(result, "final_over_constant") - 1.0)
    return last >= result.trial.steps or off_the_line <= PLATEAU_BAND


def sticking_item(
    id: str, claim: str, results: Sequence[TrialResult], steps: int, source: str
) -> Item:
    """Does any mapped configuration of that budget stay on the best-constant line until the end of
    it?
    """
    chosen = [result for result in results if result.trial.steps == steps]
    stuck = sticking(chosen)
    plateaus = [measure_of(result, "plateau_steps") for result in chosen]
    verdict: Verdict = "undecided"
    if chosen:
        verdict = "supported" if stuck else "refuted"
    names = "; ".join(f"{arm}: {len(runs)} runs" for arm, runs in stuck.items()) or "none"
    return Item(
        id=id,
        claim=claim,
        verdict=verdict,
        effect=max(plateaus, default=None),
        unit="steps, longest plateau",
        n=len(chosen),
        unit_of_replication="runs",
        threshold=PLATEAU_MIN_STEPS,
        provenance=f"{source}; still on the line at the end: {names}",
        refuting_experiment=(
            "the same map at more seeds, clips and sizes; one run that sticks would turn a"
            " refutation"
        ),
    )
