"""The statistics against known answers, brute force over every sign pattern, and simulations with a
known truth.
"""

import dataclasses
import math
from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.stats import permutation_test

from tts_core.errors import WorkbookError
from tts_workbook.trials.paired_effects import effect
from tts_workbook.trials.statistics import (
    LeaveTime,
    by_group,
    contrast,
    decide,
    holm,
    interaction,
    median_time,
    rank_differences,
    sign_flip_interval,
    sign_flip_p,
    sign_test_p,
)
from tts_workbook.trials.studies import STUDIES
from tts_workbook.trials.study_records import read_study_record

# Darwin's fifteen pairs of maize, crossed minus self-fertilised height in eighths of an inch
# (Fisher 1935, section 21)
DARWIN = [49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48]
SIMULATIONS = 2000
# relative to the largest difference: far above rounding, far below the data
TINY = 1e-9

integers = st.lists(st.integers(-20, 20), min_size=1, max_size=8)
measured = st.lists(
    st.integers(-(10**6), 10**6).map(lambda value: value / 1e4), min_size=6, max_size=11
)


def exact_p(differences, centre=0):
    """The definition, pattern by pattern, in rational numbers."""
    shifted = [Fraction(value) - Fraction(centre) for value in differences]
    patterns = product((1, -1), repeat=len(shifted))
    sums = [
        abs(sum(sign * value for sign, value in zip(signs, shifted, strict=True)))
        for signs in patterns
    ]
    return Fraction(sum(value >= abs(sum(shifted)) for value in sums), len(sums))


def exact_interval(differences, alpha):
    """The outermost subset means that the test does not reject; unbounded where even the farthest
    point passes.
    """
    means = {
        Fraction(sum(subset), len(subset))
        for keep in product((0, 1), repeat=len(differences))
        if (subset := [value for value, kept in zip(differences, keep, strict=True) if kept])
    }
    if exact_p(differences, max(means) + 1) > alpha:
        return -math.inf, math.inf
    inside = [mean for mean in means if exact_p(differences, mean) > alpha]
    return float(min(inside)), float(max(inside))


def test_fishers_own_example():
    # he counted 863 sums as large as the observed 314
    assert sign_flip_p(DARWIN) == 2 * 863 / 2**15
    # 0 inside by a hair, as p = 0.0527 says
    assert sign_flip_interval(DARWIN) == (pytest.approx(-1 / 6), 41.0)


@pytest.mark.parametrize(
    "differences, p",
    [
        ([3.0], 1.0),
        ([1, 2, 3], 2 / 8),
        ([1, 1, 1, 1, 1], 2 / 32),
        ([0, 0, 0], 1.0),
        ([0, 0, 5], 1.0),
        ([1, -1], 1.0),
        ([0.1, 0.2, -0.3], 1.0),
        ([3, 2, -1], 4 / 8),
        ([1e308] * 6, 2 / 64),
        ([5e-324] * 6, 2 / 64),
        (range(1, 9), 2 / 256),
        ([0.1, 0.2, 0.3, 0.6], 2 / 16),
        ([0.1, 0.2, -0.3, 0.6], 10 / 16),
    ],
)
def test_known_p_values(differences, p):
    assert sign_flip_p(list(differences)) == p


def scipys_p(differences):
    """The exact sign-flip p-value as scipy computes it."""
    found = permutation_test(
        (np.asarray(differences, dtype=float),),
        lambda values, axis: values.sum(axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=np.inf,
    )
    return found.pvalue


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(-20, 20), min_size=2, max_size=8))  # it wants two at least
def test_p_is_that_of_scipys_permutation_test(differences):
    assert sign_flip_p(differences) == pytest.approx(scipys_p(differences), abs=1e-12)


@pytest.mark.parametrize("study", [name for name, one in STUDIES.items() if len(one.arms) > 1])
def test_the_recorded_studies_have_scipys_p_values(study):
    """Every arm against the base, by the primary outcome."""
    results, _ = read_study_record(study)
    base = STUDIES[study].base
    for arm in list(STUDIES[study].arms)[1:]:
        found = effect(results, arm, base).contrast
        assert found.p == pytest.approx(scipys_p(found.differences), abs=1e-12)


