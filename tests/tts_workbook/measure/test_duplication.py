"""Copies of a clip change neither loss nor gradient; planted faults are seen; dropout's noise falls
as 1/sqrt(k).
"""

from dataclasses import replace

import pytest
import torch
from torch import nn

from tests.conftest import make_batch, make_experiment
from tests.tts_workbook.diagnosis.tiny_subject import lab
from tests.tts_workbook.measure.own_subjects import own, with_losses
from tts_core.errors import WorkbookError
from tts_core.speech.batch import duplicate
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
from tts_workbook.subject.opened import OpenSubject
from tts_workbook.subject.subject import Subject


@pytest.fixture(params=["healthy", "seed"])
def subject(request, batch):
    """A model with dropout on, and its batch."""
    return own(make_experiment(request.param, dropout=0.3), batch)


def summed(own_losses, model, batch):
    """A loss that sums over clips where it should average."""
    return {"total": own_losses(model, batch)["total"] * len(batch.ids)}


class Standardise(nn.Module):
    """Standardises over clips and frames; with `correction` 0 it is what BatchNorm does."""

    def __init__(self, correction: int) -> None:
        super().__init__()
        self.correction = correction

    def forward(self, x):
        return (x - x.mean(dim=(0, 1))) / x.std(dim=(0, 1), correction=self.correction)


@pytest.mark.parametrize("k", [1, 2, 8, 32])
def test_copies_change_neither_loss_nor_gradient(subject, k):
    exact = measure_duplication(subject, k)
    assert exact.largest <= TENSOR_BAR and exact.loss <= TENSOR_BAR and exact.unchanged
    single = measure_duplication(subject, k, dtype=torch.float32)
    assert single.gradient <= GLOBAL_BAR and single.unchanged
    assert exact.largest <= single.largest  # fp64 really is computed in fp64


def test_key_biases_and_nothing_else_are_left_out(subject):
    found = measure_duplication(subject, 2)
    named = [name for name, _ in subject.model.named_parameters()]
    biases = [name for name in named if name.endswith("key.bias")]
    assert list(found.left_out) == biases and biases
    assert set(found.tensors) | set(biases) == set(named)


def test_a_loss_that_sums_is_seen_with_its_factor(subject):
    faulty = with_losses(subject, summed)
    found = measure_duplication(faulty, 8)
    assert (
        found.loss == pytest.approx(7)
        and found.gradient == pytest.approx(7)
        and not found.unchanged
    )
    assert list(found.tensors.values()) == pytest.approx([7] * len(found.tensors))
    assert not measure_duplication(faulty, 2, dtype=torch.float32).unchanged


def test_another_model_is_measured_alike_and_one_without_copies_says_what_to_supply():
    assert measure_duplication(lab(), 4).unchanged
    without_copies = OpenSubject(replace(lab().subject, duplicate=None))
    with pytest.raises(WorkbookError, match=r"supply Subject\.duplicate = \(batch, k\)"):
        measure_duplication(without_copies, 4)


def standardised(correction):
    def change(model):
        layers = (model.mel_projection_out, Standardise(correction=correction))
        model.mel_projection_out = nn.Sequential(*layers)
        return model

    return change


def test_a_layer_that_counts_its_clips_is_seen_and_where(batch):
    found = measure_duplication(own(make_experiment(), batch, change=standardised(1)), 2)
    assert not found.unchanged and found.deciding > 1e-4 and found.worst in found.tensors


def test_copies_are_blind_to_batch_norm(batch):
    """What the module says of itself: mean and variance over a batch do not notice that the batch
    is repeated.
    """
    found = measure_duplication(own(make_experiment(), batch, change=standardised(0)), 4)
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
    model = subject.model.eval()
    subject.subject.losses(model, subject.batch)["total"].backward()
    before = {name: (p.detach().clone(), p.grad.clone()) for name, p in model.named_parameters()}
    state = torch.get_rng_state()
    measure_duplication(subject, 2)
    measure_gradient_noise(subject, 2, draws=2)
    assert torch.equal(torch.get_rng_state(), state) and not model.training
    assert model.text_embedding.weight.dtype == torch.float32
    for name, p in model.named_parameters():
        assert torch.equal(p.detach(), before[name][0]) and torch.equal(p.grad, before[name][1])


def test_what_cannot_be_compared_is_refused(batch):
    sound = own(make_experiment(), batch)

    def times(factor):
        return with_losses(
            sound, lambda own_losses, *given: {"total": own_losses(*given)["total"] * factor}
        )

    with pytest.raises(WorkbookError, match="k = 0"):
        measure_duplication(sound, 0)
    with pytest.raises(WorkbookError, match="both must be finite and above zero"):
        measure_duplication(times(0), 2)
    with pytest.raises(WorkbookError, match="draws = 1"):
        measure_gradient_noise(sound, 1, draws=1)
    with pytest.raises(WorkbookError, match="a gradient is not finite"):
        measure_gradient_noise(times(torch.inf), 1, draws=2)


def test_four_copies_halve_the_noise_of_dropout_and_leave_its_mean():
    batch = make_batch([[2, 3, 4]])
    opened = own(make_experiment(), batch)
    noise = {k: measure_gradient_noise(opened, k, draws=48) for k in (1, 4, 16)}
    assert noise[1].relative > 0.05
    assert noise[1].relative / noise[4].relative == pytest.approx(2, rel=0.15)
    assert noise_exponent({k: one.relative for k, one in noise.items()}) == pytest.approx(
        -0.5, abs=0.06
    )
    assert 0.5 < standard_errors_apart(noise[16], noise[1]) < 2


def test_draws_differ_from_each_other_repeat_themselves_and_need_dropout(batch):
    opened = own(make_experiment(), batch)
    first, again, other = (
        measure_gradient_noise(OpenSubject(opened.subject, seed), 1, draws=3) for seed in (0, 0, 1)
    )
    assert first.deviation == again.deviation != other.deviation
    assert measure_gradient_noise(opened, 1, draws=3, dropout=0.0).relative < 1e-6


def test_a_sum_over_copies_moves_the_mean_gradient(batch):
    faulty = with_losses(own(make_experiment(), batch), summed)
    one, four = (measure_gradient_noise(faulty, k, draws=16) for k in (1, 4))
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

    number = Subject(
        build_model=Number,
        batch=make_batch([[2]]),
        losses=lambda model, batch: {"total": model.weight * next(values)},
        make_optimizer=lambda model: torch.optim.SGD(model.parameters(), lr=0.1),
        predict_mel=lambda model, batch: batch.mel,
        target_mel=lambda batch: (batch.mel, batch.mel_lengths),
        duplicate=duplicate,
    )
    noise = measure_gradient_noise(OpenSubject(number), 1, draws=2)
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
