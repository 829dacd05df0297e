"""Checks of the model on a tiny speaker: each fault beside what only looks like it."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests.tts_workbook.diagnosis.tiny_speaker import (
    Gain,
    Speaker,
    adam,
    blamed,
    findings,
    speaker_lab,
    spoken,
    with_parts,
)
from tests.tts_workbook.diagnosis.tiny_subject import M, Tiny, subject
from tests.tts_workbook.faults.judged import JUDGES
from tts_workbook.lab.lab import Lab


def model_of(kind, **fields):
    """Of the checks, and of the causes whose file they left."""
    return findings(speaker_lab(kind, **fields), "model", "model.bad_initialisation")


# --- the text's way -------------------------------------------------------------------------------


class Scaled(Speaker):
    """The memory at another size."""

    def __init__(self, scale=0.0):
        super().__init__()
        self.scale = scale

    def encode(self, text):
        return self.scale * super().encode(text)


class Detached(Speaker):
    def encode(self, text):
        return super().encode(text).detach()


class Frozen(Speaker):
    """The text side is not trained."""

    def __init__(self):
        super().__init__()
        for part in (self.text, self.mix, self.encoder, self.memory):
            part.requires_grad_(False)


class Starved(Speaker):
    """Two layers in a row that begin at zero stay there."""

    def __init__(self):
        super().__init__()
        for index in (0, 3):
            for parameter in self.encoder[index].parameters():
                nn.init.zeros_(parameter)


def test_text_that_does_not_arrive():
    found = model_of(Scaled)
    assert (
        blamed(found) == {"model.text_ignored"} and found["model.text_ignored"].level == "confirmed"
    )


def test_an_encoder_without_gradient():
    found = model_of(Detached)
    assert (
        blamed(found) == {"model.encoder_detached"}
        and found["model.encoder_detached"].evidence["without gradient"] == 11.0
    )


def test_a_starved_encoder_is_its_initialisation_and_no_deafness():
    found = model_of(Starved)
    assert (
        found["model.bad_initialisation"].level == "confirmed"
        and found["model.bad_initialisation"].where == "encoder.0"
    )
    assert "model.text_ignored" not in blamed(found)


QUIET = {
    "quiet text": dict(kind=with_parts(Scaled, scale=0.02)),
    "one symbol only": dict(
        kind=Speaker, batch={**spoken(), "text": torch.ones(2, 8, dtype=torch.long)}
    ),
    "frozen, undeclared": dict(kind=Frozen),
    "frozen, declared": dict(kind=Frozen, frozen=("text", "mix", "encoder", "memory")),
    "decay": dict(kind=Speaker, make_optimizer=adam(decay=20.0)),
    "loud memory": dict(kind=with_parts(memory=lambda: Gain(100.0))),
}


@pytest.mark.parametrize("name", QUIET)
def test_silent_where_the_text_arrives_and_something_else_is_odd(name):
    assert not blamed(model_of(**QUIET[name]))


# --- what the decoder sees ------------------------------------------------------------------------


class Seeing(Speaker):
    """Takes something of the batch's frames into the history."""

    def __init__(self, see):
        super().__init__()
        self.see = see

    def forward(self, batch):
        return super().forward({**batch, "mel": self.see(batch["mel"])})


class Corrected(Speaker):
    """A convolution over five frames behind the output: it looks ahead by two, as a post-net
    may.
    """

    def __init__(self):
        super().__init__()
        self.post = nn.Conv1d(M, M, 5, padding=2)

    def frames(self, batch):
        return super().forward(batch)

    def forward(self, batch):
        frames = self.frames(batch)
        return frames + self.post(frames.transpose(1, 2)).transpose(1, 2)


def frames(model, batch):
    return (model.frames if isinstance(model, Corrected) else model)(batch).float()


def test_future_frames_and_the_own_frame():
    later = model_of(with_parts(Seeing, see=lambda mel: mel + mel.flip(1)), predict_frames=frames)
    own = model_of(
        with_parts(Seeing, see=lambda mel: F.pad(mel, (0, 0, -1, 1))), predict_frames=frames
    )
    assert (
        blamed(later) == {"model.no_causal_mask"}
        and later["model.no_causal_mask"].level == "confirmed"
    )
    assert (
        blamed(own) == {"model.no_right_shift"} and own["model.no_right_shift"].level == "confirmed"
    )


def test_a_post_net_that_is_not_declared_is_only_suspected_and_a_declared_one_is_silent():
    undeclared = model_of(Corrected)["model.no_causal_mask"]
    assert undeclared.level == "suspected" and "Subject.predict_frames" in undeclared.experiment
    assert not blamed(model_of(Corrected, predict_frames=frames))


def test_a_history_of_older_frames_is_silent():
    assert not blamed(
        model_of(
            with_parts(
                Seeing, see=lambda mel: F.pad(mel, (0, 0, 1, -1)) + F.pad(mel, (0, 0, 5, -5))
            )
        )
    )


# --- predictions that are no numbers --------------------------------------------------------------


class Overflowing(Tiny):
    """Scores in fp16, whose mask overflows: 0 × -inf is not a number."""

    def scores(self, query, memory, mask):
        scores = (query.half() @ memory.half().transpose(1, 2)).half()
        return (scores + ~mask[:, None] * torch.tensor(-1e9).half()).float()


NOT_NUMBERS = {
    "a parameter": lambda: speaker_lab(
        with_parts(memory=lambda: Gain(math.nan)), pad=lambda batch, n: batch
    ),
    "a mask": lambda: Lab(subject(build=Overflowing, pad=lambda batch, n: batch), steps=16),
}


@pytest.mark.parametrize("name", NOT_NUMBERS)
def test_what_is_not_finite_is_no_other_fault(name, capfd):
    """What compares predictions says that there is nothing to compare; gradients are not fitted to
    one another.
    """
    found = findings(
        NOT_NUMBERS[name](), "model", "losses", *JUDGES, "model.dead_units", "model.norm_mode"
    )
    assert not blamed(found)
    compared = (
        "model.no_causal_mask",
        "model.no_right_shift",
        "model.output_range",
        "model.padding_mask",
        "model.positions",
        "model.text_ignored",
        "model.encoder_detached",
        "model.dead_units",
        "loss.wrong_reduction",
        "loss.padding_included",
    )
    assert all(
        found[cause].level == "undecided" and "not finite" in found[cause].experiment
        for cause in compared
    )
    assert (
        "not finite" in found["loss.detached"].experiment
        and "could not run" not in str(found)
        and not capfd.readouterr().err
    )
