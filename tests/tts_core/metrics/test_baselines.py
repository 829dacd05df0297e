"""Baselines against cases whose answer is known."""

import pytest
import torch

from tts_core.metrics.baselines import (
    LinearAutoregression,
    copy_previous_l1,
    trivial_baselines,
)


def test_best_constant_is_the_optimal_constant():
    mel = torch.randn(50, 4)
    best = trivial_baselines(mel)["best_constant"]
    for constant in (mel.mean(dim=0), mel.median(dim=0).values + 0.05, torch.zeros(4)):
        assert best <= float((mel - constant).abs().mean())


def test_copy_previous_on_a_ramp_is_its_slope():
    ramp = torch.arange(10.0)[:, None].expand(-1, 3)
    assert trivial_baselines(ramp)["copy_previous"] == pytest.approx(1.0)


def test_autoregression_recovers_a_process_it_can_represent_and_runs_freely_on_it():
    time = torch.arange(200.0)
    # AR(2) with an intercept, exactly
    mel = torch.stack([torch.sin(0.3 * time) + 2.0, torch.cos(0.11 * time) - 5.0], dim=1)
    model = LinearAutoregression.fit([mel[2:]], order=2)
    torch.testing.assert_close(
        model.coefficients[0], 2 * torch.cos(torch.tensor([0.3, 0.11])).double(), atol=2e-2, rtol=0
    )
    assert float((model.teacher_forced(mel)[4:] - mel[4:]).abs().mean()) < 1e-2


def test_free_running_reads_nothing_but_the_first_frame():
    mel = torch.randn(30, 3)
    model = LinearAutoregression.fit([mel])
    other = mel.clone()
    other[1:] = 100.0
    torch.testing.assert_close(model.free_running(mel), model.free_running(other))
    # the same first history
    torch.testing.assert_close(model.free_running(mel)[0], model.teacher_forced(mel)[0])


def test_on_real_speech_the_order_is_as_published(librivox):
    baselines = trivial_baselines(librivox.clip("0930").mel)
    assert baselines["ar3"] < baselines["copy_previous"] < 0.5 * baselines["best_constant"]
    assert 0.3 < baselines["copy_previous"] < 0.5 and 1.1 < baselines["best_constant"] < 1.4
    assert baselines["ar3_free_running"] > 0.7 * baselines["best_constant"]


def test_copy_previous_of_a_batch_counts_what_each_clip_has():
    """A clip of 3 frames that rise by 1, one of 2 that rise by 4; padding is far away."""
    mel = torch.tensor([[0.0, 1.0, 2.0], [0.0, 4.0, 900.0]])[..., None]
    mask = torch.tensor([[True, True, True], [True, True, False]])
    assert copy_previous_l1(mel, mask) == pytest.approx((1 + 1 + 4) / 3)
    assert copy_previous_l1(mel[0]) == 1.0
