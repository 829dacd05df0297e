"""How the error grows with the number of frames that a model has heard from itself. K spans of
frames.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.lines import Line2D

from tts_core.errors import WorkbookError
from tts_workbook.viz.axes import doubling_axis, legend_above, legend_keys, mark_levels
from tts_workbook.viz.inputs import finite_arrays, finite_numbers, named
from tts_workbook.viz.picture import Picture, new_picture, workbook_style
from tts_workbook.viz.style import GREY, colours_of

DRAWN_ERRORS = ("error", "teacher_forced")


def plot_self_feeding(
    arms: Mapping[str, Mapping], levels: Mapping[str, float], title: str = ""
) -> Picture:
    """Free-running error against the number of self-fed frames, and teacher-forced error of the
    same frames, per arm.

    `arms[arm]`: {"last": (K,) the last frame of each span, rising from 1, "error": (K,),
    "teacher_forced": (K,)}, in ln units; `levels`: yardsticks, name -> L1. Where the solid line
    stays on the dotted one, hearing itself costs nothing. Raises WorkbookError for spans that do
    not rise or curves of another length.
    """
    curves = {
        arm: finite_arrays(f"arms[{arm!r}]", values, ("last", *DRAWN_ERRORS))
        for arm, values in named("arms", arms).items()
    }
    for arm, values in curves.items():
        _check(arm, values)
    levels = finite_numbers("levels", levels)
    errors = [values[key].max() for values in curves.values() for key in DRAWN_ERRORS]
    highest = max(*levels.values(), *errors)
    longest = max((values["last"] for values in curves.values()), key=lambda last: last[-1])
    colours = colours_of(curves)
    with workbook_style():
        picture = new_picture(3.1, title)
        axes = picture.subplots()
        for arm, values in curves.items():
            last, colour = values["last"], colours[arm]
            axes.plot(last, values["error"], color=colour, marker="o", markersize=4, label=arm)
            axes.plot(last, values["teacher_forced"], color=colour, linestyle=":", linewidth=1.3)
        doubling_axis(axes, longest.tolist(), _span_labels(longest))
        axes.set_xlim(0.9, 1.12 * longest[-1])
        axes.set_ylim(0, 1.06 * highest)
        axes.set(
            xlabel=(
                "frames since the model began to hear itself (the first one still has a true"
                " history)"
            ),
            ylabel="mel L1 (ln units)",
        )
        dotted = Line2D([], [], color=GREY, linestyle=":", label="the same frames, teacher-forced")
        legend_above(axes, [*legend_keys(axes), dotted])
        mark_levels(axes, levels, height=2.4)
    return picture


def _check(arm: str, values: Mapping[str, np.ndarray]) -> None:
    lengths = {key: len(numbers) for key, numbers in values.items()}
    last = values["last"]
    rises = last[0] >= 1 and (np.diff(last) > 0).all()
    if len(set(lengths.values())) > 1 or not rises:
        raise WorkbookError(
            f"arms[{arm!r}]: as many errors as spans are wanted, and spans that rise from 1;"
            f" seen {lengths}"
        )


def _span_labels(last: np.ndarray) -> list[str]:
    """1, 2, 3–4, 5–8 …: each span by its first and last frame."""
    labels = []
    start = 1
    for end in last.astype(int):
        labels.append(f"{start}" if start == end else f"{start}–{end}")
        start = end + 1
    return labels
