"""data.duration_sum: durations do not add up to the frames."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from tts_core.speech.dataset import Clip
from tts_workbook.bars import Bar
from tts_workbook.faults.cause import Cause, Decision, Experiment, Telling
from tts_workbook.faults.data.sample_rate import RATES
from tts_workbook.faults.planting import Build, Setting, with_clips
from tts_workbook.lab.lab import Lab
from tts_workbook.measure.duration_layout import DurationLayout, duration_layout
from tts_workbook.measure.feature_difference import feature_differences
from tts_workbook.measure.log_durations import written_as_logs
from tts_workbook.measure.seen_clips import distinct_clips, true_clips
from tts_workbook.subject.subject import Subject

# frames that Σ durations may miss: centred transforms have one more than hops
FRAME_SLACK = 1


# relative difference of a ratio from that of two rates that are in use
IS_RATIO = Bar(0.02, convention="sampling rates in use, in Hz: RATES of data.sample_rate")
# deviations of a fit to texts re-paired at random: by which other places explain more, and by which
# they explain anything
APART = Bar(5.0, control="deviation of the same fit over random re-pairings of the texts")
FORETOLD = Bar(5.0, control="deviation of the same fit over random re-pairings of the texts")
LEAST_CLIPS = 6  # fewer tell nothing about places

# --- sums -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sums:
    """Σ durations of every clip beside its frames."""

    sums: tuple[float, ...]
    frames: tuple[int, ...]
    logs: str  # the function that takes the durations to frames, where they are logarithms
    # frames of the whole recordings, where every target is but the first of them; else empty
    whole: tuple[int, ...] = ()
    # the recordings' own frames can be counted
    heard: bool = True

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

    @property
    def cut(self) -> float:
        """Frames of the whole recordings over Σ durations; 1 where nothing is cut off."""
        return sum(self.whole) / sum(self.sums) if self.whole else 1.0

    @property
    def cut_by_a_rate(self) -> bool:
        """Whether every recording is longer than its durations by the same ratio of two rates."""
        if not self.whole:
            return False
        pairs = list(zip(self.whole, self.sums, strict=True))
        alike = all(abs(whole - self.cut * total) <= 2 * self.cut for whole, total in pairs)
        ratios = [a / b for a in RATES for b in RATES if a > b]
        return alike and any(abs(self.cut / ratio - 1) < IS_RATIO for ratio in ratios)


def measure(lab: Lab) -> Sums:
    """Σ durations of every clip against its frames; and, where the features can be computed again,
    against those of the whole recording.
    """
    clips = [clip for clip in distinct_clips(lab) if clip.durations is not None]
    numbers = Sums(
        sums=tuple(float(clip.counts.sum()) for clip in clips),
        frames=tuple(len(clip.frames) for clip in clips),
        logs="",
        heard=lab.subject.has("audio", "features"),
    )
    if abs(numbers.misses[numbers.worst]) > FRAME_SLACK:
        return replace(numbers, logs=written_as_logs(clips))
    if not numbers.heard:
        return numbers
    differences = feature_differences(lab)
    if all(difference.kind == "cut" for difference in differences):
        n_compared = len(differences)
        whole = [
            round(len(clip.frames) / difference.frames)
            for clip, difference in zip(true_clips(lab), differences, strict=False)
        ]
        own = true_clips(lab)[:n_compared]
        return replace(
            numbers,
            sums=tuple(float(clip.counts.sum()) for clip in own),
            frames=tuple(len(clip.frames) for clip in own),
            whole=tuple(whole),
        )
    return numbers


def decide(numbers: Sums) -> Decision:
    """Pure: which of the ends it is."""
    if abs(numbers.misses[numbers.worst]) <= FRAME_SLACK:
        return _decide_whole(numbers)
    if numbers.logs:
        return Decision("excluded", "durations", reason="logarithms")
    in_groups = np.array(numbers.sums) * numbers.group - np.array(numbers.frames)
    if numbers.group > 1 and (np.abs(in_groups) <= numbers.group).all():
        return Decision("undecided", "durations", reason="groups")
    strength = float(np.abs(numbers.ratios - 1).max())
    return Decision("confirmed", "durations", min(1.0, strength), "miss")


def _decide_whole(numbers: Sums) -> Decision:
    """Where the sums are those of the targets: whether the targets are all of the recordings."""
    if not numbers.whole:
        return Decision("excluded", "durations", reason="add up")
    strength = 1 - 1 / numbers.cut
    if numbers.cut_by_a_rate:
        return Decision("confirmed", "durations", strength, "another rate")
    return Decision("undecided", "durations", strength, "cut")


COMPARED = "sum of the durations of every clip against its frames"
SAID = {
    "another rate": (
        "frames of the whole recordings against the sum of their durations: the mel was cut to"
        " durations that were counted at another rate"
    ),
    "cut": (
        "the targets are the beginnings of their recordings; next: cut Subject.audio likewise, or"
        " compare the durations with the whole"
    ),
}


def tell(numbers: Sums, decision: Decision) -> Telling:
    misses, worst = numbers.misses, numbers.worst
    evidence: dict[str, float | str] = {
        "Σ durations / frames, median": float(np.median(numbers.ratios)),
        "largest miss, frames": float(misses[worst]),
        "of frames": numbers.frames[worst],
        "clips that miss": int((np.abs(misses) > FRAME_SLACK).sum()),
        "clips": len(numbers.frames),
    }
    if numbers.whole:
        evidence["frames of the recordings / Σ durations"] = numbers.cut
    if decision.reason in SAID:
        return Telling(SAID[decision.reason], evidence)
    if decision.reason == "logarithms":
        return Telling(f"{COMPARED}: they are logarithms, {numbers.logs} of them adds up", evidence)
    if decision.reason == "groups":
        return Telling(
            f"durations count groups of {numbers.group} frames; right where the decoder predicts as"
            " many at a time, else multiply them",
            evidence,
        )
    return Telling(COMPARED, evidence)


# --- places ---------------------------------------------------------------------------------------


def measure_places(lab: Lab) -> DurationLayout:
    """Durations as they are, and moved along the text, by how well symbols foretell the frames."""
    return duration_layout(lab)


def decide_places(numbers: DurationLayout) -> Decision | None:
    """Pure: which of the ends it is; None where the durations are right as they are."""
    if not numbers.n_clips:  # no sum is that of its frames: the sums speak
        return None
    if numbers.n_clips < LEAST_CLIPS:
        return Decision("undecided", "durations", reason="few clips")
    if not numbers.z > FORETOLD:
        return Decision("undecided", "durations", reason="foretells nothing")
    if numbers.best != 0 and numbers.apart > APART:
        strength = 1 - max(0.0, numbers.explained[0]) / numbers.explained[numbers.best]
        return Decision("confirmed", "durations", min(1.0, strength), "other places")
    return None


FORETELLING = (
    "frames of each clip foretold from the symbols that its durations lay over them, by the other"
    " clips; the same with the durations moved along the text"
)


def tell_places(numbers: DurationLayout, decision: Decision) -> Telling:
    evidence: dict[str, float | str] = {"clips": numbers.n_clips}
    for places, explained in numbers.explained.items():
        evidence[f"variance explained, moved by {places}"] = explained
    if numbers.explained:
        evidence["with texts re-paired at random"] = numbers.repaired
        evidence["deviation over re-pairings"] = numbers.deviation
    if decision.reason == "few clips":
        return Telling(
            f"the sums are right, and {numbers.n_clips} clips are too few to tell whether the"
            " durations lie under their own symbols, and whether the targets are all of the"
            f" recordings: supply Subject.batches with {LEAST_CLIPS} different ones, Subject.audio"
            " and Subject.features",
            evidence,
        )
    if decision.reason == "foretells nothing":
        return Telling(
            f"{FORETELLING}: in no place does the text foretell them; settle"
            " data.text_audio_pairing first",
            evidence,
        )
    n_places = abs(numbers.best)
    way = "earlier" if numbers.best < 0 else "later"
    return Telling(
        f"{FORETELLING}: they belong to the symbols {n_places} {way}",
        evidence,
        fix="lay each duration under its own symbol: an off-by-one of pauses, BOS or EOS",
    )


# --- planted --------------------------------------------------------------------------------------


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
    title="durations do not add up to the frames, or lie under other symbols",
    experiment="sum the durations of every clip; move them along the text",
    fix="round cumulative times, not single durations; give the remainder to the last symbol",
    experiments=(
        Experiment(measure, decide, tell, needs=("durations",)),
        Experiment(measure_places, decide_places, tell_places, needs=("durations",)),
    ),
    plant=plant,
)
