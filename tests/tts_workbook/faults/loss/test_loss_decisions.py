"""How the causes of the loss decide, by tables: numbers -> level, where, reason."""

from dataclasses import replace

import pytest

from tts_workbook.faults.loss import (
    detached,
    logged_not_optimised,
    padding_included,
    wrong_reduction,
)
from tts_workbook.faults.loss._identity import UNKNOWN, Identity, TermValues, Trained
from tts_workbook.faults.loss._terms import Part, TermNorms
from tts_workbook.faults.loss.logged_not_optimised import Deaf, Harm, StepParts
from tts_workbook.faults.loss.padding_included import Change, Padded, PaddedLosses

L1 = TermValues(own=1.2, target=1e-8, disorder=0.8, rebinned=0.9, level=1.0)
# every frame against every frame
BROADCAST = TermValues(own=1.1, target=0.846, disorder=0.846, rebinned=0.879, level=1.066)
# the mean over time taken before the difference
AVERAGED = TermValues(own=0.7, target=1e-8, disorder=2e-8, rebinned=0.3, level=1.0)
UPHILL = TermValues(own=-1.2, target=-1e-8, disorder=-0.8, rebinned=-0.9, level=-1.0)
DEAF = TermValues(own=0.7, target=0.7, disorder=0.7, rebinned=0.7, level=0.7)
# the target is another one, three deviations above
ELSEWHERE = TermValues(own=3.1, target=3.0, disorder=3.05, rebinned=3.1, level=2.0)


# a likelihood with a learnt width, and a mean over padding too: least at the target, not zero there
OFFSET = TermValues(own=1.9, target=0.7, disorder=1.5, rebinned=1.6, level=1.7, clips=1.5)
# every clip against every clip
CLIPS = TermValues(own=1.1, target=0.5, disorder=0.9, rebinned=0.9, level=1.0, clips=0.5)


def said(values, broken="", about="the target"):
    return Identity(True, {"mel": values}, ("mel",), broken, 1e-8, None, about)


@pytest.mark.parametrize(
    "numbers, expected",
    [
        (UNKNOWN, ("undecided", "", "not reached")),
        (said(L1), ("excluded", "", "a distance")),
        (said(BROADCAST, "mel"), ("confirmed", "losses['mel']", "no distance")),
        (said(CLIPS, "mel"), ("confirmed", "losses['mel']", "no distance")),
        (said(OFFSET, "mel"), ("excluded", "losses['mel']", "a distance and a constant")),
        (said(UPHILL, "mel", "its opposite"), ("undecided", "losses['mel']", "its opposite")),
        (
            said(ELSEWHERE, "mel", "something else"),
            ("undecided", "losses['mel']", "something else"),
        ),
    ],
    ids=lambda value: value[2] if isinstance(value, tuple) else "",
)
def test_wrong_reduction(numbers, expected):
    decision = wrong_reduction.decide(numbers)
    assert (decision.level, decision.where, decision.reason) == expected
    assert decision.strength == (1.0 if decision.level == "confirmed" else 0.0)


def test_nothing_that_hears_the_prediction_says_nothing():
    assert wrong_reduction.decide(Identity(True, {}, (), "", 0.0, None, "not known")) is None


@pytest.mark.parametrize(
    "values, broken",
    [(L1, False), (BROADCAST, True), (AVERAGED, True), (UPHILL, True), (ELSEWHERE, True)],
)
def test_which_terms_are_no_distance(values, broken):
    assert (values.offset or values.blind) == broken


@pytest.mark.parametrize(
    "own, target, elsewhere",
    [
        (0.1, 3.0, True),
        (0.7, 0.846, False),
        # a likelihood that may be negative, and falls with its width
        (-1.0, -1.2, False),
        (-3.0, -1.2, True),
    ],
)
def test_training_that_leaves_the_target_behind(own, target, elsewhere):
    assert Trained(own, target).elsewhere == elsewhere


@pytest.mark.parametrize("values", [BROADCAST, AVERAGED])
@pytest.mark.parametrize("size", [1e-8, 1e-7, 1e-5])
@pytest.mark.parametrize("sign", [-1, 1])
def test_rounding_decides_nothing(values, size, sign):
    """Frames in disorder have the same sum but for the order of summation: no processor's last
    bits make of it a loss that falls away from its target.
    """
    off = replace(values, disorder=values.target + sign * size)
    assert (off.offset or off.blind) and not off.falls_away(rounding=0.0)


