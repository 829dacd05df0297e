"""What the benchmark's architectures share: one way to train, one mel term, and the parts that say
what the data are.

A plant changes one of the keywords of `Parts`, or one field of the finished Subject. Shapes: B
batch, T frames, M mel bins.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tts_core.config import AudioConfig
from tts_core.speech.audio import griffin_lim, log_mel
from tts_core.training.losses import masked_l1
from tts_workbook.planted.cases import Setting
from tts_workbook.subject import clip_batch
from tts_workbook.subject.clip_batch import ClipBatch, bin_statistics, gather

# prediction (B, T, M), target (B, T, M), lengths (B,) -> scalar
MelLoss = Callable[[Tensor, Tensor, Tensor], Tensor]
CLIP_NORM = 1.0
MOMENTUM = 0.9


def mean_l1(prediction: Tensor, target: Tensor, lengths: Tensor) -> Tensor:
    """Mean absolute error over valid frames."""
    total, count = masked_l1(prediction, target, lengths)
    return total / count


def standard_mel(samples: np.ndarray, rate: int) -> Tensor:
    """(L,) at `rate` Hz -> (T, M) in the standard recipe, ln units."""
    return log_mel(samples, AudioConfig())


@dataclass(frozen=True)
class Parts:
    """The keywords of a build: what a generic plant may replace in any architecture. The defaults
    are the clean twin.
    """

    mel_loss: MelLoss = mean_l1
    # mels -> what targets are standardised by
    statistics: Callable[[list[Tensor]], tuple[Tensor, Tensor]] = bin_statistics
    # today's feature extraction, before standardisation
    extract: Callable[[np.ndarray, int], Tensor] = standard_mel
    # the recipe that the vocoder inverts
    audio: AudioConfig = field(default_factory=AudioConfig)


@dataclass(frozen=True)
class Data:
    """The clips of a setting in target units."""

    setting: Setting
    parts: Parts
    mean: Tensor  # (M,)
    std: Tensor  # (M,)

    @classmethod
    def of(cls, setting: Setting, parts: Parts) -> Data:
        return cls(setting, parts, *parts.statistics([clip.mel for clip in setting.clips]))

    @property
    def pad_value(self) -> float:
        """What mels are padded with, in their own units: digital silence of the recipe."""
        return self.parts.audio.silence

    def batch(self) -> ClipBatch:
        return gather(self.setting.clips[: self.setting.batch_size], self.pad_value)

    def normalise(self, mel: Tensor) -> Tensor:
        return (mel - self.mean) / self.std

    def denormalise(self, mel: Tensor) -> Tensor:
        return mel * self.std + self.mean

    def target(self, batch: ClipBatch) -> tuple[Tensor, Tensor]:
        return self.normalise(batch.mel), batch.mel_lengths

    def fields(self) -> dict[str, Any]:
        """The fields of Subject that depend on the data alone."""
        rate = self.parts.audio.sample_rate
        return dict(
            batch=self.batch(),
            target_mel=self.target,
            batches=clip_batch.corpus_batches(
                self.setting.clips, self.setting.batch_size, self.pad_value, self.setting.seed
            ),
            duplicate=clip_batch.duplicate,
            pad=clip_batch.pad,
            trim=clip_batch.trim,
            shuffle_text=clip_batch.shuffle_text,
            durations=clip_batch.durations,
            symbols=clip_batch.symbols,
            audio=clip_batch.audio,
            features=lambda samples, hertz: self.normalise(self.parts.extract(samples, hertz)),
            vocode=lambda mel: (griffin_lim(self.denormalise(mel), self.parts.audio), rate),
        )


def make_optimizer(
    setting: Setting, default_lr: Mapping[str, float]
) -> Callable[[nn.Module], torch.optim.Optimizer]:
    """The optimiser of a setting over all trained parameters, with its warm-up; `default_lr` by
    optimiser.
    """

    def build(model: nn.Module) -> torch.optim.Optimizer:
        lr = default_lr[setting.optimizer] if setting.lr is None else setting.lr
        parameters = [p for p in model.parameters() if p.requires_grad]
        if setting.optimizer == "sgd":
            optimizer = torch.optim.SGD(parameters, lr=lr, momentum=MOMENTUM)
        elif setting.optimizer == "adam":
            optimizer = torch.optim.Adam(parameters, lr=lr)
        else:
            optimizer = torch.optim.AdamW(parameters, lr=lr, weight_decay=0.01)
        if setting.warmup:
            warm_up(optimizer, setting.warmup)
        return optimizer

    return build


def warm_up(optimizer: torch.optim.Optimizer, steps: int) -> None:
    """Scale each step's learning rate linearly from 1 / steps to 1; `lr` of the groups stays the
    nominal one.
    """

    def before(optimizer, args, kwargs):
        for group in optimizer.param_groups:
            group["nominal_lr"] = group["lr"]
            group["steps_done"] = group.get("steps_done", 0) + 1
            group["lr"] = group["lr"] * min(1.0, group["steps_done"] / steps)

    def after(optimizer, args, kwargs):
        for group in optimizer.param_groups:
            group["lr"] = group["nominal_lr"]

    optimizer.register_step_pre_hook(before)
    optimizer.register_step_post_hook(after)


def plain_step(
    losses: Callable[[nn.Module, Any], Mapping[str, Tensor]], clip_norm: float | None = CLIP_NORM
):
    """(model, optimizer, batch) -> the values of the terms: the training step of every clean
    twin.
    """

    def step(model: nn.Module, optimizer: torch.optim.Optimizer, batch: Any) -> dict[str, float]:
        optimizer.zero_grad(set_to_none=True)
        terms = losses(model, batch)
        terms["total"].backward()
        if clip_norm is not None:
            nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
        optimizer.step()
        return {name: float(term.detach()) for name, term in terms.items()}

    return step


def autocast(setting: Setting) -> AbstractContextManager:
    """bf16 autocast where the setting asks for it, else a context that leaves the caller's as it
    is.
    """
    return torch.autocast("cpu", dtype=torch.bfloat16) if setting.bf16 else nullcontext()
