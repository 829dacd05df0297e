"""Notebook 05 on a subject: would another learning rate, or no weight decay, make it learn its
batch better?
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from tts_workbook.lab.lab import AS_IT_IS
from tts_workbook.lab.run_changes import lr_times, no_weight_decay
from tts_workbook.lab.short_run import Change, Course
from tts_workbook.measure.headline import generated, text_use
from tts_workbook.measure.observed_steps import observe_steps
from tts_workbook.runner.subject_study.study import Study, Verdict
from tts_workbook.trials.paired_effects import MARGINS
from tts_workbook.viz import plot_courses, plot_sweep

REASON = "it sweeps our presets; your model's own sweep is above"
# of the rate
FACTORS = {
    "smoke": (0.1, 1.0, 10.0),
    "quick": (0.1, 1.0, 10.0),
    "seed": (0.03, 0.1, 0.3, 1.0, 3.0, 10.0),
}
MEASURES = {
    "mean": "mean TF L1 / best constant",
    "tf": "TF L1 / best constant",
    "fr": "FR L1 / best constant",
    "use": "text use",
}
CLAIM = (
    "another learning rate or no weight decay brings its {measure} down by more than {margin:g},"
    " against the subject as it is"
)


@dataclass(frozen=True)
class Cell:
    """One training of the grid."""

    factor: float  # of the learning rate
    undecayed: bool  # weight decay 0 instead of the subject's own

    @property
    def changes(self) -> tuple[Change, ...]:
        return (
            *([lr_times(self.factor)] if self.factor != 1.0 else []),
            *([no_weight_decay()] if self.undecayed else []),
        )

    @property
    def label(self) -> str:
        return " + ".join(change.name for change in self.changes) or "as it is"


def study(study: Study) -> Verdict:
    """A training per cell, the heat map, the curves, and the best cell beside the subject as it
    is.
    """
    seen = observe_steps(study.lab)
    lr, decay = max(seen.lr.values(), default=0.0), max(seen.weight_decay, default=0.0)
    if not lr > 0:
        return Verdict(
            "no sweep: no step of its optimiser at a learning rate above zero was seen; see"
            " notebook 02.",
            {},
            (
                study.item(
                    "another_rate_learns_better",
                    "another learning rate makes it learn better",
                    "undecided",
                    "a sweep, once it steps",
                    n=0,
                    provenance="no optimiser step with a learning rate was seen",
                ),
            ),
        )
    cells = [
        Cell(factor, undecayed)
        for factor in FACTORS[study.book.parameters.profile]
        for undecayed in ((False, True) if decay and not study.smoke else (False,))
    ]
    print(
        f"{len(cells)} trainings of {study.lab.n_steps} steps; as it is: learning rate {lr:g},"
        f" weight decay {decay:g} (the largest of its groups)"
        + ("" if decay else ": there is none to take away")
    )
    courses = {cell: study.lab.course(*cell.changes) for cell in cells}
    measured = {cell: _measure(study, course) for cell, course in courses.items()}
    by = "fr" if study.subject.has("generate") else "tf"
    best = min(
        (cell for cell in cells if math.isfinite(measured[cell][by])),
        key=lambda cell: measured[cell][by],
        default=None,
    )
    _draw(study, measured, lr, decay, best, by)
    for cell, values in measured.items():
        print(
            f"{cell.label:45s} "
            + ", ".join(f"{MEASURES[name]} {value:.3f}" for name, value in values.items())
            + (f"; broke: {courses[cell].broke}" if courses[cell].broke else "")
        )
    return _verdict(study, measured, best, by)


def _measure(study: Study, course: Course) -> dict[str, float]:
    """NaN for what a training that broke has not."""
    found = {
        "mean": math.nan if course.broke else course.outcome,
        "tf": math.nan if course.broke else course.final,
    }
    if study.subject.has("generate"):
        found["fr"] = (
            math.nan if course.broke else study.lab.error(generated(study.lab, course.model))
        )
    if study.subject.has("shuffle_text"):
        found["use"] = math.nan if course.broke else text_use(study.lab, course.model)
    return {name: value if math.isfinite(value) else math.nan for name, value in found.items()}


def _draw(
    study: Study,
    measured: dict[Cell, dict[str, float]],
    lr: float,
    decay: float,
    best: Cell | None,
    by: str,
) -> None:
    rates = sorted({lr * cell.factor for cell in measured})
    decays = sorted({0.0 if cell.undecayed else decay for cell in measured})
    names = next(iter(measured.values()))
    grids = {MEASURES[name]: np.full((len(rates), len(decays)), np.nan) for name in names}
    for cell, values in measured.items():
        place = rates.index(lr * cell.factor), decays.index(0.0 if cell.undecayed else decay)
        for name, value in values.items():
            grids[MEASURES[name]][place] = value
    framed = {study.name: best and (lr * best.factor, 0.0 if best.undecayed else decay)}
    study.book.save_figure(
        plot_sweep({study.name: grids}, rates, decays, framed, best_by=MEASURES[by]),
        "subject_sweep",
        f"After {study.lab.n_steps} steps each, one seed: the learning rate times"
        f" {', '.join(f'{rate / lr:g}' for rate in rates)}{', weight decay as it is and 0' * (len(decays) > 1)}."
        " A cell whose text use is 1 does not read, however low its error.",
    )
    curves = {
        name: list(zip(course.steps, course.tf)) for name, course in study.lab.courses.items()
    }
    changed = [name for name in curves if name != AS_IT_IS]
    study.book.save_figure(
        plot_courses(curves, AS_IT_IS, changed, f"{study.name}: every training of the sweep"),
        "subject_sweep_curves",
        "Teacher-forced L1 over the best constant by step; in black the subject as it is.",
    )


def _verdict(
    study: Study, measured: dict[Cell, dict[str, float]], best: Cell | None, by: str
) -> Verdict:
    own, margin, measure = (
        measured[Cell(1.0, False)][by],
        MARGINS[f"{by}_over_constant"],
        MEASURES[by],
    )
    claim = CLAIM.format(measure=measure, margin=margin)
    if best is None:
        return Verdict(
            "every training of the grid broke: mend that first (notebook 02).",
            {},
            (
                study.item(
                    "another_rate_learns_better", claim, "undecided", "a grid whose trainings hold"
                ),
            ),
        )
    gain = own - measured[best][by]
    better = "supported" if math.isnan(own) or gain > margin else "refuted"
    beside = (
        "the best cell is the subject as it is"
        if best == Cell(1.0, False)
        else (
            f"the best cell, {best.label}, has {measured[best][by]:.3f}; as it is"
            f" {'it breaks' if math.isnan(own) else f'{own:.3f}'}"
        )
    )
    broken = sum(math.isnan(values["tf"]) for values in measured.values())
    near = (
        f", within the margin of {margin:g}"
        if better == "refuted" and best != Cell(1.0, False)
        else ""
    )
    lost = f"; {broken} of {len(measured)} trainings broke" if broken else ""
    answer = (
        f"By {measure} after {study.lab.n_steps} steps, {beside}{near}{lost}. "
        "One seed, one batch: this describes the grid and no more."
    )
    item = study.item(
        "another_rate_learns_better",
        claim,
        better,
        "the same grid over several seeds and batches, or a longer budget",
        effect=gain,
        unit=measure,
        threshold=margin,
    )
    metrics = {
        "trainings": len(measured),
        "broke": broken,
        "steps": study.lab.n_steps,
        "as_it_is": own,
        "best": measured[best][by],
        "best_lr_factor": best.factor,
        "best_without_decay": int(best.undecayed),
    }
    return Verdict(answer, metrics, (item,))
