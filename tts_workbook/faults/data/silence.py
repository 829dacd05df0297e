"""data.silence: much of the clip is silence at its ends.

Shapes: B clips, T frames, M mel bins.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from tts_core.config import AudioConfig
from tts_core.metrics.baselines import best_constant_l1
from tts_core.speech.audio import log_mel
from tts_core.speech.dataset import Clip
from tts_core.speech.phonemes import PAUSE, Vocabulary
from tts_workbook.bars import Bar
from tts_workbook.faults.cause import Cause, Decision, Experiment, Level, Telling
from tts_workbook.faults.planting import Build, Setting, with_clips
from tts_workbook.lab.lab import Lab
from tts_workbook.lab.short_run import Change
from tts_workbook.measure.seen_clips import clips_of
from tts_workbook.measure.silent_ends import silent_ends
from tts_workbook.subject.isolation import private_copy
from tts_workbook.subject.subject import Batch, Subject

# of the clip at its ends, from which the twin is trained
SILENT_SHARE = Bar(
    0.35,
    absolute=(
        "proposes alone: short clips of read speech have 0.04 (median) to 0.22 (largest), and the"
        " trimmed twin decides"
    ),
)
SILENCE_HARM = Bar(1.1, control="error on the speech of the trimmed twin, and of all frames")

Trim = Callable[[Batch, int, int], Batch]  # as `Subject.trim`


@dataclass(frozen=True)
class Twins:
    """The subject and its twin without the silent ends, after a course each; L1 in target units."""

    constant: float  # best constant over all valid frames
    constant_on_speech: float
    on_all: float  # the subject's teacher-forced error over all valid frames
    on_speech: float  # and between the silent ends
    trimmed_on_speech: float  # the twin's


@dataclass(frozen=True)
class Silence:
    """How much of the batch is silence at its ends, and what it does."""

    share: float  # of a clip's frames, mean over the clips
    twins: Twins | None  # None: there is little, or the subject cannot be trimmed


def measure(lab: Lab) -> Silence:
    """Silent share at the ends, from the audio; where it is large, the trimmed twin decides, judged
    on the speech alone.
    """
    clips = clips_of(lab, lab.batch)
    ends = [silent_ends(clip) for clip in clips]
    shares = [
        (first + last) / len(clip.frames) for (first, last), clip in zip(ends, clips, strict=True)
    ]
    share = statistics.fmean(shares)
    if share < SILENT_SHARE or lab.subject.trim is None:
        return Silence(share, None)
    first = min(before for before, _ in ends)
    last = min(behind for _, behind in ends)
    return Silence(share, _twins(lab, lab.subject.trim, first, last))


def _twins(lab: Lab, trim: Trim, first: int, last: int) -> Twins:
    trimmed = Change(
        "trimmed",
        (first, last),
        "{} + {} silent frames trimmed".format,
        batch=lambda batch: trim(batch, first, last),
    )
    own = _errors(lab, lab.course().model, lab.batch)
    twin = _errors(lab, lab.course(trimmed).model, trim(private_copy(lab.batch), first, last))
    rows = zip(lab.target, lab.lengths.tolist(), strict=True)
    speech = torch.cat([row[first : length - last] for row, length in rows])
    return Twins(
        constant=lab.best_constant,
        constant_on_speech=best_constant_l1(speech),
        on_all=float(torch.cat(own).mean()),
        on_speech=float(torch.cat([row[first : len(row) - last] for row in own]).mean()),
        trimmed_on_speech=float(torch.cat(twin).mean()),
    )


def _errors(lab: Lab, model: nn.Module, batch: Batch) -> list[Tensor]:
    """L1 of each valid frame (T,), clip by clip."""
    target, lengths = lab.subject.target_mel(batch)
    error = (lab.predict(model, batch, "mel") - target.detach().float()).abs().mean(dim=2)
    return [row[:length] for row, length in zip(error, lengths.tolist(), strict=True)]


def decide(numbers: Silence) -> Decision:
    """Pure: which of the ends it is."""
    if numbers.share < SILENT_SHARE:
        return Decision("excluded", "audio", reason="little")
    twins = numbers.twins
    if twins is None:
        return Decision("suspected", "audio", numbers.share, "no twin")
    on_all = twins.on_all / twins.constant
    on_speech = twins.on_speech / twins.constant_on_speech
    figure_flatters = on_speech > SILENCE_HARM * on_all
    learnt_worse = twins.on_speech > SILENCE_HARM * twins.trimmed_on_speech
    level: Level = "confirmed" if figure_flatters or learnt_worse else "suspected"
    return Decision(level, "audio", numbers.share, "twins")


def tell(numbers: Silence, decision: Decision) -> Telling:
    evidence: dict[str, float | str] = {"silent share at the ends": numbers.share}
    twins = numbers.twins
    if decision.reason == "little":
        return Telling("energy at both ends of the audio, 40 dB under the loud frames", evidence)
    if twins is None:
        return Telling("supply Subject.trim: a twin without the silent ends decides", evidence)
    constant, on_speech = twins.constant, twins.constant_on_speech
    evidence |= {
        "best constant L1": constant,
        "best constant L1 on the speech": on_speech,
        "TF L1 / best constant": twins.on_all / constant,
        "TF L1 / best constant, on the speech": twins.on_speech / on_speech,
        "TF L1 / best constant, on the speech, trimmed twin": twins.trimmed_on_speech / on_speech,
    }
    return Telling(
        "the same model and seeds without the silent ends, judged on the speech", evidence
    )


def plant(build: Build, setting: Setting) -> Subject:
    """Untrimmed silence before and after the speech, together 1 to 2 times as long as it, with a
    noise floor of -70 dB.
    """
    share = setting.random.uniform(1.0, 2.0)
    pause = Vocabulary.arpabet().encode([PAUSE])
    recipe = AudioConfig()

    def spoilt(clip: Clip) -> Clip:
        noise = np.random.default_rng(setting.seed)
        n_samples = round(share / 2 * len(clip.mel)) * recipe.hop_length
        quiet = [noise.normal(0, 10 ** (-70 / 20), n_samples).astype(np.float32) for _ in range(2)]
        samples = np.concatenate([quiet[0], clip.samples, quiet[1]])
        mel = log_mel(samples, recipe)
        first = n_samples // recipe.hop_length
        last = len(mel) - first - clip.durations.sum()
        return replace(
            clip,
            samples=samples,
            mel=mel,
            durations=np.array([first, *clip.durations, last], dtype=np.int64),
            phonemes=(PAUSE, *clip.phonemes, PAUSE),
            phoneme_ids=np.concatenate([pause, clip.phoneme_ids, pause]),
        )

    return build(with_clips(setting, spoilt))


CAUSE = Cause(
    id="data.silence",
    title="much of the clip is silence at its ends",
    experiment="the same model and seeds without the silent ends",
    fix="trim silence at the ends before the features",
    experiments=(Experiment(measure, decide, tell, needs=("audio",)),),
    plant=plant,
)
