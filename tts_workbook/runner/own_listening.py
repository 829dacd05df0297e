"""A model of the user's with the weights that it is judged by: numbers, mels and sounds of its
first clip, and whether generation is fed what training fed. What notebook 07 measures of it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from tts_workbook.diagnosis.triage import Triage, triage
from tts_workbook.lab.fed_as_trained import fed_as_trained
from tts_workbook.lab.lab import Lab
from tts_workbook.measure.copy_synthesis import CopyComparison, compare_with_recording
from tts_workbook.measure.history_parity import HistoryParity
from tts_workbook.measure.intelligibility import stoi_if_possible
from tts_workbook.measure.supply import NotMeasured, missing

PARTS = (("continue_from",), ("audio", "vocode"), ("generate", "vocode"))


@dataclass(frozen=True)
class OwnSpeech:
    """What can be heard of one model; `lacking`: parts, joined by commas -> what to supply."""

    found: Triage
    trained_error: float | None  # that notebook 03 measured of these weights; None of a checkpoint
    scores: Mapping[str, float]  # STOI against the copy-synthesis, by version
    fed: HistoryParity | None
    not_fed: str  # why that could not be measured, where the part is there
    copied: CopyComparison | None  # copy-synthesis beside the recording
    lacking: Mapping[str, str]


def listen_to(lab: Lab, weights: Path, trained_error: float | None, seed: int) -> OwnSpeech:
    """The subject with its own checkpoint, else with `weights`. Raises NotMeasured where notebook
    03 left none.
    """
    own = lab.subject.checkpoint is not None
    if not own and (trained_error is None or not weights.is_file()):
        raise NotMeasured("the training of notebook 03 broke and left no model")
    judged = lab.subject if own else replace(lab.subject, checkpoint=weights)
    found = triage(judged, seed)
    fed, not_fed = None, ""
    if judged.has("continue_from"):
        try:
            fed = fed_as_trained(Lab(judged, lab.budget_name, seed, steps=lab.steps))
        except Exception as error:
            # the subject's code may raise anything; it is said, and the rest goes on
            not_fed = f"could not be measured: {type(error).__name__}: {error}"
    copied = None
    if "copy-synthesis" in found.sounds and "recording" in found.sounds:
        copied = compare_with_recording(*found.sounds["copy-synthesis"], *found.sounds["recording"])
    lacking = {",".join(parts): missing(judged, *parts) for parts in PARTS}
    return OwnSpeech(
        found=found,
        trained_error=None if own else trained_error,
        scores=_scores(found),
        fed=fed,
        not_fed=not_fed,
        copied=copied,
        lacking={parts: text for parts, text in lacking.items() if text},
    )


def _scores(found: Triage) -> dict[str, float]:
    """STOI of every vocoded mel against the copy-synthesis, where lengths and rates allow one."""
    if "copy-synthesis" not in found.sounds:
        return {}
    copy, rate = found.sounds["copy-synthesis"]
    scores = {
        name: stoi_if_possible(samples, own_rate, copy, rate)
        for name, (samples, own_rate) in found.sounds.items()
        if name not in ("recording", "copy-synthesis")
    }
    return {name: score for name, score in scores.items() if math.isfinite(score)}


def hop_seconds(found: Triage) -> float:
    """Seconds of a frame, from a sound and its mel; without a sound, frames stand for seconds."""
    for sound in ("recording", "copy-synthesis"):
        if sound in found.sounds:
            samples, rate = found.sounds[sound]
            return len(samples) / rate / len(found.mels["target"])
    return 1.0


def shown_mels(found: Triage) -> dict[str, np.ndarray]:
    """The mels (T', M) without numbers that a picture cannot show."""
    return {name: np.nan_to_num(mel.cpu().numpy()) for name, mel in found.mels.items() if len(mel)}


def audible(found: Triage) -> dict[str, tuple[np.ndarray, int]]:
    """Every finite sound (samples, Hz), all at one gain, so that none leaves [-1, 1]."""
    sounds = {
        name: (np.asarray(samples), rate)
        for name, (samples, rate) in found.sounds.items()
        if np.isfinite(samples).all()
    }
    loudest = max([1.0, *(float(np.abs(samples).max()) for samples, _ in sounds.values())])
    return {name: (samples / loudest, rate) for name, (samples, rate) in sounds.items()}
