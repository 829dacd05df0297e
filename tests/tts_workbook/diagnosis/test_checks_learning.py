"""What only looks like a learning rate: no step at all, and 16-bit weights that swallow updates."""

import torch

from tests.tts_workbook.diagnosis.tiny_speaker import (
    Gain,
    Speaker,
    adam,
    blamed,
    findings,
    speaker_lab,
)
from tests.tts_workbook.diagnosis.tiny_subject import Tiny, losses
from tests.tts_workbook.faults.judged import JUDGES, tiny_lab
from tts_workbook.diagnosis.diagnosis_report import merged


def test_no_step_is_no_small_learning_rate():
    def never(model, optimizer, batch):
        optimizer.zero_grad()
        losses(model, batch)["total"].backward()

    found = findings(tiny_lab(train_step=never), *JUDGES, "loop.no_step")
    assert blamed(found) == {"loop.no_step"}


def test_swallowed_updates_come_before_the_learning_rate():
    """A larger rate mends 16-bit weights too: it is named after them."""
    bench = tiny_lab(
        build=lambda: Tiny().bfloat16(),
        make_optimizer=lambda model: torch.optim.Adam(model.parameters(), lr=3e-4),
    )
    found = findings(bench, *JUDGES, "precision")
    assert found["precision.low_precision_weights"].level == "confirmed"
    assert merged(found.values())[0].cause == "precision.low_precision_weights"


class HalfSpeaker(Speaker):
    """Reads fp32 frames with 16-bit weights."""

    def forward(self, batch):
        return super().forward({**batch, "mel": batch["mel"].bfloat16()})


def test_swallowed_updates_beside_another_fault_are_not_blamed_for_it():
    """Some updates of the 16-bit weights are lost, but with fp32 weights nothing more is learnt:
    the memory is too loud.
    """
    bench = speaker_lab(
        lambda: HalfSpeaker(memory=lambda: Gain(1000.0)).bfloat16(), make_optimizer=adam(0.002)
    )
    found = findings(bench, "precision")["precision.low_precision_weights"]
    assert (
        found.evidence["share of elements that a step changes"]
        < 0.7 * found.evidence["share in fp32"]
    )
    assert found.level == "undecided" and "nothing is gained" in found.experiment
