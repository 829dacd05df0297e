"""How causes of the model decide that need no training, by tables: numbers -> level, where,
reason.
"""

import math
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
from tts_workbook.faults.model._hearing import Hearing, Move
from tts_workbook.faults.model._padding import PaddingMoves
from tts_workbook.faults.model._sight import Sight
from tts_workbook.faults.model.encoder_detached import SilentParameters
from tts_workbook.faults.model.output_range import Reach
from tts_workbook.faults.model.text_ignored import TextPath


def shown(decision):
    return None if decision is None else (decision.level, decision.where, decision.reason)


BLIND = Sight((4, 8, 12), 1e-6, 0, 1e-6, frames_given=True, rounding=1e-5)
SEEING = replace(BLIND, later=0.5, reach=60, own=0.5)
LOCAL = replace(SEEING, reach=3, frames_given=False)


@pytest.mark.parametrize(
    "numbers, causal, shift",
    [
        (
            replace(BLIND, spots=()),
            ("undecided", "", "no history"),
            ("undecided", "", "no history"),
        ),
        (
            replace(BLIND, heard=False),
            ("not applicable", "", "not heard"),
            ("not applicable", "", "not heard"),
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
            LOCAL,
            ("question", "predict_frames", "may be a post-net"),
            ("undecided", "", "sees later frames"),
        ),
        # the frames before the post-net are known: they see no later one …
        (
            replace(LOCAL, before="out", fed_back=True),
            ("excluded", "out", "a post-net looks ahead"),
            ("excluded", "", "does not see itself"),
        ),
        # … or their own
        (
            replace(LOCAL, before="out", own_before=0.5, fed_back=True),
            ("excluded", "out", "a post-net looks ahead"),
            ("confirmed", "predict_frames", "sees itself"),
        ),
        # a posterior encoder reads the whole target, and generation feeds no frames back
        (
            replace(SEEING, frames_given=False, fed_back=False),
            ("not applicable", "", "not fed back"),
            ("not applicable", "", "not fed back"),
        ),
        (
            replace(SEEING, frames_given=False, fed_back=True),
            ("confirmed", "predict_frames", "sees later frames"),
            ("undecided", "", "sees later frames"),
        ),
        (
            replace(SEEING, frames_given=False),
            ("suspected", "predict_mel", "nobody says it is fed back"),
            ("undecided", "", "sees later frames"),
        ),
    ],
)
def test_what_the_decoder_sees(numbers, causal, shift):
    assert shown(no_causal_mask.decide(numbers)) == causal
    assert shown(no_right_shift.decide(numbers)) == shift


STILL = PaddingMoves(
    8,
    {"frames": 1e-6, "text": 1e-6, "frames text": 1e-6},
    {"frames": 0.0, "text": 0.0, "frames text": 0.0},
    {"embedding": 1e-6, "memory": 1e-6},
    1e-6,
    "memory",
    ("embedding",),
)
FRAMES_ONLY = replace(STILL, appended={"frames": 1e-6}, far={"frames": 0.0}, missing=("pad_text",))


@pytest.mark.parametrize(
    "numbers, expected, strength",
    [
        (STILL, ("excluded", "", "stays"), 0.0),
        # ten times what rounding does
        (replace(STILL, appended={"frames": 9e-6}), ("excluded", "", "stays"), 0.0),
        (
            replace(STILL, appended={"frames": 0.2}, far={"frames": 0.1}),
            ("confirmed", "predict_frames", "heard far"),
            0.2,
        ),
        # a post-net that nobody declared, a convolution without masks between its layers
        (
            replace(STILL, appended={"frames": 0.5}, far={"frames": 0.0}),
            ("question", "predict_frames", "heard near"),
            0.3,
        ),
        (
            replace(STILL, appended={**STILL.appended, "text": 2.0}),
            ("question", "embedding", "heard near"),
            0.3,
        ),
        (
            replace(STILL, far={**STILL.far, "text": 2.0}),
            ("confirmed", "memory", "heard far"),
            0.3,
        ),
        (replace(STILL, disturbed={"memory": 5.0}), ("confirmed", "memory", "heard far"), 1.0),
        (
            replace(STILL, appended={"frames": 0.5}, not_held=("multinomial",)),
            ("undecided", "", "noise"),
            0.0,
        ),
        # the text of the batch is padded already, and that was disturbed
        (FRAMES_ONLY, ("excluded", "", "stays"), 0.0),
        (replace(FRAMES_ONLY, disturbed={}), ("undecided", "", "path not tried"), 0.0),
        (
            replace(FRAMES_ONLY, appended={}, far={}, disturbed={"embedding": 0.2}, faded=0.1),
            ("question", "embedding", "heard near"),
            0.2,
        ),
        (
            replace(FRAMES_ONLY, appended={}, far={}, disturbed={"embedding": 0.2}, faded=0.9),
            ("suspected", "embedding", "does not fade"),
            0.2,
        ),
        (
            replace(STILL, appended={}, far={}, disturbed={}),
            ("not applicable", "", "nothing padded"),
            0.0,
        ),
    ],
)
def test_padding_mask(numbers, expected, strength):
    decision = padding_mask.decide(numbers)
    assert shown(decision) == expected and decision.strength == strength


def test_a_path_of_padding_that_was_not_tried_names_the_part():
    numbers = replace(FRAMES_ONLY, disturbed={})
    telling = padding_mask.tell(numbers, padding_mask.decide(numbers))
    assert "supply Subject.pad_text" in telling.experiment


SILENT, QUIET, LOUD = Move(1e-7, 1e-7), Move(1e-5, 1e-7, history=0.5), Move(0.2, 1e-7, history=0.5)


@pytest.mark.parametrize(
    "heard, expected",
    [
        (None, ("undecided", "", "no text")),
        (Hearing(LOUD, LOUD), ("excluded", "", "heard")),
        # as quiet as a fresh SpeechT5, and 100 times what rounding does
        (Hearing(QUIET, LOUD), ("excluded", "", "heard")),
        (Hearing(QUIET, QUIET), ("undecided", "encoder", "not learnt")),
        (Hearing(LOUD, QUIET, learnt=True), ("suspected", "encoder", "given up")),
        (Hearing(LOUD, SILENT), ("undecided", "encoder", "not learnt")),
        (Hearing(SILENT, LOUD), ("excluded", "", "heard")),
        (Hearing(SILENT, SILENT), ("confirmed", "encoder", "deaf")),
        (Hearing(SILENT, SILENT, acted=False), ("undecided", "", "not disturbed")),
        (Hearing(SILENT, SILENT, updated=False), ("undecided", "encoder", "not trained")),
        (Hearing(SILENT, Move(math.nan, 1e-7)), ("undecided", "", "not finite")),
        (Hearing(SILENT, SILENT, redrawn=1e-6, oddest="a"), ("confirmed", "encoder", "deaf")),
        (Hearing(SILENT, SILENT, redrawn=0.2, oddest="a"), None),
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