def test_the_sign_test_is_the_binomial_sum():
    for n in range(1, 25):
        for k in range(n + 1):
            tail = sum(math.comb(n, i) for i in range(min(k, n - k) + 1)) / 2**n
            assert sign_test_p([1] * k + [-1] * (n - k)) == pytest.approx(
                min(1.0, 2 * tail), abs=1e-12
            )


@settings(deadline=None)
@given(integers)
def test_p_is_the_definition_and_symmetric(differences):
    p = sign_flip_p(differences)
    assert p == float(exact_p(differences))
    assert p == sign_flip_p([-value for value in differences])
    assert p == sign_flip_p([value / 1000 for value in differences[::-1]])


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.integers(-9, 9), min_size=1, max_size=6),
    st.sampled_from([0.5, 0.8, 0.9, 0.95, 0.96875]),
)
@example([2, 2, 2, 2, 2, 2], 0.95)
@example([1, 2, 3, 4, 5, 6], 0.96875)
def test_the_interval_is_the_brute_force_inversion(differences, confidence):
    assert sign_flip_interval(differences, confidence) == pytest.approx(
        exact_interval(differences, 1 - confidence)
    )


@settings(deadline=None)
@given(measured, st.sampled_from([0.6, 0.9, 0.95]))
@example([0.0] * 8, 0.95)
@example([0.3] * 7 + [9.0], 0.95)
@example([0.0033] * 6, 0.6)  # numpy's mean of these is another number than 0.0033
def test_the_interval_holds_exactly_what_the_test_does_not_reject(differences, confidence):
    low, high = sign_flip_interval(differences, confidence)
    values, alpha, step = (
        np.array(differences),
        1 - confidence,
        TINY * (np.abs(differences).max() or 1.0),
    )
    assert -math.inf < low <= high < math.inf
    for inside in (low, high, min(low + step, high), max(high - step, low), (low + high) / 2):
        assert sign_flip_p(values - inside) > alpha
    for outside in (low - step, high + step, 2 * low - high - 1, 2 * high - low + 1):
        assert sign_flip_p(values - outside) <= alpha


@settings(deadline=None)
@given(measured, st.floats(0.02, 0.98))
@example([0.1, 0.3, 0.2], 0.1)  # as subset means these differ in the last bit
def test_the_interval_follows_its_data_and_grows_with_the_confidence(differences, confidence):
    values = np.array(differences)
    low, high = sign_flip_interval(values, confidence)
    assert low <= np.clip(values.mean(), values.min(), values.max()) <= high
    assert sign_flip_interval(-values, confidence) == pytest.approx((-high, -low))
    assert sign_flip_interval(3 * values + 7, confidence) == pytest.approx(
        (3 * low + 7, 3 * high + 7)
    )
    wide_low, wide_high = sign_flip_interval(values, (1 + confidence) / 2)
    assert wide_low <= low and high <= wide_high


def test_too_few_pairs_have_no_finite_interval():
    for pairs in range(1, 6):
        assert sign_flip_interval([1.0] * pairs) == (-math.inf, math.inf)
    # p = 2/64 only beyond the largest and the smallest
    assert sign_flip_interval([1, 2, 3, 4, 5, 6]) == (1.0, 6.0)
    assert sign_flip_interval([1, 2, 3, 4, 5], confidence=0.9) == (1.0, 5.0)
    assert sign_flip_interval([1e308] * 6) == (1e308, 1e308)


@settings(deadline=None, max_examples=30)
@given(st.sampled_from([0.0033, 0.1, 1 / 3, 1e-300]), st.integers(6, 20))
def test_equal_differences_have_exactly_their_mean_and_no_width(value, pairs):
    same = contrast([value] * pairs, margin=1.0)
    assert (
        same.mean == value
        and same.interval == (value, value)
        and same.p == sign_flip_p([1] * pairs)
    )


