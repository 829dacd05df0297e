"""Pitch and energy of real speech for models that are told them: one value for each phoneme.

Shapes: N phonemes, T frames, M mel bins, L samples.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import torch
import torchaudio
from torch import Tensor

from tts_core.speech.dataset import Clip
from tts_workbook.subject.clip_batch import ProsodyClip
from tts_workbook.subject.own_clips import told_clips


def prosody_clips(clips: Sequence[Clip]) -> list[ProsodyClip]:
    """The clips with log pitch and energy of each phoneme, standardised over all of them."""
    pitch = standardised([per_phoneme(clip, log_pitch(clip)) for clip in clips])
    energy = standardised([per_phoneme(clip, clip.mel.mean(dim=1).numpy()) for clip in clips])
    return told_clips(clips, pitch, energy)


def log_pitch(clip: Clip) -> np.ndarray:
    """(frames,) ln Hz every 10 ms, by autocorrelation of the clip's own samples."""
    return _log_pitch(clip.samples.tobytes(), clip.sample_rate)


@functools.lru_cache(maxsize=256)
def _log_pitch(samples: bytes, rate: int) -> np.ndarray:
    wave = torch.frombuffer(bytearray(samples), dtype=torch.float32)
    hertz = torchaudio.functional.detect_pitch_frequency(wave[None], rate)
    return hertz[0].clamp(min=50.0, max=600.0).log().numpy()


def per_phoneme(clip: Clip, frames: np.ndarray) -> np.ndarray:
    """(N,) mean of `frames` over the time of each phoneme, whatever rate they are counted at."""
    ends = clip.durations.cumsum() * len(frames) / max(int(clip.durations.sum()), 1)
    starts = np.concatenate([[0.0], ends[:-1]])
    spans = zip(starts.astype(int), np.ceil(ends).astype(int), strict=True)
    last = len(frames) - 1
    return np.array([frames[min(a, last) : max(b, min(a, last) + 1)].mean() for a, b in spans])


def standardised(rows: Sequence[np.ndarray]) -> list[Tensor]:
    """The rows with mean 0 and deviation 1 over all of them."""
    every = np.concatenate(list(rows))
    return [torch.from_numpy((row - every.mean()) / (every.std() + 1e-6)) for row in rows]
