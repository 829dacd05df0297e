"""A model of the user's trained on its own batch by its laboratory, judged, and kept: what notebook
03 measures of it.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from pathlib import Path

import torch

from tts_core.speech.audio import atomic_path
from tts_workbook.lab.lab import Lab
from tts_workbook.lab.short_run import Course
from tts_workbook.measure.headline import copy_previous, generated, text_use
from tts_workbook.measure.supply import missing
from tts_workbook.runner.notebook_rules.overfitting import OwnTraining
from tts_workbook.runner.notebook_rules.ruling import metric_name
from tts_workbook.subject.isolation import private_copy, unchanged_randomness
from tts_workbook.subject.opened import OpenSubject
from tts_workbook.subject.training_step import plain_step

CHECKPOINT = "subject.safetensors"


def plain_steps(opened: OpenSubject, n: int) -> list[float]:
    """The total at each of `n` steps of a fresh model, by the workbook's plain step around the
    subject's losses.
    """
    model, losses = opened.build(), opened.subject.losses
    with unchanged_randomness(opened.seed):
        optimizer = opened.subject.make_optimizer(model)
        steps = [plain_step(model, optimizer, private_copy(opened.batch), losses) for _ in range(n)]
    return [terms["total"] for terms in steps]


def train_own(lab: Lab, longer: bool) -> Course:
    """The course as it is; `longer`: three times as long where its curve still falls at the end."""
    if longer:
        lab.learns  # noqa: B018  trains the longer one where that is needed
    courses = (lab.course(), *lab.courses.values())
    return max(courses, key=lambda course: course.steps[-1] if course.steps else 0)


def judge_own(lab: Lab, course: Course) -> OwnTraining:
    """Teacher-forced, free-running and with the wrong text, as far as the subject supplies it."""
    subject, model = lab.subject, course.model
    teacher_forced = course.final
    if not course.broke:
        teacher_forced = lab.error(lab.predict(model, field="mel"))
    sound = math.isfinite(teacher_forced)
    free_running = frames = use = None
    if sound and subject.has("generate"):
        mel = generated(lab, model)
        free_running, frames = lab.error(mel), mel.shape[1] / lab.target.shape[1]
    if sound and subject.has("shuffle_text"):
        use = text_use(lab, model)
    parts = ("generate", "shuffle_text")
    return OwnTraining(
        n_steps=course.steps[-1] if course.steps else 0,
        seed=lab.seed,
        broke=course.broke,
        best_constant=lab.best_constant,
        copy_previous=copy_previous(lab),
        update_ratio=course.update_ratio,
        teacher_forced=teacher_forced,
        free_running=free_running,
        text_use=use,
        frames_generated=frames,
        lacking={part: missing(subject, part) for part in parts if not subject.has(part)},
    )


def errors_of(one: OwnTraining) -> dict[str, float]:
    """The finite errors over the best constant, by what they are errors of."""
    shuffled = None if one.text_use is None else one.text_use * one.teacher_forced
    errors = {
        "teacher-forced": one.teacher_forced,
        "teacher-forced, text shuffled": shuffled,
        "free-running": one.free_running,
    }
    return {name: e for name, e in errors.items() if e is not None and math.isfinite(e)}


def finite_curve(course: Course) -> list[tuple[int, float]]:
    """Step and teacher-forced error over the best constant, where it is finite."""
    points = zip(course.steps, course.tf, strict=True)
    return [(step, value) for step, value in points if math.isfinite(value)]


def checkpoint_name(name: str, others: Collection[str]) -> str:
    """The file in the folder of checkpoints: `CHECKPOINT` where one model of the user's is
    studied.
    """
    return CHECKPOINT if len(others) == 1 else f"{metric_name(name)}.safetensors"


def mels_of(lab: Lab, course: Course) -> dict[str, torch.Tensor]:
    """The first clip (T, M) in the units of the target: target, teacher-forced, and free-running
    where the subject generates. No number is left that a picture cannot show.
    """
    mels = {"target": lab.target[0], "teacher-forced": lab.predict(course.model, field="mel")[0]}
    if lab.subject.has("generate"):
        mels["free-running"] = generated(lab, course.model)[0]
    length = int(lab.lengths[0])
    return {label: torch.nan_to_num(mel[:length]).cpu() for label, mel in mels.items()}


def keep_weights(course: Course, file: Path) -> None:
    """The state dict of the trained model as safetensors, for notebook 07."""
    from safetensors.torch import save_file

    tensors = {
        name: value.detach().cpu().contiguous().clone()
        for name, value in course.model.state_dict().items()
        if isinstance(value, torch.Tensor)
    }
    with atomic_path(file) as temporary:
        save_file(tensors, temporary)
