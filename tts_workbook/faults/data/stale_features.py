"""data.stale_features: stored features are not what today's code computes."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, replace

from tts_core.config import AudioConfig
from tts_core.speech.audio import log_mel
from tts_core.speech.dataset import Clip
from tts_workbook.faults.cause import Cause, Decision, Experiment, Telling
from tts_workbook.faults.data._heard import heard_targets
from tts_workbook.faults.planting import Build, Setting, with_clips
from tts_workbook.lab.lab import Lab
from tts_workbook.measure.feature_difference import (
    OTHER,
    SAME,
    FeatureDifference,
    feature_differences,
)
from tts_workbook.subject.subject import Subject


@dataclass(frozen=True)
class Stored:
    """The targets beside today's features of the first clips."""

    worst: FeatureDifference
    median: float  # size of the difference
    n_clips: int
    # of clips with another number of frames: the vocoder gives another length than the recording's
    heard_off: bool

    @property
    def another_length(self) -> bool:
        return self.worst.kind == "another number of frames"


def measure(lab: Lab) -> Stored:
    """The features of the audio computed again; heard where their number of frames is another."""
    found = feature_differences(lab)
    numbers = Stored(
        worst=max(found, key=lambda difference: difference.size),
        median=statistics.median(difference.size for difference in found),
        n_clips=len(found),
        heard_off=False,
    )
    if numbers.another_length and lab.subject.vocode is not None:
        return replace(numbers, heard_off=heard_targets(lab).seconds_off)
    return numbers


def decide(numbers: Stored) -> Decision:
    """Pure: which of the ends it is."""
    worst = numbers.worst
    if worst.kind == "cut":
        return Decision("excluded", "features", reason="cut")
    if worst.size < SAME:
        return Decision("excluded", "features", reason="same")
    if worst.scale is not None:
        return Decision("excluded", "features", reason="scaled")
    if worst.size < OTHER:
        return Decision("undecided", "features", reason="small")
    if numbers.heard_off:
        return Decision("undecided", "features", reason="another rate")
    return Decision("confirmed", "target_mel", min(1.0, worst.size), "other")


COMPARED = "features of the audio computed again, against the targets"
LOOKS_LIKE = {
    "same": "the same",
    "scaled": "another scale",
    "cut": "the first frames of today's",
    "another number of frames": "another number of frames",
    "another number of bins": "another number of bins",
    "shifted": "shifted by {lag} frames",
    "rolled": "today's values shifted round by {lag} frames",
    "rearranged": "today's values in another order: transposed or reshaped",
    "other": "another recipe or another clip",
}


def tell(numbers: Stored, decision: Decision) -> Telling:
    worst = numbers.worst
    evidence: dict[str, float | str] = {
        "difference / deviation, largest of the clips": worst.size,
        "median": numbers.median,
        "clips": numbers.n_clips,
    }
    if decision.reason == "same":
        return Telling(COMPARED, evidence)
    evidence["looks like"] = LOOKS_LIKE[worst.kind].format(lag=worst.lag)
    if decision.reason == "cut":
        return Telling(
            f"{COMPARED}: today's values, cut short; data.duration_sum judges the length", evidence
        )
    if worst.scale is not None:
        evidence["scale"] = worst.scale
        return Telling(f"{COMPARED}: today's on another scale, a matter of the recipe", evidence)
    match decision.reason:
        case "small":
            return Telling(
                f"{COMPARED}: a small difference; rebuild the cache and compare", evidence
            )
        case "another rate":
            return Telling("settle data.sample_rate first", evidence)
    return Telling(COMPARED, evidence)


def plant(build: Build, setting: Setting) -> Subject:
    """Mels from a cache: of an older recipe, or of audio that began 10 to 40 frames earlier
    (drawn).
    """
    shift, older = setting.random.randint(10, 40), AudioConfig(power=2.0, f_max=11_025.0)
    moved = setting.random.random() < 0.5

    def spoilt(clip: Clip) -> Clip:
        if moved:
            return replace(clip, mel=clip.mel.roll(min(shift, len(clip.mel) // 2), dims=0))
        return replace(clip, mel=log_mel(clip.samples, older))

    return build(with_clips(setting, spoilt))


CAUSE = Cause(
    id="data.stale_features",
    title="stored features are not what today's code computes",
    experiment="compute the features of the audio again and compare",
    fix="key the feature cache on the recipe and the file, and rebuild it",
    experiments=(Experiment(measure, decide, tell, needs=("audio", "features")),),
    plant=plant,
)