def test_a_fall_is_told_from_rounding_by_the_measured_one_too():
    """In 16 bits, rounding is more than the share that it is in fp32."""
    falls = replace(BROADCAST, disorder=0.83)
    assert falls.falls_away(rounding=1e-4) and not falls.falls_away(rounding=2e-3)
    assert UPHILL.falls_away(rounding=1e-2) and ELSEWHERE.falls_away(rounding=1e-2)


def test_a_term_that_is_the_same_whatever_is_predicted():
    assert not DEAF.heard and L1.heard and BROADCAST.heard


@pytest.mark.parametrize(
    "numbers, expected",
    [
        (Deaf({"mel": 0.7}, (), ()), ("confirmed", "losses['mel']", "deaf")),
        (Deaf({"mel": float("nan")}, (), ()), ("undecided", "", "not finite")),
        # computed from another output than predict_mel's, as that before a post-net
        (Deaf({"mel_before": 0.7}, ("mel_before",), ("mel",)), None),
        (Deaf({"mel": 0.7}, ("mel",), ()), ("undecided", "losses['mel']", "another output")),
        (Deaf({}, (), ("mel",)), None),
    ],
)
def test_deaf(numbers, expected):
    decision = logged_not_optimised.decide_deaf(numbers)
    shown = None if decision is None else (decision.level, decision.where, decision.reason)
    assert shown == expected


# --- gradients of the terms -----------------------------------------------------------------------


def norms(
    mel=1.0, stop=0.5, total=1.1, coefficients=None, unshown=0.0, part=None, weight=1.0, **more
):
    found = {"mel": mel, "stop": stop, "total": total}
    if coefficients is None:
        coefficients = {
            name: 1.0 for name, norm in found.items() if name != "total" and norm and total
        }
    parts = {"mel": part or Part(1.0, 1e-7, True)}
    return TermNorms(found, {"mel": weight, "stop": 1.0}, coefficients, unshown, mels=parts, **more)


@pytest.mark.parametrize(
    "numbers, expected",
    [
        (norms(mel=float("inf"), coefficients={}), ("undecided", "", "not finite")),
        (norms(total=0.0), ("confirmed", "losses['total']", "total")),
        (norms(mel=0.0), ("confirmed", "losses['mel']", "a term")),
        (norms(mel=0.0, weight=0.0), ("question", "losses['mel']", "a figure")),
        (norms(mel=0.0, frozen=("mel",)), ("question", "losses['mel']", "frozen")),
        # a hinge that nothing offends yet
        (norms(stop=0.0, values={"stop": 0.0}), ("excluded", "", "every term")),
        (norms(), ("excluded", "", "every term")),
    ],
)
def test_detached(numbers, expected):
    decision = detached.decide(numbers)
    assert (decision.level, decision.where, decision.reason) == expected


@pytest.mark.parametrize(
    "numbers, expected",
    [
        (norms(mel=float("inf"), coefficients={}), ("undecided", "", "not finite")),
        (norms(total=0.0), None),
        (norms(mel=0.0), None),
        (norms(unshown=0.11), ("question", "losses['total']", "not listed")),
        (norms(unshown=0.09), ("excluded", "", "made of the terms")),
        # what a rounding alone would leave unexplained
        (norms(unshown=0.2, unshown_rounding=0.03), ("excluded", "", "made of the terms")),
        (
            norms(part=Part(1e-8, 1e-7, True)),
            ("confirmed", "losses['total']", "mel ignored"),
        ),
        # light, but more than a rounding
        (norms(part=Part(2e-6, 1e-7, True)), ("excluded", "", "made of the terms")),
        # a rounding hides it
        (norms(part=Part(1e-8, 0.1, True)), ("excluded", "", "made of the terms")),
        # another term moves the same weights: the mel is a figure that is only shown
        (norms(part=Part(0.0, 1e-7, False)), ("excluded", "", "made of the terms")),
        (
            norms(part=Part(-0.5, 1e-7, True)),
            ("confirmed", "losses['total']", "mel opposed"),
        ),
        (
            norms(part=Part(-0.5, 1e-7, True), unshown=0.8),
            ("question", "losses['total']", "not listed"),
        ),
    ],
)
def test_logged_not_optimised(numbers, expected):
    decision = logged_not_optimised.decide(numbers)
    if expected is None:
        assert decision is None
    else:
        assert (decision.level, decision.where, decision.reason) == expected


