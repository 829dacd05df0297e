"""What a measurement says of a subject that cannot give it: which part is missing, and what that
part has to be.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tts_core.config import ExperimentConfig
from tts_core.errors import WorkbookError
from tts_core.model.tts import TTSModel
from tts_core.speech.batch import Batch
from tts_workbook.subject.opened import OpenSubject
from tts_workbook.subject.presets import PresetSubject
from tts_workbook.subject.subject import Subject

question = "What has a subject to supply for a measurement?"

SUPPLY = {  # part of a subject -> what it has to be
    "generate": "(model, batch) -> (B, T', M), free-running",
    "shuffle_text": "(batch, generator) -> the batch with its phonemes permuted",
    "duplicate": "(batch, k) -> the batch with every clip k times",
    "pad": "(batch, n) -> the same clips with n more padded frames",
    "continue_from": (
        "(model, batch, history (B, t, M)) -> (B, M), frame t by the code path that generation uses"
    ),
    "audio": "(batch) -> (samples, Hz) of each clip",
    "vocode": "(mel (T, M) in target units) -> (samples, Hz)",
    "infer": "(model, batch) -> mels (T', M) at lengths of their own, one per clip",
    "stop": "(model, batch) -> (B, T), teacher-forced probability that the frame is the last",
}
OWN_MODEL = "a preset: it changes switches of the workbook's own model and train step"


class NotMeasured(WorkbookError):
    """A measurement that this subject cannot give; the message says what to supply."""


def missing(subject: Subject, *fields: str) -> str:
    """What to supply of `fields`; empty where the subject has them all."""
    absent = [name for name in fields if not subject.has(name)]
    if not absent:
        return ""
    wanted = [f"Subject.{name} = {SUPPLY[name]}" for name in absent]
    return f"supply {' and '.join(wanted)}"


def required(opened: OpenSubject, field: str) -> Callable[..., Any]:
    """The part `field` of the subject. Raises NotMeasured where it has none."""
    part = getattr(opened.subject, field)
    if part is None:
        raise NotMeasured(missing(opened.subject, field))
    return part


def own_parts(opened: OpenSubject) -> tuple[TTSModel, Batch, ExperimentConfig]:
    """The fresh model, the batch and the configuration of a preset. Raises NotMeasured for any
    other subject: what asks for these changes named switches of our model and our step.
    """
    subject = opened.subject
    if not isinstance(subject, PresetSubject) or not isinstance(opened.model, TTSModel):
        raise NotMeasured(f"supply {OWN_MODEL}")
    return opened.model, opened.batch, subject.experiment
