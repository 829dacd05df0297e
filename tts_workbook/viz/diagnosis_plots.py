"""What a diagnosis trained: the subject as it is beside each run with one thing changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from tts_workbook.viz.axes import legend_above, log_axis, log_limits
from tts_workbook.viz.inputs import named
from tts_workbook.viz.picture import Picture, new_picture, workbook_style
from tts_workbook.viz.style import GREY, INK, LEVEL, colours_of

MOST = 7  # changed runs that get a colour of their own; more are thin and grey
AS_IT_IS = "as it is"


def plot_courses(
    courses: Mapping[str, Sequence[tuple[int, float]]], helped: Sequence[str] = (), title: str = ""
) -> Picture:
    """Teacher-forced L1 over the best constant by step: the subject as it is in black, runs named
    in `helped` in colour.

    `courses[name]`: (step, value) pairs; values that are not finite end a curve. The line of the
    best constant is dashed.
    """
    curves = {
        name: [(step, value) for step, value in points if np.isfinite(value)]
        for name, points in named("courses", courses).items()
    }
    coloured = [name for name in helped if name in curves][:MOST]
    colours = colours_of(coloured)
    every = [value for points in curves.values() for _, value in points] + [1.0, 0.5]
    with workbook_style():
        picture = new_picture(3.3, title)
        axes = picture.subplots()
        others = [name for name in curves if name not in coloured and name != AS_IT_IS]
        for name in others:
            axes.plot(
                *zip(*curves[name]) if curves[name] else ([], []),
                color=GREY,
                linewidth=0.7,
                alpha=0.6,
                label="other changes" if name == others[0] else None,
            )
        for name in coloured:
            axes.plot(
                *zip(*curves[name]) if curves[name] else ([], []),
                color=colours[name],
                marker=".",
                label=name,
            )
        if curves.get(AS_IT_IS):
            axes.plot(*zip(*curves[AS_IT_IS]), color=INK, linewidth=2.0, label=AS_IT_IS)
        axes.axhline(1.0, **LEVEL, label="best constant")
        axes.set(xlabel="step", ylabel="teacher-forced L1\n/ best constant")
        log_axis(axes, "y", *log_limits(np.array(every), 1.2))
        legend_above(axes)
    return picture
