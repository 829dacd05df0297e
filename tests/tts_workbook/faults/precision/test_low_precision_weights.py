"""precision.low_precision_weights: 16-bit weights that swallow updates, and such that learn."""

import functools

import torch

from tests.tts_workbook.diagnosis.tiny_speaker import Gain, Speaker, adam, findings, speaker_lab
from tests.tts_workbook.diagnosis.tiny_subject import Tiny, lab
from tests.tts_workbook.faults.judged import JUDGES, OF_NUMBER_FORMATS, tiny_lab
from tests.tts_workbook.faults.one_step import blamed, only
from tts_workbook.diagnosis.diagnosis_report import merged


def test_low_precision_weights():
    make = functools.partial(torch.optim.Adam, lr=3e-4)
    bench = lab(
        build=lambda: Tiny().bfloat16(),
        make_optimizer=lambda model: make(model.parameters()),
        n_steps=300,
    )
    finding = only(bench, "precision.low_precision_weights")
    assert (
        finding.evidence["share of elements that a step changes"]
        < 0.5
        < finding.evidence["share in fp32"]
    )


def test_16_bit_weights_that_learn_are_not_blamed():
    bench = lab(
        build=lambda: Tiny().bfloat16(),
        make_optimizer=lambda model: torch.optim.Adam(model.parameters(), lr=0.02),
    )
    assert not blamed(bench)


def test_swallowed_updates_come_before_the_learning_rate():
    """A larger rate mends 16-bit weights too: it is named after them."""
    bench = tiny_lab(
        build=lambda: Tiny().bfloat16(),
        make_optimizer=lambda model: torch.optim.Adam(model.parameters(), lr=3e-4),
    )
    found = findings(bench, *JUDGES, *OF_NUMBER_FORMATS)
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
    found = findings(bench, "precision.low_precision_weights")["precision.low_precision_weights"]
    assert (
        found.evidence["share of elements that a step changes"]
        < 0.7 * found.evidence["share in fp32"]
    )
    assert found.level == "undecided" and "nothing is gained" in found.experiment
