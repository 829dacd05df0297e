"""model.norm_runaway: a stack whose activations grow, and stacks that only look like it."""

import pytest
from torch import nn

from tests.tts_workbook.diagnosis.tiny_speaker import (
    Branch,
    D,
    blamed,
    findings,
    speaker_lab,
    with_parts,
)
from tests.tts_workbook.faults.judged import JUDGES, confirmed, tried_in_vain


def stack(gain, norm=False, last=False):
    return lambda: [*(Branch(gain, norm) for _ in range(3)), *([nn.LayerNorm(D)] if last else [])]


def test_norm_runaway():
    found = confirmed(speaker_lab(with_parts(layers=stack(30.0))), "model.norm_runaway")
    assert found.where == "layers" and found.evidence["RMS of the last layer over the first"] > 4.0


@pytest.mark.parametrize(
    "layers",
    [stack(1.0), stack(1.0, norm=True), stack(10.0, norm=True, last=True)],
    ids=["plain", "pre-norm", "pre-norm, amplified, norm behind"],
)
def test_sound_stacks_are_silent(layers):
    assert not blamed(findings(speaker_lab(with_parts(layers=layers)), *JUDGES))


def test_a_growing_stack_with_a_norm_behind_it_is_tried_in_vain():
    tried_in_vain(speaker_lab(with_parts(layers=stack(10.0, last=True))), "model.norm_runaway")
