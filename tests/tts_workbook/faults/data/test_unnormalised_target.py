"""data.unnormalised_target: raw log-mels, beside targets that something else keeps from being
learnt.
"""

import pytest
from torch import nn

from tests.tts_workbook.diagnosis.tiny_speaker import Speaker, adam, speaker_lab, spoken
from tests.tts_workbook.faults.judged import confirmed, tried_in_vain


@pytest.mark.parametrize(
    "mean, deviation", [(-5.0, 2.0), (0.0, 0.05)], ids=["raw log-mels", "quiet"]
)
def test_raw_targets(mean, deviation):
    confirmed(speaker_lab(batch=spoken(mean, deviation)), "data.unnormalised_target")


class Told(Speaker):
    """Knows the mean of its raw targets: it takes it from the history and begins at it."""

    def __init__(self):
        super().__init__()
        nn.init.constant_(self.out.bias, -5.0)

    def forward(self, batch):
        return super().forward({**batch, "mel": batch["mel"] + 5.0})


def test_raw_targets_that_the_model_standardises_itself_are_silent():
    tried_in_vain(speaker_lab(Told, batch=spoken(-5.0)), "data.unnormalised_target")


@pytest.mark.parametrize(
    "make_optimizer, cause",
    [(adam(1e-5), "optimizer.lr_too_small"), (adam(decay=20.0), "optimizer.weight_decay")],
)
def test_standardised_targets_are_not_blamed_for_what_keeps_them_from_being_learnt(
    make_optimizer, cause
):
    confirmed(speaker_lab(make_optimizer=make_optimizer, batch=spoken(1.0, 2.0)), cause)
