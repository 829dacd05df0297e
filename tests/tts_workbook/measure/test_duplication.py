"""Copies of a clip change neither loss nor gradient; planted faults are seen; dropout's noise falls
as 1/sqrt(k).
"""

import pytest
import torch
from torch import nn

from tests.conftest import make_batch, make_experiment, make_model
from tts_core.errors import WorkbookError
from tts_core.training.losses import losses
from tts_workbook.measure.duplication import (
    GLOBAL_BAR,
    TENSOR_BAR,
    Duplication,
    GradientNoise,
    measure_duplication,
    measure_gradient_noise,
    noise_exponent,
    standard_errors_apart,
)


@pytest.fixture(params=["healthy", "seed"])
def subject(request, batch):
    """A model with dropout on, and its batch."""
    experiment = make_experiment(request.param, dropout=0.3)
    return make_model(experiment, batch), batch


def summed(model, batch, config):
    """A loss that sums over clips where it should average."""
    return {"total": losses(model, batch, config)["total"] * len(batch.ids)}


class Standardise(nn.Module):
    """Standardises over clips and frames; with `correction` 0 it is what BatchNorm does."""

    def __init__(self, correction: int) -> None:
        super().__init__()
        self.correction = correction

    def forward(self, x):
        return (x - x.mean(dim=(0, 1))) / x.std(dim=(0, 1), correction=self.correction)


@pytest.mark.parametrize("k", [1, 2, 8, 32])
def test_copies_change_neither_loss_nor_gradient(subject, k):
    exact = measure_duplication(*subject, k)
    assert exact.largest <= TENSOR_BAR and exact.loss <= TENSOR_BAR and exact.unchanged
    single = measure_duplication(*subject, k, dtype=torch.float32)
    assert single.gradient <= GLOBAL_BAR and single.unchanged
    assert exact.largest <= single.largest  # fp64 really is computed in fp64


def test_key_biases_and_nothing_else_are_left_out(subject):
    model, _ = subject
    found = measure_duplication(*subject, 2)
    biases = [name for name, _ in model.named_parameters() if name.endswith("key.bias")]
    assert list(found.left_out) == biases and biases
    assert set(found.tensors) | set(biases) == {name for name, _ in model.named_parameters()}


def test_a_loss_that_sums_is_seen_with_its_factor(subject):
    found = measure_duplication(*subject, 8, terms=summed)
    assert (
        found.loss == pytest.approx(7)
        and found.gradient == pytest.approx(7)
        and not found.unchanged
    )
    assert list(found.tensors.values()) == pytest.approx([7] * len(found.tensors))
    assert not measure_duplication(*subject, 2, dtype=torch.float32, terms=summed).unchanged


def test_a_layer_that_counts_its_clips_is_seen_and_where(batch):
    model = make_model(make_experiment(), batch)
    model.mel_projection_out = nn.Sequential(model.mel_projection_out, Standardise(correction=1))
    found = measure_duplication(model, batch, 2)
    assert not found.unchanged and found.deciding > 1e-4 and found.worst in found.tensors


def test_copies_are_blind_to_batch_norm(batch):
    """What the module says of itself: mean and variance over a batch do not notice that the batch
    is repeated.
    """
    model = make_model(make_experiment(), batch)
    model.mel_projection_out = nn.Sequential(model.mel_projection_out, Standardise(correction=0))
    found = measure_duplication(model, batch, 4)
    # its gradient is zero but for rounding
    assert found.unchanged and "mel_projection_out.0.bias" in found.left_out


def test_one_tensor_that_differs_counts_by_itself_in_fp64_and_by_its_share_in_fp32():
    found = [
        Duplication(2, dtype, 0.0, 1e-7, {"large": 0.0, "small": 1e-3}, ())
        for dtype in (torch.float64, torch.float32)
    ]
    assert [one.deciding for one in found] == [1e-3, 1e-7] and [one.unchanged for one in found] == [
        False,
        True,
    ]
    assert found[0].worst == "small"


