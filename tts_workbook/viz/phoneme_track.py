"""Phoneme names along a time axis, legible at any density: staggered where narrow, left out where
crowded.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from tts_workbook.viz.axes import CHARACTER_WIDTH, POINTS_PER_INCH
from tts_workbook.viz.style import BAND, GREY, INK

TYPE_POINTS = 7.5
ROWS = 3  # labels that would touch are staggered over this many rows
AXES_INCHES = 6.8  # width of the time axis in a full-width picture, roughly
NAME_GAP = 0.035  # inches between two names
MOSTLY = 0.7  # where fewer can be named than this share, none is
CROWDED = (
    2.2 / POINTS_PER_INCH
)  # inches: phonemes narrower than this on average get no boundary lines


def label_rows(
    boundaries: np.ndarray,
    phonemes: Sequence[str],
    end: float,
    width: float = AXES_INCHES,
    type_points: float = TYPE_POINTS,
) -> list[int | None]:
    """The row of each label, 0 the lowest, so that no two in a row touch; None for a label that
    fits nowhere.

    `boundaries` (N + 1,) and `end` on the same axis, `width` of that axis in inches.
    """
    free_from = [-np.inf] * ROWS
    rows: list[int | None] = []
    for start, stop, name in zip(boundaries[:-1], boundaries[1:], phonemes, strict=True):
        inches = len(str(name)) * CHARACTER_WIDTH * type_points / POINTS_PER_INCH + NAME_GAP
        half = inches / 2 * end / width
        middle = (start + stop) / 2
        fitting = [row for row in range(ROWS) if free_from[row] <= middle - half]
        if fitting and stop > start:
            rows.append(fitting[0])
            free_from[fitting[0]] = middle + half
        else:
            rows.append(None)
    return rows


def draw_phonemes(axes: Axes, boundaries: np.ndarray, phonemes: Sequence[str], end: float) -> None:
    """Alternating bands with the phoneme names (N,) between their `boundaries` (N + 1,); the axis
    ends at `end`.
    """
    rows = label_rows(boundaries, phonemes, end)
    used = [row for row in rows if row is not None]
    if len(used) >= MOSTLY * len(rows):
        _draw_names(axes, boundaries, phonemes, rows)
        note = ""
        if len(used) < len(rows):
            note = f"{len(used)} of {len(rows)} named, the others are too narrow"
        axes.set_title(note, loc="right", fontsize=7.5, color=GREY, pad=2)
    else:
        axes.text(
            0.5,
            0.5,
            f"{len(rows)} phonemes: too many to name on this axis; draw a part of the clip",
            transform=axes.transAxes,
            ha="center",
            va="center",
            fontsize=8,
            color=GREY,
        )
    axes.set_ylim(0, 1)
    axes.set_yticks([])
    axes.grid(False)
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.tick_params(axis="x", length=0)
    axes.set_ylabel("phonemes", rotation=0, ha="right", va="center", fontsize=8)


def _draw_names(
    axes: Axes, boundaries: np.ndarray, phonemes: Sequence[str], rows: Sequence[int | None]
) -> None:
    """Every second span shaded, and the names that have a row in the middle of theirs."""
    n_rows = 1 + max(row for row in rows if row is not None)
    for index, row in enumerate(rows):
        start, stop = boundaries[index], boundaries[index + 1]
        if index % 2 == 0:
            axes.axvspan(start, stop, facecolor=BAND, edgecolor="none")
        if row is not None:
            axes.text(
                (start + stop) / 2,
                (row + 0.5) / n_rows,
                str(phonemes[index]),
                ha="center",
                va="center",
                fontsize=TYPE_POINTS,
                color=INK,
                clip_on=True,
            )


def draw_boundaries(axes: Axes, boundaries: np.ndarray) -> None:
    """Thin lines over a mel at the inner `boundaries`, none where they would hide it."""
    inner = np.unique(boundaries[1:-1])
    inches_each = AXES_INCHES / (len(inner) + 1)
    if len(inner) and inches_each > CROWDED:
        axes.vlines(
            inner,
            0,
            1,
            transform=axes.get_xaxis_transform(),
            color="white",
            linewidth=0.6,
            alpha=0.7,
        )
