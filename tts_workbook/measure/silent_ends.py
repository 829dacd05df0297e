"""Silence before and after the speech of a clip, from its audio."""

from __future__ import annotations

import itertools

import numpy as np

from tts_workbook.bars import Bar
from tts_workbook.measure.seen_clips import SeenClip

question = "How much of a clip is silence at its ends?"

LOUD_SHARE = Bar(0.98, control="quantile of the clip's own energy")


def silent_ends(clip: SeenClip, below: float = 40.0) -> tuple[int, int]:
    """Frames at either end whose energy stays `below` dB under the clip's loud frames. Raises
    SubjectError where the clip has no audio.
    """
    samples, n_frames = clip.recording[0], len(clip.frames)
    per_frame = len(samples) / n_frames
    borders = np.round(np.arange(n_frames + 1) * per_frame).astype(int)
    energy = np.array(
        [
            np.square(samples[start:stop], dtype=np.float64).mean() if stop > start else 0.0
            for start, stop in itertools.pairwise(borders)
        ]
    )
    loudest = np.quantile(energy, LOUD_SHARE)
    loud = np.flatnonzero(energy > loudest * 10 ** (-below / 10))
    if not len(loud):
        return 0, 0
    return int(loud[0]), n_frames - 1 - int(loud[-1])