def test_beyond_sixteen_pairs_sampled_flips_come_close_and_are_inverted_too():
    values = np.random.default_rng(5).normal(0.4, 1, size=18)
    total = abs(values.sum())
    signs = np.array(list(product((1, -1), repeat=9)))
    sums = (signs @ values[:9])[:, None] + signs @ values[9:]  # all 2^18
    exact = np.mean(np.abs(sums) >= total - 1e-9)
    p = sign_flip_p(values)
    assert 0.01 < exact < 0.5 and abs(p - exact) < 4 * math.sqrt(exact * (1 - exact) / 2**16)
    assert p == sign_flip_p(values) == sign_flip_p(-values)
    # the identity is among the flips: never 0
    assert sign_flip_p([1.0] * 40) >= 2**-16
    low, high = sign_flip_interval(values)
    for end, outward in ((low, -TINY), (high, TINY)):
        assert sign_flip_p(values - end - outward) <= 0.05 < sign_flip_p(values - end)


def coverage(draw):
    """Share of simulated 95 % intervals, 8 pairs each, that hold the true mean 0."""
    intervals = [sign_flip_interval(draw(8)) for _ in range(SIMULATIONS)]
    return np.mean([low <= 0 <= high for low, high in intervals])


@pytest.mark.parametrize("name", ["normal", "uniform", "laplace"])
def test_coverage_of_the_interval_for_symmetric_differences(name):
    draw = getattr(np.random.default_rng(11), name)
    scale = {"normal": (0, 3), "uniform": (-2, 2), "laplace": (0, 0.5)}[name]
    # 244/256 = 0.953 by theory, sigma 0.005
    assert 0.94 <= coverage(lambda pairs: draw(*scale, size=pairs)) <= 0.98


def test_coverage_suffers_where_differences_are_skewed(record_property):
    generator = np.random.default_rng(12)
    share = coverage(lambda pairs: generator.exponential(size=pairs) - 1)
    record_property("coverage of the mean of an exponential", float(share))
    # the price where symmetry does not hold
    assert 0.87 <= share <= 0.94


def test_holm_known_answer_order_and_cap():
    # R: p.adjust(c(.01, .04, .03, .005), "holm")
    adjusted = holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005})
    assert list(adjusted) == ["a", "b", "c", "d"]
    assert adjusted == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06, "d": 0.02})
    assert holm({"a": 0.6, "b": 0.7}) == {"a": 1.0, "b": 1.0}
    assert holm({"only": 0.2}) == {"only": 0.2} and holm({}) == {}


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=7))
def test_holm_keeps_the_order_and_lies_between_p_and_bonferroni(values):
    adjusted = holm({f"f{i}": p for i, p in enumerate(values)})
    for i, p in enumerate(values):
        assert p <= adjusted[f"f{i}"] <= min(1.0, len(values) * p) or math.isclose(
            adjusted[f"f{i}"], p
        )
        assert all(
            adjusted[f"f{i}"] <= adjusted[f"f{j}"] for j, other in enumerate(values) if p <= other
        )


def test_holm_holds_the_family_wise_error_that_raw_p_values_do_not_and_still_finds_an_effect():
    generator = np.random.default_rng(13)
    families = [
        {f"f{i}": sign_flip_p(generator.normal(size=8)) for i in range(5)}
        for _ in range(SIMULATIONS)
    ]
    sigma = math.sqrt(0.05 * 0.95 / SIMULATIONS)
    assert np.mean([min(family.values()) <= 0.05 for family in families]) > 0.15
    assert (
        0.01
        < np.mean([min(holm(family).values()) <= 0.05 for family in families])
        <= 0.05 + 3 * sigma
    )
    strong = sign_flip_p(generator.normal(3, 1, size=8))
    assert all(holm({**family, "f0": strong})["f0"] <= 0.05 for family in families[:50])
    assert (
        holm({f"f{i}": strong for i in range(6)})["f0"]
        <= 0.05
        < holm({f"f{i}": strong for i in range(7)})["f0"]
    )


