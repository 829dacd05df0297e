"""Teacher-forced against free-running error: the headline gap.

Shapes: B batch, T frames, M mel bins. Errors are mean absolute differences in ln units over valid
frames.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from tts_core.model.generation import free_run
from tts_core.model.modes import evaluating
from tts_core.model.tts import TTSModel
from tts_core.speech.batch import Batch
from tts_core.training.losses import masked_l1


def l1_over_frames(mel: Tensor, target: Tensor, lengths: Tensor) -> float:
    """L1 of mel (B, T', M) against target (B, T, M) over the valid frames, lengths (B,), that both
    have; in their unit. NaN where they share none.
    """
    n_frames = min(mel.shape[1], target.shape[1])
    lengths = lengths.to(target.device).clamp(max=n_frames)
    total, count = masked_l1(mel[:, :n_frames], target[:, :n_frames], lengths)
    return float(total) / int(count) if count else math.nan


def mel_l1(mel: Tensor, batch: Batch) -> float:
    """L1 between mel (B, T, M) and the batch's, ln units, valid frames only."""
    return l1_over_frames(mel, batch.mel, batch.mel_lengths)


@dataclass(frozen=True)
class Gap:
    """Errors and mels of one model on one batch; tensors on the CPU."""

    tf_l1: float  # ln units
    fr_l1: float  # ln units
    tf_mel: Tensor  # (B, T, M)
    fr_mel: Tensor  # (B, T, M)
    tf_error_per_frame: Tensor  # (T,) mean over bins and clips
    fr_error_per_frame: Tensor  # (T,)


def measure_gap(model: TTSModel, batch: Batch, layout: str | None = None) -> Gap:
    """Both errors of `model` on `batch` in eval mode; `layout` overrides the history layout of
    generation.
    """
    with evaluating(model):
        tf_mel = model(batch).mel
    fr_mel = free_run(model, batch, layout=layout).mel
    return Gap(
        tf_l1=mel_l1(tf_mel, batch),
        fr_l1=mel_l1(fr_mel, batch),
        tf_mel=tf_mel.cpu(),
        fr_mel=fr_mel.cpu(),
        tf_error_per_frame=_per_frame(tf_mel, batch).cpu(),
        fr_error_per_frame=_per_frame(fr_mel, batch).cpu(),
    )


def _per_frame(mel: Tensor, batch: Batch) -> Tensor:
    """(B, T, M) -> (T,): mean over bins and over the clips that have the frame."""
    mask = batch.mel_mask
    error = (mel - batch.mel).abs().mean(dim=2).masked_fill(~mask, 0.0)
    return error.sum(dim=0) / mask.sum(dim=0).clamp(min=1)
