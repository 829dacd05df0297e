"""The targets beside the features that today's code computes of the same audio.

Shapes: T frames, M mel bins.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from tts_workbook.bars import Bar
from tts_workbook.measure.copy_synthesis import line_per_bin
from tts_workbook.measure.seen_clips import SeenClip, true_clips
from tts_workbook.subject.isolation import unchanged_randomness
from tts_workbook.subject.opened import OpenSubject, once_per_subject
from tts_workbook.subject.subject import supplied

question = "Are the targets what today's code makes of the audio?"

N_COMPARED = 8  # clips whose features are computed again
SAME = Bar(0.02, control="mean difference over the deviation of today's features: rounding")
OTHER = Bar(0.1, control="the same; more than dither makes")
SCALED = Bar(0.98, control="share of the variance of the target's own loud half")
# frames by which two extractions of one recording may differ in length
SLACK = 3

Kind = Literal[
    "same",
    "scaled",  # today's on another scale
    "cut",  # the first of today's frames alone
    "another number of frames",
    "another number of bins",
    "shifted",  # today's, `lag` frames later
    "rolled",  # today's values, shifted round by `lag` frames
    "rearranged",  # today's values in another order
    "other",  # another recipe, or another clip
]


@dataclass(frozen=True)
class FeatureDifference:
    """A target beside today's features of its audio."""

    # mean |difference| over the deviation of today's features; lags of one frame are forgiven
    size: float
    frames: float  # the target's number over today's
    # slope of the target over today's features; None where that is 1 or no straight line explains
    # it
    scale: float | None
    kind: Kind  # what it looks like
    lag: int = 0  # frames, where it looks shifted


@once_per_subject
def feature_differences(opened: OpenSubject) -> list[FeatureDifference]:
    """Of the first clips. Raises SubjectError where the subject has no audio or no features."""
    with unchanged_randomness(opened.seed):
        return [
            _difference(clip.frames, todays_features(opened, clip))
            for clip in true_clips(opened)[:N_COMPARED]
        ]


def todays_features(opened: OpenSubject, clip: SeenClip) -> Tensor:
    """(T, M) of a clip's audio, on the CPU."""
    features = supplied(opened.subject.features, "features")
    return features(*clip.recording).detach().float().cpu()


def _difference(target: Tensor, today: Tensor) -> FeatureDifference:
    deviation = float(today.std(dim=0).mean()) + 1e-9
    frames = len(target) / len(today)
    if target.shape[1:] != today.shape[1:]:
        return FeatureDifference(1.0, frames, None, "another number of bins")
    if len(today) - len(target) > SLACK and len(target) > SLACK:
        size = min(_lagged(target, today, lag) / deviation for lag in (0, 1, -1))
        if size < SAME:
            return FeatureDifference(size, frames, None, "cut")
    if abs(len(target) - len(today)) > SLACK:
        return FeatureDifference(1.0, frames, None, "another number of frames")
    size = min(_lagged(target, today, lag) / deviation for lag in (0, 1, -1))
    if size < SAME:
        return FeatureDifference(size, 1.0, None, "same")
    scale, _, explained = line_per_bin(today, target)
    if explained > SCALED and abs(scale - 1) > OTHER:
        return FeatureDifference(size, 1.0, scale, "scaled")
    if _same_values(target, today, deviation):
        return _rearranged(target, today, deviation, size)
    return _shifted(target, today, deviation, size)


def _same_values(target: Tensor, today: Tensor, deviation: float) -> bool:
    if len(target) != len(today):
        return False
    own, todays = (torch.sort(mel.flatten()).values for mel in (target, today))
    return float((own - todays).abs().mean()) < SAME * deviation


def _rearranged(target: Tensor, today: Tensor, deviation: float, size: float) -> FeatureDifference:
    for lag in range(len(today)):
        gap = (target - today.roll(lag, dims=0)).abs().mean()
        if float(gap) < SAME * deviation:
            return FeatureDifference(size, 1.0, None, "rolled", lag)
    return FeatureDifference(size, 1.0, None, "rearranged")


def _shifted(target: Tensor, today: Tensor, deviation: float, size: float) -> FeatureDifference:
    gaps = {
        lag: _lagged(target, today, lag) / deviation
        for lag in range(-len(today) // 2, len(today) // 2)
    }
    best = min(gaps, key=lambda lag: gaps[lag])
    if gaps[best] < SAME:
        return FeatureDifference(size, 1.0, None, "shifted", best)
    return FeatureDifference(size, 1.0, None, "other")


def _lagged(target: Tensor, today: Tensor, lag: int) -> float:
    """Mean |target frame t - today's frame t - lag| where both exist."""
    a, b = target[max(0, lag) :], today[max(0, -lag) :]
    length = min(len(a), len(b))
    return float((a[:length] - b[:length]).abs().mean())
