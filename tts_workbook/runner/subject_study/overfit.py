"""Notebook 03 on a subject: can it overfit its batch, judged teacher-forced, free-running and with
the wrong text?
"""

from __future__ import annotations

import math

import torch

from tts_core.metrics.text_use import N_PERMUTATIONS
from tts_core.speech.audio import atomic_path
from tts_workbook.lab.short_run import LEARNT, Course
from tts_workbook.measure.headline import copy_previous, generated, text_use
from tts_workbook.runner.subject_study.study import Study, Verdict, metric_name
from tts_workbook.runner.verdicts import Item
from tts_workbook.viz import plot_baselines, plot_loss_curves, plot_mels

REASON = "it trains our presets; your model's own training is above"
CHECKPOINT = "subject.safetensors"
READS = 1.1  # text use above this: the bar of the presets' gate
UNIT = "of the best constant"
ERRORS = ("teacher-forced", "teacher-forced, text shuffled", "free-running")


def study(study: Study) -> Verdict:
    """Train on the batch, draw the curve over its yardsticks, judge, and keep the weights for
    notebook 07.
    """
    lab, course = study.lab, _train(study)
    lines = {"best constant": 1.0, "copy the previous frame": copy_previous(lab)}
    judged = {
        "teacher-forced": (
            course.final if course.broke else lab.error(lab.predict(course.model, field="mel"))
        )
    }
    _draw_course(study, course, lines)
    if math.isfinite(judged["teacher-forced"]):
        _judge(study, course, judged)
        _keep(study, course)
    bars = {name: judged[name] for name in ERRORS if math.isfinite(judged.get(name, math.nan))}
    picture = plot_baselines(
        {**lines, **bars}, f"{study.name}: judged after training", list(bars), unit=UNIT
    )
    study.book.save_figure(
        picture,
        "subject_judged",
        "The trained model beside what needs no training. Shuffled text that costs nothing says"
        " that the text is not read; a free-running error far above the teacher-forced one is what"
        " a listener hears.",
    )
    return _verdict(study, course, judged, lines["copy the previous frame"])


def _train(study: Study) -> Course:
    """The course as it is; three times as long where its curve still falls at the end (not in
    profile smoke).
    """
    if not study.smoke:
        study.lab.learns  # trains the longer one where that is needed
    return max(
        (study.lab.course(), *study.lab.courses.values()),
        key=lambda course: course.steps[-1] if course.steps else 0,
    )


def _judge(study: Study, course: Course, judged: dict[str, float]) -> None:
    """Add what else the subject supplies: text use, and the free-running error over the frames that
    both have.
    """
    lab = study.lab
    if not study.missing("shuffle_text"):
        judged["text use"] = text_use(lab, course.model)
        judged["teacher-forced, text shuffled"] = judged["text use"] * judged["teacher-forced"]
    mels = {"target": lab.target[0], "teacher-forced": lab.predict(course.model, field="mel")[0]}
    if not study.missing("generate"):
        mel = generated(lab, course.model)
        judged["free-running"], mels["free-running"] = lab.error(mel), mel[0]
        judged["frames generated over frames wanted"] = mel.shape[1] / lab.target.shape[1]
    length = int(lab.lengths[0])
    mels = {label: torch.nan_to_num(mel[:length]).cpu().numpy() for label, mel in mels.items()}
    notes = {label: f"L1 {judged[label]:.3f} {UNIT}" for label in mels if label in judged}
    study.book.save_figure(
        plot_mels(
            mels,
            1.0,
            f"{study.name}: the first clip after {course.steps[-1]} steps",
            notes,
            colour_label="target units",
            x_label="frame",
        ),
        "subject_mels",
        "The target sets the colour scale. Below it the model fed with the true history and, where"
        " Subject.generate is supplied, with itself. Numbers are over the whole batch.",
    )


