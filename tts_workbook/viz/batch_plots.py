"""What a batch changes: copies beside one clip, noise against copies, single clips beside batches.

K numbers of copies, S steps of a run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator

from tts_core.errors import WorkbookError
from tts_workbook.viz.axes import (
    category_ticks,
    decade,
    legend_above,
    log_axis,
    log_limits,
    plain_number,
)
from tts_workbook.viz.inputs import curve, entry, finite_number, finite_numbers, named
from tts_workbook.viz.picture import Picture, new_picture, workbook_style
from tts_workbook.viz.recorded_plots import state_provenance
from tts_workbook.viz.style import ALARM, GREY, INK, LEVEL, WIDTH, colours_of
from tts_workbook.viz.training_plots import band_key, draw_constant_band

LOWEST = 1e-18  # where an exact zero stands on a log axis
# curves of one group that are drawn in full strength; more are thin, with their mean on top
FEW = 3


def plot_duplication(
    panels: Mapping[str, Mapping],
    title: str = "",
    x_label: str = "copies of the clip, k",
    y_label: str = "relative difference\nfrom one copy",
) -> Picture:
    """Relative difference of loss and gradient between k copies and one, a panel per precision, its
    bar a red line.

    `panels[name]`: {"bar": the largest difference that is rounding, "differences": series -> {k:
    difference >= 0}}. An exact zero has no bar, and a "0" in its place. Raises WorkbookError for a
    difference below zero.
    """
    series = {
        name: {
            label: finite_numbers(f"panels[{name!r}].differences[{label!r}]", values)
            for label, values in named(
                "differences", entry(f"panels[{name!r}]", panel, "differences")
            ).items()
        }
        for name, panel in named("panels", panels).items()
    }
    bars = {
        name: finite_number(f"panels[{name!r}].bar", entry(f"panels[{name!r}]", panel, "bar"))
        for name, panel in panels.items()
    }
    every = [
        value for panel in series.values() for values in panel.values() for value in values.values()
    ]
    if min(every) < 0:
        raise WorkbookError(
            f"panels: a difference of {min(every)}, but a relative difference is zero or positive"
        )
    labels = list(dict.fromkeys(label for panel in series.values() for label in panel))
    colours = colours_of(labels)
    with workbook_style():
        picture = new_picture(3.2, title)
        for axes, (name, panel) in zip(_columns(picture, len(series)), series.items(), strict=True):
            _draw_differences(axes, panel, colours)
            axes.axhline(bars[name], color=ALARM, linewidth=1.2, zorder=3)
            axes.annotate(
                f"bar {decade(bars[name])}",
                xy=(0.01, bars[name]),
                xycoords=axes.get_yaxis_transform(),
                xytext=(0, 3),
                textcoords="offset points",
                color=ALARM,
                fontsize=8,
            )
            axes.set(xlabel=x_label)
            legend_above(
                axes,
                [Patch(facecolor=colours[label], label=label) for label in panel],
                width=WIDTH / len(series),
            )
            axes.get_legend().set_title(name, {"weight": "bold", "size": 9})
            axes.get_legend().set_alignment("left")
        log_axis(axes, "y", LOWEST, max(1e-3, 10 * max(*every, *bars.values())))
        picture.axes[0].set_ylabel(y_label)
    return picture


def _columns(picture: Picture, n: int) -> np.ndarray:
    """(n,) axes side by side that share their y axis, which is labelled on the left."""
    columns = np.atleast_1d(picture.subplots(1, n, sharey=True))
    for axes in columns[1:]:
        axes.tick_params(axis="y", left=False)
    return columns


def _draw_differences(
    axes: Axes, panel: Mapping[str, Mapping[str, float]], colours: Mapping[str, str]
) -> None:
    """Bars side by side, one group per k."""
    copies = list(dict.fromkeys(k for values in panel.values() for k in values))
    width = 0.8 / len(panel)
    for place, (label, values) in enumerate(panel.items()):
        for k, value in values.items():
            x = copies.index(k) + (place - (len(panel) - 1) / 2) * width
            axes.bar(x, max(value - LOWEST, 0.0), width * 0.92, bottom=LOWEST, color=colours[label])
            if value == 0:
                axes.annotate(
                    "0",
                    xy=(x, LOWEST),
                    xytext=(0, 2),
                    textcoords="offset points",
                    ha="center",
                    fontsize=8,
                    color=GREY,
                )
    category_ticks(axes.xaxis, copies)


def plot_gradient_noise(noise: Mapping[str, Mapping[int, float]], title: str = "") -> Picture:
    """Standard deviation of the gradient over its norm against k, per model, with the line of
    1/sqrt(k) through k = 1.

    `noise[name]`: {k: relative standard deviation > 0}, its smallest k first.
    """
    points = {
        name: {int(k): value for k, value in finite_numbers(f"noise[{name!r}]", values).items()}
        for name, values in named("noise", noise).items()
    }
    every = [value for values in points.values() for value in values.values()]
    if min(every) <= 0:
        raise WorkbookError(f"noise: {min(every)} stands on no log axis; it must be above zero")
    colours, copies = colours_of(points), sorted({k for values in points.values() for k in values})
    with workbook_style():
        picture = new_picture(2.9, title)
        axes = picture.subplots()
        sizes = np.linspace(9, 4, len(points))  # equal points stay visible
        for size, (name, values) in zip(sizes, points.items(), strict=True):
            first = min(values)
            line = [values[first] * (first / k) ** 0.5 for k in values]
            axes.plot(list(values), line, **LEVEL, zorder=1.5)
            axes.plot(
                list(values),
                list(values.values()),
                color=colours[name],
                marker="o",
                markersize=size,
                linestyle="none",
                label=name,
            )
            every += line
        axes.set_xscale("log", base=2)
        axes.set_xlim(copies[0] / 1.2, copies[-1] * 1.2)
        axes.xaxis.set_major_locator(FixedLocator(copies))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xticklabels([str(k) for k in copies])
        log_axis(axes, "y", *log_limits(np.array(every)))
        axes.set(
            xlabel="copies of the clip, k", ylabel="standard deviation of the\ngradient / its norm"
        )
        legend_above(
            axes,
            [
                *axes.get_legend_handles_labels()[0],
                Line2D([], [], **LEVEL, label="first value / √k"),
            ],
        )
    return picture


def plot_batch_curves(
    groups: Mapping[str, Sequence[Mapping]], title: str = "", provenance: Mapping | None = None
) -> Picture:
    """Mel L1 over the best constant, against steps and against frames seen, of groups of runs.

    `groups[name]`: runs of {"steps": (S,), "over_constant": (S,)} and, where it is known,
    "frames_per_step". More than three runs of a group are thin lines under their mean. Frames stand
    on a log axis: a batch starts late there. `provenance` goes under the picture in small type.
    Raises WorkbookError for a group without runs.
    """
    curves: dict[str, list] = {}
    for name, runs in named("groups", groups).items():
        if not len(runs):
            raise WorkbookError(f"groups[{name!r}]: there is no run in it")
        curves[name] = [
            (*curve(f"groups[{name!r}][{i}]", run, "over_constant"), run.get("frames_per_step"))
            for i, run in enumerate(runs)
        ]
    colours = colours_of(curves)
    with workbook_style():
        picture = new_picture(3.1, title)
        by_steps, by_frames = _columns(picture, 2)
        for name, runs in curves.items():
            _draw_group(by_steps, [(steps, over) for steps, over, _ in runs], colours[name])
            _draw_group(
                by_frames,
                [(steps * frames / 1000, over) for steps, over, frames in runs if frames],
                colours[name],
            )
        draw_constant_band(by_steps, [over for runs in curves.values() for _, over, _ in runs])
        _frames_axis(
            by_frames,
            [
                (steps[0] * frames / 1000, steps[-1] * frames / 1000)
                for runs in curves.values()
                for steps, _, frames in runs
                if frames
            ],
        )
        by_frames.axhspan(*_band(by_steps), color=by_steps.patches[0].get_facecolor(), zorder=0.5)
        by_frames.axhline(1, **LEVEL, zorder=1.5)
        by_steps.set(
            xlabel="training step",
            xlim=(1, max(steps[-1] for runs in curves.values() for steps, _, _ in runs) + 1),
        )
        keys = [
            *(
                Line2D([], [], color=colours[name], linewidth=1.8, label=_label(name, runs))
                for name, runs in curves.items()
            ),
            band_key(),
        ]
        half = (len(keys) + 1) // 2
        for axes, part in ((by_steps, keys[:half]), (by_frames, keys[half:])):
            legend_above(axes, part, width=WIDTH / 2)
        state_provenance(picture, provenance)
    return picture


def _label(name: str, runs: Sequence[tuple]) -> str:
    """The group's name with its number of runs, and a remark where no frames are known."""
    count = f" ({len(runs)} runs)" if len(runs) > 1 else ""
    return name + count + ("" if any(frames for _, _, frames in runs) else ", frames not known")


