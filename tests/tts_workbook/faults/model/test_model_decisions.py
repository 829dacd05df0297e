"""How causes of the model decide that need no training, by tables: numbers -> level, where,
reason.
"""

from dataclasses import replace

import pytest

from tts_workbook.faults.model import (
    encoder_detached,
    no_causal_mask,
    no_right_shift,
    output_range,
    padding_mask,
    text_ignored,
)
from tts_workbook.faults.model._hearing import Hearing
from tts_workbook.faults.model._padding import PaddingMoves
from tts_workbook.faults.model._sight import Sight
from tts_workbook.faults.model.encoder_detached import SilentParameters
from tts_workbook.faults.model.output_range import Reach
from tts_workbook.faults.model.text_ignored import TextPath


def shown(decision):
    return None if decision is None else (decision.level, decision.where, decision.reason)


BLIND = Sight((4, 8, 12), later=1e-6, reach=0, own=1e-6, frames_given=True)


@pytest.mark.parametrize(
    "numbers, causal, shift",
    [
        (
            Sight((), 0.0, 0, 0.0, True),
            ("undecided", "", "no history"),
            ("undecided", "", "no history"),
        ),
        (
            BLIND,
            ("excluded", "", "does not see later frames"),
            ("excluded", "", "does not see itself"),
        ),
        (
            replace(BLIND, own=0.5),
            ("excluded", "", "does not see later frames"),
            ("confirmed", "predict_frames", "sees itself"),
        ),
        (
            replace(BLIND, later=0.5, reach=3, own=0.5),
            ("confirmed", "predict_frames", "sees later frames"),
            ("undecided", "", "sees later frames"),
        ),
        (
            replace(BLIND, later=0.5, reach=3, frames_given=False),
            ("suspected", "predict_frames", "may be a post-net"),
            ("undecided", "", "sees later frames"),
        ),
        (
            replace(BLIND, later=0.5, reach=60, frames_given=False),
            ("confirmed", "predict_frames", "sees later frames"),
            ("undecided", "", "sees later frames"),
        ),
    ],
)
def test_what_the_decoder_sees(numbers, causal, shift):
    assert shown(no_causal_mask.decide(numbers)) == causal
    assert shown(no_right_shift.decide(numbers)) == shift


STILL = PaddingMoves(8, 1e-5, {"embedding": 0.05, "memory": 1e-5}, 1e-6, "memory", ("embedding",))


@pytest.mark.parametrize(
    "numbers, where, strength",
    [
        (STILL, None, 0.0),
        (replace(STILL, appended=0.2), "predict_frames", 0.2),
        (replace(STILL, appended=2e-3), "predict_frames", 0.05),
        # ten times what rounding does
        (replace(STILL, appended=2e-3, rounding=1e-3), None, 0.0),
        (replace(STILL, disturbed={"memory": 5.0}), "memory", 1.0),
        # a convolution looks past the end of a text
        (replace(STILL, disturbed={"embedding": 0.09}), None, 0.0),
        (replace(STILL, disturbed={"embedding": 5.0}), "embedding", 0.3),
        (replace(STILL, disturbed={"embedding": 5.0, "memory": 2.0}), "embedding", 1.0),
    ],
)
def test_padding_mask(numbers, where, strength):
    decision = padding_mask.decide(numbers)
    assert decision.strength == strength
    if where is None:
        assert shown(decision) == ("excluded", "", "stays")
    else:
        assert shown(decision) == ("confirmed", where, "moves")


@pytest.mark.parametrize(
    "heard, expected",
    [
        (None, ("undecided", "", "no text")),
        (Hearing(0.2, 0.5), ("excluded", "", "heard")),
        (Hearing(1e-4, 0.5), ("excluded", "", "heard")),
        (Hearing(0.2, 1e-4), ("undecided", "", "given up")),
        (Hearing(1e-4, 1e-4), ("confirmed", "encoder", "deaf")),
        (Hearing(1e-4, 1e-4, 1e-3, "encoder.0"), ("confirmed", "encoder", "deaf")),
        (Hearing(1e-4, 1e-4, 0.2, "encoder.0"), None),
    ],
)
def test_text_ignored(heard, expected):
    assert shown(text_ignored.decide(TextPath(heard, "encoder"))) == expected


@pytest.mark.parametrize(
    "numbers, expected",
    [
        (SilentParameters(0, 0, ()), ("undecided", "", "no text side")),
        (SilentParameters(4, 3, ()), ("excluded", "", "reached")),
        (SilentParameters(4, 3, ("a",)), ("excluded", "", "reached")),
        (SilentParameters(4, 3, ("a", "b")), ("confirmed", "a", "cut off")),
        (SilentParameters(1, 1, ("a",)), ("confirmed", "a", "cut off")),
    ],
)
def test_encoder_detached(numbers, expected):
    decision = encoder_detached.decide(numbers)
    assert shown(decision) == expected
    if decision.level == "confirmed":
        assert decision.strength == len(numbers.moving) / numbers.n_text_side


def reach(module, outside):
    return Reach(module, outside, -1.0, 1.0, -4.0, 4.0)


@pytest.mark.parametrize(
    "numbers, expected, strength",
    [
        ((), ("undecided", "", "no layer"), 0.0),
        ((reach("out", 0.019),), ("excluded", "", "within reach"), 0.095),
        ((reach("out", 0.5),), ("confirmed", "after out", "out of reach"), 1.0),
        (
            (reach("out", 0.0), reach("post", 0.1)),
            ("confirmed", "after post", "out of reach"),
            0.5,
        ),
    ],
)
def test_output_range(numbers, expected, strength):
    decision = output_range.decide(numbers)
    assert shown(decision) == expected and decision.strength == pytest.approx(strength)
