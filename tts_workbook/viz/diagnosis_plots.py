"""What a diagnosis trained: the subject as it is beside each run with one thing changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from tts_workbook.viz.axes import legend_above, log_axis, log_limits
from tts_workbook.viz.inputs import named
from tts_workbook.viz.picture import Picture, new_picture, workbook_style
from tts_workbook.viz.style import GREY, INK, LEVEL, colours_of

MOST_COLOURED = 7  # changed runs that get a colour of their own; more are thin and grey

Points = Sequence[tuple[int, float]]  # (step, value)


def plot_courses(
    courses: Mapping[str, Points],
    unchanged: str | None,
    highlighted: Sequence[str] = (),
    title: str = "",
) -> Picture:
    """Teacher-forced L1 over the best constant by step: the subject as it is in black, the runs of
    interest in colour, the others thin and grey.

    `courses[key]`: (step, value) pairs; values that are not finite end a curve. `unchanged` is the
    key of the subject as it is, None where there is no such run; `highlighted` the keys of what is
    coloured, the first seven of them. The line of the best constant is dashed.
    """
    curves = {key: _finite(points) for key, points in named("courses", courses).items()}
    coloured = [key for key in highlighted if key in curves][:MOST_COLOURED]
    others = [key for key in curves if key not in coloured and key != unchanged]
    colours = colours_of(coloured)
    every = [value for points in curves.values() for _, value in points]
    with workbook_style():
        picture = new_picture(3.3, title)
        axes = picture.subplots()
        for index, key in enumerate(others):
            label = None if index else "other changes"
            _draw(axes, curves[key], color=GREY, linewidth=0.7, alpha=0.6, label=label)
        for key in coloured:
            _draw(axes, curves[key], color=colours[key], marker=".", label=key)
        if unchanged is not None and curves.get(unchanged):
            _draw(axes, curves[unchanged], color=INK, linewidth=2.0, label=unchanged)
        axes.axhline(1.0, **LEVEL, label="best constant")
        axes.set(xlabel="step", ylabel="teacher-forced L1\n/ best constant")
        log_axis(axes, "y", *log_limits(np.array([*every, 1.0, 0.5]), 1.2))
        legend_above(axes)
    return picture


def _finite(points: Points) -> list[tuple[int, float]]:
    return [(step, value) for step, value in points if np.isfinite(value)]


def _draw(axes: Axes, points: Points, **look: Any) -> None:
    steps, values = [step for step, _ in points], [value for _, value in points]
    axes.plot(steps, values, **look)
