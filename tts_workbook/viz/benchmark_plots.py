"""The planted-fault benchmark: what was named for what was planted, fault by fault, and detection
against false alarms.

Blue is right and vermilion is wrong in each of them; every share stands beside the number of runs
behind it.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.patches import Patch, Rectangle

from tts_core.errors import WorkbookError
from tts_workbook.viz.axes import category_ticks, legend_above
from tts_workbook.viz.inputs import entry, finite_number, named
from tts_workbook.viz.picture import Picture, new_picture, workbook_style
from tts_workbook.viz.recorded_plots import state_provenance
from tts_workbook.viz.style import INK, SPARE_COLOURS

RIGHT, WRONG, MASKED = "#0072B2", "#D55E00", "#d9d9d9"
ELSE = ("other", "cannot tell")  # columns beside the causes of a group
ROW = 0.27  # inches of a row of a matrix
INSTEAD_COLUMNS, INSTEAD_CHARACTERS = 2.0, 42  # room for what was named instead, beside a row
LEGEND = 0.26  # inches


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
    rows = [list(tables)[start : start + columns] for start in range(0, len(tables), columns)]
    heights = [max(2, *(len(groups[group]) for group in row)) * ROW + 0.75 for row in rows]
    with workbook_style():
        picture = new_picture(sum(heights) + LEGEND, title)
        _legend_on_top(
            picture,
            {
                "the planted cause": RIGHT,
                "another one, or none": WRONG,
                "shade: share of the row; figures: runs": "white",
            },
        )
        grid = picture.subplots(len(rows), columns, squeeze=False, height_ratios=heights)
        for line, row in zip(grid, rows, strict=True):
            for axes in line[len(row) :]:
                axes.set_visible(False)
            for axes, group in zip(line, row):
                _draw_confusion(axes, group, list(groups[group]), tables[group])
        state_provenance(picture, provenance)
    return picture


def _legend_on_top(picture: Picture, colours: Mapping[str, str]) -> None:
    """A legend between title and drawing, in room that is taken from the drawing's."""
    left, bottom, width, height = picture.get_layout_engine().get()["rect"]
    top = bottom + height
    picture.get_layout_engine().set(
        rect=(left, bottom, width, height - LEGEND / picture.get_size_inches()[1])
    )
    handles = [Patch(color=colour, label=label) for label, colour in colours.items()]
    picture.legend(
        handles=handles,
        loc="upper left",
        ncols=len(handles),
        borderaxespad=0.0,
        bbox_to_anchor=(0.004, top),
    ).set_in_layout(False)


def _counts(group: str, table: Mapping[str, Mapping[str, int]]) -> np.ndarray:
    """(causes, causes + 2) counts of one group."""
    causes = list(named(f"groups[{group!r}]", table))
    counts = np.zeros((len(causes), len(causes) + len(ELSE)))
    for row, (planted, found) in enumerate(table.items()):
        for name, count in found.items():
            if name not in (*causes, *ELSE):
                raise WorkbookError(
                    f"groups[{group!r}][{planted!r}]: {name!r} is neither a cause of the group nor"
                    f" one of {', '.join(ELSE)}"
                )
            counts[row, [*causes, *ELSE].index(name)] = finite_number(
                f"groups[{group!r}][{planted!r}][{name!r}]", count
            )
    if (counts < 0).any():
        raise WorkbookError(f"groups[{group!r}]: a count is below zero")
    return counts


def _draw_confusion(axes: Axes, group: str, causes: list[str], counts: np.ndarray) -> None:
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    for (row, column), share in np.ndenumerate(shares):
        colour = tint(RIGHT if row == column else WRONG, share)
        axes.add_patch(
            Rectangle(
                (column - 0.5, row - 0.5),
                1,
                1,
                facecolor=colour,
                edgecolor="#bbbbbb",
                linewidth=0.6,
            )
        )
        if counts[row, column]:
            axes.text(
                column,
                row,
                f"{counts[row, column]:.0f}",
                ha="center",
                va="center",
                fontsize=8.5,
                color=on(colour),
            )
    category_ticks(axes.yaxis, [f"{cause}  {row + 1}" for row, cause in enumerate(causes)])
    category_ticks(
        axes.xaxis, [*(str(row + 1) for row in range(len(causes))), "other", "cannot\ntell"]
    )
    axes.tick_params(labelsize=7.5)
    axes.set(
        xlim=(-0.5, len(counts[0]) - 0.5),
        ylim=(len(causes) - 0.5, -0.5),
        xlabel="named first",
        ylabel="planted",
    )
    axes.set_title(f"{group}: n = {counts.sum():.0f}")


def tint(colour: str, share: float) -> tuple[float, float, float]:
    """`colour` at a share of 1, white at 0."""
    return tuple(1 - share * (1 - channel) for channel in to_rgb(colour))


def on(colour: tuple[float, float, float]) -> str:
    """Ink that can be read on `colour`."""
    return INK if np.dot([0.2126, 0.7152, 0.0722], colour) > 0.5 else "white"


