"""The planted-fault benchmark: what was named for what was planted, fault by fault, and detection
against false alarms.

Blue is right and vermilion is wrong in each of them; every share stands beside the number of runs
behind it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.patches import Patch, Rectangle

from tts_core.errors import WorkbookError
from tts_workbook.viz.axes import category_ticks, legend_above
from tts_workbook.viz.inputs import entry_of, finite_number, named
from tts_workbook.viz.picture import Picture, new_picture, take_room_on_top, workbook_style
from tts_workbook.viz.provenance import state_provenance
from tts_workbook.viz.style import INK, SPARE_COLOURS, luminance

RIGHT, WRONG, MASKED = "#0072B2", "#D55E00", "#d9d9d9"
ELSE = {"other": "other", "cannot tell": "cannot\ntell"}  # columns beside the causes of a group
ROW = 0.27  # inches of a row of a matrix
INSTEAD_COLUMNS, INSTEAD_CHARACTERS = 2.0, 42  # room for what was named instead, beside a row
LEGEND = 0.26  # inches
POINT_MARKERS = "os^Dv<>p*"

Colour = tuple[float, float, float]  # red, green, blue in [0, 1]


@dataclass(frozen=True)
class Share:
    """A share of runs, with its interval and the number of runs behind it."""

    value: float
    low: float
    high: float
    n: float


@dataclass(frozen=True)
class Point:
    """One mark of `plot_alarms`."""

    detection: Share
    false_alarms: Share

    def label(self, name: str) -> str:
        """What the legend says of it."""
        seen, alarms = self.detection, self.false_alarms
        return (
            f"{name}: notices {100 * seen.value:.0f} % of {seen.n:.0f}, "
            f"alarms in {100 * alarms.value:.1f} % of {alarms.n:.0f}"
        )


def plot_confusion(
    groups: Mapping[str, Mapping[str, Mapping[str, int]]],
    title: str = "",
    provenance: Mapping | None = None,
) -> Picture:
    """One matrix per group of look-alikes: planted cause by row, the cause named first by column,
    counts in the cells.

    `groups[group][planted][named]`: runs; `named` is a planted cause of the group, "other" or
    "cannot tell". A row is shaded by its shares. Raises WorkbookError for a count that is none, and
    for a column that is not known.
    """
    named("groups", groups)
    tables = {group: _counts(group, table) for group, table in groups.items()}
    columns = min(2, len(groups))
    names = list(groups)
    rows = [names[start : start + columns] for start in range(0, len(names), columns)]
    heights = [_row_height([groups[group] for group in row]) for row in rows]
    legend: dict[str, str | Colour] = {
        "the planted cause": RIGHT,
        "another one, or none": WRONG,
        "shade: share of the row; figures: runs": "white",
    }
    with workbook_style():
        picture = new_picture(sum(heights) + LEGEND, title)
        _legend_on_top(picture, legend)
        grid = picture.subplots(len(rows), columns, squeeze=False, height_ratios=heights)
        for line, row in zip(grid, rows, strict=True):
            for axes in line[len(row) :]:
                axes.set_visible(False)
            for axes, group in zip(line[: len(row)], row, strict=True):
                _draw_confusion(axes, group, list(groups[group]), tables[group])
        state_provenance(picture, provenance)
    return picture


def plot_root_cause(
    faults: Mapping[str, Mapping[str, Mapping]], title: str = "", provenance: Mapping | None = None
) -> Picture:
    """A row per planted fault, a column per architecture: how many of the runs named it first, and
    what was named instead.

    `faults[fault][architecture]`: {"right", "n", "masked": runs, "instead": {cause: runs}}. Raises
    WorkbookError for a count that does not fit.
    """
    named("faults", faults)
    architectures = list(dict.fromkeys(name for found in faults.values() for name in found))
    height = max(1.5, 0.5 + 0.2 * len(faults))
    legend: dict[str, str | Colour] = {
        "every run named it first": RIGHT,
        "some did": tint(WRONG, 0.5),
        "none did": WRONG,
        "masked: it spoils nothing that is measured": MASKED,
    }
    with workbook_style():
        picture = new_picture(height + LEGEND, title)
        _legend_on_top(picture, legend)
        axes = picture.subplots()
        right_of_cells = len(architectures) - 0.4
        for place, (fault, found) in enumerate(faults.items()):
            for column, name in enumerate(architectures):
                if name in found:
                    _draw_cell(axes, column, place, f"faults[{fault!r}][{name!r}]", found[name])
            instead = _named_instead(found)
            axes.text(right_of_cells, place, instead, va="center", ha="left", fontsize=7.5)
        category_ticks(axes.yaxis, list(faults))
        category_ticks(axes.xaxis, architectures)
        axes.tick_params(axis="y", labelsize=8)
        axes.xaxis.tick_top()
        axes.xaxis.set_label_position("top")
        axes.set(
            xlim=(-0.5, len(architectures) + INSTEAD_COLUMNS),
            ylim=(len(faults) - 0.5, -0.5),
            ylabel="planted fault",
        )
        axes.text(right_of_cells, -0.75, "named first instead", fontsize=8.5, va="bottom")
        for side in ("left", "bottom"):
            axes.spines[side].set_visible(False)
        state_provenance(picture, provenance)
    return picture


def plot_alarms(
    points: Mapping[str, Mapping], title: str = "", provenance: Mapping | None = None
) -> Picture:
    """Share of harmful plants noticed against the share of sound runs with an alarm: upper left is
    best.

    `points[name]`: {"detection": {"value", "interval": (low, high), "n"}, "false_alarms": the
    same}, shares in [0, 1]. The first is the diagnosis, a filled mark; the others are baselines.
    """
    drawn = {
        name: Point(
            _share(
                f"points[{name!r}].detection", entry_of(f"points[{name!r}]", values, "detection")
            ),
            _share(
                f"points[{name!r}].false_alarms",
                entry_of(f"points[{name!r}]", values, "false_alarms"),
            ),
        )
        for name, values in named("points", points).items()
    }
    colours = (RIGHT, *SPARE_COLOURS)
    with workbook_style():
        picture = new_picture(3.4, title)
        axes = picture.subplots()
        for index, (name, point) in enumerate(drawn.items()):
            _draw_point(axes, name, point, index, colours[index % len(colours)])
        highest = max(point.false_alarms.high for point in drawn.values())
        axes.set(
            xlim=(-0.01, max(0.12, 1.05 * highest)),
            ylim=(0, 1.02),
            xlabel="sound runs with an alarm (share; bar: to the exact 95 % bound)",
            ylabel="harmful plants noticed\n(share; bar: 95 %, by fault)",
        )
        legend_above(axes)
        state_provenance(picture, provenance)
    return picture


def tint(colour: str, share: float) -> Colour:
    """`colour` at a share of 1, white at 0."""
    red, green, blue = (1 - share * (1 - channel) for channel in to_rgb(colour))
    return red, green, blue


def ink_on(colour: Colour) -> str:
    """Ink that can be read on `colour`."""
    return INK if luminance(colour) > 0.5 else "white"


def _legend_on_top(picture: Picture, colours: Mapping[str, str | Colour]) -> None:
    """A legend between title and drawing, in room that is taken from the drawing's."""
    top = take_room_on_top(picture, LEGEND)
    keys = [Patch(color=colour, label=label) for label, colour in colours.items()]
    legend = picture.legend(
        handles=keys,
        loc="upper left",
        ncols=len(keys),
        borderaxespad=0.0,
        bbox_to_anchor=(0.004, top),
    )
    legend.set_in_layout(False)


