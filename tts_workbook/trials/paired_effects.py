"""From results to effects: arms paired with their base by clip and seed, tested, and shown for each
clip too.

Margins were written into notebooks/LOG.md before the runs: what is smaller explains nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from tts_core.errors import WorkbookError
from tts_workbook.trials.statistics import (
    Contrast,
    Direction,
    LeaveTime,
    by_group,
    contrast,
    holm,
    interaction,
    rank_differences,
    sign_test_p,
)
from tts_workbook.trials.trial_result import TrialResult

# Smallest difference that matters, in the unit of the measure.
MARGINS = {
    "outcome": 0.05,
    "tf_over_constant": 0.05,
    "fr_over_constant": 0.10,
    "fr_seed_layout_over_constant": 0.10,
    "text_use": 0.10,
    "stoi": 0.05,
    "wer": 0.125,
}

Pair = tuple[str, int]  # clip id, seed


@dataclass(frozen=True)
class Effect:
    """What one change does to one measure, over pairs."""

    arm: str
    base: str
    measure: str
    contrast: Contrast  # of arm minus base
    by_clip: dict[str, float]  # mean difference per clip
    pairs: tuple[Pair, ...]
    arm_mean: float
    base_mean: float
    # pairs without the measure (a training that failed): not in the contrast
    missing: int
    p_adjusted: float | None = None  # Holm, over the effects that were computed together


def by_pair(results: Iterable[TrialResult], arm: str) -> dict[Pair, TrialResult]:
    """The arm's results by (clip id, seed)."""
    return {
        (result.trial.clips[0].id, result.trial.experiment.fit.seed): result
        for result in results
        if result.trial.name == arm
    }


def arm_values(results: Iterable[TrialResult], arm: str, measure: str) -> list[float]:
    """What the arm's runs have of a measure. Raises WorkbookError where none has it."""
    found = list(_values_by_pair(results, arm, measure).values())
    if not found:
        raise WorkbookError(f"no run of arm {arm!r} has {measure!r}; `make evidence` computes it")
    return found


def _values_by_pair(results: Iterable[TrialResult], arm: str, measure: str) -> dict[Pair, float]:
    """What the arm's runs have of a measure; those without it are left out."""
    found = {}
    for pair, result in by_pair(results, arm).items():
        value = result.measures.get(measure)
        if value is not None:
            found[pair] = value
    return found


def effect(
    results: Sequence[TrialResult],
    arm: str,
    base: str,
    measure: str = "outcome",
    direction: Direction = "either",
) -> Effect:
    """The paired effect of `arm` against `base`. Raises WorkbookError where no pair has both,
    naming the arms that exist.
    """
    first, second = by_pair(results, base), by_pair(results, arm)
    shared = [pair for pair in first if pair in second]
    before = _values_by_pair(results, base, measure)
    after = _values_by_pair(results, arm, measure)
    defined = [pair for pair in shared if pair in before and pair in after]
    if not defined:
        there = sorted({result.trial.name for result in results})
        raise WorkbookError(
            f"no pair of {arm!r} and {base!r} with {measure!r}; recorded arms: {', '.join(there)}"
        )
    return paired_effect(
        arm,
        base,
        measure,
        {pair: before[pair] for pair in defined},
        {pair: after[pair] for pair in defined},
        direction,
        len(shared) - len(defined),
    )


def paired_effect(
    arm: str,
    base: str,
    measure: str,
    before: Mapping[Pair, float],
    after: Mapping[Pair, float],
    direction: Direction = "either",
    missing: int = 0,
) -> Effect:
    """The effect from values by pair; both mappings have the same pairs."""
    pairs = tuple(before)
    differences = [after[pair] - before[pair] for pair in pairs]
    return Effect(
        arm,
        base,
        measure,
        contrast(differences, MARGINS[measure], direction),
        by_group(differences, [clip for clip, _ in pairs]),
        pairs,
        sum(after.values()) / len(pairs),
        sum(before.values()) / len(pairs),
        missing,
    )


