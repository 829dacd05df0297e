"""loss.shifted_twice: a target that is shifted in the data and in the model, and what only looks
like it.
"""

import pytest
import torch
from torch.nn import functional as F

from tests.tts_workbook.diagnosis.tiny_speaker import Speaker, speaker_lab, spoken
from tests.tts_workbook.faults.loss.test_wrong_reduction import TwoAtOnce
from tests.tts_workbook.faults.loss.tiny_losses import measured
from tts_workbook.faults.examine import examine
from tts_workbook.faults.loss.shifted_twice import (
    Lag,
    ShiftedLosses,
    decide_lag,
    decide_losses,
    measure_lag,
    shifted,
)
from tts_workbook.faults.registry import CAUSES


def losses_at(**values):
    """Values at the shifts -2 to 2, given as m2, m1, z, p1, p2."""
    order = ("m2", "m1", "z", "p1", "p2")
    return ShiftedLosses("mel", {shift: values[name] for shift, name in enumerate(order, -2)})


@pytest.mark.parametrize(
    "numbers, expected",
    [
        (ShiftedLosses("", {}), ("undecided", "", "not reached")),
        (losses_at(m2=0.6, m1=0.3, z=0.0, p1=0.3, p2=0.6), ("excluded", "")),
        (losses_at(m2=0.9, m1=0.6, z=0.3, p1=0.0, p2=0.3), ("confirmed", "losses['mel']")),
        (losses_at(m2=0.9, m1=0.8, z=0.6, p1=0.3, p2=0.0), ("confirmed", "losses['mel']")),
        # a target that is later by many frames is another fault
        (losses_at(m2=0.9, m1=0.9, z=0.8, p1=0.7, p2=0.6), ("excluded", "")),
        # a likelihood with a constant, and a broadcast that sees no frames
        (losses_at(m2=1.5, m1=1.2, z=0.7, p1=1.2, p2=1.5), ("excluded", "")),
        (losses_at(m2=0.84, m1=0.84, z=0.846, p1=0.84, p2=0.84), ("excluded", "")),
        (losses_at(m2=0.3, m1=0.0, z=0.3, p1=0.6, p2=0.9), ("undecided", "losses['mel']")),
        (losses_at(m2=0.3, m1=float("nan"), z=0.3, p1=0.6, p2=0.9), ("undecided", "")),
    ],
)
def test_decide_by_the_losses(numbers, expected):
    decision = decide_losses(numbers)
    assert (decision.level, decision.where, decision.reason)[: len(expected)] == expected


@pytest.mark.parametrize(
    "numbers, level",
    [
        (Lag(0), None),
        (Lag(1), None),
        (Lag(2), "question"),
    ],
)
def test_decide_by_the_lag(numbers, level):
    decision = decide_lag(numbers)
    assert (decision.level if decision else None) == level


def test_a_shifted_target_holds_its_ends():
    target = torch.arange(5.0)[None, :, None]
    lengths = torch.tensor([4])
    assert shifted(target, lengths, 1).flatten().tolist() == [1, 2, 3, 3, 4]
    assert shifted(target, lengths, -2).flatten().tolist() == [0, 0, 0, 1, 4]


def later(lead):
    """The loss compares with frames that come `lead` later."""
    return measured(lambda mel, target: F.l1_loss(mel[:, :-lead], target[:, lead:]))


def found(build=Speaker, **fields):
    bench = speaker_lab(build, batch=spoken(n_places=12), **fields)
    return examine(CAUSES["loss.shifted_twice"], bench)


@pytest.mark.parametrize("build", [Speaker, TwoAtOnce])
@pytest.mark.parametrize("lead", [1, 2])
def test_a_target_that_is_shifted_again(build, lead):
    said = found(build, losses=later(lead))
    assert (said.level, said.where) == ("confirmed", "losses['mel']")
    assert said.evidence["least at a shift of"] == lead


class Unshifted(Speaker):
    """Sees the frame that it predicts: model.no_right_shift."""

    def forward(self, batch):
        said = self.history(batch["mel"])
        hidden = said + self.encode(batch["text"]).repeat_interleave(2, dim=1)
        return self.out(hidden.tanh())


class Lagging(Speaker):
    """Its input is shifted by two frames: in the data and in the model."""

    def forward(self, batch):
        said = self.history(F.pad(batch["mel"], (0, 0, 2, -2)))
        text = self.encode(batch["text"]).repeat_interleave(2, dim=1)
        return self.out((said + text).tanh())


@pytest.mark.parametrize("build", [Speaker, TwoAtOnce, Unshifted])
def test_look_alikes_are_excluded(build):
    """Sound ones, with a reduction factor too, and a decoder that sees the frame it predicts."""
    assert found(build).level == "excluded"


def test_a_target_that_is_later_by_many_frames_is_not_confirmed():
    assert found(losses=later(6)).level == "excluded"


@pytest.mark.parametrize("build, least", [(Speaker, 1), (TwoAtOnce, 1), (Lagging, 2)])
def test_the_lag_of_the_history(build, least):
    """With a reduction factor some frames lag more, and the first of a step does not."""
    bench = speaker_lab(build, batch=spoken(n_places=12))
    assert measure_lag(bench).least == least


def test_a_history_that_lags_is_a_question():
    said = found(Lagging)
    assert said.level == "question" and "is this meant?" in said.fix
