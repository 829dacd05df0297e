"""One measurement of every clip of a corpus as a panel: a named bar per clip where there are few, a
histogram of many.

K clips. Values beyond their limit are vermilion, and their clips are named.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from tts_core.errors import WorkbookError
from tts_workbook.viz.axes import category_ticks, log_axis, white_box
from tts_workbook.viz.inputs import finite_array
from tts_workbook.viz.picture import Picture, new_picture, workbook_style
from tts_workbook.viz.style import GREY, LEVEL

MOST_BARS = 24  # clips; more are drawn as a histogram
ID_CHARACTERS = 26
CHARACTERS = 100  # of small type across a picture
BINS = 40
HIDES_ONE = 40  # a count of one cannot be seen beside more than this
ORDINARY, BEYOND = "#5B7C99", "#D55E00"


@dataclass(frozen=True)
class Measurement:
    """One key of the report's rows and how to draw it."""

    key: str
    label: str  # of the axis, with the unit
    limit: float | None = None  # in the axis' unit, drawn as a dashed line
    above: bool = True  # values above the limit are bad; False: below
    scale: float = 1.0  # axis unit per unit of the row, 100 for per cent
    outlier: str | None = None  # key of a robust z score that decides instead of the limit
    most: float = 0.0  # largest |z| that is no outlier

    def values(self, rows: Sequence[Mapping]) -> np.ndarray:
        """(K,) in the axis' unit."""
        return self.scale * column(rows, self.key)

    def beyond(self, rows: Sequence[Mapping]) -> np.ndarray:
        """(K,) bool: beyond the limit, or an outlier."""
        if self.outlier is not None:
            return np.abs(column(rows, self.outlier)) > self.most
        if self.limit is None:
            return np.zeros(len(rows), dtype=bool)
        values = self.values(rows)
        return values > self.limit if self.above else values < self.limit


def plot_measurements(
    rows: Sequence[Mapping],
    measurements: Sequence[Measurement],
    title: str = "",
    alignment: str | None = None,
) -> Picture:
    """Measurements of the clips `rows` (each a mapping with "id" and the keys), side by side.

    Raises WorkbookError for no rows, for a row without the key and for values that are not finite.
    """
    if not rows:
        raise WorkbookError("rows: there is no clip to draw; every clip of the corpus was rejected")
    columns = [(one, one.values(rows), one.beyond(rows)) for one in measurements]
    few = len(rows) <= MOST_BARS
    names = short_ids([str(row["id"]) for row in rows])
    room = CHARACTERS // len(columns)
    with workbook_style():
        picture = new_picture(0.55 + 0.23 * len(rows) if few else 2.3, title, alignment)
        panels = picture.subplots(1, len(columns), sharey=few, squeeze=False)[0]
        for panel, (measurement, values, bad) in zip(panels, columns, strict=True):
            panel.set_xlim(*_reach(values, measurement.limit))
            offenders = [name for name, is_bad in zip(names, bad, strict=True) if is_bad]
            if few:
                _draw_bars(panel, values, bad)
                note = f"{len(offenders)} beyond" if offenders else ""
            else:
                _draw_histogram(panel, values, bad)
                note = _note(offenders, room)
            if measurement.limit is not None:
                panel.axvline(measurement.limit, **LEVEL, zorder=2.5)
            panel.xaxis.set_major_locator(MaxNLocator(5))
            panel.set_xlabel(measurement.label)
            panel.set_title(note, fontsize=8, color=GREY)
        if few:
            _name_clips(panels, names)
        else:
            panels[0].set_ylabel("clips")
    return picture


def short_ids(ids: Sequence[str]) -> list[str]:
    """The ids without the beginning that all share (cut at a separator), none longer than 26
    characters.
    """
    cut = _shared_part(ids) if len(ids) > 1 else 0
    names = ["…" + name[cut:] if cut else name for name in ids]
    return [
        name if len(name) <= ID_CHARACTERS else "…" + name[1 - ID_CHARACTERS :] for name in names
    ]


def column(rows: Sequence[Mapping], key: str) -> np.ndarray:
    """(K,) the rows' values of `key`; raises WorkbookError for a row without it, and for what is
    not finite.
    """
    for row in rows:
        if key not in row:
            raise WorkbookError(f"rows: clip {row.get('id')!r} has no {key!r}")
    return finite_array(f"rows.{key}", [row[key] for row in rows], dimensions=1)


def _shared_part(ids: Sequence[str]) -> int:
    """How many characters all ids share at their beginning, up to the last separator there."""
    end = 0
    for place, letters in enumerate(zip(*ids, strict=False), start=1):  # as far as the shortest
        if len(set(letters)) > 1:
            break
        if not letters[0].isalnum():
            end = place
    return end


def _reach(values: np.ndarray, limit: float | None) -> tuple[float, float]:
    """Axis limits that hold zero, every value and the limit, with room for the printed values."""
    ends = [0.0, *values] if limit is None else [0.0, limit, *values]
    low, high = min(ends), max(ends)
    span = high - low
    if span <= 0:
        return 0.0, 1.0
    return (low - 0.08 * span if low < 0 else 0.0), high + 0.1 * span


def _name_clips(panels: Sequence[Axes], names: Sequence[str]) -> None:
    """The names of the clips at the left of panels with a bar per clip, the first on top."""
    panels[0].set_ylim(len(names) - 0.5, -0.5)
    category_ticks(panels[0].yaxis, names)
    for panel in panels[1:]:
        panel.tick_params(axis="y", length=0)
        panel.grid(axis="y", visible=False)


def _draw_bars(axes: Axes, values: np.ndarray, bad: np.ndarray) -> None:
    colours = [BEYOND if is_bad else ORDINARY for is_bad in bad]
    bars = axes.barh(range(len(values)), values, 0.66, color=colours)
    axes.bar_label(
        bars,
        [f"{value:.3g}" for value in values],
        fontsize=7.5,
        padding=2,
        color=GREY,
        zorder=4,
        bbox=white_box(pad=0.3, alpha=0.8),
    )


def _draw_histogram(axes: Axes, values: np.ndarray, bad: np.ndarray) -> None:
    """Counts over the limits of the axes; on a log axis where few clips beyond would vanish beside
    many others.
    """
    counts, _, _ = axes.hist(
        [values[~bad], values[bad]],
        bins=list(np.linspace(*axes.get_xlim(), BINS + 1)),
        stacked=True,
        color=[ORDINARY, BEYOND],
        edgecolor="white",
        linewidth=0.3,
    )
    highest = np.max(counts)
    if bad.any() and highest > HIDES_ONE:
        log_axis(axes, "y", 0.5, 2 * highest)
    else:
        axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))


def _note(offenders: Sequence[str], room: int) -> str:
    """What stands over a histogram: how many clips are beyond, and as many of their names as
    fit.
    """
    if not offenders:
        return ""
    text = f"{len(offenders)} beyond"
    for index, name in enumerate(offenders):
        longer = text + (", " if index else ": ") + name
        is_last = index == len(offenders) - 1
        kept_free = 0 if is_last else 3  # for the ellipsis
        if len(longer) + kept_free > room:
            return text + " …"
        text = longer
    return text
