"""`fit`: repeat the train step, report every step, stop and go on exactly (from
`load_training(path, start_training(...))`).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import cast

import torch
from torch import nn

from tts_core.speech.batch import Batch
from tts_core.training.checkpoint import save_training
from tts_core.training.precision import choose_precision
from tts_core.training.state import Training
from tts_core.training.step import StepReport, train_step

BatchSource = Batch | Callable[[int], Batch | list[Batch]]


def fit(
    training: Training,
    batches: BatchSource,
    *,
    until: int | None = None,
    on_step: Callable[[int, StepReport], bool | None] | None = None,
    checkpoint: Path | None = None,
    compiled: bool = False,
) -> Training:
    """Train until `until` steps (default: the experiment's) have been made since the start, and
    return `training`.

    `batches` is one batch, or a function of the step that gives the batch (or micro-batches) of
    that step: data order is then part of the step number, and stopping at N and resuming equals not
    stopping, bitwise on CPU. `on_step` gets the 1-based step and its report; returning True stops
    after that step and leaves a usable model. With `checkpoint` the state is saved there
    (atomically) when the last step is done or `on_step` has stopped the run, not after an
    exception. `compiled` runs the model through `torch.compile` (on CUDA as CUDA graphs: with small
    batches the launches, not the work, take the time); last digits differ.
    """
    experiment = training.experiment
    last_step = experiment.fit.steps if until is None else until
    device = next(training.model.parameters()).device
    precision = choose_precision(experiment.fit.precision, device)
    training.model.train()
    model = _compiled(training.model) if compiled else training.model

    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        _restore_random_state(training, device)
        while training.step < last_step:
            report = train_step(
                model,
                training.optimizer,
                _batches_of(batches, training.step, device),
                experiment.loss,
                precision,
                training.scaler,
                experiment.optimizer.clip_norm,
            )
            training.history.append(report.to_dict())
            _keep_random_state(training, device)
            if on_step is not None and on_step(training.step, report):
                break
    if checkpoint is not None:
        save_training(checkpoint, training)
    return training


def _compiled(model: nn.Module) -> nn.Module:
    return cast(nn.Module, torch.compile(model, mode="reduce-overhead", dynamic=False))


def _batches_of(source: BatchSource, step: int, device: torch.device) -> list[Batch]:
    """The micro-batches of the 0-based `step`, on `device`."""
    batches = source(step) if callable(source) else source
    if isinstance(batches, Batch):
        batches = [batches]
    return [batch.to(device) for batch in batches]


def _restore_random_state(training: Training, device: torch.device) -> None:
    torch.set_rng_state(training.rng_state)
    if device.type == "cuda" and training.cuda_rng_state is not None:
        torch.cuda.set_rng_state(training.cuda_rng_state, device)


def _keep_random_state(training: Training, device: torch.device) -> None:
    training.rng_state = torch.get_rng_state()
    if device.type == "cuda":
        training.cuda_rng_state = torch.cuda.get_rng_state(device)
    else:
        training.cuda_rng_state = None
