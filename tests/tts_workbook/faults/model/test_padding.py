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

    def __init__(self, mixes=False):
        super().__init__(mix=lambda: nn.Identity())
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