@pytest.mark.parametrize(
    "numbers, strength",
    [
        (Harm(0.0, None), None),
        (Harm(0.8, True), None),
        # faster without it, and still not learnt: each part of a loss costs steps
        (Harm(0.8, False, (1.0,), (0.7,)), None),
        (Harm(0.8, False, (1.0, 1.1), (0.3, 0.6)), None),
        (Harm(0.8, False, (1.0, 0.9), (0.3, 0.4)), 0.5),
    ],
)
def test_what_is_not_listed_does_harm(numbers, strength):
    decision = logged_not_optimised.decide_harm(numbers)
    if strength is None:
        assert decision is None
    else:
        assert decision.level == "confirmed" and decision.strength == pytest.approx(strength)


@pytest.mark.parametrize(
    "kept, level",
    [
        ({"mel": 1e-5, "stop": 1.0}, "confirmed"),
        ({"mel": 1e-5, "mel_raw": 0.2, "stop": 1.0}, None),
        ({"mel": 2e-3, "stop": 1.0}, None),
        # a term alone has no other that it could be small beside
        ({"mel": 1.0}, None),
    ],
)
def test_a_step_that_leaves_the_mel_out(kept, level):
    decision = logged_not_optimised.decide_step(StepParts(True, kept))
    assert (decision.level if decision else None) == level
    assert logged_not_optimised.decide_step(StepParts(False, {})) is None


def test_a_term_is_meant_to_be_optimised_by_its_weight_or_its_name():
    shown = TermNorms({"figure": 0.0, "mel": 1.0, "total": 1.0}, {"figure": 1e-4}, {"mel": 1.0}, 0)
    assert not shown.dead
    assert replace(shown, weights={"figure": 0.1}).dead == ["figure"]
    assert replace(shown, norms={"stop": 0.0, "total": 1.0}).dead == ["stop"]


# --- padding --------------------------------------------------------------------------------------


def changes(**terms):
    return {name: Change(change) for name, change in terms.items()}


def padded(found, about=None, moves=False, path="frames", **more):
    """One path on which padding was appended."""
    return PaddedLosses({path: Padded(8, moves, found)}, about, **more)


@pytest.mark.parametrize(
    "numbers, expected",
    [
        (padded({}, moves=True), ("undecided", "", "prediction moves", 0.0)),
        (
            padded(changes(mel=0.001), said(L1), moves=True),
            ("undecided", "", "only the mel could be asked", 0.001),
        ),
        (
            padded(changes(mel=-0.4), said(L1), moves=True),
            ("confirmed", "losses['mel']", "changes", 0.4),
        ),
        (padded(changes(mel=0.009, total=0.009), said(L1)), ("excluded", "", "stays", 0.009)),
        (
            padded(changes(mel=-0.3, total=-0.2), said(L1)),
            ("confirmed", "losses['mel']", "changes", 0.3),
        ),
        (
            padded(changes(duration=0.2, total=0.1), said(L1), path="text"),
            ("confirmed", "losses['duration']", "changes", 0.2),
        ),
        # what looks past an end comes to rest far behind it
        (
            padded({"duration": Change(0.2, far=1e-4)}, said(L1), path="text"),
            ("excluded", "", "stays", 0.2),
        ),
        (
            padded({"duration": Change(0.2, far=0.1)}, said(L1), path="text"),
            ("confirmed", "losses['duration']", "changes", 0.2),
        ),
        (padded(changes(mel=-3.0), UNKNOWN), ("confirmed", "losses['mel']", "changes", 1.0)),
        # losses that draw noise which cannot be held still
        (padded({"flow": Change(0.08, noise=0.02)}, UNKNOWN), ("excluded", "", "stays", 0.08)),
        (
            padded({"flow": Change(0.3, noise=0.02)}, UNKNOWN),
            ("confirmed", "losses['flow']", "changes", 0.3),
        ),
        (padded({"mel": Change(0.02, rounding=3e-3)}, said(L1)), ("excluded", "", "stays", 0.02)),
        (padded(changes(mel=float("nan")), said(L1)), ("undecided", "", "not finite", 0.0)),
        (
            padded(changes(mel=0.3), said(UPHILL, "mel", "its opposite")),
            ("undecided", "", "not about the target", 0.3),
        ),
        # terms of the text, and no way to pad it
        (
            padded(changes(mel=0.0), said(L1), text_terms=("duration",)),
            ("undecided", "", "a path was not tried", 0.0),
        ),
        (
            padded(changes(mel=0.0), said(L1), failed={"text": "IndexError"}),
            ("undecided", "", "a path was not tried", 0.0),
        ),
    ],
)
def test_padding_included(numbers, expected):
    decision = padding_included.decide(numbers)
    assert (decision.level, decision.where, decision.reason, decision.strength) == expected
