"""data.duration_domain: log durations are used as counts, or counts as log durations; in training,
and in full inference.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tts_workbook.bars import Bar
from tts_workbook.faults.cause import Cause, Decision, Experiment, Telling
from tts_workbook.lab.lab import Lab
from tts_workbook.measure.duration_head import PROBES, DurationHead, duration_head
from tts_workbook.measure.expanded_memory import expanded_lengths
from tts_workbook.measure.log_durations import written_as_logs
from tts_workbook.measure.seen_clips import SeenClip, clips_of

# an expanded memory that is shorter is no rounding
EXPANDED = Bar(0.7, control="the frames of the same clips")
# by which an expanded length may differ from that of the log durations, rounded
LOGGED = Bar(0.35, control="the sum of the log durations of the same clip, rounded")

# --- training -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Expanded:
    """The expanded memory of the batch beside its frames."""

    n_frames: int
    given: float  # Σ durations as they are given
    used: int | None  # frames of the expanded memory; None where it is not found
    logs: str  # the function that takes the durations to frames, where they are logarithms
    looks_logged: bool  # each expanded length is about that of the clip's log durations
    infers: bool  # full inference can be asked too


def measure_training(lab: Lab) -> Expanded:
    """Length of the expanded memory against the frames."""
    clips = clips_of(lab, lab.batch)
    used = expanded_lengths(lab.calls(lab.model), clips)
    return Expanded(
        n_frames=sum(len(clip.frames) for clip in clips),
        given=float(sum(clip.counts.sum() for clip in clips)),
        used=None if used is None else sum(used),
        logs=written_as_logs(clips),
        looks_logged=used is not None and _looks_logged(used, clips),
        infers=lab.subject.infer is not None,
    )


def _looks_logged(used: Sequence[int], clips: Sequence[SeenClip]) -> bool:
    """Whether each expanded length is about that of the clip's log durations, rounded."""
    for length, clip in zip(used, clips, strict=True):
        logs = float(np.maximum(np.round(np.log1p(clip.counts)), 1).sum())
        if not abs(length - logs) < LOGGED * logs:
            return False
    return True


def decide_training(numbers: Expanded) -> Decision | None:
    """Pure: which of the ends it is; None where inference has to tell."""
    if numbers.used is None:
        return Decision("suspected", "durations", reason="logarithms") if numbers.logs else None
    is_short = numbers.used < EXPANDED * numbers.n_frames
    if is_short and (numbers.logs or numbers.looks_logged):
        missing = 1 - numbers.used / numbers.n_frames
        return Decision("confirmed", "durations", missing, "logs as counts")
    if not is_short and not numbers.infers:
        return Decision("excluded", "durations", reason="long enough")
    return None


LENGTH = "length of the expanded memory against the frames"


def tell_training(numbers: Expanded, decision: Decision) -> Telling:
    evidence: dict[str, float | str] = {
        "Σ durations as given / frames": numbers.given / numbers.n_frames
    }
    if numbers.used is not None:
        evidence["expanded memory / frames"] = numbers.used / numbers.n_frames
    match decision.reason:
        case "logarithms":
            return Telling(
                f"the durations are logarithms ({numbers.logs} of them adds up); Subject.durations"
                " are frames",
                evidence,
            )
        case "logs as counts":
            return Telling(f"{LENGTH}: log durations are used as counts", evidence)
    return Telling(LENGTH, evidence)


# --- inference ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Inferred:
    """What inference takes the trained duration head for."""

    infers: bool  # full inference can be asked
    head: DurationHead | None


def measure_inference(lab: Lab) -> Inferred:
    """The trained duration head against what inference makes of it."""
    if lab.subject.infer is None:
        return Inferred(False, None)
    return Inferred(True, duration_head(lab, lab.trained, clips_of(lab, lab.batch)))


def decide_inference(numbers: Inferred) -> Decision | None:
    """Pure: which of the ends it is; None where there is no full inference."""
    if not numbers.infers:
        return None
    head = numbers.head
    if head is None or not head.learnt or not head.taken_for:
        return Decision("undecided", reason="no head")
    if head.learnt == head.taken_for:
        return Decision("excluded", head.name, reason="one domain")
    return Decision("confirmed", head.name, 1.0, "two domains")


PROBED = (
    "the trained duration head against the frames; and the frames that inference makes of 1 and 2"
    " in its place"
)
NO_HEAD = (
    "no trained module predicts one number per symbol that the length of full inference follows;"
    " train longer, or count the frames of the expanded memory yourself"
)


def tell_inference(numbers: Inferred, decision: Decision) -> Telling:
    head = numbers.head
    if head is None:
        return Telling(NO_HEAD)
    evidence: dict[str, float | str] = {
        "error of the head as frames": head.error_as_frames,
        "error of the head as log frames": head.error_as_logs,
    }
    for value, frames in zip(PROBES, head.frames_per_symbol, strict=True):
        evidence[f"frames per symbol for {value:g}"] = frames
    match decision.reason:
        case "no head":
            return Telling(NO_HEAD, evidence)
        case "two domains":
            said = f"it learns {head.learnt} and is taken for {head.taken_for}"
            return Telling(f"{PROBED}: {said}", evidence)
    return Telling(PROBED, evidence)


CAUSE = Cause(
    id="data.duration_domain",
    title="log durations are used as counts, or counts as log durations",
    experiment="length of the expanded memory, and of full inference, against the frames",
    fix="convert once, at the length regulator: expm1 of log1p, rounded",
    experiments=(
        Experiment(measure_training, decide_training, tell_training, needs=("durations",)),
        Experiment(measure_inference, decide_inference, tell_inference, needs=("durations",)),
    ),
)
