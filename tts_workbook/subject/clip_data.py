"""A Subject's data fields from clips: batch, targets, text, durations, audio, features, vocoder.

`Parts` are what may be replaced: the mel term, the statistics, the extraction, the recipe. Shapes:
B batch, T frames, M mel bins, L samples.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tts_core.config import AudioConfig
from tts_core.speech.audio import griffin_lim, log_mel
from tts_core.speech.dataset import Clip
from tts_core.training.losses import masked_l1
from tts_workbook.subject import clip_batch
from tts_workbook.subject.clip_batch import ClipBatch, bin_statistics, gather

# prediction (B, T, M), target (B, T, M), lengths (B,) -> scalar
MelLoss = Callable[[Tensor, Tensor, Tensor], Tensor]
CLIP_NORM = 1.0


def mean_l1(prediction: Tensor, target: Tensor, lengths: Tensor) -> Tensor:
    """Mean absolute error over valid frames."""
    total, count = masked_l1(prediction, target, lengths)
    return total / count


def standard_mel(samples: np.ndarray, rate: int) -> Tensor:
    """(L,) at `rate` Hz -> (T, M) in the standard recipe, ln units."""
    return log_mel(samples, AudioConfig())


@dataclass(frozen=True)
class Parts:
    """What may be replaced of the data; the defaults are a sound recipe."""

    mel_loss: MelLoss = mean_l1
    # mels -> what targets are standardised by
    statistics: Callable[[list[Tensor]], tuple[Tensor, Tensor]] = bin_statistics
    # today's feature extraction, before standardisation
    extract: Callable[[np.ndarray, int], Tensor] = standard_mel
    # the recipe that the vocoder inverts
    audio: AudioConfig = field(default_factory=AudioConfig)


@dataclass(frozen=True)
class ClipData:
    """Clips in target units; the first `batch_size` are the batch, all of them the corpus."""

    clips: tuple[Clip, ...]
    batch_size: int
    seed: int  # of the order in which `batches` draws the corpus
    parts: Parts
    mean: Tensor  # (M,)
    std: Tensor  # (M,)

    @classmethod
    def of(cls, clips: Sequence[Clip], batch_size: int, seed: int, parts: Parts) -> ClipData:
        mean, std = parts.statistics([clip.mel for clip in clips])
        return cls(tuple(clips), batch_size, seed, parts, mean, std)

    @property
    def pad_value(self) -> float:
        """What mels are padded with, in their own units: digital silence of the recipe."""
        return self.parts.audio.silence

    def batch(self) -> ClipBatch:
        return gather(self.clips[: self.batch_size], self.pad_value)

    def normalise(self, mel: Tensor) -> Tensor:
        return (mel - self.mean.to(mel.device)) / self.std.to(mel.device)

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
                self.clips, self.batch_size, self.pad_value, self.seed
            ),
            duplicate=clip_batch.duplicate_clips,
            pad=clip_batch.pad,
            pad_text=clip_batch.pad_text,
            trim=clip_batch.trim,
            shuffle_text=clip_batch.shuffle_text,
            durations=clip_batch.durations,
            symbols=clip_batch.symbols,
            audio=clip_batch.audio,
            features=lambda samples, hertz: self.normalise(self.parts.extract(samples, hertz)),
            vocode=lambda mel: (griffin_lim(self.denormalise(mel), self.parts.audio), rate),
        )


def clipped_step(
    losses: Callable[[nn.Module, Any], Mapping[str, Tensor]], clip_norm: float | None = CLIP_NORM
):
    """(model, optimizer, batch) -> the values of the terms: zero, losses, backward,
    clip, step.
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
