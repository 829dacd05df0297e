"""model.padding_mask and loss.padding_included: padding in the model, and padding in the loss."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests.tts_workbook.diagnosis.tiny_speaker import (
    Speaker,
    blamed,
    findings,
    speaker_lab,
    spoken,
    with_parts,
)
from tests.tts_workbook.diagnosis.tiny_subject import D, losses
from tests.tts_workbook.faults.judged import OF_THE_LOSS
from tests.tts_workbook.faults.loss.tiny_losses import measured


def pad(batch, n):
    return {
        **batch,
        "mel": F.pad(batch["mel"], (0, 0, 0, n)),
        "text": F.pad(batch["text"], (0, n // 2)),
        "padded": n,
    }


class Masked(Speaker):
    """Reads padded text, and mixes it in where `mixes`."""

    def __init__(self, mixes=False, **parts):
        super().__init__(mix=lambda: nn.Identity(), **parts)
        self.mixes, self.tone = mixes, nn.Linear(D, D)

    def encode(self, text):
        memory = super().encode(text)
        counted = torch.ones_like(text) if self.mixes else text > 0
        return memory + self.tone(
            (memory * counted[..., None]).sum(1, keepdim=True) / counted.sum(1)[:, None, None]
        )


@pytest.mark.parametrize(
    "cause, kind, terms",
    [
        ("loss.padding_included", Masked, measured(F.l1_loss)),
        ("model.padding_mask", with_parts(Masked, mixes=True), losses),
        ("", Masked, losses),
    ],
)
def test_padding_in_the_loss_and_padding_in_the_model(cause, kind, terms):
    bench = speaker_lab(
        kind, batch=pad(spoken(), 4), losses=terms, pad=pad, symbols=lambda batch: [["a"] * 8] * 2
    )
    found = findings(bench, *OF_THE_LOSS)
    assert blamed(found) & {"loss.padding_included", "model.padding_mask"} == (
        {cause} if cause else set()
    )


# --- paths of padding -----------------------------------------------------------------------------


def pad_frames(batch, n):
    return {**batch, "mel": F.pad(batch["mel"], (0, 0, 0, n)), "padded": n}


def pad_text(batch, n):
    return {**batch, "text": F.pad(batch["text"], (0, n))}


class Aligned(Masked):
    """Masked, and of the frames that its mel has: the memory of padded text is cut off. It has no
    table of positions that could end.
    """

    def __init__(self, **parts):
        super().__init__(positions=nn.Identity, **parts)

    def encode(self, text):
        memory = super().encode(text)
        n_frames = self.n_frames // 2
        return F.pad(memory, (0, 0, 0, max(0, n_frames - memory.shape[1])))[:, :n_frames]

    def forward(self, batch):
        self.n_frames = batch["mel"].shape[1]
        return super().forward(batch)


class Convolved(nn.Module):
    """Over (B, N, D), as long as it was."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Sequential(nn.Conv1d(D, D, 3, padding=1), nn.Conv1d(D, D, 3, padding=1))

    def forward(self, x):
        return self.inner(x.transpose(1, 2)).transpose(1, 2)


class Sampled(nn.Module):
    """Draws noise in the shape that it is given, padding and all."""

    def forward(self, x):
        return x + torch.randn_like(x)


def padded(build, **fields):
    bench = speaker_lab(build, pad=pad_frames, **fields)
    return findings(bench, "model.padding_mask")["model.padding_mask"]


def test_every_path_of_padding_is_tried():
    found = padded(Aligned, pad_text=pad_text)
    assert found.level == "excluded"
    tried = [name for name in found.evidence if name.startswith("largest move")]
    assert len(tried) == 3
    # nothing of the text is padded in this batch, and nothing can pad it
    missing = padded(Aligned)
    assert missing.level == "undecided" and "supply Subject.pad_text" in missing.experiment


def test_a_text_that_is_mixed_with_its_padding_is_found_on_the_path_of_the_text():
    found = padded(with_parts(Aligned, mixes=True), pad_text=pad_text)
    assert (found.level, found.where) == ("confirmed", "memory")


def test_a_convolution_that_looks_past_the_end_is_asked_about():
    def build():
        model = Aligned()
        model.mix = Convolved()
        return model

    found = padded(build, pad_text=pad_text)
    assert found.level == "question" and found.where == "text"


def test_noise_in_the_padded_shape_is_no_padding():
    found = padded(with_parts(Aligned, layers=lambda: [Sampled()]), pad_text=pad_text)
    assert found.level == "excluded"
