"""model.no_causal_mask and model.no_right_shift: which frames the decoder sees."""

import torch
from torch import nn
from torch.nn import functional as F

from tests.tts_workbook.diagnosis.tiny_speaker import (
    Speaker,
    blamed,
    findings,
    speaker_lab,
    with_parts,
)
from tests.tts_workbook.diagnosis.tiny_subject import D, M
from tests.tts_workbook.faults.judged import OF_THE_MODEL


def model_of(kind, **fields):
    return findings(speaker_lab(kind, **fields), *OF_THE_MODEL, "model.bad_initialisation")


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


class Ahead(Speaker):
    """A convolution behind the decoder that looks ahead by two, before there are frames."""

    def __init__(self):
        super().__init__(layers=lambda: [Convolved()])


class Convolved(nn.Module):
    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv1d(D, D, 5, padding=2)

    def forward(self, x):
        return self.convolution(x.transpose(1, 2)).transpose(1, 2)


def test_a_post_net_is_judged_before_it_and_is_never_accused():
    undeclared = model_of(Corrected)["model.no_causal_mask"]
    assert (undeclared.level, undeclared.where) == ("excluded", "post")
    assert not blamed(model_of(Corrected, predict_frames=frames))


def test_a_look_ahead_that_nothing_stands_before_is_asked_about():
    found = model_of(Ahead)
    assert found["model.no_causal_mask"].level == "question" and not blamed(found)
    assert "declare Subject.predict_frames" in found["model.no_causal_mask"].fix
    assert found["model.no_right_shift"].level == "undecided"


class Posterior(Speaker):
    """Reads the whole target in training, and nothing of it when it generates."""

    def __init__(self):
        super().__init__()
        self.posterior = nn.Linear(M, D)

    def encode(self, text):
        return super().encode(text) + self.style

    def forward(self, batch):
        self.style = self.posterior(batch["mel"]).mean(dim=1, keepdim=True)
        return super().forward({**batch, "mel": torch.zeros_like(batch["mel"])})


def generated_from_nothing(model, batch):
    return model({**batch, "mel": torch.zeros_like(batch["mel"])})


def test_a_posterior_encoder_that_generation_does_not_feed_is_not_applicable():
    found = model_of(Posterior, generate=generated_from_nothing)
    assert not blamed(found) and found["model.no_causal_mask"].level == "not applicable"


def test_a_history_of_older_frames_is_silent():
    assert not blamed(
        model_of(
            with_parts(
                Seeing, see=lambda mel: F.pad(mel, (0, 0, 1, -1)) + F.pad(mel, (0, 0, 5, -5))
            )
        )
    )