@pytest.mark.parametrize(
    "interval, increase, decrease, either",
    [
        ((0.2, 0.3), "supported", "refuted", "supported"),  # beyond the margin 0.1, above
        ((-0.3, -0.2), "refuted", "supported", "supported"),  # beyond it, below
        ((-0.05, 0.09), "refuted", "refuted", "refuted"),  # wholly within
        # significant, and too small to matter
        ((0.01, 0.09), "refuted", "refuted", "refuted"),
        ((0.05, 0.3), "undecided", "undecided", "undecided"),  # across the upper margin
        ((-0.3, -0.05), "undecided", "undecided", "undecided"),
        ((-0.3, 0.3), "undecided", "undecided", "undecided"),
        ((0.1, 0.3), "undecided", "undecided", "undecided"),  # touches
        ((-0.1, 0.05), "undecided", "undecided", "undecided"),
        ((-math.inf, math.inf), "undecided", "undecided", "undecided"),
        ((0.2, math.inf), "supported", "refuted", "supported"),
    ],
)
def test_every_geometry_of_interval_and_margin(interval, increase, decrease, either):
    verdicts = {"increase": increase, "decrease": decrease, "either": either}
    assert decide(interval, 0.1) == increase
    mirrored = (-interval[1], -interval[0])
    for direction, verdict in verdicts.items():
        assert decide(interval, 0.1, direction) == verdict
        other = {"increase": "decrease", "decrease": "increase", "either": "either"}[direction]
        assert decide(mirrored, 0.1, other) == verdict


def test_the_same_interval_turns_with_the_margin():
    assert [decide((0.2, 0.3), margin) for margin in (0.1, 0.25, 0.4)] == [
        "supported",
        "undecided",
        "refuted",
    ]


def test_flipping_the_numbers_flips_the_verdict():
    better = [0.31, 0.25, 0.42, 0.28, 0.36, 0.22, 0.39, 0.30]
    claim = contrast(better, margin=0.05)
    assert (claim.verdict, claim.n, claim.p) == ("supported", 8, 2 / 256)
    assert claim.mean == pytest.approx(np.mean(better)) and claim.differences == tuple(better)
    assert claim.interval == claim.finite_interval == sign_flip_interval(better)
    flipped = contrast([-value for value in better], margin=0.05)
    assert flipped.verdict == "refuted" and flipped.interval == (
        -claim.interval[1],
        -claim.interval[0],
    )
    assert contrast([-value for value in better], 0.05, "decrease").verdict == "supported"
    assert contrast(better, 0.05, "either").verdict == "supported"
    with pytest.raises(dataclasses.FrozenInstanceError):
        claim.verdict = "refuted"


def test_no_effect_is_refuted_only_with_enough_pairs_and_little_noise():
    generator = np.random.default_rng(14)
    assert contrast(generator.normal(0, 0.02, size=8), margin=0.1).verdict == "refuted"
    assert contrast(generator.normal(0, 0.5, size=8), margin=0.1).verdict == "undecided"
    few = contrast(generator.normal(0, 0.02, size=5), margin=0.1)
    assert (
        few.verdict == "undecided"
        and few.interval == (-math.inf, math.inf)
        and few.finite_interval is None
    )


def test_an_effect_of_exactly_the_margin_is_seldom_taken_for_more_or_for_none():
    generator = np.random.default_rng(15)
    verdicts = [
        contrast(generator.normal(0.1, 0.05, size=8), margin=0.1).verdict
        for _ in range(SIMULATIONS)
    ]
    bound = 0.025 + 3 * math.sqrt(0.025 * 0.975 / SIMULATIONS)
    assert 0.005 < verdicts.count("supported") / SIMULATIONS <= bound
    assert 0.005 < verdicts.count("refuted") / SIMULATIONS <= bound


def test_groups_stand_separately_in_order_of_appearance():
    means = by_group([1.0, 10.0, 3.0, 20.0], ["0930", "0880", "0930", "0880"])
    assert means == {"0930": 2.0, "0880": 15.0} and list(means) == ["0930", "0880"]


def test_interaction_is_zero_for_effects_that_add_and_signed_otherwise():
    neither, second, first = (
        np.array([1.0, 2.0, 4.0]),
        np.array([1.5, 2.5, 4.5]),
        np.array([3.0, 4.0, 6.0]),
    )
    assert interaction(neither, second, first, first + second - neither) == (0.0, 0.0, 0.0)
    assert interaction([0, 0], [1, 2], [10, 20], [16, 30]) == (5.0, 8.0)


def left(*steps, budget=100):
    return [LeaveTime(step, budget) for step in steps]