def _row_height(tables: Sequence[Mapping]) -> float:
    """Inches of matrices side by side: the one with most causes decides."""
    return max(2, *map(len, tables)) * ROW + 0.75


def _counts(group: str, table: Mapping[str, Mapping[str, int]]) -> np.ndarray:
    """(causes, causes + 2) counts of one group."""
    causes = list(named(f"groups[{group!r}]", table))
    columns = [*causes, *ELSE]
    counts = np.zeros((len(causes), len(columns)))
    for row, (planted, found) in enumerate(table.items()):
        where = f"groups[{group!r}][{planted!r}]"
        for name, count in found.items():
            if name not in columns:
                raise WorkbookError(
                    f"{where}: {name!r} is neither a cause of the group nor one of"
                    f" {', '.join(ELSE)}"
                )
            counts[row, columns.index(name)] = finite_number(f"{where}[{name!r}]", count)
    if (counts < 0).any():
        raise WorkbookError(f"groups[{group!r}]: a count is below zero")
    return counts


def _draw_confusion(axes: Axes, group: str, causes: Sequence[str], counts: np.ndarray) -> None:
    """Cells shaded by the shares of their row, with the counts in them."""
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    for (row, column), share in np.ndenumerate(shares):
        colour = tint(RIGHT if row == column else WRONG, share)
        corner = (column - 0.5, row - 0.5)
        axes.add_patch(
            Rectangle(corner, 1, 1, facecolor=colour, edgecolor="#bbbbbb", linewidth=0.6)
        )
        count = counts[row, column]
        if count:
            axes.text(
                column,
                row,
                f"{count:.0f}",
                ha="center",
                va="center",
                fontsize=8.5,
                color=ink_on(colour),
            )
    numbers = [str(row) for row in range(1, len(causes) + 1)]
    numbered = [f"{cause}  {number}" for cause, number in zip(causes, numbers, strict=True)]
    category_ticks(axes.yaxis, numbered)
    category_ticks(axes.xaxis, [*numbers, *ELSE.values()])
    axes.tick_params(labelsize=7.5)
    axes.set(
        xlim=(-0.5, counts.shape[1] - 0.5),
        ylim=(len(causes) - 0.5, -0.5),
        xlabel="named first",
        ylabel="planted",
    )
    axes.set_title(f"{group}: n = {counts.sum():.0f}")


