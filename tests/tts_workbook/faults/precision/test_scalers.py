"""precision.scaler_skips and precision.clip_before_unscale: what a loss scaler does to the step."""

import pytest

from tests.tts_workbook.diagnosis.test_observe import gradient_scaler, overflowing, step_with
from tests.tts_workbook.diagnosis.tiny_subject import lab, losses
from tests.tts_workbook.faults.one_step import blamed, findings, only


def test_scaler_skips():
    finding = only(lab(train_step=overflowing(60)), "precision.scaler_skips")
    assert (
        finding.evidence["optimiser steps at scale 1"] == 1
        and finding.evidence["optimiser steps"] == 0
    )


def test_a_scaler_that_backs_off_is_silent():
    assert not blamed(lab(train_step=overflowing(30)))


@pytest.mark.parametrize("power", [8, 16, 30])
def test_clip_before_unscale(power):
    scaled = step_with(clip=0.1, scaler=gradient_scaler(power), unscale=False)
    finding = only(lab(train_step=scaled), "precision.clip_before_unscale")
    assert finding.evidence["norm at unscale_ over that after backward()"] < 0.1


def test_gradients_that_are_never_unscaled_are_not_called_clipped():
    scaler = gradient_scaler(8)

    def step(model, optimizer, batch):
        optimizer.zero_grad()
        scaler.scale(losses(model, batch)["total"]).backward()
        optimizer.step()

    found = findings(lab(train_step=step))
    assert (
        found["precision.clip_before_unscale"].level == "suspected"
        and found["loop.accumulation"].level == "excluded"
    )
