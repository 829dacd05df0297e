"""The statistics by which verdicts are reached: exact tests of paired differences, intervals,
decisions, ranked times.

Differences d_1 ... d_n are one number per pair (a clip and a seed), in the unit of the outcome.
Whatever cannot be computed from the numbers handed in raises WorkbookError naming the value.

scipy.stats.permutation_test has the same exact sign-flip p-values, and a test holds ours against
it; ours stays because its interval is found by inverting the very same test (scipy has none), with
one tolerance for ties in both, and because more than 16 pairs give the same number in every run.

Sources: Fisher, The Design of Experiments, 1935, section 21 (sign flips); Pitman, Significance
tests which may be applied to samples from any populations, 1937 (intervals by inverting a
permutation test); Hartigan, Using subsample values as typical values, 1969 (such an interval as
order statistics of subset means); Phipson and Smyth, Permutation p-values should never be zero,
2010 (sampled flips); Holm, A simple sequentially rejective multiple test procedure, 1979;
Schuirmann, A comparison of the two one-sided tests procedure, 1987 (equivalence within a margin).
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np

from tts_core.errors import WorkbookError

Verdict = Literal["supported", "refuted", "undecided"]
Direction = Literal["increase", "decrease", "either"]
Group = TypeVar("Group", bound=Hashable)

EXACT_PAIRS = 16  # up to here all 2^n sign patterns are enumerated
SAMPLED_FLIPS = 2**16  # beyond, this many seeded patterns, the identity among them
# sums closer than this share of sum |d| are equal: 0.1 + 0.2 - 0.3 is a tie with 0
_TIE = 1e-12


def _finite(values: Sequence[float] | np.ndarray, name: str) -> np.ndarray:
    """(n,) float64 with n >= 1, or WorkbookError naming the value that is no finite number."""
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise WorkbookError(f"{name} = {values!r}, but it must be a list of numbers") from None
    if array.ndim != 1 or array.size == 0:
        raise WorkbookError(
            f"{name} has shape {array.shape}, but it must be a list of one number or more"
        )
    bad = np.flatnonzero(~np.isfinite(array))
    if bad.size:
        raise WorkbookError(
            f"{name}[{bad[0]}] = {values[bad[0]]!r}, but each must be finite: rerun that trial"
        )
    return array


def _within(means: np.ndarray | float, values: np.ndarray) -> np.ndarray:
    """The means of some of the values, put back between the smallest and the largest value where
    rounding left them.
    """
    return np.clip(means, values.min(), values.max())


def _scaled(differences: Sequence[float] | np.ndarray) -> tuple[np.ndarray, int]:
    """The differences divided by 2^exponent, which is exact, so that no sum of them overflows; and
    the exponent.
    """
    values = _finite(differences, "differences")
    exponent = int(np.frexp(np.abs(values).max())[1])
    return np.ldexp(values, -exponent), exponent


def _flips(pairs: int) -> np.ndarray:
    """(patterns, pairs) bool, True where the sign is flipped; the first row flips none.

    A pattern and its mirror image give the same |sum|, so the enumeration holds the last pair
    still: 2^(n - 1) rows.
    """
    if pairs <= EXACT_PAIRS:
        return (np.arange(2 ** (pairs - 1))[:, None] >> np.arange(pairs)) & 1 == 1
    flips = np.random.default_rng(0).integers(0, 2, size=(SAMPLED_FLIPS, pairs), dtype=np.int8) == 1
    flips[0] = False
    return flips


def sign_flip_p(differences: Sequence[float] | np.ndarray) -> float:
    """Two-sided sign-flip p-value of "the differences are symmetric about 0": #{s: |sum s_i d_i| >=
    |sum d_i|} / #{s}.

    s runs over all 2^n sign patterns for n <= 16, so p is exact and never below 2 / 2^n (0.0078 at
    n = 8). Above 16 pairs s runs over 2^16 seeded random patterns with the identity among them,
    which is still a valid p-value (Phipson and Smyth 2010) and the same in every run. Zeros are
    allowed and count as pairs. Source: Fisher 1935.
    """
    values, _ = _scaled(differences)
    total = values.sum()
    flipped = np.abs(total - 2 * (_flips(len(values)) @ values))
    return float(np.mean(flipped >= abs(total) - _TIE * np.abs(values).sum()))


def sign_flip_interval(
    differences: Sequence[float] | np.ndarray, confidence: float = 0.95
) -> tuple[float, float]:
    """The closed interval {c: sign_flip_p(d - c) > 1 - confidence} for the centre of the
    differences, in their unit.

    A pattern that flips the pairs A counts towards the p-value at c exactly if c lies between
    mean(d in A) and mean(d not in A), and always if A is empty or everything. All these spans hold
    the mean of d, so p(c) falls in steps on either side of it, and with r = floor((1 - confidence)
    * patterns) + 1 the interval ends at the r-th smallest lower and the r-th largest upper end of
    the spans. For n <= 16 that is exact: coverage 1 - 2 k / 2^n with k = floor((1 - confidence) *
    2^(n - 1)), 0.953 at n = 8 and 95 %, whatever the continuous symmetric distribution.

    Where no p can be small enough the interval is (-inf, inf): at 95 % for n <= 5, since 2 / 2^5 =
    0.0625 > 0.05. Source: Pitman 1937, Hartigan 1969.
    """
    alpha = 1.0 - confidence
    if not 0.0 < alpha < 1.0:
        raise WorkbookError(
            f"confidence = {confidence!r}, but it must lie between 0 and 1, for example 0.95"
        )
    values, exponent = _scaled(differences)
    flips = _flips(len(values))
    sizes = flips.sum(axis=1)
    inner = (sizes > 0) & (sizes < len(values))
    of_flipped = _within((flips[inner] @ values) / sizes[inner], values)
    of_kept = _within((~flips[inner] @ values) / (len(values) - sizes[inner]), values)
    lower = np.full(len(flips), -np.inf)
    upper = np.full(len(flips), np.inf)
    lower[inner] = np.minimum(of_flipped, of_kept)
    upper[inner] = np.maximum(of_flipped, of_kept)
    rank = math.floor(alpha * len(flips)) + 1
    # has p = 1, so it is always inside: rounding must not put it outside
    mean = _within(values.mean(), values)
    low = min(np.sort(lower)[rank - 1], mean)
    high = max(np.sort(upper)[-rank], mean)
    return float(np.ldexp(low, exponent)), float(np.ldexp(high, exponent))


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Holm's adjusted p-values, name by name in the order given: max over j <= i of min(1, (m - j +
    1) p_(j)), m tests.

    Rejecting where the adjusted p <= 0.05 keeps the chance of any false rejection at 0.05 or less,
    however the tests depend on each other. Mind the floor 2 / 2^n of the sign-flip test: with 8
    pairs and more than 6 tests nothing can fall below 0.05. Source: Holm 1979.
    """
    for name, p in p_values.items():
        if not 0.0 <= p <= 1.0:
            raise WorkbookError(f"p_values[{name!r}] = {p!r}, but a p-value lies between 0 and 1")
    adjusted, largest = {}, 0.0
    for rank, name in enumerate(sorted(p_values, key=p_values.__getitem__)):
        tests_left = len(p_values) - rank
        multiplied = min(1.0, tests_left * float(p_values[name]))
        largest = max(largest, multiplied)
        adjusted[name] = largest
    return {name: adjusted[name] for name in p_values}


