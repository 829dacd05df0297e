"""Checks of the features: whether they are today's, and whether the vocoder makes of them what was
recorded.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tts_workbook.faults.checks.registry import check
from tts_workbook.faults.finding import Finding
from tts_workbook.lab.lab import Lab
from tts_workbook.measure.copy_synthesis import Comparison, compare, line_per_bin
from tts_workbook.measure.seen_clips import SeenClip, true_clips
from tts_workbook.subject.isolation import unchanged_randomness
from tts_workbook.subject.opened import once_per_subject
from tts_workbook.subject.subject import SubjectError

# clips whose features are computed again, and that go through the vocoder
N_COMPARED, N_HEARD = 8, 3
# mean difference from today's features over their deviation: rounding, and more than dither
SAME, OTHER = 0.02, 0.1
# variance of the target's loud half that one slope from today's features explains
SCALED = 0.98
# frames by which two extractions of one recording may differ in length
SLACK = 3
# Copy-synthesis of right mels by Griffin-Lim, short clips: slope 0.96 to 0.99, distance 0.23 to
# 0.31 ln units.
SLOPE, DISTANCE = (0.8, 1.25), 0.5
FAR = 0.7  # a distance that no vocoder at its worst explains
STRETCHED = 0.04  # of the length
# correlation at the best frequency scale: good enough to believe it; as good as a right one
MATCH, CLEAR_MATCH = 0.85, 0.93
RATES = (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)
BASES = {
    "log base 10 for ln": 0.4343,
    "log base 2 for ln": 1.4427,
    "power for magnitude": 2.0,
    "magnitude for power": 0.5,
    "20 log10 for ln": 8.686,
    "10 log10 for ln": 4.343,
}


@dataclass(frozen=True)
class Difference:
    """A target beside today's features of its audio."""

    # mean |difference| over the deviation of today's features; lags of one frame are forgiven
    size: float
    frames: float  # the target's number over today's
    # slope of the target over today's features; NaN where that is 1 or no straight line explains it
    scale: float
    kind: str  # what it looks like


@check("data.stale_features", needs=("audio", "features"))
def stale_features(lab: Lab) -> Iterable[Finding]:
    """The features of the audio computed again."""
    found = differences(lab)
    worst = max(found, key=lambda difference: difference.size)
    evidence = {
        "difference / deviation, largest of the clips": worst.size,
        "median": statistics.median(difference.size for difference in found),
        "clips": len(found),
    }
    experiment = "features of the audio computed again, against the targets"
    if worst.size < SAME:
        return [Finding("data.stale_features", "excluded", experiment, evidence, "features")]
    evidence["looks like"] = worst.kind
    if worst.scale == worst.scale:
        return [
            Finding(
                "data.stale_features",
                "excluded",
                f"{experiment}: today's on another scale, a matter of the recipe",
                evidence | {"scale": worst.scale},
                "features",
            )
        ]
    if worst.size < OTHER:
        return [
            Finding(
                "data.stale_features",
                "undecided",
                f"{experiment}: a small difference; rebuild the cache and compare",
                evidence,
                "features",
            )
        ]
    if (
        worst.kind == "another number of frames"
        and lab.subject.vocode is not None
        and _heard(lab).seconds_off
    ):
        return [
            Finding(
                "data.stale_features",
                "undecided",
                "settle data.sample_rate first",
                evidence,
                "features",
            )
        ]
    return [
        Finding(
            "data.stale_features",
            "confirmed",
            experiment,
            evidence,
            "target_mel",
            min(1.0, worst.size),
        )
    ]


@once_per_subject
def differences(lab: Lab) -> list[Difference]:
    """Of the first clips. Computed once per lab."""
    with unchanged_randomness(lab.seed):
        return [
            _difference(clip.frames, lab.subject.features(*clip.audio).detach().float().cpu())
            for clip in true_clips(lab)[:N_COMPARED]
        ]


