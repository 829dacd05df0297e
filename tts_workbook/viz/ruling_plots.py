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

from tts_workbook.viz.axes import (
    beside_each_other,
    category_ticks,
    legend_above,
    log_axis,
    three_digits,
)
from tts_workbook.viz.constant_line import DRAWN_BAND, DRAWN_COLLAPSE, DRAWN_PLATEAU_STEPS
from tts_workbook.viz.inputs import finite_array, finite_number, named
from tts_workbook.viz.picture import Picture, new_picture, workbook_style
from tts_workbook.viz.provenance import state_provenance
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
            _draw_pairs(axes, place, differences[name], row["groups"], groups)
            _draw_mean(axes, place, row["mean"], row["interval"])
        marked = [f"{name}  {_verdict_mark(row)}" for name, row in rows.items()]
        category_ticks(axes.yaxis, marked)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xlabel(label)
        legend_above(axes, _effect_keys(groups, margin))
        state_provenance(picture, provenance)
    return picture


def plot_arm_curves(
    arms: Mapping[str, Sequence[Sequence[float]]],
    title: str = "",
    provenance: Mapping | None = None,
    second: Mapping[str, Sequence[tuple[Sequence[int], Sequence[float]]]] | None = None,
    like: Mapping[str, str] | None = None,
) -> Picture:
    """Every run's mel L1 / best constant (S,) over steps, one colour per arm; below, if given, its
    share across time.

    `arms[name]`: the curves of its runs; `second[name]`: (steps, shares) of the same runs; `like`:
    name -> the known name whose colour it has (`style.colours_of`).
    """
    curves: dict[str, list[np.ndarray]] = {}
    for name, runs in named("arms", arms).items():
        curves[name] = [finite_array(f"arms[{name!r}]", run, dimensions=1) for run in runs]
    colours = colours_of(curves, like)
    with workbook_style():
        picture = new_picture(2.9 if second is None else 4.6, title)
        panels = picture.subplots(1 if second is None else 2, 1, sharex=True, squeeze=False)[:, 0]
        _draw_arms(panels[0], curves, colours)
        if second is not None:
            _draw_shares_of_arms(panels[1], second, colours)
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
    widths = [max(DOSE_COLUMNS, len(doses)) for doses in panels.values()]
    with workbook_style():
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
        picture.legend(handles=_dose_keys(budget), loc="outside upper left", ncols=3)
        state_provenance(picture, provenance)
    return picture


def _draw_pairs(
    axes: Axes,
    place: int,
    differences: np.ndarray,
    groups_of_pairs: Sequence[str],
    groups: Sequence[str],
) -> None:
    """A mark per pair, the groups one above the other in the row."""
    for index, group in enumerate(groups):
        chosen = differences[[own == group for own in groups_of_pairs]]
        height = place + 0.16 * beside_each_other(index, len(groups))
        axes.plot(
            chosen,
            np.full(len(chosen), height),
            MARKERS[index % len(MARKERS)],
            markersize=3.2,
            color=SPARE_COLOURS[index],
            alpha=0.65,
            linestyle="none",
        )


def _draw_mean(axes: Axes, place: int, mean: float, interval: tuple[float, float] | None) -> None:
    if interval is not None and all(map(math.isfinite, interval)):
        axes.plot(interval, [place, place], color=INK, linewidth=2.2, solid_capstyle="butt")
    axes.plot(mean, place, "|", color=INK, markersize=13, markeredgewidth=2.2)


def _verdict_mark(row: Mapping) -> str:
    return VERDICT_MARKS.get(row.get("verdict", ""), "")


def _effect_keys(groups: Sequence[str], margin: float) -> list[Line2D]:
    keys = [
        Line2D(
            [],
            [],
            marker=MARKERS[index % len(MARKERS)],
            color=SPARE_COLOURS[index],
            linestyle="none",
            markersize=4,
            label=group,
        )
        for index, group in enumerate(groups)
    ]
    too_small = f"±{three_digits(margin)}: too small to matter"
    return [
        *keys,
        Line2D([], [], color=INK, linewidth=2.2, label="mean and 95 % interval"),
        Line2D([], [], color=BAND, linewidth=7, label=too_small),
    ]


def _draw_arms(
    axes: Axes, arms: Mapping[str, Sequence[np.ndarray]], colours: Mapping[str, str]
) -> None:
    """Every run of every arm over the steps, with the plateau band."""
    axes.axhspan(*DRAWN_BAND, color=BAND, zorder=0)
    axes.axhline(1.0, **LEVEL)
    for name, curves in arms.items():
        for index, values in enumerate(curves):
            axes.plot(
                np.arange(1, len(values) + 1),
                values,
                color=colours[name],
                linewidth=0.9,
                alpha=0.85,
                label=None if index else name,
            )
    axes.set(ylabel="mel L1 / best constant", ylim=(0, None))
    legend_above(axes)


def _draw_shares_of_arms(
    axes: Axes,
    arms: Mapping[str, Sequence[tuple[Sequence[int], Sequence[float]]]],
    colours: Mapping[str, str],
) -> None:
    """Every run's share of variance across time, with the line of collapse."""
    for name, runs in arms.items():
        for steps, shares in runs:
            per_cent = 100 * np.asarray(shares)
            axes.plot(steps, per_cent, color=colours[name], linewidth=0.9, alpha=0.85)
    axes.axhline(DRAWN_COLLAPSE, **LEVEL)
    log_axis(axes, "y", 0.03, 100)
    axes.set_ylabel("share of decoder variance\nacross time (%)")


def _draw_doses(column: Sequence[Axes], doses: Mapping[str, Mapping], budget: int) -> None:
    """One factor: its doses side by side, a mark for each run in each of the three axes."""
    leave, plateau, final = column
    for place, runs in enumerate(doses.values()):
        n_runs = len(runs["leave"])
        places = place + np.linspace(-0.15, 0.15, max(n_runs, 2))[:n_runs]
        for x, step in zip(places, runs["leave"], strict=True):
            if step is None:
                leave.plot(x, budget, "^", markersize=4.5, color=ALARM, fillstyle="none")
            else:
                leave.plot(x, step, "o", markersize=4.5, color=INK, fillstyle="full")
        plateau.plot(places, runs["plateau"], "o", color=INK, markersize=4.5, linestyle="none")
        final.plot(places, runs["final"], "o", color=INK, markersize=4.5, linestyle="none")
    plateau.axhline(DRAWN_PLATEAU_STEPS, **LEVEL)
    final.axhline(1.0, **LEVEL)
    category_ticks(final.xaxis, [SHORT_DOSES.get(dose, dose) for dose in doses])
    final.set_xlim(-0.6, len(doses) - 0.4)
    final.tick_params(axis="x", labelsize=7.5)
    if len(doses) > 3:
        for label in final.get_xticklabels():
            label.set(rotation=45, ha="right", rotation_mode="anchor")


def _dose_keys(budget: int) -> list[Line2D]:
    never_left = Line2D(
        [],
        [],
        marker="^",
        color=ALARM,
        fillstyle="none",
        linestyle="none",
        markersize=5,
        label=f"not within {budget} steps",
    )
    lines = f"{DRAWN_PLATEAU_STEPS} steps: what counts as a plateau; 1: the best constant"
    return [
        Line2D([], [], marker="o", color=INK, linestyle="none", markersize=4.5, label="one run"),
        never_left,
        Line2D([], [], **LEVEL, label=lines),
    ]
