"""What wrong durations do to a sound model: uniform ones, and true ones whose boundaries are moved
by chance.

Shapes: N phonemes, T frames.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from tts_core.errors import WorkbookError
from tts_core.speech.alignment import uniform_durations
from tts_core.speech.batch import Batch
from tts_core.speech.dataset import Clip


def jitter_durations(
    durations: np.ndarray, hop_seconds: float, sigma_seconds: float, seed: int = 0
) -> np.ndarray:
    """Durations (N,) frames with each inner boundary moved by N(0, sigma) seconds -> (N,) int64
    with the same sum.

    Boundaries are rounded to frames, kept inside the clip and put in order, so that a short phoneme
    may vanish, as in a poor alignment. The same `seed` moves a boundary in the same direction at
    every `sigma_seconds`.
    """
    if sigma_seconds < 0:
        raise WorkbookError(
            f"jitter: sigma_seconds = {sigma_seconds:g}, but it must be zero or positive"
        )
    durations = np.asarray(durations, dtype=np.int64)
    total = int(durations.sum())
    draws = np.random.default_rng(seed).standard_normal(len(durations) - 1)
    boundaries = np.cumsum(durations)[:-1]
    moved = np.rint(boundaries + draws * sigma_seconds / hop_seconds).astype(np.int64)
    ends = np.append(np.sort(moved.clip(0, total)), total)
    return np.diff(ends, prepend=0)


def boundary_error(durations: np.ndarray, true_durations: np.ndarray) -> float:
    """Mean distance of the inner boundaries from the true ones, in frames; 0 for a clip of one
    phoneme.
    """
    moved, true = np.cumsum(durations)[:-1], np.cumsum(true_durations)[:-1]
    if not len(true):
        return 0.0
    return float(np.abs(moved - true).mean())


def with_durations(batch: Batch, durations: np.ndarray) -> Batch:
    """The one clip of `batch` with other durations (N,), which must add up to its frames. Raises
    WorkbookError.
    """
    wanted, length = int(batch.mel_lengths[0]), int(batch.phoneme_lengths[0])
    one_clip = len(batch.mel) == 1
    fits = len(durations) == length and durations.sum() == wanted and (durations >= 0).all()
    if not one_clip or not fits:
        raise WorkbookError(
            f"with_durations: {len(batch.mel)} clips, {len(durations)} durations that sum to"
            f" {durations.sum()}, wanted one clip and {length} durations, none negative, that sum"
            f" to {wanted}"
        )
    return replace(batch, durations=torch.from_numpy(durations).to(batch.durations)[None])


def with_uniform_durations(clip: Clip) -> Clip:
    """The same clip as if nothing said when its phonemes are spoken; it is marked so."""
    durations = uniform_durations(len(clip.durations), len(clip.mel))
    return replace(clip, durations=durations, alignment="uniform")


def wrong_durations(
    durations: np.ndarray,
    hop_seconds: float,
    sigmas_ms: tuple[int, ...] = (10, 20, 40),
    seed: int = 0,
) -> dict[str, np.ndarray]:
    """Label -> durations (N,): each jitter, then uniform ones, all with the sum of `durations`."""
    wrong = {}
    for sigma in sigmas_ms:
        moved = jitter_durations(durations, hop_seconds, sigma / 1000, seed)
        wrong[f"boundaries off by {sigma} ms"] = moved
    wrong["uniform durations"] = uniform_durations(len(durations), int(durations.sum()))
    return wrong
