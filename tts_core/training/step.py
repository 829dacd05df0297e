"""THE train step: notebooks, tests, sweeps, real training and diagnosis all call this function."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, NoReturn

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

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def train_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: Batch | Sequence[Batch],
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

    `model` is a TTSModel, bare, compiled or inside DDP. One inside DDP is stepped by all its
    processes at once, each with as many micro-batches of its own: equal to one process with all of
    them, whatever their lengths, since every loss is divided by the counts of all.
    """
    batches = [batches] if isinstance(batches, Batch) else list(batches)
    tts = bare_model(model)
    counts = _counts_of_all(batches, model)
    loss_scale = scaler.get_scale()

    measured = []  # (5,) for each micro-batch
    for index, batch in enumerate(batches):
        is_last = index == len(batches) - 1
        with exchanging(model, is_last):
            with precision.autocast():
                terms = loss_sums(model(batch), batch, tts, config)
                total = terms.total(config, counts)
            # DDP leaves the mean of the gradients of all processes, and their sum is wanted
            loss = scaler.scale(total * n_processes(model))
            loss.backward()  # type: ignore[no-untyped-call]  # torch gives it no types
        sums = (terms.mel[0], terms.mel_l1[0], terms.duration[0], terms.stop[0], total)
        measured.append(torch.stack(sums).detach())

    rows = torch.stack(measured).tolist()  # read back once: each reading makes a GPU wait
    own = [sum(column) for column in zip(*rows, strict=True)]
    mel, mel_l1, duration, stop, step_total = summed(own, model)
    # the same number in every process, so that none waits for another
    if not math.isfinite(step_total):
        optimizer.zero_grad(set_to_none=True)
        _raise_non_finite_loss(model, batches, [row[-1] for row in rows], precision)

    gradient_norm, clipped = step_optimizer(tts, optimizer, scaler, clip_norm)
    return StepReport(
        mel=mel / counts.mel,
        mel_l1=mel_l1 / counts.mel,
        duration=duration / counts.duration,
        stop=stop / counts.stop,
        total=step_total,
        gradient_norm=gradient_norm,
        clipped=clipped,
        skipped=scaler.get_scale() < loss_scale,
        loss_scale=loss_scale,
        valid_frames=counts.stop,
    )


def _counts_of_all(batches: list[Batch], model: nn.Module) -> Counts:
    """How many values each loss runs over in this step, of all processes together."""
    own = Counts.of(batches)
    mel, duration, stop = summed([own.mel, own.duration, own.stop], model)
    return Counts(int(mel), int(duration), int(stop))


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
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    norm = nn.utils.get_total_norm(gradients)
    if not scaler.is_enabled() and not torch.isfinite(norm):
        raise_non_finite_gradient(model)
    clipped = False
    if clip_norm is not None and norm > clip_norm:
        nn.utils.clip_grads_with_norm_(model.parameters(), clip_norm, norm)
        clipped = True
    scaler.step(optimizer)
    scaler.update()
    optimizer.zero_grad(set_to_none=True)
    return float(norm), clipped


# --- what went wrong ------------------------------------------------------------------------------


def _raise_non_finite_loss(
    model: nn.Module, batches: list[Batch], totals: list[float], precision: Precision
) -> NoReturn:
    """WorkbookError for the first micro-batch of this process whose total is not finite, or one
    that says to look at another process.
    """
    broken = [
        batch for batch, total in zip(batches, totals, strict=True) if not math.isfinite(total)
    ]
    if broken:
        reason = non_finite_reason(bare_model(model), broken[0], precision)
    else:
        reason = (
            "the loss of another process is not finite, of this one it is: the message of that"
            " process names clips and module"
        )
    # until each knows its reason: a launcher ends all processes with the first that ends
    summed([0.0], model)
    raise WorkbookError(reason)


def non_finite_reason(model: nn.Module, batch: Batch, precision: Precision) -> str:
    """Run the forward pass again, watching every module, and say which output is the first that is
    not finite.
    """
    found: list[str] = []

    def watch(name: str, module: nn.Module, inputs: Any, output: Any) -> None:
        if isinstance(output, torch.Tensor) and not torch.isfinite(output).all():
            found.append(f"{name} ({type(module).__name__})")

    with ExitStack() as watching, torch.no_grad(), precision.autocast():
        for name, module in model.named_modules():
            watching.enter_context(module.register_forward_hook(partial(watch, name)))
        model(batch)
    if found:
        where = f"the first non-finite output is that of module {found[0]}"
    else:
        where = "every module's output is finite: look at the targets"
    return (
        f"the loss of batch {', '.join(batch.ids[:4])} is not finite in {precision.name}; {where}. "
        "Compare one step in fp32, check the input mels for NaN, and lower the learning rate"
    )


def raise_non_finite_gradient(model: nn.Module) -> NoReturn:
    """Raise WorkbookError naming the first parameter, in module order, with a non-finite
    gradient.
    """
    names = [
        name
        for name, p in model.named_parameters()
        if p.grad is not None and not torch.isfinite(p.grad).all()
    ]
    if names:
        where = f"the gradient of {names[0]} is not ({len(names)} parameters affected)"
    else:
        where = "the norm of the gradient overflows, though each of its elements is finite"
    raise WorkbookError(f"the loss is finite but {where}; nothing was updated")
