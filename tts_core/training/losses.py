"""Losses: pure functions of predictions, targets and lengths that return sum and count.

Shapes: B batch, N phonemes, T frames, M mel bins. Nothing is clamped, filtered, detached or masked
by value.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from tts_core.config import LossConfig
from tts_core.model.tts import Output, TTSModel
from tts_core.speech.batch import Batch, lengths_to_mask

# the count stays on its device too: reading it back would make a GPU wait
SumCount = tuple[Tensor, Tensor]


def at_least_fp32(x: Tensor) -> Tensor:
    """What autocast left in 16 bits goes to fp32; fp32 and fp64 stay."""
    if x.dtype in (torch.bfloat16, torch.float16):
        return x.float()
    return x


def masked_l1(prediction: Tensor, target: Tensor, lengths: Tensor) -> SumCount:
    """Absolute error over valid frames and all bins: (B, T, M) twice, (B,) -> sum, number of
    values; fp32.
    """
    mask = lengths_to_mask(lengths, target.shape[1])[..., None]
    error = (at_least_fp32(prediction) - at_least_fp32(target)).abs()
    return error.masked_fill(~mask, 0.0).sum(), lengths.sum() * target.shape[2]


def masked_mse(prediction: Tensor, target: Tensor, lengths: Tensor) -> SumCount:
    """Squared error over valid positions: (B, N) twice, (B,) -> sum, number of values; fp32."""
    mask = lengths_to_mask(lengths, target.shape[1])
    error = (at_least_fp32(prediction) - at_least_fp32(target)).square()
    return error.masked_fill(~mask, 0.0).sum(), lengths.sum()


def masked_stop_bce(logits: Tensor, lengths: Tensor, positive_weight: float = 1.0) -> SumCount:
    """Binary cross-entropy of the stop head, always in fp32: logits (B, T), (B,) -> sum, number of
    frames.

    The one positive frame of a clip is its last; `positive_weight` multiplies its term.
    """
    frames = torch.arange(logits.shape[1], device=logits.device)
    logits = at_least_fp32(logits)
    is_last = (frames == lengths[:, None] - 1).to(logits)
    weight = torch.tensor(positive_weight).to(logits)
    with torch.autocast(logits.device.type, enabled=False):
        error = F.binary_cross_entropy_with_logits(
            logits, is_last, reduction="none", pos_weight=weight
        )
    mask = lengths_to_mask(lengths, logits.shape[1])
    return error.masked_fill(~mask, 0.0).sum(), lengths.sum()


@dataclass(frozen=True)
class LossSums:
    """Sums and counts of each term over one batch; sums add up over micro-batches, means do not."""

    mel: SumCount  # L1 in model units: what is optimised
    mel_l1: SumCount  # L1 in ln units: what is reported beside the baselines
    duration: SumCount  # MSE of log1p frames
    stop: SumCount  # BCE in nats

    def total(self, config: LossConfig, counts: Counts) -> Tensor:
        """The optimised quantity: weighted means, with the counts of the whole optimiser step."""
        mel = self.mel[0] / counts.mel
        duration = config.duration_weight * self.duration[0] / counts.duration
        stop = config.stop_weight * self.stop[0] / counts.stop
        return mel + duration + stop


@dataclass(frozen=True)
class Counts:
    """How many values each mean runs over, known from the batches before any forward pass."""

    mel: int
    duration: int
    stop: int

    @classmethod
    def of(cls, batches: list[Batch]) -> Counts:
        frames = sum(int(batch.mel_lengths.sum()) for batch in batches)
        phonemes = sum(int(batch.phoneme_lengths.sum()) for batch in batches)
        return cls(mel=frames * batches[0].mel.shape[2], duration=phonemes, stop=frames)


def loss_sums(output: Output, batch: Batch, model: TTSModel, config: LossConfig) -> LossSums:
    """Every term for one batch; the mel target is standardised by the model's own normaliser."""
    model_mel = model.normaliser.normalise(batch.mel)
    log_durations = batch.durations.to(batch.mel.dtype).log1p()
    return LossSums(
        mel=masked_l1(output.model_mel, model_mel, batch.mel_lengths),
        mel_l1=masked_l1(output.mel.detach(), batch.mel, batch.mel_lengths),
        duration=masked_mse(output.log_durations, log_durations, batch.phoneme_lengths),
        stop=masked_stop_bce(output.stop_logits, batch.mel_lengths, config.stop_positive_weight),
    )


def losses(model: TTSModel, batch: Batch, config: LossConfig | None = None) -> dict[str, Tensor]:
    """Mean of each term for one batch, as a mapping: `mel`, `duration`, `stop`, `total`, and
    `mel_l1` in ln units.
    """
    if config is None:
        config = LossConfig()
    sums = loss_sums(model(batch), batch, model, config)
    return {
        "mel": sums.mel[0] / sums.mel[1],
        "duration": sums.duration[0] / sums.duration[1],
        "stop": sums.stop[0] / sums.stop[1],
        "mel_l1": sums.mel_l1[0] / sums.mel_l1[1],
        "total": sums.total(config, Counts.of([batch])),
    }
