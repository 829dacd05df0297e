"""data.text_audio_pairing: text and audio belong to different clips.

Shapes: T frames, M mel bins, N text positions.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from tts_workbook.bars import Bar
from tts_workbook.faults.cause import Cause, Decision, Experiment, Telling
from tts_workbook.faults.planting import Build, Setting, rescaled
from tts_workbook.lab.lab import Lab
from tts_workbook.measure.feature_difference import todays_features
from tts_workbook.measure.seen_clips import SeenClip, distinct_clips
from tts_workbook.measure.text_fit import TextFit, text_fit
from tts_workbook.subject.subject import Subject

FEWEST_CLIPS = 4  # that anything is fitted to
# Of honest short clips the z is 5 or more from 6 clips on (with durations; of one voice 8 or more)
# and 3.6 or more from 12 on (without); re-paired ones are random there, with deviation 1.
LEAST_CLIPS = {True: 6, False: 12}  # with durations, without
REPAIRED = "deviation of the same fit over texts that are re-paired at random"
# from here on the pairing holds
PAIRED_TIMED = Bar(4.0, control=REPAIRED)
PAIRED_UNTIMED = Bar(3.0, control=REPAIRED)
# below here it does not
UNPAIRED_TIMED = Bar(2.5, control=REPAIRED)
UNPAIRED_UNTIMED = Bar(1.5, control=REPAIRED)
# share of variance that an honest text explains beyond a re-paired one, at least
HONEST_GAIN_TIMED = Bar(
    0.2,
    absolute=(
        "what symbols explain of speech, whatever the model: 0.44 to 0.55 of 12 short clips of read"
        " speech with durations; without that power nothing is confirmed"
    ),
)
HONEST_GAIN_UNTIMED = Bar(
    0.06, absolute="the same of texts that are laid evenly over their clips, without durations"
)
POWER_Z = Bar(4.0, control=REPAIRED)  # that this gain has to be worth


@dataclass(frozen=True)
class Pairing:
    """How well the text fits its audio."""

    n_clips: int  # with a text that no other has
    timed: bool  # every symbol of them has a duration
    fit: TextFit | None  # None: too few clips

    @property
    def power(self) -> float:
        """Standard deviations that an honest text would gain over a re-paired one."""
        deviation = self.fit.deviation if self.fit else 0.0
        gain = HONEST_GAIN_TIMED if self.timed else HONEST_GAIN_UNTIMED
        return gain / max(deviation, 1e-6)


def measure(lab: Lab) -> Pairing:
    """Frames of left-out clips from the symbols spoken, against the same with texts re-paired at
    random.
    """
    # a text once
    by_text = {clip.symbols: clip for clip in distinct_clips(lab) if clip.symbols}
    texts, clips = list(by_text), list(by_text.values())
    timed = all(_is_timed(clip) for clip in clips)
    if len(clips) < FEWEST_CLIPS:
        return Pairing(len(clips), timed, None)
    frames = [_true_frames(lab, clip) for clip in clips]
    durations = [clip.counts for clip in clips] if timed else None
    return Pairing(len(clips), timed, text_fit(frames, texts, durations))


def _is_timed(clip: SeenClip) -> bool:
    if clip.durations is None or clip.symbols is None:
        return False
    return len(clip.durations) == len(clip.symbols) and bool(clip.durations.sum() > 0)


def _true_frames(lab: Lab, clip: SeenClip) -> np.ndarray:
    """Frames (T, M) of the clip's own audio where they can be computed (a spoilt cache is another
    cause), else the target's.
    """
    if lab.subject.has("audio", "features"):
        return todays_features(lab, clip).numpy()
    return clip.frames.numpy()


def decide(numbers: Pairing) -> Decision:
    """Pure: which of the ends it is."""
    if numbers.fit is None:
        return Decision("undecided", reason="too few clips")
    timed, z = numbers.timed, numbers.fit.z
    if z > (PAIRED_TIMED if timed else PAIRED_UNTIMED):
        return Decision("excluded", "symbols", reason="paired")
    enough = numbers.n_clips >= LEAST_CLIPS[timed] and numbers.power > POWER_Z
    unpaired = UNPAIRED_TIMED if timed else UNPAIRED_UNTIMED
    if z < unpaired and enough:
        return Decision("confirmed", "symbols", 1.0, "re-paired")
    return Decision("undecided", "symbols", reason="between")


FORETOLD = (
    "frames of each clip predicted from its symbols by the other clips, 40 random re-pairings for"
    " comparison"
)


def tell(numbers: Pairing, decision: Decision) -> Telling:
    fit = numbers.fit
    if fit is None:
        wanted = LEAST_CLIPS[numbers.timed]
        return Telling(
            f"{numbers.n_clips} clips are too few to tell; supply Subject.batches with {wanted}"
            " different ones",
            {"clips": numbers.n_clips},
        )
    evidence: dict[str, float | str] = {
        "variance explained": fit.explained,
        "re-paired at random": fit.repaired,
        "standard deviations apart": fit.z,
        "clips": fit.n_clips,
        "standard deviations an honest text would gain": numbers.power,
    }
    if decision.reason == "between":
        next_step = "more clips in Subject.batches, or Subject.durations, would tell"
        return Telling(f"{FORETOLD}; {next_step}", evidence)
    return Telling(FORETOLD, evidence)


def plant(build: Build, setting: Setting) -> Subject:
    """Every clip has another clip's text: a rotation by 1 to all-but-one places (drawn), durations
    stretched to the frames.
    """
    clips = setting.clips
    shift = setting.random.randint(1, len(clips) - 1)
    others = [clips[(index + shift) % len(clips)] for index in range(len(clips))]
    wrong = [
        replace(
            clip,
            text=other.text,
            phonemes=other.phonemes,
            phoneme_ids=other.phoneme_ids,
            durations=rescaled(other.durations, len(clip.mel)),
        )
        for clip, other in zip(clips, others, strict=True)
    ]
    return build(replace(setting, clips=tuple(wrong)))


CAUSE = Cause(
    id="data.text_audio_pairing",
    title="text and audio belong to different clips",
    experiment=(
        "predict frames of one clip from the text of others, against the same with texts re-paired"
        " at random"
    ),
    fix="check the join of transcripts and audio: ids, sorting, off-by-one rows",
    experiments=(Experiment(measure, decide, tell, needs=("symbols",)),),
    plant=plant,
)
