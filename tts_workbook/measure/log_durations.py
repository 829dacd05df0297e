"""Durations that were given as logarithms, told by what they add up to."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tts_workbook.bars import Bar
from tts_workbook.measure.seen_clips import SeenClip

question = "Are the durations that are given logarithms?"

LARGEST_LOG = 8  # a logarithm above this would be a symbol of thousands of frames
TO_FRAMES = {"expm1": np.expm1, "exp": np.exp, "exp2": np.exp2}
SLACK_FRAMES = 2  # by which a sum of rounded durations may miss
SLACK_SHARE = Bar(0.03, control="the same, as a share of the clip's frames")


def written_as_logs(clips: Sequence[SeenClip]) -> str:
    """The function that takes the given durations to frames, where they are logarithms; else an
    empty string. Raises SubjectError where a clip has no durations.
    """
    frames = np.array([len(clip.frames) for clip in clips])
    largest = [clip.counts.max(initial=0) for clip in clips]
    if any(value > LARGEST_LOG for value in largest) or frames.max() < 2:
        return ""
    allowed = np.maximum(SLACK_FRAMES, SLACK_SHARE * frames)
    for name, function in TO_FRAMES.items():
        sums = np.array([function(clip.counts).sum() for clip in clips])
        if (np.abs(sums - frames) <= allowed).all():
            return name
    return ""
