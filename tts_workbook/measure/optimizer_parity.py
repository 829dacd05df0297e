"""What stands around the gradient in a step: AdamW, the clip, clearing, and the precision of the
stop loss.
"""

from __future__ import annotations

import copy
import functools
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tts_core.config import ExperimentConfig, OptimizerConfig
from tts_core.errors import WorkbookError
from tts_core.model.modes import evaluating
from tts_core.model.tts import TTSModel
from tts_core.speech.batch import Batch
from tts_core.training.loop import fit
from tts_core.training.losses import losses
from tts_core.training.state import start_training
from tts_workbook.measure.step_parity import AnyModel, comparable, relative_error, without_clip
from tts_workbook.measure.supply import own_parts
from tts_workbook.subject.opened import OpenSubject
from tts_workbook.subject.tensor_math import tensors_norm

question = "Do clip, clearing, AdamW and the precision of the stop loss change what a step does?"

CLIP_STEPS = 30

Clearing = Literal["none", "zeros", "nothing"]


@dataclass(frozen=True)
class ShortRun:
    """Some steps on a copy of a model."""

    mel: list[float]  # mel loss of each step, model units, before its update
    gradient_norm: list[float]  # before the clip
    model: TTSModel  # as the steps left it


def short_run(
    model: TTSModel,
    batch: Batch,
    experiment: ExperimentConfig,
    steps: int,
    clearing: Clearing = "none",
) -> ShortRun:
    """Train a copy of `model` for `steps` steps through THE train step.

    `clearing` says what stands between two steps: "none" sets gradients to None (the step's own
    way), "zeros" fills them with zeros, "nothing" lets them pile up, which is a defect and the
    control that such a comparison sees one.
    """
    training = start_training(
        experiment, copy.deepcopy(model), str(next(model.parameters()).device)
    )
    optimizer = training.optimizer
    replacement = None
    if clearing == "zeros":
        replacement = functools.partial(_fill_with_zeros, optimizer)
    elif clearing == "nothing":
        replacement = functools.partial(_leave, optimizer)
    elif clearing != "none":
        raise WorkbookError(f"clearing = {clearing!r}, but it must be 'none', 'zeros' or 'nothing'")
    if replacement is not None:
        vars(optimizer)["zero_grad"] = replacement  # what the step calls
    fit(training, batch, until=steps)
    return ShortRun(
        [report["mel"] for report in training.history],
        [report["gradient_norm"] for report in training.history],
        training.model,
    )


def _fill_with_zeros(optimizer: torch.optim.Optimizer, set_to_none: bool = True) -> None:
    type(optimizer).zero_grad(optimizer, set_to_none=False)


def _leave(optimizer: torch.optim.Optimizer, set_to_none: bool = True) -> None:
    """Gradients stay where they are, and pile up."""


def measure_clip_runs(opened: OpenSubject, steps: int = CLIP_STEPS) -> dict[str, ShortRun]:
    """Some steps of a preset from one start: with the clip, without it, and with the clip from
    weights that are off by a rounding. Raises NotMeasured for any other subject, whose clip is
    inside its step.
    """
    model, batch, experiment = own_parts(opened)
    return {
        "clip 1.0": short_run(model, batch, experiment, steps),
        "no clip": short_run(model, batch, without_clip(experiment), steps),
        "clip 1.0, nudged": short_run(nudged(model), batch, experiment, steps),
    }


def measure_clearing(
    model: TTSModel, batch: Batch, experiment: ExperimentConfig
) -> dict[str, float]:
    """Distance of the weights after 3 steps from those of the step's own way to clear gradients:
    "zeros" fills them with zeros, "nothing" lets them pile up (the control).
    """
    own = short_run(model, batch, experiment, 3).model
    ways: tuple[Clearing, ...] = ("zeros", "nothing")
    return {
        way: weight_difference(short_run(model, batch, experiment, 3, way).model, own)
        for way in ways
    }


def nudged(model: AnyModel, size: float = 1e-6) -> AnyModel:
    """A copy of `model`, every weight multiplied by 1 ± `size`: the control for how far two alike
    runs drift apart.
    """
    generator = torch.Generator().manual_seed(0)
    model = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in model.parameters():
            signs = torch.randint(0, 2, parameter.shape, generator=generator) * 2 - 1
            parameter.mul_(1 + size * signs.to(parameter))
    return model


def gap_over_progress(run: ShortRun, reference: ShortRun) -> float:
    """Largest distance of two mel curves over the reference's largest fall, the same start
    assumed.
    """
    fall = max(reference.mel[0] - min(reference.mel), 1e-12)
    return max(abs(a - b) for a, b in zip(run.mel, reference.mel, strict=True)) / fall


