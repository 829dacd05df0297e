"""precision.mask_overflow: a mask value beyond the range of half precision."""

import functools

import torch

from tests.tts_workbook.diagnosis.test_observe import gradient_scaler, step_with
from tests.tts_workbook.diagnosis.tiny_subject import Tiny, lab, losses
from tests.tts_workbook.faults.one_step import blamed, findings, only
from tests.tts_workbook.faults.train_steps import HalfScores


def test_mask_overflow():
    """-1e9 becomes -inf in fp16, and 0 × -inf is not a number."""
    finding = only(
        lab(build=functools.partial(HalfScores, mask_value=-1e9)), "precision.mask_overflow"
    )
    assert finding.evidence["finite in fp32"] == finding.evidence["finite with masks in range"] == 1


def test_mask_overflow_that_raises_under_autocast():
    def step(model, optimizer, batch):
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.float16):
            total = losses(model, batch)["total"]
        total.backward()
        optimizer.step()

    only(
        lab(build=functools.partial(Tiny, mask_value=-1e9), train_step=step),
        "precision.mask_overflow",
    )


def test_mask_within_range_is_silent():
    assert not blamed(lab(build=functools.partial(HalfScores, mask_value=-1e4)))


def test_activations_beyond_half_range_are_no_mask():
    class Loud(Tiny):
        def encode(self, text):
            return ((super().encode(text) * 1e3).half() * 1e3).float()

    found = findings(lab(build=Loud))["precision.mask_overflow"]
    assert found.level == "excluded" and "half_range" in found.experiment


def test_types_that_do_not_fit_are_no_overflow():
    class Mixed(Tiny):
        def encode(self, text):
            return super().encode(text).half() @ torch.ones(16, 16)

    found = findings(lab(build=Mixed))
    assert not {
        cause for cause, finding in found.items() if finding.level in ("confirmed", "suspected")
    }


def test_numbers_that_fp32_cannot_hold_either():
    class Broken(Tiny):
        def encode(self, text):
            return super().encode(text) / 0.0

    assert findings(lab(build=Broken))["precision.mask_overflow"].level == "excluded"


def test_a_mask_that_overflows_behind_a_scaler_is_the_masks_fault():
    only(
        lab(
            build=functools.partial(HalfScores, mask_value=-1e9),
            train_step=step_with(scaler=gradient_scaler()),
        ),
        "precision.mask_overflow",
    )
