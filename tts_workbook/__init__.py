"""The Overfit Workbook: why a text-to-speech model does not learn to speak, by measurement.

    from tts_workbook import Subject, diagnose, triage
    report = diagnose(Subject(build_model=..., batch=..., losses=..., make_optimizer=...,
                              predict_mel=..., target_mel=...))

Names are loaded when first used: the command line need not wait for the diagnosis.
"""

import importlib
from typing import Any

import tts_core  # first of all: it makes `import torchaudio` work beside any torch  # noqa: F401

_HOME = {
    "Subject": "tts_workbook.subject.subject",
    "SubjectError": "tts_workbook.subject.subject",
    "Finding": "tts_workbook.faults.finding",
    "Report": "tts_workbook.diagnosis.diagnosis_report",
    "diagnose": "tts_workbook.diagnosis.diagnose",
    "triage": "tts_workbook.diagnosis.triage",
}
__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
