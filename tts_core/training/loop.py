"""`fit`: repeat the train step, report every step, stop and go on exactly (from
`load_training(path, start_training(...))`).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

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
    experiment, model = training.experiment, training.model
    device = next(model.parameters()).device
    precision = choose_precision(experiment.fit.precision, device)
    source = batches if callable(batches) else lambda step: batches
    model.train()
    running = torch.compile(model, mode="reduce-overhead", dynamic=False) if compiled else model
    on_cuda = device.type == "cuda"
    with torch.random.fork_rng(devices=[device] if on_cuda else []):
        torch.set_rng_state(training.rng_state)
        if on_cuda:
            torch.cuda.set_rng_state(training.cuda_rng_state, device)
        while training.step < (experiment.fit.steps if until is None else until):
            step_batches = source(training.step)
            step_batches = [step_batches] if isinstance(step_batches, Batch) else step_batches
            report = train_step(
                running,
                training.optimizer,
                [batch.to(device) for batch in step_batches],
                experiment.loss,
                precision,
                training.scaler,
                experiment.optimizer.clip_norm,
            )
            training.history.append(report.to_dict())
            training.rng_state = torch.get_rng_state()
            training.cuda_rng_state = torch.cuda.get_rng_state(device) if on_cuda else None
            if on_step is not None and on_step(training.step, report):
                break
    if checkpoint is not None:
        save_training(checkpoint, training)
    return training
