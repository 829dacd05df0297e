"""A training on a corpus by what it says of clips it never heard: error over the steps, and whether
the text is used.

V validations of a run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from tts_workbook.viz.axes import legend_above
from tts_workbook.viz.constant_line import step_limits
from tts_workbook.viz.inputs import curve, entry_of, finite_number, named
from tts_workbook.viz.picture import Picture, new_picture, workbook_style
from tts_workbook.viz.style import LEVEL, colours_of


@dataclass(frozen=True)
class Validations:
    """What is drawn of one run; arrays (V,)."""

    steps: np.ndarray
    free_running: np.ndarray  # mel L1 over the best constant
    teacher_forced: np.ndarray  # the same
    text_use: np.ndarray
    best_step: float


def plot_corpus_training(
    runs: Mapping[str, Mapping], title: str = "On clips that training never saw"
) -> Picture:
    """Free-running and teacher-forced error over the best constant, above; text use, below.

    `runs`: name -> {"validation": {"steps", "fr_over_constant", "tf_l1", "fr_l1", "text_use": (V,)
    each}, "best_step": int}.
    """
    drawn = {
        name: _validations(f"runs[{name!r}]", run) for name, run in named("runs", runs).items()
    }
    colours = colours_of(drawn)
    with workbook_style():
        picture = new_picture(4.6, title)
        upper, lower = picture.subplots(2, 1, sharex=True, height_ratios=(3, 2))
        for name, run in drawn.items():
            upper.plot(
                run.steps,
                run.free_running,
                color=colours[name],
                marker=".",
                label=f"{name}: free-running (best at step {run.best_step:,.0f})",
            )
            upper.plot(
                run.steps,
                run.teacher_forced,
                color=colours[name],
                linestyle=":",
                label=f"{name}: teacher-forced",
            )
            lower.plot(run.steps, run.text_use, color=colours[name], marker=".")
        upper.axhline(1, **LEVEL)
        upper.set_ylim(bottom=0)
        upper.set_ylabel("mel L1 / best constant")
        lower.axhline(1, **LEVEL)
        lower.set(ylabel="text use (1: ignored)", xlabel="training step")
        curves = {name: (run.steps, run.free_running) for name, run in drawn.items()}
        lower.set_xlim(*step_limits(curves))
        legend_above(upper)
    return picture


def _validations(where: str, run: Mapping) -> Validations:
    """The numbers of one run; the teacher-forced error is brought to the best constant by the
    free-running one, which is known both ways.
    """
    validation = entry_of(where, run, "validation")
    inside = f"{where}['validation']"
    steps, free_running = curve(inside, validation, "fr_over_constant")
    _, free_running_l1 = curve(inside, validation, "fr_l1")
    _, teacher_forced_l1 = curve(inside, validation, "tf_l1")
    _, text_use = curve(inside, validation, "text_use")
    teacher_forced = free_running * teacher_forced_l1 / free_running_l1
    best_step = finite_number(f"{where}['best_step']", entry_of(where, run, "best_step"))
    return Validations(steps, free_running, teacher_forced, text_use, best_step)
