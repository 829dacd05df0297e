"""THE train step: notebooks, tests, sweeps, real training and diagnosis all call this function."""

from __future__ import annotations

import math
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial

import torch
from torch import nn

from tts_core.config import LossConfig
from tts_core.errors import WorkbookError
from tts_core.speech.batch import Batch
from tts_core.training.distributed import bare_model, exchanging, n_processes, summed
from tts_core.training.losses import Counts, loss_sums
from tts_core.training.precision import Precision


@dataclass(frozen=True)
class StepReport:
    """What one optimiser step did. Losses are means over the valid values of the whole step, of all
    processes together.
    """

    mel: float  # L1, model units: the optimised term
    mel_l1: float  # L1, ln units: comparable with the baselines
    duration: float  # MSE of log1p frames
    stop: float  # BCE, nats
    total: float  # weighted sum that was optimised
    gradient_norm: float  # global, unscaled, before the clip
    clipped: bool  # whether the clip changed the gradient
    skipped: bool  # the loss scaler found overflowing gradients and left the weights alone
    loss_scale: float  # of this step; 1.0 without a scaler
    valid_frames: int

    def to_dict(self) -> dict:
        return asdict(self)


def train_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: Batch | list[Batch],
    config: LossConfig,
    precision: Precision,
    scaler: torch.amp.GradScaler,
    clip_norm: float | None = 1.0,
) -> StepReport:
    """One optimiser step over one batch or several micro-batches (accumulated: equal to one big
    batch).

    autocast -> losses in fp32 -> scale -> backward -> raise on non-finite -> unscale -> clip ->
    step -> update -> zero_grad(set_to_none=True). Raises WorkbookError naming the module whose
    output, or the parameter whose gradient, first became non-finite; with a loss scaler an
    overflowing gradient skips the step instead, as it is meant to.

    A model inside DDP is stepped by all its processes at once, each with as many micro-batches of
    its own: equal to one process with all of them, whatever their lengths, since every loss is
    divided by the counts of all.
    """
    batches = [batches] if isinstance(batches, Batch) else batches
    counts = Counts(*map(int, summed(list(vars(Counts.of(batches)).values()), model)))
    bare, loss_scale, values = bare_model(model), scaler.get_scale(), []
    for index, batch in enumerate(batches):
        with exchanging(model, last=index == len(batches) - 1):
            with precision.autocast():
                terms = loss_sums(model(batch), batch, bare, config)
                total = terms.total(config, counts)
            scaler.scale(total * n_processes(model)).backward()
        values.append(
            torch.stack(
                [terms.mel[0], terms.mel_l1[0], terms.duration[0], terms.stop[0], total]
            ).detach()
        )
    values = torch.stack(values).tolist()  # read back once: each reading makes a GPU wait
    sums = dict(
        zip(
            ("mel", "mel_l1", "duration", "stop", "total"), summed([*map(sum, zip(*values))], model)
        )
    )
    # the same in every process, so that none waits for another
    if not math.isfinite(sums["total"]):
        optimizer.zero_grad(set_to_none=True)
        broken = [batch for batch, row in zip(batches, values) if not math.isfinite(row[-1])]
        reason = (
            non_finite_reason(bare, broken[0], precision)
            if broken
            else (
                "the loss of another process is not finite, of this one it is: the message of that"
                " process names clips and module"
            )
        )
        # until each knows its reason: a launcher ends all processes with the first that ends
        summed([0.0], model)
        raise WorkbookError(reason)
    norm, clipped = step_optimizer(bare, optimizer, scaler, clip_norm)
    return StepReport(
        mel=sums["mel"] / counts.mel,
        mel_l1=sums["mel_l1"] / counts.mel,
        duration=sums["duration"] / counts.duration,
        stop=sums["stop"] / counts.stop,
        total=sums["total"],
        gradient_norm=norm,
        clipped=clipped,
        skipped=scaler.get_scale() < loss_scale,
        loss_scale=loss_scale,
        valid_frames=counts.stop,
    )


def step_optimizer(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    clip_norm: float | None,
) -> tuple[float, bool]:
    """unscale -> clip -> step -> update -> zero_grad, from the gradients there are: (norm before
    the clip, clipped?).

    Raises WorkbookError naming the first parameter whose gradient is not finite, unless a loss
    scaler is there to skip.
    """
    scaler.unscale_(optimizer)
    norm = nn.utils.get_total_norm(p.grad for p in model.parameters() if p.grad is not None)
    if not scaler.is_enabled() and not torch.isfinite(norm):
        raise_non_finite_gradient(model)
    clipped = clip_norm is not None and bool(norm > clip_norm)
    if clipped:
        nn.utils.clip_grads_with_norm_(model.parameters(), clip_norm, norm)
    scaler.step(optimizer)
    scaler.update()
    optimizer.zero_grad(set_to_none=True)
    return float(norm), clipped


def non_finite_reason(model: nn.Module, batch: Batch, precision: Precision) -> str:
    """Run the forward pass again, watching every module, and say which output is the first that is
    not finite.
    """
    found: list[str] = []

    def watch(name, module, inputs, output):
        if isinstance(output, torch.Tensor) and not torch.isfinite(output).all():
            found.append(f"{name} ({type(module).__name__})")

    with ExitStack() as watching, torch.no_grad(), precision.autocast():
        for name, module in model.named_modules():
            watching.enter_context(module.register_forward_hook(partial(watch, name)))
        model(batch)
    where = (
        f"the first non-finite output is that of module {found[0]}"
        if found
        else "every module's output is finite: look at the targets"
    )
    return (
        f"the loss of batch {', '.join(batch.ids[:4])} is not finite in {precision.name}; {where}. "
        "Compare one step in fp32, check the input mels for NaN, and lower the learning rate"
    )


def raise_non_finite_gradient(model: nn.Module) -> None:
    """Raise WorkbookError naming the first parameter, in module order, with a non-finite
    gradient.
    """
    names = [
        name
        for name, p in model.named_parameters()
        if p.grad is not None and not torch.isfinite(p.grad).all()
    ]
    where = (
        f"the gradient of {names[0]} is not ({len(names)} parameters affected)"
        if names
        else "the norm of the gradient overflows, though each of its elements is finite"
    )
    raise WorkbookError(f"the loss is finite but {where}; nothing was updated")
