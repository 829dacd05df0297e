"""data.duration_sum: durations do not add up to the frames."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from tts_core.speech.dataset import Clip
from tts_workbook.faults.cause import Cause, Decision, Experiment, Telling
from tts_workbook.faults.planting import Build, Setting, with_clips
from tts_workbook.lab.lab import Lab
from tts_workbook.measure.log_durations import written_as_logs
from tts_workbook.measure.seen_clips import distinct_clips
from tts_workbook.subject.subject import Subject

# frames that Σ durations may miss: centred transforms have one more than hops
FRAME_SLACK = 1


@dataclass(frozen=True)
class Sums:
    """Σ durations of every clip beside its frames."""

    sums: tuple[float, ...]
    frames: tuple[int, ...]
    logs: str  # the function that takes the durations to frames, where they are logarithms

    @property
    def misses(self) -> np.ndarray:
        """Frames that each sum is off by."""
        return np.array(self.sums) - np.array(self.frames)

    @property
    def ratios(self) -> np.ndarray:
        """Each sum over its frames."""
        return np.array(self.sums) / np.array(self.frames)

    @property
    def worst(self) -> int:
        """The clip that misses by most."""
        return int(np.abs(self.misses).argmax())

    @property
    def group(self) -> int:
        """How many frames a duration seems to count, over all clips."""
        return round(np.array(self.frames).sum() / np.array(self.sums).sum())


def measure(lab: Lab) -> Sums:
    """Σ durations of every clip against its frames."""
    clips = [clip for clip in distinct_clips(lab) if clip.durations is not None]
    numbers = Sums(
        sums=tuple(float(clip.counts.sum()) for clip in clips),
        frames=tuple(len(clip.frames) for clip in clips),
        logs="",
    )
    if abs(numbers.misses[numbers.worst]) <= FRAME_SLACK:
        return numbers
    return replace(numbers, logs=written_as_logs(clips))


def decide(numbers: Sums) -> Decision:
    """Pure: which of the ends it is."""
    if abs(numbers.misses[numbers.worst]) <= FRAME_SLACK:
        return Decision("excluded", "durations", reason="add up")
    if numbers.logs:
        return Decision("excluded", "durations", reason="logarithms")
    in_groups = np.array(numbers.sums) * numbers.group - np.array(numbers.frames)
    if numbers.group > 1 and (np.abs(in_groups) <= numbers.group).all():
        return Decision("undecided", "durations", reason="groups")
    strength = float(np.abs(numbers.ratios - 1).max())
    return Decision("confirmed", "durations", min(1.0, strength), "miss")


COMPARED = "sum of the durations of every clip against its frames"


def tell(numbers: Sums, decision: Decision) -> Telling:
    misses, worst = numbers.misses, numbers.worst
    evidence: dict[str, float | str] = {
        "Σ durations / frames, median": float(np.median(numbers.ratios)),
        "largest miss, frames": float(misses[worst]),
        "of frames": numbers.frames[worst],
        "clips that miss": int((np.abs(misses) > FRAME_SLACK).sum()),
        "clips": len(numbers.frames),
    }
    if decision.reason == "logarithms":
        return Telling(f"{COMPARED}: they are logarithms, {numbers.logs} of them adds up", evidence)
    if decision.reason == "groups":
        return Telling(
            f"durations count groups of {numbers.group} frames; right where the decoder predicts as"
            " many at a time, else multiply them",
            evidence,
        )
    return Telling(COMPARED, evidence)


def plant(build: Build, setting: Setting) -> Subject:
    """Durations counted with another hop: all of them 0.5 to 0.8 or 1.25 to 2 times too long
    (drawn), rounded.
    """
    longer = setting.log_uniform(1.25, 2.0)
    ratio = longer if setting.random.randint(0, 9) % 2 else 1 / longer

    def spoilt(clip: Clip) -> Clip:
        counted = np.maximum(1, np.round(clip.durations * ratio))
        return replace(clip, durations=counted.astype(np.int64))

    return build(with_clips(setting, spoilt))


CAUSE = Cause(
    id="data.duration_sum",
    title="durations do not add up to the frames",
    experiment="sum the durations of every clip",
    fix="round cumulative times, not single durations; give the remainder to the last symbol",
    experiments=(Experiment(measure, decide, tell, needs=("durations",)),),
    plant=plant,
)
