"""Run one frozen trial of a Subject: train it by its own step in the laboratory, and judge it."""

from __future__ import annotations

import math
import time

from tts_core.errors import WorkbookError
from tts_workbook.lab.lab import Lab
from tts_workbook.lab.short_run import Course
from tts_workbook.measure.headline import generated, text_use
from tts_workbook.trials.fresh_subject import fresh_subject
from tts_workbook.trials.provenance import where_computed
from tts_workbook.trials.subject_trial import SubjectTrial
from tts_workbook.trials.trial_result import TrialResult


def run_subject_trial(trial: SubjectTrial) -> TrialResult[SubjectTrial]:
    """Train and judge. A training that breaks gives a result with `failed` set.

    Raises WorkbookError where the subject's source is not that of the trial, and where its code
    raises outside the train step.
    """
    began = time.perf_counter()
    with fresh_subject(trial) as subject:
        try:
            lab = Lab(subject, seed=trial.seed, steps=trial.steps)
            course = lab.course(*trial.changes.of_the_run)
            measures = _measures(lab, course)
            device = lab.target.device.type
        except WorkbookError:
            raise
        except Exception as error:  # its class may live in the subject's module: it cannot travel
            raise WorkbookError(
                f"trial {trial.name!r} of {trial.address}: the subject's code raised"
                f" {type(error).__name__}: {error}"
            ) from error
    trial_seconds = time.perf_counter() - began
    return TrialResult(
        trial,
        {name: _or_none(value) for name, value in measures.items()},
        _curves(course),
        course.broke,
        {**where_computed(device), "trial_seconds": trial_seconds},
    )


def _measures(lab: Lab, course: Course) -> dict[str, float]:
    """NaN for what a training that broke has not; what the subject cannot do is left out."""
    measures = {"best_constant": float(lab.best_constant), "seconds": course.seconds}
    wanted = ["outcome", "tf_over_constant"]
    if lab.subject.has("generate"):
        wanted.append("fr_over_constant")
    if lab.subject.has("shuffle_text"):
        wanted.append("text_use")
    measures |= dict.fromkeys(wanted, math.nan)
    if course.broke:
        return measures
    measures["outcome"] = course.outcome
    measures["tf_over_constant"] = course.final
    if "fr_over_constant" in measures:
        measures["fr_over_constant"] = lab.error(generated(lab, course.model))
    if "text_use" in measures:
        measures["text_use"] = text_use(lab, course.model)
    return measures


def _curves(course: Course) -> dict[str, list]:
    """Where the training was judged, and its error over the best constant there."""
    judged = [
        (step, value)
        for step, value in zip(course.steps, course.tf, strict=True)
        if math.isfinite(value)  # JSON has no NaN
    ]
    return {
        "steps": [step for step, _ in judged],
        "tf_over_constant": [value for _, value in judged],
    }


def _or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None