def decide(
    interval: tuple[float, float], margin: float, direction: Direction = "increase"
) -> Verdict:
    """The verdict on "the effect lies beyond the margin in this direction", by where the whole
    interval lies.

    supported: beyond it as claimed (increase: low > margin; decrease: high < -margin; either: one
    of the two). refuted: between -margin and margin (equivalence, Schuirmann 1987), or beyond the
    margin on the side not claimed. undecided: everything else, an interval that touches a margin
    included. The margin is in the unit of the interval.
    """
    if not (math.isfinite(margin) and margin > 0):
        raise WorkbookError(
            f"margin = {margin!r}, but it must be a positive number, the smallest effect that"
            " matters"
        )
    if direction not in ("increase", "decrease", "either"):
        raise WorkbookError(
            f"direction = {direction!r}, but it must be increase, decrease or either"
        )
    low, high = interval
    if not low <= high:
        raise WorkbookError(
            f"interval = ({low!r}, {high!r}), but low must not exceed high, and both must be"
            " numbers"
        )
    above, below = low > margin, high < -margin
    if above or below:
        claimed = direction == "either" or (direction == "increase") == above
        return "supported" if claimed else "refuted"
    return "refuted" if -margin < low and high < margin else "undecided"


@dataclass(frozen=True)
class Contrast:
    """One paired comparison and its verdict; all but `n`, `p` and `verdict` are in the unit of the
    differences.
    """

    mean: float  # of the differences
    # 95 %, by inversion of the sign-flip test; (-inf, inf) below 6 pairs
    interval: tuple[float, float]
    p: float  # exact two-sided sign-flip p-value of "no effect"
    n: int  # pairs
    verdict: Verdict
    differences: tuple[float, ...]  # one per pair, in the order given

    @property
    def finite_interval(self) -> tuple[float, float] | None:
        """The interval, or None where there are too few pairs for one: a recorded verdict holds
        finite numbers only.
        """
        return self.interval if all(map(math.isfinite, self.interval)) else None