def weight_difference(model: nn.Module, reference: nn.Module) -> float:
    """Norm of the difference of all weights but key biases over their norm."""
    a, b = ({name: p.detach() for name, p in one.named_parameters()} for one in (model, reference))
    return relative_error(a, b, comparable(a))


def adamw_error(
    model: TTSModel, batch: Batch, experiment: ExperimentConfig, steps: int = 3
) -> float:
    """Distance of the optimiser's updates from AdamW as published (Loshchilov & Hutter 2019), over
    their norm.

    The gradients of `steps` real steps are recorded and given to the formula in fp64, with
    decoupled weight decay; the sums of all updates are compared, without key biases.
    """
    copied = copy.deepcopy(model)
    training = start_training(experiment, copied, str(next(model.parameters()).device))
    seen: list[dict[str, Tensor]] = []

    def keep(*_: Any) -> None:
        named = copied.named_parameters()
        seen.append(
            {name: p.grad.detach().double().clone() for name, p in named if p.grad is not None}
        )

    training.optimizer.register_step_pre_hook(keep)
    fit(training, batch, until=steps)
    starts = {name: p.detach().double() for name, p in model.named_parameters()}
    ours = {name: p.detach().double() - starts[name] for name, p in copied.named_parameters()}
    formula = {}
    for name, start in starts.items():
        gradients = [gradient[name] for gradient in seen]
        formula[name] = published_adamw(start, gradients, experiment.optimizer) - start
    return relative_error(ours, formula, comparable(formula))


def published_adamw(weight: Tensor, gradients: list[Tensor], options: OptimizerConfig) -> Tensor:
    """`weight` after one AdamW step per gradient, written out: decoupled decay, bias-corrected
    moments.
    """
    first, second = torch.zeros_like(weight), torch.zeros_like(weight)
    for step, gradient in enumerate(gradients, start=1):
        first = options.betas[0] * first + (1 - options.betas[0]) * gradient
        second = options.betas[1] * second + (1 - options.betas[1]) * gradient.square()
        corrected = first / (1 - options.betas[0] ** step)
        root = (second / (1 - options.betas[1] ** step)).sqrt()
        decayed = weight * (1 - options.lr * options.weight_decay)
        weight = decayed - options.lr * corrected / (root + options.eps)
    return weight


@dataclass(frozen=True)
class StopPrecision:
    """The stop loss computed in 16 bits beside fp32, from the same logits."""

    fp32: float  # BCE, nats
    low: float  # the same in 16 bits
    logit_gradient: float  # relative error of its gradient at the logits
    # change of the total loss's gradient at all weights, over that gradient's norm
    whole_gradient: float

    @property
    def loss_error(self) -> float:
        return abs(self.low - self.fp32) / max(self.fp32, 1e-30)


def measure_stop_precision(
    model: TTSModel, batch: Batch, experiment: ExperimentConfig, dtype: torch.dtype
) -> StopPrecision:
    """Compute the stop BCE of `batch` in `dtype` throughout, as a step without the fp32 rule would
    (eval mode).
    """
    with evaluating(model, gradients=True):
        output = model(batch)
        weights = list(model.parameters())
        whole = torch.autograd.grad(losses(model, batch, experiment.loss)["total"], weights)
        values, at_logits = {}, {}
        for kind in (torch.float32, dtype):
            logits = output.stop_logits.detach().to(kind).requires_grad_()
            values[kind] = _stop_bce(logits, batch, experiment.loss.stop_positive_weight)
            at_logits[kind] = torch.autograd.grad(values[kind], logits)[0].float()
        error = at_logits[dtype] - at_logits[torch.float32]
        apart = experiment.loss.stop_weight * error
        moved = torch.autograd.grad(
            output.stop_logits,
            weights,
            grad_outputs=apart.to(output.stop_logits),
            allow_unused=True,
            materialize_grads=True,
        )
    return StopPrecision(
        float(values[torch.float32].detach()),
        float(values[dtype].detach()),
        float(error.norm() / at_logits[torch.float32].norm()),
        tensors_norm(moved) / tensors_norm(whole),
    )


def _stop_bce(logits: Tensor, batch: Batch, positive_weight: float) -> Tensor:
    """Mean BCE over valid frames in the precision of the logits (B, T)."""
    frames = torch.arange(logits.shape[1], device=logits.device)
    target = (frames == batch.mel_lengths[:, None] - 1).to(logits)
    return F.binary_cross_entropy_with_logits(
        logits[batch.mel_mask],
        target[batch.mel_mask],
        pos_weight=torch.tensor(positive_weight).to(logits),
    )