def test_the_model_its_gradients_and_the_random_state_stay(subject):
    model, batch = subject
    model.eval()
    losses(model, batch)["total"].backward()
    before = {name: (p.detach().clone(), p.grad.clone()) for name, p in model.named_parameters()}
    state = torch.get_rng_state()
    measure_duplication(model, batch, 2)
    measure_gradient_noise(model, batch, 2, draws=2)
    assert torch.equal(torch.get_rng_state(), state) and not model.training
    assert model.text_embedding.weight.dtype == torch.float32
    for name, p in model.named_parameters():
        assert torch.equal(p.detach(), before[name][0]) and torch.equal(p.grad, before[name][1])


def test_what_cannot_be_compared_is_refused(batch):
    model = make_model(make_experiment(), batch)
    with pytest.raises(WorkbookError, match="k = 0"):
        measure_duplication(model, batch, 0)
    with pytest.raises(WorkbookError, match="both must be finite and above zero"):
        measure_duplication(
            model, batch, 2, terms=lambda *args: {"total": losses(*args)["total"] * 0}
        )
    with pytest.raises(WorkbookError, match="draws = 1"):
        measure_gradient_noise(model, batch, 1, draws=1)
    with pytest.raises(WorkbookError, match="a gradient is not finite"):
        measure_gradient_noise(
            model,
            batch,
            1,
            draws=2,
            terms=lambda *args: {"total": losses(*args)["total"] * torch.inf},
        )


def test_four_copies_halve_the_noise_of_dropout_and_leave_its_mean():
    batch = make_batch([[2, 3, 4]])
    model = make_model(make_experiment(), batch)
    noise = {k: measure_gradient_noise(model, batch, k, draws=48) for k in (1, 4, 16)}
    assert noise[1].relative > 0.05
    assert noise[1].relative / noise[4].relative == pytest.approx(2, rel=0.15)
    assert noise_exponent({k: one.relative for k, one in noise.items()}) == pytest.approx(
        -0.5, abs=0.06
    )
    assert 0.5 < standard_errors_apart(noise[16], noise[1]) < 2


def test_draws_differ_from_each_other_repeat_themselves_and_need_dropout(batch):
    model = make_model(make_experiment(), batch)
    first, again, other = (
        measure_gradient_noise(model, batch, 1, draws=3, seed=seed) for seed in (0, 0, 1)
    )
    assert first.deviation == again.deviation != other.deviation
    assert measure_gradient_noise(model, batch, 1, draws=3, dropout=0.0).relative < 1e-6


def test_a_sum_over_copies_moves_the_mean_gradient(batch):
    model = make_model(make_experiment(), batch)
    one, four = (measure_gradient_noise(model, batch, k, draws=16, terms=summed) for k in (1, 4))
    assert standard_errors_apart(four, one) > 3


def test_the_spread_is_that_of_known_draws():
    """Two draws 3 and 5 of one number: mean 4, variance 2; the mean's own noise (2 / 2) is taken
    off its square.
    """
    values = iter([3.0, 5.0])

    class Number(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(()))

    noise = measure_gradient_noise(
        Number(),
        make_batch([[2]]),
        1,
        draws=2,
        terms=lambda model, *_: {"total": model.weight * next(values)},
    )
    assert noise.deviation == pytest.approx(2**0.5) and noise.mean["weight"] == pytest.approx(4)
    assert noise.mean_norm == pytest.approx(15**0.5) and noise.relative == pytest.approx(
        (2 / 15) ** 0.5
    )
    shifted = GradientNoise(1, 2, noise.deviation, {"weight": noise.mean["weight"] + 3.0})
    assert standard_errors_apart(noise, shifted) == pytest.approx(3 / 2**0.5)


def test_a_slope_needs_two_positive_points():
    assert noise_exponent({1: 0.8, 2: 0.8 / 2**0.5, 8: 0.8 / 8**0.5}) == pytest.approx(-0.5)
    with pytest.raises(WorkbookError, match="two k or more"):
        noise_exponent({1: 0.3})
