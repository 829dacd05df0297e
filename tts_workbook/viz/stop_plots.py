"""When does the stop head end a clip? T frames."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np

from tts_core.errors import WorkbookError
from tts_workbook.viz.axes import decade, legend_above
from tts_workbook.viz.inputs import finite_array, finite_number, named
from tts_workbook.viz.picture import Picture, new_picture, workbook_style
from tts_workbook.viz.style import GREY, INK, LEVEL, colours_of

LOWEST_DRAWN = 1e-5  # probabilities below are drawn here
TICKS = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 0.5, 1)


def plot_stop_head(
    probabilities: Mapping[str, object],
    n_frames: int,
    hop_seconds: float,
    title: str = "",
    dashed: Collection[str] = (),
    like: Mapping[str, str] | None = None,
) -> Picture:
    """Stop probability of each frame on a log scale, with the true end, one half, and the constant
    predictor's 1 / T.

    `probabilities[label]` (T',) in [0, 1], each of its own length; `n_frames` T of the recording.
    Generation ends at the first frame above one half. `dashed`: labels of the curves that are
    dashed, the free-running ones; `like`: label -> the known name whose colour it has
    (`style.colours_of`). Raises WorkbookError for values outside [0, 1], and for a dashed label
    that is no curve.
    """
    hop, true_end = finite_number("hop_seconds", hop_seconds), finite_number("n_frames", n_frames)
    curves = {
        label: finite_array(f"probabilities[{label!r}]", values, dimensions=1)
        for label, values in named("probabilities", probabilities).items()
    }
    _check(curves, dashed)
    colours = colours_of(curves, like)
    with workbook_style():
        picture = new_picture(2.7, title)
        axes = picture.subplots()
        for label, values in curves.items():
            axes.plot(
                (np.arange(len(values)) + 0.5) * hop,
                values.clip(LOWEST_DRAWN),
                color=colours[label],
                label=label,
                linestyle="--" if label in dashed else "-",
            )
        axes.axvline(true_end * hop, color=INK, linewidth=0.9, label="end of the recording")
        axes.axhline(0.5, **LEVEL)
        axes.axhline(1 / true_end, **LEVEL | {"linestyle": ":"}, label="constant predictor, 1 / T")
        axes.set_yscale("log")
        axes.set_ylim(LOWEST_DRAWN / 1.5, 1.8)
        axes.set_yticks(TICKS, [decade(tick) for tick in TICKS])
        axes.set_yticks([], minor=True)
        longest = max(true_end, *(len(values) for values in curves.values()))
        axes.set_xlim(0, longest * hop * 1.02)
        axes.set(xlabel="time (s)", ylabel="stop probability")
        axes.annotate(
            "generation ends above one half",
            (0.004, 0.5),
            xycoords=("axes fraction", "data"),
            xytext=(0, -3),
            textcoords="offset points",
            va="top",
            fontsize=7.5,
            color=GREY,
        )
        legend_above(axes)
    return picture


def _check(curves: Mapping[str, np.ndarray], dashed: Collection[str]) -> None:
    for label, values in curves.items():
        if values.min() < 0 or values.max() > 1:
            raise WorkbookError(
                f"probabilities[{label!r}]: from {values.min():g} to {values.max():g}, wanted 0"
                " to 1"
            )
    unknown = sorted(set(dashed) - set(curves))
    if unknown:
        raise WorkbookError(f"dashed: {unknown} name no curve; the curves are {list(curves)}")
