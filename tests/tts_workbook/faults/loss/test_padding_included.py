"""loss.padding_included: padding of the frames and of the text, beside what only looks past a
clip's end, and noise that is drawn in the padded shape.
"""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests.tts_workbook.diagnosis.tiny_speaker import D, Speaker, speaker_lab, spoken
from tts_workbook.faults.examine import examine
from tts_workbook.faults.registry import CAUSES

CAUSE = CAUSES["loss.padding_included"]
N_TEXT = 8  # symbols of the tiny batch


class Pitched(Speaker):
    """A second head gives a number for each symbol; its convolution may look past the text's
    end.
    """

    def __init__(self, width=1):
        super().__init__()
        self.pitch = nn.Conv1d(D, 1, width, padding=width // 2)

    def pitches(self, text):
        return 10.0 * self.pitch(self.text(text).transpose(1, 2))[:, 0]

    def hear(self, mel):
        return self.history(F.pad(mel, (0, 0, 1, -1)))

    def forward(self, batch):
        frames = batch["mel"].shape[1]
        said = self.hear(batch["mel"])
        read = self.encode(batch["text"][:, :N_TEXT]).repeat_interleave(2, dim=1)
        return self.out((said + F.pad(read, (0, 0, 0, frames - read.shape[1]))).tanh())


def more_frames(batch, n):
    return {**batch, "mel": F.pad(batch["mel"], (0, 0, 0, n))}


def more_text(batch, n):
    return {**batch, "text": F.pad(batch["text"], (0, n))}


def valid_frames(batch):
    return torch.arange(batch["mel"].shape[1]) < batch["lengths"][:, None]


def terms(masked_mel=True, masked_pitch=True, noise=0.0):
    def losses(model, batch):
        error = (model(batch) - batch["mel"]).abs()
        if noise:
            error = error + noise * torch.rand_like(error)
        mel = error[valid_frames(batch)].mean() if masked_mel else error.mean()
        off = (model.pitches(batch["text"]) - 1.0).square()
        pitch = off[batch["text"] > 0].mean() if masked_pitch else off.mean()
        return {"mel": mel, "pitch": pitch, "total": mel + pitch}

    return losses


def found(losses, width=1, **fields):
    fields = {"pad": more_frames, "pad_text": more_text, **fields}
    bench = speaker_lab(
        lambda: Pitched(width), batch=spoken(n_places=N_TEXT), **fields, losses=losses
    )
    return examine(CAUSE, bench)


@pytest.mark.parametrize(
    "losses, where",
    [
        (terms(masked_mel=False), "losses['mel']"),
        (terms(masked_pitch=False), "losses['pitch']"),
    ],
)
def test_a_mean_over_padding_of_either_path(losses, where):
    said = found(losses)
    assert (said.level, said.where) == ("confirmed", where) and said.strength > 0.1


def test_masked_terms_are_excluded():
    assert found(terms()).level == "excluded"


def test_a_text_that_could_not_be_padded_is_undecided():
    said = found(terms(), pad_text=None)
    assert said.level == "undecided" and "Subject.pad_text" in said.experiment


def test_what_looks_past_the_end_of_a_text_is_no_mean_over_padding():
    """The last symbol's pitch moves with the first padded place, and with no further one."""
    said = found(terms(), width=9)
    moved = said.evidence["relative change of pitch, text padded"]
    assert said.level == "excluded" and abs(moved) > 0.01
    assert said.evidence["the same of pitch far behind every end"] == pytest.approx(0.0, abs=1e-6)


def test_noise_of_the_padded_shape_is_held_still():
    said = found(terms(noise=1.0))
    assert said.level == "excluded"
    assert said.evidence["relative change of mel, frames padded"] == pytest.approx(0.0, abs=1e-5)
    assert found(terms(masked_mel=False, noise=1.0)).level == "confirmed"


class Smeared(Pitched):
    """Its prediction moves with the padding: the mean over all that it hears goes into each
    frame.
    """

    def hear(self, mel):
        said = super().hear(mel)
        return said + 3.0 * said.mean(dim=1, keepdim=True)


@pytest.mark.parametrize("masked, level", [(False, "confirmed"), (True, "undecided")])
def test_the_loss_of_one_prediction_is_asked_where_the_prediction_moves(masked, level):
    losses = terms(masked_mel=masked)
    bench = speaker_lab(Smeared, batch=spoken(n_places=N_TEXT), losses=losses, pad=more_frames)
    said = examine(CAUSE, bench)
    assert said.level == level
