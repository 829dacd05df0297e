"""Run one frozen trial, of a preset or of a Subject: here a trial becomes numbers."""

from __future__ import annotations

from tts_workbook.trials.run_preset_trial import run_preset_trial
from tts_workbook.trials.run_subject_trial import run_subject_trial
from tts_workbook.trials.subject_trial import SubjectTrial
from tts_workbook.trials.trial_result import AnyTrial, TrialResult


def run_trial(trial: AnyTrial) -> TrialResult:
    """Train and judge. A training that breaks gives a result with `failed` set; other errors are
    raised.
    """
    if isinstance(trial, SubjectTrial):
        return run_subject_trial(trial)
    return run_preset_trial(trial)
