"""Collapse, entropy and scale probes against constructed cases."""

import pytest
import torch

from tests.conftest import make_experiment, make_model
from tts_workbook.measure.activations import (
    attention_entropy,
    measure_scales,
    time_variance_share,
)


def test_time_variance_share_of_known_signals():
    # every channel alike: all variance lies across time
    across_time = torch.randn(500, 1).expand(-1, 8)[None]
    across_channels = torch.randn(8)[None, None].expand(1, 500, 8)  # every frame alike: none does
    lengths = torch.tensor([500])
    assert time_variance_share(across_time, lengths) == pytest.approx(1.0, abs=1e-6)
    assert time_variance_share(across_channels, lengths) == pytest.approx(0.0, abs=1e-9)
    # variance 1 in time, 4 between channels
    mixed = torch.randn(1, 20_000, 8) + 2.0 * torch.tensor([1.0, -1.0] * 4)
    assert time_variance_share(mixed, torch.tensor([20_000])) == pytest.approx(0.2, abs=0.01)


def test_time_variance_share_ignores_padding():
    decoded = torch.randn(1, 30, 4)
    padded = torch.cat([decoded, torch.full((1, 10, 4), 1e3)], dim=1)
    assert time_variance_share(padded, torch.tensor([30])) == pytest.approx(
        time_variance_share(decoded, torch.tensor([30]))
    )


def test_entropy_is_one_when_uniform_and_zero_when_saturated():
    lengths = torch.tensor([6, 3])
    uniform = torch.zeros(2, 2, 6, 6)
    uniform[0], uniform[1, :, :, :3] = 1 / 6, 1 / 3
    assert attention_entropy(uniform, lengths) == pytest.approx(1.0, abs=1e-6)
    assert attention_entropy(torch.eye(6).expand(2, 2, 6, 6), lengths) == pytest.approx(
        0.0, abs=1e-6
    )


def test_a_memory_of_larger_scale_saturates_cross_attention_and_drowns_the_stream(batch):
    scales = {
        factor: measure_scales(
            make_model(make_experiment("healthy", memory_scale=factor), batch), batch
        )
        for factor in (1.0, 32.0)
    }
    layer = "decoder.layers.0"
    assert scales[32.0].cross_attention_entropy[layer] < scales[1.0].cross_attention_entropy[layer]
    assert (
        scales[32.0].cross_attention_logit_std[layer]
        > 10 * scales[1.0].cross_attention_logit_std[layer]
    )
    assert (
        scales[32.0].std[f"{layer}.cross_attention"]
        > 10 * scales[1.0].std[f"{layer}.cross_attention"]
    )
