"""Losses against their definitions."""

import math

import pytest
import torch
from torch.nn import functional as F

from tts_core.training.losses import masked_l1, masked_mse, masked_stop_bce


def test_identity_costs_nothing_and_permutation_costs_something():
    target = torch.randn(2, 7, 5)
    lengths = torch.tensor([7, 4])
    assert float(masked_l1(target, target, lengths)[0]) == 0.0
    assert float(masked_l1(target.flip(1), target, lengths)[0]) > 0.0
    assert float(masked_mse(target[..., 0], target[..., 0], lengths)[0]) == 0.0
    assert float(masked_mse(target[..., 0].flip(1), target[..., 0], lengths)[0]) > 0.0


def test_l1_and_mse_are_means_over_valid_values_only():
    prediction, target = torch.randn(2, 6, 3), torch.randn(2, 6, 3)
    lengths = torch.tensor([6, 2])
    total, count = masked_l1(prediction, target, lengths)
    expected = torch.cat(
        [(prediction - target)[0].flatten(), (prediction - target)[1, :2].flatten()]
    ).abs()
    assert count == len(expected) == 24
    torch.testing.assert_close(total / count, expected.mean())
    total, count = masked_mse(prediction[..., 0], target[..., 0], lengths)
    expected = torch.cat([(prediction - target)[0, :, 0], (prediction - target)[1, :2, 0]]).square()
    torch.testing.assert_close(total / count, expected.mean())


def test_what_lies_in_padding_is_never_read_even_if_it_is_not_finite():
    prediction, target = torch.randn(1, 5, 2), torch.randn(1, 5, 2)
    lengths = torch.tensor([3])
    clean = masked_l1(prediction, target, lengths)[0]
    prediction[:, 3:] = math.nan
    torch.testing.assert_close(masked_l1(prediction, target, lengths)[0], clean)


def test_a_valid_nan_is_never_filtered():
    prediction = torch.zeros(1, 5, 2)
    prediction[0, 1, 0] = math.nan
    assert math.isnan(float(masked_l1(prediction, torch.zeros(1, 5, 2), torch.tensor([5]))[0]))


@pytest.mark.parametrize("positive_weight", (1.0, 7.0))
def test_stop_bce_has_one_positive_per_clip_at_its_last_frame(positive_weight):
    logits, lengths = torch.randn(2, 6), torch.tensor([6, 3])
    target = torch.zeros(2, 6)
    target[0, 5] = target[1, 2] = 1.0
    valid = torch.tensor([[True] * 6, [True] * 3 + [False] * 3])
    expected = F.binary_cross_entropy_with_logits(
        logits[valid], target[valid], pos_weight=torch.tensor(positive_weight)
    )
    total, count = masked_stop_bce(logits, lengths, positive_weight)
    torch.testing.assert_close(total / count, expected)


def test_stop_bce_is_fp32_under_autocast_and_survives_logits_that_overflow_fp16():
    with torch.autocast("cpu", dtype=torch.bfloat16):
        total, _ = masked_stop_bce(torch.full((1, 4), 1e4, dtype=torch.bfloat16), torch.tensor([4]))
    assert total.dtype == torch.float32 and float(total) == pytest.approx(3 * 9984, rel=1e-3)