def effects(
    results: Sequence[TrialResult],
    against: Mapping[str, str],
    measure: str = "outcome",
    direction: Direction = "either",
) -> dict[str, Effect]:
    """Effects of several arms (arm -> its base), largest first, with p adjusted over them
    (Holm).
    """
    found = {arm: effect(results, arm, base, measure, direction) for arm, base in against.items()}
    adjusted = holm({arm: one.contrast.p for arm, one in found.items()})
    order = sorted(found, key=lambda arm: -abs(found[arm].contrast.mean))
    return {arm: replace(found[arm], p_adjusted=adjusted[arm]) for arm in order}


def layout_effect(results: Sequence[TrialResult], arm: str, measure: str = "fr") -> Effect:
    """The harm of the seed's generation layout on one arm: the same trained models, both layouts.

    `measure` "fr" (over best constant), "stoi" or "wer".
    """
    train, seed = {
        "fr": ("fr_over_constant", "fr_seed_layout_over_constant"),
        "stoi": ("stoi", "stoi_seed_layout"),
        "wer": ("wer", "wer_seed_layout"),
    }[measure]
    in_train_layout = _values_by_pair(results, arm, train)
    in_seed_layout = _values_by_pair(results, arm, seed)
    chosen = [pair for pair in in_train_layout if pair in in_seed_layout]
    if not chosen:
        raise WorkbookError(
            f"arm {arm!r} has no {train} in both layouts; `make evidence` computes it"
        )
    return paired_effect(
        f"{arm}, seed layout",
        arm,
        train,
        {pair: in_train_layout[pair] for pair in chosen},
        {pair: in_seed_layout[pair] for pair in chosen},
    )


def interaction_effect(
    results: Sequence[TrialResult], base: str, first: str, second: str, both: str, measure: str
) -> Effect:
    """The interaction of two changes: what `first` does where `second` is on, minus what it does
    where it is off.
    """
    names = (base, second, first, both)
    values = {name: _values_by_pair(results, name, measure) for name in names}
    shared = set.intersection(*(set(found) for found in values.values()))
    pairs = [pair for pair in values[base] if pair in shared]
    if not pairs:
        raise WorkbookError(
            f"no pair with all of {base!r}, {first!r}, {second!r}, {both!r}; `make evidence`"
            " computes them"
        )
    found = interaction(
        [values[base][pair] for pair in pairs],
        [values[second][pair] for pair in pairs],
        [values[first][pair] for pair in pairs],
        [values[both][pair] for pair in pairs],
    )
    differences = dict(zip(pairs, found, strict=True))
    return paired_effect(
        f"{first} x {second}", base, measure, dict.fromkeys(pairs, 0.0), differences
    )


@dataclass(frozen=True)
class Departure:
    """When the runs of one arm left the best-constant line, beside those of its base. Ranked, never
    averaged.
    """

    arm: str
    times: tuple[LeaveTime, ...]
    later: int  # pairs in which the arm left later than the base
    earlier: int
    untold: int  # equal, or both beyond the budget
    p: float  # exact sign test


def departure(results: Sequence[TrialResult], arm: str, base: str) -> Departure:
    """The ranked comparison of the times at which the loss left the line for good."""
    of_base, of_arm = by_pair(results, base), by_pair(results, arm)
    pairs = [pair for pair in of_base if pair in of_arm]
    times = tuple(leave_time(of_arm[pair]) for pair in pairs)
    base_times = tuple(leave_time(of_base[pair]) for pair in pairs)
    signs = rank_differences(times, base_times)
    later, earlier, untold = signs.count(1), signs.count(-1), signs.count(0)
    return Departure(arm, times, later, earlier, untold, sign_test_p(signs))


def leave_time(result: TrialResult) -> LeaveTime:
    """When this run left the best-constant line, censored at its budget."""
    step = result.measures.get("leave_step")
    return LeaveTime(None if step is None else int(step), result.trial.steps)