def _draw_cell(axes: Axes, column: int, place: int, where: str, cell: Mapping) -> None:
    """How many runs of one fault in one architecture named it first, as a coloured cell."""
    hits = finite_number(f"{where}.right", entry_of(where, cell, "right"))
    n = finite_number(f"{where}.n", entry_of(where, cell, "n"))
    masked = finite_number(f"{where}.masked", entry_of(where, cell, "masked"))
    if not 0 <= hits <= n:
        raise WorkbookError(
            f"{where}: {hits:g} of {n:g} runs are right; wanted at most all of them"
        )
    colour = _cell_colour(hits, n)
    corner = (column - 0.46, place - 0.42)
    axes.add_patch(Rectangle(corner, 0.92, 0.84, facecolor=colour, edgecolor="none"))
    text = "masked"
    if n:
        text = f"{hits:.0f} of {n:.0f}"
        if masked:
            text += f" + {masked:.0f} masked"
    axes.text(column, place, text, ha="center", va="center", fontsize=7.0, color=ink_on(colour))


def _cell_colour(hits: float, n: float) -> Colour:
    if not n:
        return to_rgb(MASKED)
    if hits == n:
        return to_rgb(RIGHT)
    return tint(WRONG, 1.0 if hits == 0 else 0.5)


def _named_instead(found: Mapping[str, Mapping]) -> str:
    """What was named for a fault instead of it, by architecture, as much as there is room for."""
    parts = [
        f"{architecture}: {_counted(cell['instead'])}"
        for architecture, cell in found.items()
        if cell["instead"]
    ]
    text = "; ".join(parts)
    if len(text) > INSTEAD_CHARACTERS:
        return text[: INSTEAD_CHARACTERS - 1] + "…"
    return text


def _counted(causes: Mapping[str, int]) -> str:
    return ", ".join(f"{cause} ×{count}" if count > 1 else cause for cause, count in causes.items())


def _draw_point(axes: Axes, name: str, point: Point, index: int, colour: str) -> None:
    """A mark at both shares with the bars of their intervals; the first is filled."""
    seen, alarms = point.detection, point.false_alarms
    is_first = index == 0
    axes.plot([alarms.low, alarms.high], [seen.value] * 2, color=colour, linewidth=1.2)
    axes.plot([alarms.value] * 2, [seen.low, seen.high], color=colour, linewidth=1.2)
    axes.plot(
        alarms.value,
        seen.value,
        POINT_MARKERS[index % len(POINT_MARKERS)],
        color=colour,
        markersize=9 if is_first else 6,
        zorder=3,
        markerfacecolor=colour if is_first else "white",
        markeredgewidth=1.6,
        clip_on=False,
        label=point.label(name),
    )


def _share(where: str, values: Mapping) -> Share:
    """Raises WorkbookError where a share is not one."""
    low, high = entry_of(where, values, "interval")
    share = Share(
        value=finite_number(f"{where}.value", entry_of(where, values, "value")),
        low=finite_number(f"{where}.interval low", low),
        high=finite_number(f"{where}.interval high", high),
        n=finite_number(f"{where}.n", entry_of(where, values, "n")),
    )
    numbers = [share.value, share.low, share.high]
    if not all(0 <= number <= 1 for number in numbers):
        raise WorkbookError(f"{where}: {numbers}, but shares lie between 0 and 1")
    return share
