"""data.conditioning fires on another speaker and another scale of the pitch, and not on a pitch
that is predicted.
"""

import math

import pytest
import torch

from tests.tts_workbook.faults.data import tiny_inputs as tiny
from tts_workbook.faults.data.conditioning import counts, decide
from tts_workbook.faults.examine import examine
from tts_workbook.faults.registry import CAUSES
from tts_workbook.measure.condition_paths import Conditions, OtherCondition
from tts_workbook.measure.paths import PathErrors

CAUSE = CAUSES["data.conditioning"]


def other(predicted=False, offset=0.0, scale=1.0, own=0.9, swapped=0.3, correlation=0.9):
    errors = PathErrors("generate", own, 0.3, 0.0, swapped)
    return OtherCondition(
        "generate", "speakers", predicted, 0.5, offset, scale, correlation, errors
    )


def found(*others, n_found=2, n_matched=2):
    return Conditions(n_found, n_matched, others, ("generate",))


@pytest.mark.parametrize(
    "numbers, level, reason",
    [
        (None, "not applicable", "no path"),
        (found(), "excluded", "the same"),
        (found(n_found=0, n_matched=0), "excluded", "no condition"),
        (found(n_matched=0), "undecided", "not matched"),
        (found(other()), "confirmed", "removes harm"),
        (found(other(swapped=0.8)), "question", "no harm"),
        (found(other(swapped=None)), "question", "no harm"),
        (found(other(swapped=math.nan)), "question", "no harm"),
        # a prediction of training's kind, however much its true values would help
        (found(other(predicted=True)), "excluded", "the same"),
        (found(other(predicted=True, scale=9.0)), "confirmed", "removes harm"),
        (found(other(predicted=True, correlation=-0.9)), "confirmed", "removes harm"),
        (found(other(predicted=True, correlation=0.0)), "excluded", "the same"),
        (found(other(predicted=True, correlation=math.nan)), "excluded", "the same"),
        (found(other(predicted=True, offset=-4.0, swapped=0.85)), "excluded", "the same"),
    ],
)
def test_decide(numbers, level, reason):
    decision = decide(numbers)
    assert (decision.level, decision.reason) == (level, reason)


def test_a_prediction_counts_only_where_mean_or_scale_are_others():
    assert counts(other())
    assert not counts(other(predicted=True, offset=2.9, scale=2.9))
    assert counts(other(predicted=True, scale=0.1)) and counts(other(predicted=True, offset=-3.1))
    assert not counts(other(predicted=True, scale=math.nan))


def predicted_pitch(model, batch):
    hidden = model.text(batch["text"]) + model.speakers(batch["speaker"])[:, None]
    return model.pitch_head(hidden)[..., 0]


FAULTY = {
    "another table": dict(speak_as=lambda speaker: torch.tensor([0, 3, 1, 2])[speaker]),
    "always the first": dict(speak_as=lambda speaker: 0 * speaker),
    "the pitch on another scale": dict(
        sing=lambda model, batch: 40 * predicted_pitch(model, batch) + 100
    ),
    "the pitch turned round": dict(sing=lambda model, batch: -3 * predicted_pitch(model, batch)),
    "the true pitch in hertz": dict(sing=lambda model, batch: 100 * batch["pitch"] + 200),
}


@pytest.mark.parametrize("name", FAULTY)
def test_another_condition_is_confirmed_by_training_s_own(name):
    entry = examine(CAUSE, tiny.lab(**FAULTY[name]))
    assert entry.level == "confirmed"
    assert entry.where == ("pitch" if "pitch" in name else "speakers")
    own = entry.evidence[f"error of {entry.evidence['path']} / best constant"]
    assert entry.evidence["with training's condition"] < 0.6 * own


def test_a_predicted_pitch_is_no_fault():
    entry = examine(CAUSE, tiny.lab())
    assert entry.level == "excluded" and entry.evidence["conditions in training"] == 2


def test_other_ids_of_the_text_are_no_condition():
    entry = examine(CAUSE, tiny.lab(read=lambda text: torch.where(text > 5, 5, text)))
    assert entry.level == "excluded"