def _draw_group(axes: Axes, runs: Sequence[tuple[np.ndarray, np.ndarray]], colour: str) -> None:
    """A few runs in full strength; many as thin lines, with the mean of those that reach a
    place.
    """
    many = len(runs) > FEW
    for x, over in runs:
        axes.plot(
            x,
            over,
            color=colour,
            linewidth=0.6 if many else 1.3,
            alpha=0.5 if many else 0.9,
            marker="o" if len(x) == 1 else None,
            markersize=4,
            zorder=2,
        )
    if many:
        start, end = max(x[0] for x, _ in runs), min(x[-1] for x, _ in runs)
        if end > start:
            places = np.geomspace(start, end, 200)
            axes.plot(
                places,
                np.mean([np.interp(places, x, over) for x, over in runs], axis=0),
                color=colour,
                linewidth=2.2,
                zorder=3,
            )


def _band(axes: Axes) -> tuple[float, float]:
    """Lowest and highest value of the band that is drawn in `axes`."""
    box = axes.patches[0].get_extents().transformed(axes.transData.inverted())
    return box.y0, box.y1


def _frames_axis(axes: Axes, ends: Sequence[tuple[float, float]]) -> None:
    """Thousands of frames on a log axis from the first to the last of any run."""
    if ends:
        log_axis(
            axes, "x", min(first for first, _ in ends) / 1.1, max(last for _, last in ends) * 1.1
        )
    axes.set_xlabel("frames seen (thousands)")


