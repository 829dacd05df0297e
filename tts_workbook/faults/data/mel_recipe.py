"""data.mel_recipe: the mel differs from what the vocoder inverts.

Shapes: L samples, T frames, M mel bins.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from tts_core.config import AudioConfig
from tts_core.speech.audio import log_mel
from tts_workbook.bars import Bar
from tts_workbook.faults.cause import Cause, Decision, Experiment, Level, Telling
from tts_workbook.faults.data import sample_rate
from tts_workbook.faults.data._heard import (
    Heard,
    heard_clips,
    heard_table,
    heard_targets,
    listen_to,
)
from tts_workbook.faults.planting import Build, Setting, with_clips
from tts_workbook.lab.lab import Lab
from tts_workbook.measure.copy_synthesis import line_per_bin
from tts_workbook.measure.feature_difference import SAME, feature_differences, todays_features
from tts_workbook.measure.seen_clips import SeenClip
from tts_workbook.subject.isolation import unchanged_randomness
from tts_workbook.subject.subject import Subject, SubjectError, supplied

FAR = Bar(
    0.7,
    absolute=(
        "log-spectra in ln units, whatever the model: a distance that no vocoder explains, above"
        " that of the worst that was measured (0.31) by more than as much again"
    ),
)
# of its distance that a copy keeps at most, once its scale is converted
NEARER = Bar(0.8, control="the distance of the same copy as it is")
LEAST_SLOPE = Bar(0.05, control="the spread of the targets: a line that is flatter is none")
LEAST_EXPLAINED = Bar(0.5, control="the variance of the targets that the same line is fitted to")
# what a logarithm or a power of another kind multiplies a log-mel in ln units by
BASES = {
    "log base 10 for ln": 1 / math.log(10),
    "log base 2 for ln": 1 / math.log(2),
    "power for magnitude": 2,
    "magnitude for power": 1 / 2,
    "20 log10 for ln": 20 / math.log(10),
    "10 log10 for ln": 10 / math.log(10),
}
# in ln: a scale within this of a base's is that base's
NEAR_BASE = Bar(0.1, absolute="names a conversion, decides nothing: the bases lie further apart")


@dataclass(frozen=True)
class Converted:
    """Copy-synthesis of the targets on the scale that the vocoder seems to want."""

    scale: float  # that the targets were divided by
    heard: Heard


@dataclass(frozen=True)
class Recipe:
    """Copy-synthesis of the targets, as they are and with their scale converted."""

    heard: Heard
    converted: Converted | None  # None: not asked, or no line leads there

    @property
    def rate_is_wrong(self) -> bool:
        """Whether data.sample_rate is confirmed, which has to be settled first."""
        return sample_rate.decide(self.heard).level == "confirmed"


def measure(lab: Lab) -> Recipe:
    """Targets through the vocoder: their dynamics speak of the recipe; where those are off, again
    with the scale converted.
    """
    numbers = Recipe(heard_targets(lab), None)
    if numbers.rate_is_wrong or numbers.heard.sounds_right:
        return numbers
    return replace(numbers, converted=_converted(lab))


def _converted(lab: Lab) -> Converted | None:
    """Where today's features are the target on another scale, that line is undone. Where they are
    the target itself, the vocoder is sounded out: what it and the extraction together make of a
    target is a straight line per bin, its inverse the conversion.
    """
    if lab.subject.features is None:
        return None
    clips = heard_clips(lab)
    with unchanged_randomness(lab.seed):
        line = _line(lab, clips)
    if line is None:
        return None
    scale, offset, explained = line
    if not scale > LEAST_SLOPE or explained < LEAST_EXPLAINED:
        return None
    mels = [(clip.frames - offset) / scale for clip in clips]
    try:
        return Converted(scale, listen_to(lab, clips, mels, "target_mel, converted"))
    except SubjectError:  # the line was no conversion: what it gives cannot be vocoded
        return None


def _line(lab: Lab, clips: Sequence[SeenClip]) -> tuple[float, Tensor, float] | None:
    """Slope, offset (M,) and the share of variance that they explain; None where the lengths
    differ.
    """
    targets = torch.cat([clip.frames for clip in clips])
    stale = max(difference.size for difference in feature_differences(lab)) > SAME
    made = [todays_features(lab, clip) if stale else _vocoded_features(lab, clip) for clip in clips]
    cut = [mel[: len(clip.frames)] for mel, clip in zip(made, clips, strict=True)]
    if any(len(mel) != len(clip.frames) for mel, clip in zip(cut, clips, strict=True)):
        return None
    if stale:
        return line_per_bin(torch.cat(cut), targets)
    return line_per_bin(targets, torch.cat(cut))


def _vocoded_features(lab: Lab, clip: SeenClip) -> Tensor:
    """(T, M): the target vocoded, and the features of that."""
    vocode = supplied(lab.subject.vocode, "vocode")
    features = supplied(lab.subject.features, "features")
    samples, rate = vocode(clip.frames.contiguous())
    return features(samples, rate).detach().float().cpu()


def decide(numbers: Recipe) -> Decision:
    """Pure: which of the ends it is."""
    heard = numbers.heard
    if numbers.rate_is_wrong:
        return Decision("undecided", heard.source, reason="rate first")
    if heard.sounds_right:
        return Decision("excluded", heard.source, reason="sounds right")
    too_far = heard.distance > FAR and not heard.seconds_off
    level: Level = "confirmed" if _is_restored(numbers) or too_far else "suspected"
    return Decision(level, heard.source, 1.0, "sounds otherwise")


def _is_restored(numbers: Recipe) -> bool:
    if numbers.converted is None:
        return False
    heard = numbers.converted.heard
    return heard.sounds_right and heard.distance < NEARER * numbers.heard.distance


COMPARED = "copy-synthesis of the target against the recording"


def tell(numbers: Recipe, decision: Decision) -> Telling:
    evidence = heard_table(numbers.heard)
    match decision.reason:
        case "rate first":
            return Telling("settle data.sample_rate first, then listen again", evidence)
        case "sounds right":
            return Telling("copy-synthesis sounds as the recording does", evidence)
    converted = numbers.converted
    if converted is None:
        return Telling(COMPARED, evidence)
    evidence |= {
        "conversion": f"{_scale_name(converted.scale)}: divided by {converted.scale:.3g}",
        "distance once converted": converted.heard.distance,
        "dynamics once converted": converted.heard.slope,
    }
    return Telling(f"{COMPARED}, as it is and with its scale converted", evidence)


def _scale_name(scale: float) -> str:
    away = {name: abs(math.log(base / scale)) for name, base in BASES.items()}
    nearest = min(away, key=lambda name: away[name])
    return nearest if away[nearest] < NEAR_BASE else "scale"


STANDARD = AudioConfig()
# each differs from what the vocoder inverts by one decision, as found in the wild
RECIPES: dict[str, Callable[[np.ndarray], Tensor]] = {
    "power": lambda samples: log_mel(samples, replace(STANDARD, power=2)),
    "decibels": lambda samples: log_mel(samples, STANDARD) * (20 / math.log(10)),
    "base 10": lambda samples: log_mel(samples, STANDARD) / math.log(10),
    "scale and norm": lambda samples: log_mel(
        samples, replace(STANDARD, mel_scale="htk", mel_norm="none")
    ),
    "ceiling": lambda samples: log_mel(samples, AudioConfig.seed()),
}


def plant(build: Build, setting: Setting) -> Subject:
    """One of RECIPES (drawn) in the targets and in today's extraction; the vocoder inverts the
    standard one.
    """
    recipe = RECIPES[setting.random.choice(sorted(RECIPES))]
    return build(
        with_clips(setting, lambda clip: replace(clip, mel=recipe(clip.samples))),
        extract=lambda samples, rate: recipe(samples),
    )


CAUSE = Cause(
    id="data.mel_recipe",
    title="the mel differs from what the vocoder inverts",
    experiment="copy-synthesis of the target mel, as it is and with the scale converted",
    fix="use the vocoder's own mel recipe (magnitude or power, log base, floor, clip) for the"
    " targets",
    experiments=(Experiment(measure, decide, tell, needs=("audio", "vocode")),),
    for_the_ear=True,
    plant=plant,
)
