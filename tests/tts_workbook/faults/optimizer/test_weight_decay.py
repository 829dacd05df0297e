"""optimizer.weight_decay: at once, only later, and one that does no harm."""

import pytest
import torch

from tests.tts_workbook.diagnosis.tiny_speaker import adam, blamed, findings, speaker_lab
from tests.tts_workbook.faults.judged import JUDGES, confirmed, tried_in_vain
from tts_workbook.faults.optimizer.weight_decay import LateDecay, decide_late
from tts_workbook.faults.selection import suspects
from tts_workbook.faults.suspect import Suspect
from tts_workbook.lab.short_run import Change

SUSPECT = Suspect("optimizer.weight_decay", Change("decay 0"), {}, "make_optimizer")


def test_weight_decay():
    """The memory is quiet and the text is given up: neither is blamed."""
    bench = speaker_lab(make_optimizer=adam(decay=20.0))
    confirmed(bench, "optimizer.weight_decay")
    found = findings(bench, "model.text_ignored")["model.text_ignored"]
    assert found.level in ("undecided", "excluded")


def test_weight_decay_that_only_later_holds_the_model_up():
    """It learns its batch, and then no further: without the decay a longer run does."""
    found = findings(speaker_lab(make_optimizer=adam(decay=1.1)), *JUDGES)
    assert (
        blamed(found) == {"optimizer.weight_decay"}
        and "3 times the steps" in found["optimizer.weight_decay"].experiment
    )


@pytest.mark.parametrize("twin, level", [(0.30, "confirmed"), (0.36, None)])
def test_a_late_decay_has_to_cost_the_margin(twin, level):
    """The long course ends at 0.42 of the best constant; without the decay at `twin`."""
    decision = decide_late(LateDecay(SUSPECT, own=0.45, long=0.42, twin=twin))
    assert (decision.level if decision else None) == level


@pytest.mark.parametrize(
    "numbers, wanted",
    [
        (None, None),  # something was accepted, or there is nothing to ask
        (LateDecay(SUSPECT, 0.45, long=0.1), None),  # the long course goes on falling
        (LateDecay(SUSPECT, 0.45, out_of_time="no time"), ("undecided", "", "out of time")),
        (
            LateDecay(SUSPECT, 0.45, 0.44, 0.1),
            ("confirmed", "make_optimizer", "comes to rest"),
        ),
        (LateDecay(SUSPECT, 0.45, 0.44, 0.5), None),
    ],
)
def test_the_ends_of_a_late_decay(numbers, wanted):
    decision = decide_late(numbers)
    assert (decision and (decision.level, decision.where, decision.reason)) == wanted


def decayed(model):
    """A strong decay on one matrix, whose size the norm behind it takes away."""
    inside = model.encoder[3].weight
    others = [parameter for parameter in model.parameters() if parameter is not inside]
    return torch.optim.AdamW(
        [{"params": others, "weight_decay": 0.0}, {"params": [inside], "weight_decay": 2.0}],
        lr=0.01,
    )


def test_a_visible_decay_that_does_no_harm_is_silent():
    bench = speaker_lab(make_optimizer=decayed)
    assert [suspect.cause for suspect in suspects(bench) if suspect.always] == [
        "optimizer.weight_decay"
    ]
    tried_in_vain(bench, "optimizer.weight_decay")
