"""A training in progress: the model and everything needed to go on from here."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

from tts_core.config import ExperimentConfig
from tts_core.model.tts import TTSModel
from tts_core.training.precision import choose_precision


@dataclass
class Training:
    """A model being trained and everything needed to go on from here."""

    experiment: ExperimentConfig
    model: TTSModel
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    rng_state: torch.Tensor  # of the CPU generator that dropout draws from
    cuda_rng_state: torch.Tensor | None = None
    history: list[dict[str, Any]] = field(
        default_factory=list
    )  # one StepReport per step, as a mapping
    # what it was trained on: JSON values, kept in the checkpoint
    notes: dict[str, Any] = field(default_factory=dict)

    @property
    def step(self) -> int:
        return len(self.history)


def start_training(experiment: ExperimentConfig, model: TTSModel, device: str = "cpu") -> Training:
    """A fresh AdamW, loss scaler and dropout stream for `model`, which moves to `device`."""
    options = experiment.optimizer
    model = model.to(device)
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=options.lr,
        weight_decay=options.weight_decay,
        betas=options.betas,
        eps=options.eps,
        fused=True,
    )
    on_cuda = device.startswith("cuda")
    with torch.random.fork_rng(devices=[device] if on_cuda else []):
        torch.manual_seed(experiment.fit.seed)
        rng_state = torch.get_rng_state()
        cuda_state = torch.cuda.get_rng_state(device) if on_cuda else None
    scaler = choose_precision(experiment.fit.precision, device).scaler()
    return Training(experiment, model, optimizer, scaler, rng_state, cuda_state)
