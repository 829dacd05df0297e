"""Clips out of the tensors that somebody has: ids, mels, and what else there is.

Shapes: N text positions, T frames, M mel bins, L samples. A clip made here has no recording behind
it unless audio is given; what was not given is left out of the Subject.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tts_core.speech.alignment import uniform_durations
from tts_core.speech.dataset import Clip
from tts_workbook.subject.clip_batch import ClipBatch, ProsodyClip
from tts_workbook.subject.clip_data import ClipData, Parts
from tts_workbook.subject.subject import Subject, SubjectError

Audio = Sequence[tuple[np.ndarray, int]]  # (samples, Hz) of each clip
Optimizer = Callable[[nn.Module], torch.optim.Optimizer]


def own_clips(
    ids: Sequence[Tensor],
    mel: Sequence[Tensor],
    durations: Sequence[Tensor] | None = None,
    audio: Audio | None = None,
) -> list[Clip]:
    """Clips of ids (N,), mels (T, M), durations (N,) in frames and audio, one of each for a clip.

    Where no durations are given, the frames are shared out evenly: `ClipBatch` needs some. Raises
    SubjectError where the numbers of clips, frames or positions do not agree.
    """
    clips = []
    for number, (row, frames) in enumerate(zip(ids, mel, strict=True)):
        if row.ndim != 1 or frames.ndim != 2:
            seen = f"clip {number} has ids {tuple(row.shape)} and mel {tuple(frames.shape)}"
            raise SubjectError("batch", seen, "ids (N,) and mel (T, M) for each clip")
        counts = (
            uniform_durations(len(row), len(frames)) if durations is None else durations[number]
        )
        if len(counts) != len(row):
            seen = f"clip {number} has {len(row)} ids and {len(counts)} durations"
            raise SubjectError("batch", seen, "one duration in frames for each id")
        samples, rate = (np.zeros(0, np.float32), 0) if audio is None else audio[number]
        clips.append(
            Clip(
                id=f"clip {number}",
                text="",
                language="",
                phonemes=tuple(str(symbol) for symbol in row.tolist()),
                phoneme_ids=row.cpu().numpy().astype(np.int64),
                durations=np.asarray(counts, dtype=np.int64),
                mel=frames.detach().cpu().float(),
                samples=samples,
                sample_rate=rate,
                path=Path(),
                sound=hashlib.sha256(samples.tobytes()).hexdigest()[:12],
                alignment="uniform",
            )
        )
    return clips


def told_clips(
    clips: Sequence[Clip], pitch: Sequence[Tensor], energy: Sequence[Tensor]
) -> list[ProsodyClip]:
    """The clips with pitch and energy (N,) of each, in the units that the model is trained with."""
    told: list[ProsodyClip] = []
    for clip, tone, loudness in zip(clips, pitch, energy, strict=True):
        given = {"pitch": tone, "energy": loudness}
        fields: dict[str, Any] = {
            name: np.asarray(row, dtype=np.float32) for name, row in given.items()
        }
        for name, row in fields.items():
            if row.shape != clip.durations.shape:
                seen = f"{clip.id}: {name} of {row.shape} for {len(clip.durations)} ids"
                raise SubjectError("batch", seen, f"one {name} for each id, (N,)")
        told.append(ProsodyClip(**vars(clip), **fields))
    return told


def own_data(clips: Sequence[Clip], batch_size: int | None = None) -> ClipData:
    """The clips as they are, in their own units: nothing is standardised here."""
    n_bins = clips[0].mel.shape[1]
    plain = Parts(statistics=lambda mels: (torch.zeros(n_bins), torch.ones(n_bins)))
    return ClipData.of(clips, batch_size or len(clips), seed=0, parts=plain)


def adamw(lr: float = 1e-3) -> Optimizer:
    """AdamW over all that is trained."""

    def make_optimizer(model: nn.Module) -> torch.optim.Optimizer:
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        return torch.optim.AdamW(trained, lr=lr)

    return make_optimizer


def last_frames(batch: ClipBatch) -> Tensor:
    """(B, T) 1 at each clip's last frame."""
    positions = torch.arange(batch.mel.shape[1], device=batch.mel.device)
    return (positions == batch.mel_lengths[:, None] - 1).float()


def supplied_alone(
    subject: Subject, device: str, checkpoint: Any, *, durations: bool, audio: bool
) -> Subject:
    """The subject on `device`, without the fields that nothing was given for."""
    missing = ["features", "vocode", "symbols"]
    if not durations:
        missing.append("durations")
    if not audio:
        missing.append("audio")
    absent: dict[str, Any] = dict.fromkeys(missing)
    return replace(subject, batch=subject.batch.to(device), checkpoint=checkpoint, **absent)
