"""How causes of number formats decide, by tables: numbers -> level, where, reason."""

from dataclasses import replace

import pytest

from tts_workbook.faults.precision import (
    clip_before_unscale,
    low_precision_weights,
    mask_overflow,
    scaler_skips,
)
from tts_workbook.faults.precision._attempts import Attempt
from tts_workbook.faults.precision.clip_before_unscale import SCALE_CHANGE, TwoScales
from tts_workbook.faults.precision.low_precision_weights import Formats, Run
from tts_workbook.faults.precision.mask_overflow import Attempts
from tts_workbook.faults.precision.scaler_skips import ScalerSteps


def shown(decision):
    return decision.level, decision.where, decision.reason


STUCK = Run(moved=0.3, outcome=1.0, final=0.9, learnt=False, judged=True, broke="")
FP32 = Run(moved=0.9, outcome=0.8, final=0.6, learnt=False, judged=True, broke="")
SAME = replace(STUCK, moved=0.3)
BOTH = Formats(1.0, "text.weight", "torch.bfloat16", STUCK, FP32, "weights in fp32")
SLOW = replace(FP32, outcome=0.97, final=0.95)  # at a rate that learns little in fp32 too
STILL = replace(STUCK, outcome=0.99, final=0.99)


@pytest.mark.parametrize(
    "numbers, expected, strength",
    [
        (Formats(0.0), ("excluded", "", "no 16-bit weights"), 0.0),
        (
            Formats(1.0, "text.weight", "", replace(STUCK, judged=False, broke="it raises")),
            ("undecided", "", "own breaks"),
            0.0,
        ),
        (
            replace(BOTH, twin=replace(FP32, broke="it raises")),
            ("suspected", "build_model", "twin breaks"),
            0.5,
        ),
        (BOTH, ("confirmed", "build_model", "gains"), 1 - 0.3 / 0.9),
        (replace(BOTH, low_share=0.4), ("confirmed", "text.weight", "gains"), 1 - 0.3 / 0.9),
        (
            replace(BOTH, own=replace(STUCK, learnt=True), twin=SAME),
            ("excluded", "build_model", "learns"),
            0.0,
        ),
        (replace(BOTH, twin=SAME), ("undecided", "build_model", "gains nothing"), 0.0),
        (
            replace(BOTH, twin=replace(FP32, outcome=1.0), long_own=STUCK, long_twin=FP32),
            ("confirmed", "build_model", "gains when longer"),
            1 - 0.3 / 0.9,
        ),
        (
            replace(BOTH, twin=replace(FP32, outcome=1.0), long_own=STUCK, long_twin=STUCK),
            ("undecided", "build_model", "swallows, gains nothing"),
            0.0,
        ),
        (
            replace(BOTH, own=STILL, twin=SLOW, long_own=STILL, long_twin=SLOW, start=1.0),
            ("confirmed", "build_model", "gets nowhere"),
            1 - 0.3 / 0.9,
        ),
        (  # fp32 gets no further than a sham intervention
            replace(
                BOTH, own=STILL, twin=SLOW, long_own=STILL, long_twin=SLOW, start=1.0, noise=0.02
            ),
            ("undecided", "build_model", "swallows, gains nothing"),
            0.0,
        ),
    ],
)
def test_low_precision_weights(numbers, expected, strength):
    decision = low_precision_weights.decide(numbers)
    assert shown(decision) == expected and decision.strength == pytest.approx(strength)


FINE, BROKEN = Attempt(True, "", ""), Attempt(False, "scores", "")


@pytest.mark.parametrize(
    "numbers, expected",
    [
        (Attempts(None), ("excluded", "", "finite")),
        (Attempts(FINE), ("excluded", "", "finite")),
        (Attempts(BROKEN, BROKEN, BROKEN), ("excluded", "scores", "fp32 is not finite either")),
        (Attempts(BROKEN, FINE, FINE), ("confirmed", "scores", "a mask")),
        (Attempts(BROKEN, BROKEN, FINE), ("excluded", "scores", "not a mask")),
        (
            Attempts(replace(BROKEN, said="RuntimeError: Half and Float"), BROKEN, FINE),
            ("undecided", "scores", "raises"),
        ),
        (
            Attempts(replace(BROKEN, said="RuntimeError: would overflow"), BROKEN, FINE),
            ("excluded", "scores", "not a mask"),
        ),
    ],
)
def test_mask_overflow(numbers, expected):
    assert shown(mask_overflow.decide(numbers)) == expected


SKIPS = ScalerSteps(24, 0, "", 2.0**60, 2.0**36, n_unscaled_steps=0)


@pytest.mark.parametrize(
    "numbers, expected",
    [
        (ScalerSteps(0, 3, ""), ("excluded", "", "no scaler")),
        (ScalerSteps(0, 0, "ValueError: x"), ("undecided", "", "no scaler")),
        (ScalerSteps(3, 3, "", 2.0**16, 2.0**16), ("excluded", "", "steps")),
        (replace(SKIPS, n_unscaled_steps=1), ("confirmed", "train_step", "steps at scale 1")),
        (replace(SKIPS, broken_in_fp32=True), ("excluded", "", "fp32 is not finite either")),
        (replace(SKIPS, mask_overflows=True), ("excluded", "", "a mask overflows")),
        (SKIPS, ("confirmed", "train_step", "skips at any scale")),
    ],
)
def test_scaler_skips(numbers, expected):
    assert shown(scaler_skips.decide(numbers)) == expected


SCALED = TwoScales(True, True, "", 2.0**16, before_unscale=1.0, norm=1.0, other_norm=1.0)


@pytest.mark.parametrize(
    "numbers, expected",
    [
        (TwoScales(False, True, ""), ("excluded", "", "no scaler")),
        (TwoScales(False, False, "ValueError: x"), ("undecided", "", "no scaler")),
        (TwoScales(True, False, ""), ("undecided", "", "no step")),
        (replace(SCALED, other_norm=None), ("undecided", "", "no step at a smaller scale")),
        (replace(SCALED, norm=float("nan")), ("undecided", "", "not finite")),
        (SCALED, ("excluded", "", "does not follow")),
        (
            replace(SCALED, before_unscale=1e-4, other_norm=float(SCALE_CHANGE)),
            ("confirmed", "train_step", "clipped first"),
        ),
        # the clip lets go halfway
        (
            replace(SCALED, before_unscale=0.25, other_norm=4.0),
            ("confirmed", "train_step", "clipped first"),
        ),
        (replace(SCALED, before_unscale=1e-4), ("excluded", "", "does not follow")),
        (
            replace(SCALED, other_norm=1 / SCALE_CHANGE),
            ("suspected", "train_step", "never unscaled"),
        ),
    ],
)
def test_clip_before_unscale(numbers, expected):
    assert shown(clip_before_unscale.decide(numbers)) == expected
