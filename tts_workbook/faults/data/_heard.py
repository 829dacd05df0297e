"""What the copy-synthesis of a few clips says: data.sample_rate by its length and its frequencies,
data.mel_recipe by its dynamics.

Shapes: L samples, T frames, M mel bins.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from tts_workbook.bars import Bar
from tts_workbook.measure.copy_synthesis import CopyComparison, compare_with_recording
from tts_workbook.measure.feature_difference import SAME, feature_differences, todays_features
from tts_workbook.measure.seen_clips import SeenClip, true_clips
from tts_workbook.subject.isolation import unchanged_randomness
from tts_workbook.subject.opened import OpenSubject, once_per_subject
from tts_workbook.subject.subject import supplied

N_HEARD = 3  # clips that go through the vocoder
# of a clip, where there are such
LEAST_SECONDS = Bar(
    0.5, absolute="chooses which clips are heard, decides nothing: fewer frames have no spectrum"
)
FLATTER = Bar(
    0.8,
    absolute=(
        "dynamics of a right copy are the recording's, 1 by definition; Griffin-Lim (1984) keeps"
        " 0.96 to 0.99 of them on short clips, and a wrong base or power makes 0.5 or 2"
    ),
)
STEEPER = Bar(1.25, absolute="the inverse of FLATTER")
DISTANCE = Bar(
    0.5,
    absolute=(
        "log-spectra in ln units, whatever the model: Griffin-Lim of a right mel is 0.23 to 0.31"
        " away from its recording, twice that is heard as another sound"
    ),
)
STRETCHED = Bar(0.04, control="the recording's length: more than a frame of a clip of 0.5 s")

Source = Literal["target_mel", "features", "target_mel, converted"]


@dataclass(frozen=True)
class Heard:
    """Copy-synthesis of a few clips beside their recordings; medians over the clips."""

    seconds: float  # of the copy over those of the recording
    frequency: float  # scale of the copy's spectrum
    match: float  # correlation of the log-spectra at that scale
    slope: float  # dynamics of the copy over the recording's
    distance: float  # of the log-spectra, ln units
    stoi: float
    source: Source  # what was vocoded

    @property
    def seconds_off(self) -> bool:
        """Whether the copy has another length than the recording."""
        return abs(self.seconds - 1) > STRETCHED

    @property
    def sounds_right(self) -> bool:
        """Whether its dynamics are the recording's."""
        return FLATTER < self.slope < STEEPER and self.distance < DISTANCE


@once_per_subject
def heard_targets(opened: OpenSubject) -> Heard:
    """The targets vocoded; today's features in their place where the targets are a stale cache of
    them. Raises SubjectError where the subject has no audio or no vocoder.
    """
    clips = heard_clips(opened)
    if opened.subject.features is not None and _are_stale(opened):
        mels = [todays_features(opened, clip) for clip in clips]
        return listen_to(opened, clips, mels, "features")
    return listen_to(opened, clips, [clip.frames for clip in clips], "target_mel")


def _are_stale(opened: OpenSubject) -> bool:
    """Whether the targets are neither today's features, nor those on another scale, nor longer or
    shorter.
    """
    worst = max(feature_differences(opened), key=lambda difference: difference.size)
    as_long = abs(worst.frames - 1) < STRETCHED
    return worst.size > SAME and worst.scale is None and as_long


def heard_clips(opened: OpenSubject) -> list[SeenClip]:
    """The first clips that are long enough to be heard; else the first one."""
    clips = true_clips(opened)
    long = [clip for clip in clips if len(clip.recording[0]) > LEAST_SECONDS * clip.recording[1]]
    return long[:N_HEARD] or clips[:1]


def listen_to(
    opened: OpenSubject, clips: Sequence[SeenClip], mels: Sequence[Tensor], source: Source
) -> Heard:
    """Mels (T, M) through the subject's vocoder beside the recordings of their clips."""
    vocode = supplied(opened.subject.vocode, "vocode")
    found: list[CopyComparison] = []
    with unchanged_randomness(opened.seed):
        for clip, mel in zip(clips, mels, strict=True):
            copy, copy_rate = vocode(mel.contiguous())
            found.append(compare_with_recording(copy, copy_rate, *clip.recording))
    return Heard(
        seconds=_middle([one.seconds for one in found]),
        frequency=_middle([one.frequency for one in found]),
        match=_middle([one.match for one in found]),
        slope=_middle([one.slope for one in found]),
        distance=_middle([one.distance for one in found]),
        stoi=_middle([one.stoi for one in found]),
        source=source,
    )


def _middle(values: Sequence[float]) -> float:
    """Median of those that are numbers."""
    known = [value for value in values if value == value]
    return float(statistics.median(known)) if known else float("nan")


def heard_table(heard: Heard) -> dict[str, float | str]:
    """The numbers under their names."""
    return {
        "duration of the copy / recording": heard.seconds,
        "frequency scale of the copy": heard.frequency,
        "correlation of the log-spectra at that scale": heard.match,
        "dynamics of the copy / recording": heard.slope,
        "distance of the log-spectra, ln units": heard.distance,
        "STOI": heard.stoi,
        "vocoded": heard.source,
    }