def _keep(study: Study, course: Course) -> None:
    from safetensors.torch import save_file

    with atomic_path(study.book.folder("checkpoints") / CHECKPOINT) as temporary:
        save_file(
            {
                name: value.detach().cpu().contiguous().clone()
                for name, value in course.model.state_dict().items()
                if isinstance(value, torch.Tensor)
            },
            temporary,
        )


def _draw_course(study: Study, course: Course, lines: dict[str, float]) -> None:
    points = [(step, value) for step, value in zip(course.steps, course.tf) if math.isfinite(value)]
    if points:
        run = {"steps": [step for step, _ in points], "mel_l1": [value for _, value in points]}
        study.book.save_figure(
            plot_loss_curves(
                {study.name: run}, lines, f"{study.name}: overfitting its own batch", unit=UNIT
            ),
            "subject_course",
            "Teacher-forced mel L1 in eval mode over the steps, as a share of the best constant,"
            " one spectrum for every frame. A model at the copy-previous line needs no text at"
            " all.",
        )


def _verdict(study: Study, course: Course, judged: dict[str, float], copied: float) -> Verdict:
    tf, n_steps = judged["teacher-forced"], course.steps[-1] if course.steps else 0
    learnt = tf < LEARNT and not course.broke
    broke = f" The training broke: {course.broke}." if course.broke else ""
    others = [
        f"{name} {judged[name]:.3f}" for name in ("free-running", "text use") if name in judged
    ]
    answer = (
        f"{'It learns' if learnt else 'It does not learn'} its batch in {n_steps} steps:"
        f" teacher-forced mel L1 {tf:.3f} {UNIT}{''.join(f', {other}' for other in others)};"
        f" copying the previous frame has {copied:.3f}.{broke}"
    )
    items = (
        study.item(
            "overfit_gate",
            f"within {n_steps} steps its teacher-forced mel L1 falls below {LEARNT} {UNIT}",
            "supported" if learnt else "refuted",
            "a longer run, or another seed, that ends on the other side",
            effect=tf,
            unit=UNIT,
            threshold=LEARNT,
        ),
        _free_running(study, judged, copied),
        _reads(study, judged),
    )
    metrics = {
        "best_constant_l1": study.lab.best_constant,
        "copy_previous": copied,
        "steps": n_steps,
        "seed": study.lab.seed,
        "update_ratio": course.update_ratio,
        **{metric_name(name): value for name, value in judged.items()},
    }
    return Verdict(answer, metrics, items)


def _free_running(study: Study, judged: dict[str, float], copied: float) -> Item:
    claim = (
        "it overfits its batch judged free-running: the error is below that of copying the previous"
        " frame"
    )
    if "free-running" not in judged:
        return _not_judged(study, "overfit_free_running", claim, "generate")
    return study.item(
        "overfit_free_running",
        claim,
        "supported" if judged["free-running"] < copied else "refuted",
        "a longer training, or another seed; an early gap to teacher forcing may close by itself",
        effect=judged["free-running"],
        unit=f"FR L1, {UNIT}",
        threshold=copied,
    )


def _reads(study: Study, judged: dict[str, float]) -> Item:
    claim = (
        f"it reads its text: permuted phonemes raise its teacher-forced error at least {READS}"
        " times"
    )
    if "text use" not in judged:
        return _not_judged(study, "text_used", claim, "shuffle_text")
    return study.item(
        "text_used",
        claim,
        "supported" if judged["text use"] > READS else "refuted",
        "a longer training; other permutations",
        effect=judged["text use"],
        unit="text use (1: ignored)",
        threshold=READS,
        n=N_PERMUTATIONS,
        unit_of_replication="permutations of one batch, one training",
    )


def _not_judged(study: Study, id: str, claim: str, field: str) -> Item:
    if study.subject.has(field):
        return study.item(
            id,
            claim,
            "undecided",
            "a training that does not break",
            provenance="the training broke: nothing to judge",
        )
    return study.absent_item(id, claim, field)
