"""Hand-made results with known effects: paired by clip and seed, missing pairs counted, times
ranked.
"""

import pytest

from tests.tts_workbook.trials.trial_builders import made_result
from tts_core.errors import WorkbookError
from tts_workbook.trials.paired_effects import (
    MARGINS,
    departure,
    effect,
    effects,
    interaction_effect,
    layout_effect,
    leave_time,
)

PAIRS = [(clip, seed) for clip in ("a", "b") for seed in range(4)]


def arm(name, value, measure="outcome", without=()):
    """One result per pair; `value(clip, seed)` or a number."""
    return [
        made_result(name, clip, seed, **{measure: value(clip, seed) if callable(value) else value})
        for clip, seed in PAIRS
        if (clip, seed) not in without
    ]


def noisy(level):
    """A level that differs from pair to pair far more than the arms do: only pairing sees the
    arms.
    """
    return lambda clip, seed: level + (10.0 if clip == "b" else 0.0) + 0.7 * seed


def test_a_known_effect_is_found_through_the_noise_of_clips_and_seeds():
    # the order of the results does not matter
    results = arm("base", noisy(1.0)) + arm("slower", noisy(1.2))[::-1]
    found = effect(results, "slower", "base", direction="increase")
    assert (
        found.contrast.mean == pytest.approx(0.2)
        and found.contrast.verdict == "supported"
        and found.contrast.n == 8
    )
    assert found.contrast.p == pytest.approx(2 / 2**8) and found.missing == 0
    assert found.by_clip == pytest.approx({"a": 0.2, "b": 0.2})
    assert found.arm_mean - found.base_mean == pytest.approx(0.2)
    assert effect(results, "slower", "base", direction="decrease").contrast.verdict == "refuted"
    assert effect(results, "base", "slower").contrast.mean == pytest.approx(-0.2)


def test_an_effect_within_the_margin_is_refuted_and_a_scattered_one_undecided():
    small = arm("base", 1.0) + arm(
        "same", lambda clip, seed: 1.0 + MARGINS["outcome"] * 0.5 * (-1) ** seed
    )
    assert effect(small, "same", "base").contrast.verdict == "refuted"
    wild = arm("base", 1.0) + arm("wild", lambda clip, seed: 1.0 + (0.4 if seed % 2 else -0.1))
    assert effect(wild, "wild", "base").contrast.verdict == "undecided"


def test_pairs_that_failed_are_counted_and_pairs_that_are_not_there_are_not():
    failed = [
        made_result("arm", "a", 0, failed="broke", fr_over_constant=None),
        made_result("arm", "a", 1, failed="broke"),
    ]
    rest = arm("arm", 2.0, "fr_over_constant", without=[("a", 0), ("a", 1), ("b", 3)])
    found = effect(
        arm("base", 1.0, "fr_over_constant") + failed + rest, "arm", "base", "fr_over_constant"
    )
    assert (found.missing, found.contrast.n, found.contrast.mean) == (2, 5, 1.0)
    with pytest.raises(
        WorkbookError, match="no pair of 'nobody' and 'base' with 'outcome'; recorded arms: base"
    ):
        effect(arm("base", 1.0), "nobody", "base")


def test_several_effects_come_largest_first_with_p_adjusted_over_them():
    results = arm("base", 1.0) + arm("small", 1.1) + arm("large", 0.5)
    results += arm("none", lambda clip, seed: 1.0 + 0.01 * (-1) ** seed)
    found = effects(results, {"small": "base", "none": "base", "large": "base"})
    assert list(found) == ["large", "small", "none"]
    assert (
        found["large"].p_adjusted == pytest.approx(3 * 2 / 2**8) and found["none"].p_adjusted == 1.0
    )


def test_the_layout_is_judged_on_one_and_the_same_training():
    results = [
        made_result(
            "base", clip, seed, fr_over_constant=0.1, fr_seed_layout_over_constant=0.5, stoi=0.9
        )
        for clip, seed in PAIRS
    ]
    found = layout_effect(results, "base")
    assert (
        found.contrast.mean == pytest.approx(0.4)
        and found.contrast.n == 8
        and found.measure == "fr_over_constant"
    )
    with pytest.raises(WorkbookError, match="no stoi in both layouts"):
        layout_effect(results, "base", "stoi")


def test_an_interaction_is_what_one_change_does_beyond_its_sum_with_the_other():
    results = arm("base", noisy(1.0)) + arm("first", noisy(0.7)) + arm("second", noisy(0.9))
    additive = interaction_effect(
        results + arm("both", noisy(0.6)), "base", "first", "second", "both", "outcome"
    )
    assert additive.contrast.mean == pytest.approx(0.0) and additive.contrast.verdict == "refuted"
    seven = results + arm("both", noisy(0.2), without=[("a", 0)])
    joint = interaction_effect(seven, "base", "first", "second", "both", "outcome")
    assert joint.contrast.mean == pytest.approx(-0.4) and joint.contrast.n == 7
    with pytest.raises(
        WorkbookError, match="no pair with all of 'base', 'first', 'second', 'both'"
    ):
        interaction_effect(results, "base", "first", "second", "both", "outcome")


def test_times_of_departure_are_ranked_and_censored_at_the_budget():
    base = arm("base", 50.0, "leave_step")
    later = arm("later", lambda clip, seed: None if seed == 0 else 80.0, "leave_step")
    found = departure(base + later, "later", "base")
    assert (found.later, found.earlier, found.untold, found.p) == (8, 0, 0, pytest.approx(2 / 2**8))
    never = departure(
        arm("base", None, "leave_step") + arm("arm", None, "leave_step"), "arm", "base"
    )
    assert (never.later, never.earlier, never.untold, never.p) == (0, 0, 8, 1.0)
    assert leave_time(made_result("x", leave_step=None)).budget == 100
    assert leave_time(made_result("x", leave_step=7.0)).step == 7