def contrast(
    differences: Sequence[float], margin: float, direction: Direction = "increase"
) -> Contrast:
    """Mean, 95 % interval, p-value and verdict of paired differences (n,); margin and direction as
    in `decide`.
    """
    values = _finite(differences, "differences")
    interval = sign_flip_interval(values)
    return Contrast(
        mean=float(_within(values.mean(), values)),
        interval=interval,
        p=sign_flip_p(values),
        n=len(values),
        verdict=decide(interval, margin, direction),
        differences=tuple(values.tolist()),
    )


def by_group(differences: Sequence[float], groups: Sequence[Group]) -> dict[Group, float]:
    """Mean difference of each group (a clip, say), in order of first appearance; one group name per
    pair.
    """
    values = _finite(differences, "differences")
    if len(groups) != len(values):
        raise WorkbookError(
            f"{len(values)} differences but {len(groups)} groups: each pair belongs to one group"
        )
    members: dict[Group, list[float]] = {}
    for value, group in zip(values, groups, strict=True):
        members.setdefault(group, []).append(value)
    return {group: float(np.mean(own)) for group, own in members.items()}


def interaction(
    a: Sequence[float], b: Sequence[float], c: Sequence[float], d: Sequence[float]
) -> tuple[float, ...]:
    """(d - b) - (c - a) for each pair of a 2 x 2: a neither factor, b the second alone, c the first
    alone, d both.

    What the first factor does where the second is on, minus what it does where the second is off; 0
    if they add up.
    """
    neither, second, first, both = (
        _finite(cell, name) for cell, name in zip((a, b, c, d), "abcd", strict=True)
    )
    sizes = [len(cell) for cell in (neither, second, first, both)]
    if len(set(sizes)) > 1:
        raise WorkbookError(f"the four cells hold {sizes} outcomes, but a pair needs all four")
    with_second, without_second = both - second, first - neither
    return tuple((with_second - without_second).tolist())


@dataclass(frozen=True)
class LeaveTime:
    """When a run left the best-constant line, censored at its step budget: None means "not within
    the budget".
    """

    step: int | None  # optimizer step, 0 to budget, or None
    budget: int  # optimizer steps that the run was given

    def __post_init__(self) -> None:
        if self.budget < 1:
            raise WorkbookError(f"budget = {self.budget!r}, but a run has at least one step")
        if self.step is not None and not 0 <= self.step <= self.budget:
            raise WorkbookError(
                f"step = {self.step!r}, but it must be None or between 0 and the budget"
                f" {self.budget}"
            )


def rank_differences(first: Sequence[LeaveTime], second: Sequence[LeaveTime]) -> tuple[int, ...]:
    """One sign per pair: +1 where `first` left later, -1 where earlier, 0 where equal or where it
    cannot be told.

    A censored time is later than any step within its budget; beside a later step or a censored time
    it is unknown.
    """
    if len(first) != len(second):
        raise WorkbookError(
            f"{len(first)} first times but {len(second)} second times: they must come in pairs"
        )
    return tuple(
        int(_surely_later(one, other)) - int(_surely_later(other, one))
        for one, other in zip(first, second, strict=True)
    )


def _surely_later(one: LeaveTime, other: LeaveTime) -> bool:
    if other.step is None:
        return False
    if one.step is None:
        return other.step <= one.budget
    return other.step < one.step


def sign_test_p(signs: Sequence[int]) -> float:
    """Exact two-sided sign test: of m signs other than 0, k are the rarer; min(1, 2 sum_{i <= k}
    C(m, i) / 2^m), by scipy's binomial test.

    Ties (0) are left out; 1.0 when nothing but ties is left.
    """
    from scipy.stats import binomtest  # here, because it takes a second to import

    values = _finite(signs, "signs")
    if not np.isin(values, (-1, 0, 1)).all():
        raise WorkbookError(f"signs = {signs!r}, but each must be -1, 0 or 1")
    untied = int(np.count_nonzero(values))
    if not untied:
        return 1.0
    later = int((values > 0).sum())
    return float(binomtest(later, untied, p=0.5).pvalue)


def median_time(times: Sequence[LeaveTime]) -> int | None:
    """The first step by which at least half of the runs had left; None, "not within the budget", if
    fewer did.

    For an even number that is the lower of the two middle times: times are ranked, never averaged.
    One budget for all.
    """
    budgets = sorted({time.budget for time in times})
    if len(budgets) != 1:
        raise WorkbookError(
            f"times with the budgets {budgets}, but a median needs runs of one and the same budget"
        )
    steps = sorted(time.step for time in times if time.step is not None)
    middle = (len(times) - 1) // 2
    return steps[middle] if middle < len(steps) else None
