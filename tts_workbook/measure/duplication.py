"""What copies of a clip change: without dropout nothing, with dropout the noise of the gradient and
not its mean.

k copies of a batch have the same mean loss, so loss and gradient must be the same numbers up to
rounding. A loss that sums, a mean over the wrong axis or a layer that counts its clips shows here.
BatchNorm does not: copies leave mean and variance of a batch where they were; only clips that
differ can show it.

Key biases of attention are left out: softmax is blind to them, so their gradient is rounding and
nothing else, and so is the relative difference of two of them. So is any other tensor whose
gradient vanishes beside the whole one, such as a bias in front of a BatchNorm. What was left out is
named.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tts_core.errors import WorkbookError
from tts_workbook.bars import Bar
from tts_workbook.measure.equivalence import Difference, Equivalence, compare_batches
from tts_workbook.measure.step_parity import comparable, relative_error, with_dropout
from tts_workbook.measure.supply import required
from tts_workbook.subject.isolation import mapped
from tts_workbook.subject.opened import OpenSubject
from tts_workbook.subject.subject import Batch
from tts_workbook.subject.tensor_math import Named, tensors_norm
from tts_workbook.subject.training_step import all_parameters

question = "Do k copies change loss or gradient, tensor by tensor, and does dropout's noise fall?"

COPIES = (1, 2, 8, 32)
DTYPES = {"fp64": torch.float64, "fp32": torch.float32}
TENSOR_BAR = Bar(
    1e-9,
    control="fp64, relative difference of any one tensor: some thousand roundings of that type",
)
GLOBAL_BAR = Bar(
    1e-5,
    control="fp32, relative difference of the whole gradient: some dozen roundings of that type",
)
# times the precision of the type: a smaller share of the whole gradient's norm is rounding
VANISHING = 100
MEAN_BAR = Bar(2.0, convention="standard errors within which two means count as the same (95 %)")


@dataclass(frozen=True)
class Duplication:
    """k copies of a batch beside the batch itself, without dropout. Differences are relative to the
    batch itself.
    """

    k: int
    dtype: torch.dtype
    loss: float  # |difference| / |loss| of the total
    gradient: float  # norm of the difference over norm, all tensors together
    tensors: dict[str, float]  # the same for each parameter by itself
    left_out: tuple[str, ...]  # parameters whose gradient is rounding alone

    @property
    def worst(self) -> str:
        """The parameter that differs most."""
        return max(self.tensors, key=self.tensors.__getitem__)

    @property
    def largest(self) -> float:
        """Its difference."""
        return self.tensors[self.worst]

    @property
    def deciding(self) -> float:
        """What the bar is laid on: fp64 the loss and every tensor by itself, else the loss and the
        whole gradient.
        """
        return max(self.loss, self.largest if self.dtype == torch.float64 else self.gradient)

    @property
    def bar(self) -> float:
        return TENSOR_BAR if self.dtype == torch.float64 else GLOBAL_BAR

    @property
    def unchanged(self) -> bool:
        """Whether the copies changed nothing beyond rounding."""
        return self.deciding <= self.bar


def in_dtype(batch: Batch, dtype: torch.dtype) -> Batch:
    """The batch with its floating point tensors in `dtype`."""
    return mapped(lambda tensor: tensor.to(dtype) if tensor.is_floating_point() else tensor, batch)


def measure_duplication(
    opened: OpenSubject, k: int, dtype: torch.dtype = torch.float64
) -> Duplication:
    """Loss and gradient of k copies of the batch against the batch itself, fresh weights, training
    mode, every dropout off.

    Works on a model of its own in `dtype`. Activation checkpointing stays as the subject has it.
    Raises NotMeasured without `Subject.duplicate`, WorkbookError for k < 1, and for a loss or
    gradient that is zero or not finite: nothing is relative to that.
    """
    duplicate = required(opened, "duplicate")
    if k < 1:
        raise WorkbookError(f"k = {k}, but there must be one copy at least")
    still = opened.build().to(dtype)
    loss, gradient = _total(opened, still, in_dtype(opened.batch, dtype))
    copies = duplicate(opened.batch, k)
    copied_loss, copied = _total(opened, still, in_dtype(copies, dtype))
    names = comparable(gradient)
    size = _norm(gradient, names)
    if not (math.isfinite(loss) and math.isfinite(size)) or loss == 0 or size == 0:
        raise WorkbookError(
            f"copies: the loss is {loss}, its gradient has norm {size}; both must be finite and"
            " above zero to be compared with those of the copies"
        )
    smallest = VANISHING * torch.finfo(dtype).eps * size
    names = [name for name in names if _norm(gradient, [name]) > smallest]
    return Duplication(
        k,
        dtype,
        abs(copied_loss - loss) / abs(loss),
        relative_error(copied, gradient, names),
        {name: relative_error(copied, gradient, [name]) for name in names},
        tuple(name for name in gradient if name not in names),
    )


def _total(opened: OpenSubject, model: nn.Module, batch: Batch) -> tuple[float, Named]:
    """The total without dropout, and its gradient."""
    return _with_gradient(model, opened.losses(model, batch)["total"])


def _with_gradient(model: nn.Module, total: Tensor) -> tuple[float, Named]:
    """A loss and its gradient by parameter name; a parameter that it does not reach has zeros."""
    named = dict(all_parameters(model))
    gradient = torch.autograd.grad(
        total, list(named.values()), allow_unused=True, materialize_grads=True
    )
    return float(total.detach()), dict(zip(named, gradient, strict=True))


@dataclass(frozen=True)
class GradientNoise:
    """Gradients of k copies of a batch over several draws of the dropout masks."""

    k: int
    draws: int
    deviation: float  # root mean squared distance of a draw from the mean of all
    mean: dict[str, Tensor]  # fp64, by parameter name, key biases left out

    @property
    def mean_norm(self) -> float:
        """Norm of the true mean gradient: the noise that the mean of few draws still has is taken
        off.
        """
        square = _norm(self.mean, self.mean) ** 2
        return max(square - self.deviation**2 / self.draws, square / self.draws) ** 0.5

    @property
    def relative(self) -> float:
        """Standard deviation of the gradient over its norm."""
        return self.deviation / self.mean_norm


def measure_gradient_noise(
    opened: OpenSubject, k: int, draws: int, dropout: float = 0.1
) -> GradientNoise:
    """The spread of the gradient of k copies over `draws` seeded draws of dropout with probability
    `dropout` in every dropout module.

    Works on a fresh model, in its own precision; the caller's random state stays as it was. No two
    draws, of one k or of two, share their masks. Raises NotMeasured without `Subject.duplicate`,
    WorkbookError for fewer than two draws, and for a gradient that is not finite.
    """
    duplicate = required(opened, "duplicate")
    if draws < 2:
        raise WorkbookError(f"draws = {draws}, but a spread needs two or more")
    noisy = with_dropout(opened.build(), dropout).train()
    copies = duplicate(opened.batch, k)
    total: Named = {}
    squares = 0.0
    with torch.random.fork_rng():
        for draw in range(draws):
            torch.manual_seed(1_000_003 * (1000 * opened.seed + k) + draw)
            terms = opened.subject.losses(noisy, copies)
            _, gradient = _with_gradient(noisy, terms["total"])
            names = comparable(gradient)
            for name in names:
                tensor = gradient[name].double()
                total[name] = total[name] + tensor if name in total else tensor
            squares += _norm(gradient, names) ** 2
    mean = {name: tensor / draws for name, tensor in total.items()}
    variance = (squares - draws * _norm(mean, mean) ** 2) / (draws - 1)
    if not math.isfinite(variance):
        raise WorkbookError(
            f"copies with dropout {dropout:g}: a gradient is not finite; compare one step without"
            " dropout, and check the input mels for NaN"
        )
    return GradientNoise(k, draws, max(variance, 0.0) ** 0.5, mean)


def standard_errors_apart(a: GradientNoise, b: GradientNoise) -> float:
    """Distance of two mean gradients over its own standard error: about 1 where both estimate the
    same mean.
    """
    apart = _norm({name: a.mean[name] - b.mean[name] for name in a.mean}, a.mean)
    error = (a.deviation**2 / a.draws + b.deviation**2 / b.draws) ** 0.5
    return 0.0 if apart == 0 else apart / max(error, 1e-300)


def noise_exponent(noises: Mapping[int, float]) -> float:
    """Slope of log noise against log k by least squares; -0.5 where the noise falls as 1/sqrt(k).

    `noises`: k -> relative noise. Raises WorkbookError for fewer than two k and for noise that is
    not above zero.
    """
    if len(noises) < 2 or min(noises.values()) <= 0:
        raise WorkbookError(
            f"noise by k = {dict(noises)}, but a slope needs two k or more and noise above zero"
        )
    x = torch.tensor(list(noises.keys()), dtype=torch.float64).log()
    y = torch.tensor(list(noises.values()), dtype=torch.float64).log()
    x, y = x - x.mean(), y - y.mean()
    return float((x * y).sum() / x.square().sum())


def _norm(tensors: Mapping[str, Tensor], names: Iterable[str]) -> float:
    """Euclidean norm over the tensors in `names`."""
    return tensors_norm([tensors[name] for name in names])


def beside_rounding(opened: OpenSubject, single: Mapping[int, Duplication]) -> Equivalence:
    """fp32 measurements by k, held to the subject's own rounding floor instead of a fixed bar."""
    changes = {k: Difference(one.loss, one.gradient) for k, one in single.items()}
    return Equivalence(changes, compare_batches(opened, {}, "duplicate").floor)
