"""Predictions that are no numbers are no other fault."""

import math

import pytest
import torch

from tests.tts_workbook.diagnosis.tiny_speaker import (
    Gain,
    blamed,
    findings,
    speaker_lab,
    with_parts,
)
from tests.tts_workbook.diagnosis.tiny_subject import Tiny, subject
from tests.tts_workbook.faults.judged import JUDGES, OF_THE_LOSS, OF_THE_MODEL
from tts_workbook.lab.lab import Lab


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
        NOT_NUMBERS[name](),
        *OF_THE_MODEL,
        *OF_THE_LOSS,
        *JUDGES,
        "model.dead_units",
        "model.norm_mode",
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