def _difference(target: Tensor, today: Tensor) -> Difference:
    deviation = float(today.std(dim=0).mean()) + 1e-9
    if target.shape[1:] != today.shape[1:] or abs(len(target) - len(today)) > SLACK:
        kind = (
            "another number of frames"
            if target.shape[1:] == today.shape[1:]
            else "another number of bins"
        )
        return Difference(1.0, len(target) / len(today), float("nan"), kind)
    sizes = {lag: _lagged(target, today, lag) / deviation for lag in (0, 1, -1)}
    size = min(sizes.values())
    if size < SAME:
        return Difference(size, 1.0, float("nan"), "the same")
    scale, _, explained = line_per_bin(today, target)
    if explained > SCALED and abs(scale - 1) > OTHER:
        return Difference(size, 1.0, scale, "another scale")
    values = [torch.sort(mel.flatten()).values for mel in (target, today)]
    if len(target) == len(today) and float((values[0] - values[1]).abs().mean()) < SAME * deviation:
        return Difference(size, 1.0, float("nan"), _rearranged(target, today, deviation))
    lags = {
        lag: _lagged(target, today, lag) / deviation
        for lag in range(-len(today) // 2, len(today) // 2)
    }
    best = min(lags, key=lags.get)
    kind = f"shifted by {best} frames" if lags[best] < SAME else "another recipe or another clip"
    return Difference(size, 1.0, float("nan"), kind)


def _rearranged(target: Tensor, today: Tensor, deviation: float) -> str:
    lags = [
        lag
        for lag in range(len(today))
        if float((target - today.roll(lag, dims=0)).abs().mean()) < SAME * deviation
    ]
    if lags:
        return f"today's values shifted round by {lags[0]} frames"
    return "today's values in another order: transposed or reshaped"


def _lagged(target: Tensor, today: Tensor, lag: int) -> float:
    """Mean |target frame t - today's frame t - lag| where both exist."""
    a, b = target[max(0, lag) :], today[max(0, -lag) :]
    length = min(len(a), len(b))
    return float((a[:length] - b[:length]).abs().mean())


# --- copy-synthesis -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Heard:
    """Copy-synthesis of a few clips beside their recordings; medians over the clips."""

    seconds: float
    frequency: float
    match: float
    slope: float
    distance: float
    stoi: float
    source: str  # what was vocoded: "target_mel" or "features"

    @property
    def seconds_off(self) -> bool:
        """Whether the copy has another length than the recording."""
        return abs(self.seconds - 1) > STRETCHED

    @property
    def sounds_right(self) -> bool:
        """Whether its dynamics are the recording's."""
        return SLOPE[0] < self.slope < SLOPE[1] and self.distance < DISTANCE

    @property
    def evidence(self) -> dict[str, float | str]:
        """The numbers in words."""
        return {
            "duration of the copy / recording": self.seconds,
            "frequency scale of the copy": self.frequency,
            "correlation of the log-spectra at that scale": self.match,
            "dynamics of the copy / recording": self.slope,
            "distance of the log-spectra, ln units": self.distance,
            "STOI": self.stoi,
            "vocoded": self.source,
        }


@check("data.sample_rate", "data.mel_recipe", needs=("audio", "vocode"))
def copy_synthesis(lab: Lab) -> Iterable[Finding]:
    """Targets through the vocoder: their length and frequency scale speak of rate and hop, their
    dynamics of the recipe.
    """
    heard = _heard(lab)
    rate = _rate(heard)
    yield rate
    if rate.level == "confirmed":
        yield Finding(
            "data.mel_recipe",
            "undecided",
            "settle data.sample_rate first, then listen again",
            heard.evidence,
            heard.source,
        )
        return
    if heard.sounds_right:
        yield Finding(
            "data.mel_recipe",
            "excluded",
            "copy-synthesis sounds as the recording does",
            heard.evidence,
            heard.source,
        )
        return
    name, converted = _converted(lab)
    evidence = heard.evidence | (
        {}
        if converted is None
        else {
            "conversion": name,
            "distance once converted": converted.distance,
            "dynamics once converted": converted.slope,
        }
    )
    restored = (
        converted is not None
        and converted.sounds_right
        and converted.distance < 0.8 * heard.distance
    )
    level = (
        "confirmed" if restored or (heard.distance > FAR and not heard.seconds_off) else "suspected"
    )
    yield Finding(
        "data.mel_recipe",
        level,
        "copy-synthesis of the target against the recording"
        + (", as it is and with its scale converted" if converted else ""),
        evidence,
        heard.source,
        1.0,
    )


def _rate(heard: Heard) -> Finding:
    experiment = "duration and frequency scale of the copy-synthesis against the recording"
    shifted = abs(heard.frequency - 1) > 0.03
    if heard.seconds_off and heard.match > MATCH:
        kind = (
            "sample rate"
            if abs(heard.frequency * heard.seconds - 1) < 0.05
            else "sample rate and hop"
            if shifted
            else "hop"
        )
        return Finding(
            "data.sample_rate",
            "confirmed",
            experiment,
            heard.evidence | {"off": kind},
            heard.source,
            1.0,
        )
    if shifted and heard.match > CLEAR_MATCH and _ratio_of_rates(heard.frequency):
        return Finding(
            "data.sample_rate",
            "confirmed",
            experiment,
            heard.evidence | {"off": "sample rate of the mel filters"},
            heard.source,
            1.0,
        )
    if heard.seconds_off or (shifted and heard.match <= MATCH):
        return Finding(
            "data.sample_rate",
            "undecided",
            f"{experiment}: the copy is too unlike the recording to tell",
            heard.evidence,
        )
    return Finding("data.sample_rate", "excluded", experiment, heard.evidence, heard.source)


def _ratio_of_rates(ratio: float) -> bool:
    return any(abs(ratio * a / b - 1) < 0.012 for a in RATES for b in RATES if a != b)


@once_per_subject
def _heard(lab: Lab) -> Heard:
    """The targets vocoded; today's features in their place where the targets are a stale cache of
    them. Once per lab.
    """
    clips, source = _heard_clips(lab), "target_mel"
    mels = [clip.frames for clip in clips]
    if lab.subject.features is not None:
        worst = max(differences(lab), key=lambda difference: difference.size)
        if worst.size > SAME and worst.scale != worst.scale and abs(worst.frames - 1) < STRETCHED:
            mels, source = (
                [lab.subject.features(*clip.audio).detach().float().cpu() for clip in clips],
                "features",
            )
    return _listen(lab, clips, mels, source)


def _heard_clips(lab: Lab) -> list[SeenClip]:
    return [clip for clip in true_clips(lab) if len(clip.audio[0]) > 0.5 * clip.audio[1]][
        :N_HEARD
    ] or true_clips(lab)[:1]


def _listen(lab: Lab, clips: Sequence[SeenClip], mels: Sequence[Tensor], source: str) -> Heard:
    found: list[Comparison] = []
    with unchanged_randomness(lab.seed):
        for clip, mel in zip(clips, mels):
            found.append(compare(*lab.subject.vocode(mel.contiguous()), *clip.audio))

    def middle(name: str) -> float:
        values = [getattr(comparison, name) for comparison in found]
        known = [value for value in values if value == value]
        return float(statistics.median(known)) if known else float("nan")

    return Heard(
        *(middle(name) for name in ("seconds", "frequency", "match", "slope", "distance", "stoi")),
        source,
    )


def _converted(lab: Lab) -> tuple[str, Heard | None]:
    """Copy-synthesis of the targets on the scale that the vocoder seems to want, and the name of
    that scale.

    Where today's features are the target on another scale, that line is undone. Where they are the
    target itself, the vocoder is sounded out: what it and the extraction together make of a target
    is a straight line per bin, its inverse the conversion.
    """
    if lab.subject.features is None:
        return "", None
    clips = _heard_clips(lab)

    def extracted(samples: np.ndarray, rate: int) -> Tensor:
        return lab.subject.features(samples, rate).detach().float().cpu()

    with unchanged_randomness(lab.seed):
        wanted = torch.cat([clip.frames for clip in clips])
        if max(difference.size for difference in differences(lab)) > SAME:
            today = [extracted(*clip.audio)[: len(clip.frames)] for clip in clips]
            if any(len(a) != len(clip.frames) for a, clip in zip(today, clips)):
                return "", None
            scale, offset, explained = line_per_bin(torch.cat(today), wanted)
        else:
            back = [
                extracted(*lab.subject.vocode(clip.frames.contiguous()))[: len(clip.frames)]
                for clip in clips
            ]
            if any(len(a) != len(clip.frames) for a, clip in zip(back, clips)):
                return "", None
            scale, offset, explained = line_per_bin(wanted, torch.cat(back))
    if not scale > 0.05 or explained < 0.5:
        return "", None
    name = min(BASES, key=lambda base: abs(np.log(BASES[base] / scale)))
    name = name if abs(np.log(BASES[name] / scale)) < 0.1 else "scale"
    try:
        return f"{name}: divided by {scale:.3g}", _listen(
            lab, clips, [(clip.frames - offset) / scale for clip in clips], "target_mel, converted"
        )
    except SubjectError:  # the line was no conversion: what it gives cannot be vocoded
        return "", None
