"""Effects over pairs, curves of many runs, doses: what the rulings rest on, every single run
visible.

S steps, n pairs. Ratios are mel L1 / best constant.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from tts_workbook.viz.axes import category_ticks, legend_above, log_axis, plain_number
from tts_workbook.viz.inputs import finite_array, finite_number, named
from tts_workbook.viz.picture import Picture, new_picture, workbook_style
from tts_workbook.viz.recorded_plots import state_provenance
from tts_workbook.viz.style import ALARM, BAND, GREY, INK, LEVEL, SPARE_COLOURS, colours_of

# a column of doses is as wide as so many of them at least: the name of its factor has to fit
DOSE_COLUMNS = 3.4
SHORT_DOSES = {
    "0.03125": "1/32",
    "0.125": "1/8",
    "0.25": "1/4",
    "0.5": "1/2",
    "seed_custom": "custom",
}
MARKERS = "osD^v"
VERDICT_MARKS = {"supported": "✔", "refuted": "✘", "undecided": "?"}


def plot_effects(
    rows: Mapping[str, Mapping],
    margin: float,
    label: str,
    title: str = "",
    provenance: Mapping | None = None,
) -> Picture:
    """One row per change: every pair a mark (one shape per clip), the mean and its 95 % interval,
    the margin shaded.

    `rows[name]`: {"differences": (n,), "groups": (n,) clip names, "mean", "interval": (low, high)
    or None, "verdict"}; all in the unit of `label`. An infinite end (too few pairs) is drawn to the
    edge.
    """
    named("rows", rows)
    margin = finite_number("margin", margin)
    differences = {
        name: finite_array(f"rows[{name!r}].differences", row["differences"], dimensions=1)
        for name, row in rows.items()
    }
    groups = list(dict.fromkeys(group for row in rows.values() for group in row["groups"]))
    with workbook_style():
        picture = new_picture(1.0 + 0.33 * len(rows), title)
        axes = picture.subplots()
        axes.axvspan(-margin, margin, color=BAND, zorder=0)
        axes.axvline(0, color=GREY, linewidth=0.8)
        for place, (name, row) in enumerate(rows.items()):
            for index, group in enumerate(groups):
                chosen = differences[name][[own == group for own in row["groups"]]]
                axes.plot(
                    chosen,
                    np.full(len(chosen), place + 0.16 * (index - (len(groups) - 1) / 2)),
                    MARKERS[index % 5],
                    markersize=3.2,
                    color=SPARE_COLOURS[index],
                    alpha=0.65,
                    linestyle="none",
                )
            if row["interval"] is not None and all(map(math.isfinite, row["interval"])):
                axes.plot(
                    row["interval"], [place, place], color=INK, linewidth=2.2, solid_capstyle="butt"
                )
            axes.plot(row["mean"], place, "|", color=INK, markersize=13, markeredgewidth=2.2)
        category_ticks(
            axes.yaxis,
            [
                f"{name}  {VERDICT_MARKS.get(row.get('verdict', ''), '')}"
                for name, row in rows.items()
            ],
        )
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xlabel(label)
        handles = [
            Line2D(
                [],
                [],
                marker=MARKERS[index % 5],
                color=SPARE_COLOURS[index],
                linestyle="none",
                markersize=4,
                label=group,
            )
            for index, group in enumerate(groups)
        ]
        handles += [
            Line2D([], [], color=INK, linewidth=2.2, label="mean and 95 % interval"),
            Line2D(
                [],
                [],
                color=BAND,
                linewidth=7,
                label=f"±{plain_number(margin)}: too small to matter",
            ),
        ]
        legend_above(axes, handles)
        state_provenance(picture, provenance)
    return picture


def plot_arm_curves(
    arms: Mapping[str, Sequence[Sequence[float]]],
    title: str = "",
    provenance: Mapping | None = None,
    second: Mapping[str, Sequence[tuple[Sequence[int], Sequence[float]]]] | None = None,
) -> Picture:
    """Every run's mel L1 / best constant (S,) over steps, one colour per arm; below, if given, its
    share across time.

    `arms[name]`: the curves of its runs; `second[name]`: (steps, shares) of the same runs.
    """
    named("arms", arms)
    colours = colours_of(arms)
    with workbook_style():
        picture = new_picture(2.9 if second is None else 4.6, title)
        panels = picture.subplots(1 if second is None else 2, 1, sharex=True, squeeze=False)[:, 0]
        panels[0].axhspan(0.95, 1.05, color=BAND, zorder=0)
        panels[0].axhline(1.0, **LEVEL)
        for name, curves in arms.items():
            for index, ratios in enumerate(curves):
                values = finite_array(f"arms[{name!r}]", ratios, dimensions=1)
                panels[0].plot(
                    np.arange(1, len(values) + 1),
                    values,
                    color=colours[name],
                    linewidth=0.9,
                    alpha=0.85,
                    label=name if index == 0 else None,
                )
        panels[0].set(ylabel="mel L1 / best constant", ylim=(0, None))
        legend_above(panels[0])
        for name, runs in (second or {}).items():
            for steps, shares in runs:
                panels[1].plot(
                    steps, 100 * np.asarray(shares), color=colours[name], linewidth=0.9, alpha=0.85
                )
        if second is not None:
            panels[1].axhline(10, **LEVEL)
            log_axis(panels[1], "y", 0.03, 100)
            panels[1].set_ylabel("share of decoder variance\nacross time (%)")
        panels[-1].set_xlabel("training step")
        state_provenance(picture, provenance)
    return picture


def plot_doses(
    panels: Mapping[str, Mapping[str, Mapping]],
    budget: int,
    title: str = "",
    provenance: Mapping | None = None,
) -> Picture:
    """When each run left the best-constant line, its longest plateau and where it ended, against
    the dose; a column a factor.

    `panels[factor][dose]`: {"leave": steps or None for each run, "plateau": steps, "final": mel L1
    / best constant}. A run that had not left within `budget` steps is an open triangle at the
    budget.
    """
    named("panels", panels)
    with workbook_style():
        widths = [max(DOSE_COLUMNS, len(doses)) for doses in panels.values()]
        picture = new_picture(5.4, title)
        grid = picture.subplots(
            3, len(panels), sharey="row", sharex="col", width_ratios=widths, squeeze=False
        )
        for column, (factor, doses) in zip(grid.T, panels.items(), strict=True):
            _draw_doses(column, doses, budget)
            column[2].set_xlabel(factor.replace("_", " "))
        grid[0, 0].set(ylabel="left the line\nat step", ylim=(0, 1.06 * budget))
        grid[1, 0].set(ylabel="longest plateau\n(steps)", ylim=(0, 1.06 * budget))
        grid[2, 0].set(ylabel="last tenth: mel L1\n/ best constant", ylim=(0, None))
        handles = [
            Line2D(
                [], [], marker="o", color=INK, linestyle="none", markersize=4.5, label="one run"
            ),
            Line2D(
                [],
                [],
                marker="^",
                color=ALARM,
                fillstyle="none",
                linestyle="none",
                markersize=5,
                label=f"not within {budget} steps",
            ),
            Line2D(
                [], [], **LEVEL, label="50 steps: what counts as a plateau; 1: the best constant"
            ),
        ]
        picture.legend(handles=handles, loc="outside upper left", ncols=3)
        state_provenance(picture, provenance)
    return picture


def _draw_doses(column: Sequence[Axes], doses: Mapping[str, Mapping], budget: int) -> None:
    """One factor: its doses side by side, a mark for each run in each of the three axes."""
    leave, plateau, final = column
    for place, runs in enumerate(doses.values()):
        spread = np.linspace(-0.15, 0.15, max(len(runs["leave"]), 2))[: len(runs["leave"])]
        for shift, step in zip(spread, runs["leave"]):
            left = step is not None
            leave.plot(
                place + shift,
                step if left else budget,
                "o" if left else "^",
                markersize=4.5,
                color=INK if left else ALARM,
                fillstyle="full" if left else "none",
            )
        for axes, name in ((plateau, "plateau"), (final, "final")):
            axes.plot(place + spread, runs[name], "o", color=INK, markersize=4.5, linestyle="none")
    plateau.axhline(50, **LEVEL)
    final.axhline(1.0, **LEVEL)
    category_ticks(final.xaxis, [SHORT_DOSES.get(dose, dose) for dose in doses])
    final.set_xlim(-0.6, len(doses) - 0.4)
    final.tick_params(axis="x", labelsize=7.5)
    if len(doses) > 3:
        for label in final.get_xticklabels():
            label.set(rotation=45, ha="right", rotation_mode="anchor")