def test_censored_times_are_ranked_as_far_as_they_can_be():
    first, second = left(80, 20, None, 40, None, 50), left(20, 80, 40, None, None, 50)
    assert rank_differences(first, second) == (1, -1, 1, -1, 0, 0)
    assert rank_differences(second, first) == (-1, 1, -1, 1, 0, 0)
    # not by 50, the other at 80: who was later?
    assert rank_differences(left(None, budget=50), left(80)) == (0,)
    assert rank_differences(left(None, budget=50), left(50)) == (1,)
    assert rank_differences(left(40), left(41)) == (-1,)


@pytest.mark.parametrize(
    "signs, p",
    [
        ([1] * 8, 2 / 256),
        ([1] * 7 + [-1], 18 / 256),
        ([1] * 8 + [0] * 5, 2 / 256),
        ([0, 0], 1.0),
        ([1, -1], 1.0),
        ([-1] * 8, 2 / 256),
        ([1, 1, -1], 1.0),
        ([1] * 9 + [-1, -1], 2 * (1 + 11 + 55) / 2**11),
    ],
)
def test_sign_test_known_answers(signs, p):
    assert sign_test_p(signs) == p


def test_a_median_time_is_a_time_that_was_seen_or_none():
    assert median_time(left(30, 10, 70)) == 30 and median_time(left(10, 20, 30, 40)) == 20
    assert median_time(left(30, None, 10)) == 30 and median_time(left(30, None, 10, None)) == 30
    assert median_time(left(None, 10, None)) is None and median_time(left(None)) is None
    assert median_time(left(0, None)) == 0


@pytest.mark.parametrize(
    "call, named",
    [
        (lambda: sign_flip_p([]), "differences"),
        (lambda: sign_flip_p([1.0, math.nan]), r"differences\[1\] = nan"),
        (lambda: sign_flip_interval([math.inf, 2.0]), r"differences\[0\] = inf"),
        (lambda: sign_flip_p([[1.0, 2.0]]), r"shape \(1, 2\)"),
        (lambda: sign_flip_p(["fast"]), "fast"),
        (lambda: contrast([1.0, None], 0.1), r"differences\[1\] = None"),
        (lambda: sign_flip_interval([1.0], confidence=1.0), "confidence = 1.0"),
        (lambda: sign_flip_interval([1.0], confidence=95), "confidence = 95"),
        (lambda: holm({"lr": 1.2}), "'lr'.*1.2"),
        (lambda: holm({"lr": math.nan}), "'lr'.*nan"),
        (lambda: holm({"lr": -0.1}), "'lr'.*-0.1"),
        (lambda: decide((0, 1), 0.0), "margin = 0.0"),
        (lambda: decide((0, 1), -0.1), "margin = -0.1"),
        (lambda: decide((0, 1), math.inf), "margin = inf"),
        (lambda: contrast([1.0], math.nan), "margin = nan"),
        (lambda: decide((0, 1), 0.1, "up"), "direction = 'up'"),
        (lambda: decide((1, 0), 0.1), "low must not exceed high"),
        (lambda: decide((math.nan, 0), 0.1), "low must not exceed high"),
        (lambda: by_group([1.0, 2.0], ["a"]), "2 differences but 1 groups"),
        (lambda: interaction([1], [1], [1], [1, 2]), r"\[1, 1, 1, 2\]"),
        (lambda: interaction([1], [math.nan], [1], [1]), r"b\[0\] = nan"),
        (lambda: LeaveTime(101, 100), "step = 101"),
        (lambda: LeaveTime(-1, 100), "step = -1"),
        (lambda: LeaveTime(None, 0), "budget = 0"),
        (lambda: rank_differences(left(1), left(1, 2)), "1 first times but 2 second"),
        (lambda: sign_test_p([1, 2]), "must be -1, 0 or 1"),
        (lambda: sign_test_p([]), "signs"),
        (lambda: median_time([]), "budgets"),
        (lambda: median_time(left(1) + left(1, budget=50)), r"budgets \[50, 100\]"),
    ],
)
def test_what_cannot_be_computed_names_the_value(call, named):
    with pytest.raises(WorkbookError, match=named):
        call()