def plot_root_cause(
    faults: Mapping[str, Mapping[str, Mapping]], title: str = "", provenance: Mapping | None = None
) -> Picture:
    """A row per planted fault, a column per architecture: how many of the runs named it first, and
    what was named instead.

    `faults[fault][architecture]`: {"right", "n", "masked": runs, "instead": {cause: runs}}. Raises
    WorkbookError for a count that does not fit.
    """
    architectures = list(
        dict.fromkeys(name for found in named("faults", faults).values() for name in found)
    )
    with workbook_style():
        height = max(1.5, 0.5 + 0.2 * len(faults))
        picture = new_picture(height + LEGEND, title)
        _legend_on_top(
            picture,
            {
                "every run named it first": RIGHT,
                "some did": tint(WRONG, 0.5),
                "none did": WRONG,
                "masked: it spoils nothing that is measured": MASKED,
            },
        )
        axes = picture.subplots()
        for place, (fault, found) in enumerate(faults.items()):
            for column, name in enumerate(architectures):
                if name in found:
                    _draw_cell(axes, column, place, f"faults[{fault!r}][{name!r}]", found[name])
            instead = "; ".join(
                _instead(name, cell["instead"]) for name, cell in found.items() if cell["instead"]
            )
            if len(instead) > INSTEAD_CHARACTERS:
                instead = instead[: INSTEAD_CHARACTERS - 1] + "…"
            axes.text(
                len(architectures) - 0.4, place, instead, va="center", ha="left", fontsize=7.5
            )
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
        axes.text(len(architectures) - 0.4, -0.75, "named first instead", fontsize=8.5, va="bottom")
        for side in ("left", "bottom"):
            axes.spines[side].set_visible(False)
        state_provenance(picture, provenance)
    return picture


def _draw_cell(axes: Axes, column: int, place: int, where: str, cell: Mapping) -> None:
    hits, n, masked = (
        finite_number(f"{where}.{key}", entry(where, cell, key)) for key in ("right", "n", "masked")
    )
    if not 0 <= hits <= n:
        raise WorkbookError(
            f"{where}: {hits:g} of {n:g} runs are right; wanted at most all of them"
        )
    colour = (
        to_rgb(MASKED)
        if not n
        else to_rgb(RIGHT)
        if hits == n
        else tint(WRONG, 1.0 if hits == 0 else 0.5)
    )
    axes.add_patch(
        Rectangle((column - 0.46, place - 0.42), 0.92, 0.84, facecolor=colour, edgecolor="none")
    )
    text = (
        "masked"
        if not n
        else f"{hits:.0f} of {n:.0f}" + (f" + {masked:.0f} masked" if masked else "")
    )
    axes.text(column, place, text, ha="center", va="center", fontsize=7.0, color=on(colour))


def _instead(architecture: str, causes: Mapping[str, int]) -> str:
    return f"{architecture}: " + ", ".join(
        f"{cause} ×{count}" if count > 1 else cause for cause, count in causes.items()
    )


def plot_alarms(
    points: Mapping[str, Mapping], title: str = "", provenance: Mapping | None = None
) -> Picture:
    """Share of harmful plants noticed against the share of sound runs with an alarm: upper left is
    best.

    `points[name]`: {"detection": {"value", "interval": (low, high), "n"}, "false_alarms": the
    same}, shares in [0, 1]. The first is the diagnosis, a filled mark; the others are baselines.
    """
    numbers = {
        name: {
            side: _share(f"points[{name!r}].{side}", entry(f"points[{name!r}]", values, side))
            for side in ("detection", "false_alarms")
        }
        for name, values in named("points", points).items()
    }
    colours = dict(zip(numbers, (RIGHT, *SPARE_COLOURS)))
    with workbook_style():
        picture = new_picture(3.4, title)
        axes = picture.subplots()
        for index, (name, sides) in enumerate(numbers.items()):
            (alarms, low, high, n_clean), (seen, least, most, n_planted) = (
                sides["false_alarms"],
                sides["detection"],
            )
            axes.plot([low, high], [seen, seen], color=colours[name], linewidth=1.2)
            axes.plot([alarms, alarms], [least, most], color=colours[name], linewidth=1.2)
            axes.plot(
                alarms,
                seen,
                "os^Dv<>p*"[index % 9],
                color=colours[name],
                markersize=9 if index == 0 else 6,
                zorder=3,
                markerfacecolor=colours[name] if index == 0 else "white",
                markeredgewidth=1.6,
                clip_on=False,
                label=(
                    f"{name}: notices {100 * seen:.0f} % of {n_planted:.0f}, "
                    f"alarms in {100 * alarms:.1f} % of {n_clean:.0f}"
                ),
            )
        highest = max(sides["false_alarms"][2] for sides in numbers.values())
        axes.set(
            xlim=(-0.01, max(0.12, 1.05 * highest)),
            ylim=(0, 1.02),
            xlabel="sound runs with an alarm (share; bar: to the exact 95 % bound)",
            ylabel="harmful plants noticed\n(share; bar: 95 %, by fault)",
        )
        legend_above(axes)
        state_provenance(picture, provenance)
    return picture


def _share(where: str, values: Mapping) -> tuple[float, float, float, float]:
    """(value, low, high, n); raises WorkbookError where a share is not one."""
    low, high = entry(where, values, "interval")
    numbers = [
        finite_number(f"{where}.{name}", number)
        for name, number in (
            ("value", entry(where, values, "value")),
            ("interval low", low),
            ("interval high", high),
        )
    ]
    if not all(0 <= number <= 1 for number in numbers):
        raise WorkbookError(f"{where}: {numbers}, but shares lie between 0 and 1")
    return (*numbers, finite_number(f"{where}.n", entry(where, values, "n")))