def plot_matched_outcomes(
    panels: Mapping[str, Mapping[str, Sequence[float]]],
    title: str = "",
    provenance: Mapping | None = None,
) -> Picture:
    """Mean of mel L1 / best constant over a common budget: a dot per run, a bar at the mean, a
    panel per budget.

    `panels[budget][group]`: (runs,) values. `provenance` as in `plot_batch_curves`.
    """
    values = {
        panel: {
            name: np.asarray(
                list(finite_numbers(f"panels[{panel!r}]", dict(enumerate(runs))).values())
            )
            for name, runs in named(f"panels[{panel!r}]", groups).items()
        }
        for panel, groups in named("panels", panels).items()
    }
    names = list(dict.fromkeys(name for groups in values.values() for name in groups))
    colours = colours_of(names)
    with workbook_style():
        picture = new_picture(0.9 + 0.42 * len(names), title)
        for axes, (panel, groups) in zip(
            _columns(picture, len(values)), values.items(), strict=True
        ):
            for name, runs in groups.items():
                row, mean = names.index(name), runs.mean()
                axes.plot(
                    runs,
                    np.full(len(runs), row),
                    "o",
                    color=colours[name],
                    markersize=5,
                    alpha=0.7,
                    markeredgewidth=0,
                )
                axes.plot([mean, mean], [row - 0.28, row + 0.28], color=INK, linewidth=1.6)
                axes.annotate(
                    plain_number(mean),
                    xy=(mean, row - 0.3),
                    xytext=(0, 1),
                    textcoords="offset points",
                    ha="center",
                    va="bottom",
                    fontsize=7.5,
                )
            axes.axvline(1, **LEVEL, zorder=1.5)
            axes.set(xlabel="mean of mel L1 / best constant", ylim=(len(names) - 0.4, -0.75))
            axes.xaxis.set_major_locator(MaxNLocator(5))
            axes.set_title(panel, fontsize=9)
        category_ticks(picture.axes[0].yaxis, names)
        state_provenance(picture, provenance)
    return picture
