"""What a batch changes: copies beside one clip, noise against copies, single clips beside batches.

K numbers of copies, S steps of a run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from tts_core.errors import WorkbookError
from tts_workbook.viz.axes import (
    beside_each_other,
    category_ticks,
    decade,
    doubling_axis,
    legend_above,
    legend_keys,
    log_axis,
    log_limits,
    three_digits,
)
from tts_workbook.viz.constant_line import band_key, draw_constant_band, shade_constant_band
from tts_workbook.viz.inputs import (
    curve,
    entry_of,
    finite_array,
    finite_number,
    finite_numbers,
    named,
)
from tts_workbook.viz.picture import Picture, new_picture, workbook_style
from tts_workbook.viz.provenance import state_provenance
from tts_workbook.viz.style import ALARM, GREY, INK, LEVEL, WIDTH, colours_of

ZERO_STANDS_AT = 1e-18  # on a log axis
# curves of one group that are drawn in full strength; more are thin, with their mean on top
FEW_CURVES = 3


@dataclass(frozen=True)
class Differences:
    """One panel of `plot_duplication`."""

    bar: float  # the largest difference that is rounding
    series: Mapping[str, Mapping[str, float]]  # label -> {k: difference}


@dataclass(frozen=True)
class BatchCurve:
    """One training of a group."""

    steps: np.ndarray  # (S,)
    over_constant: np.ndarray  # (S,) mel L1 over the best constant
    frames_per_step: float | None  # None where it is not known

    @property
    def thousand_frames(self) -> np.ndarray:
        """(S,) frames seen by each step, in thousands."""
        assert self.frames_per_step is not None  # asked of runs that know it alone
        return self.steps * self.frames_per_step / 1000


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
    found = {
        name: _differences(f"panels[{name!r}]", panel)
        for name, panel in named("panels", panels).items()
    }
    every: list[float] = []
    for panel in found.values():
        for values in panel.series.values():
            every += values.values()
    if min(every) < 0:
        raise WorkbookError(
            f"panels: a difference of {min(every)}, but a relative difference is zero or positive"
        )
    colours = colours_of(dict.fromkeys(label for panel in found.values() for label in panel.series))
    with workbook_style():
        picture = new_picture(3.2, title)
        for axes, (name, panel) in zip(_columns(picture, len(found)), found.items(), strict=True):
            _draw_differences(axes, panel, colours)
            axes.set(xlabel=x_label)
            keys = [Patch(facecolor=colours[label], label=label) for label in panel.series]
            legend = legend_above(axes, keys, width=WIDTH / len(found))
            legend.set_title(name, FontProperties(weight="bold", size=9))
            legend.set_alignment("left")
        highest = max(*every, *(panel.bar for panel in found.values()))
        log_axis(picture.axes[-1], "y", ZERO_STANDS_AT, max(1e-3, 10 * highest))
        picture.axes[0].set_ylabel(y_label)
    return picture


def plot_gradient_noise(noise: Mapping[str, Mapping[int, float]], title: str = "") -> Picture:
    """Standard deviation of the gradient over its norm against k, per model, with the line of
    1/sqrt(k) through k = 1.

    `noise[name]`: {k: relative standard deviation > 0}, its smallest k first.
    """
    points: dict[str, dict[int, float]] = {}
    for name, by_copies in named("noise", noise).items():
        numbers = finite_numbers(f"noise[{name!r}]", by_copies)
        points[name] = {int(k): value for k, value in numbers.items()}
    every = [value for values in points.values() for value in values.values()]
    if min(every) <= 0:
        raise WorkbookError(f"noise: {min(every)} stands on no log axis; it must be above zero")
    copies = sorted({k for values in points.values() for k in values})
    colours = colours_of(points)
    with workbook_style():
        picture = new_picture(2.9, title)
        axes = picture.subplots()
        sizes = np.linspace(9, 4, len(points))  # equal points stay visible
        for size, (name, values) in zip(sizes, points.items(), strict=True):
            first = min(values)
            of_root = [values[first] * (first / k) ** 0.5 for k in values]
            axes.plot(list(values), of_root, **LEVEL, zorder=1.5)
            axes.plot(
                list(values),
                list(values.values()),
                color=colours[name],
                marker="o",
                markersize=size,
                linestyle="none",
                label=name,
            )
            every += of_root
        doubling_axis(axes, copies, [str(k) for k in copies])
        axes.set_xlim(copies[0] / 1.2, copies[-1] * 1.2)
        log_axis(axes, "y", *log_limits(np.array(every)))
        axes.set(
            xlabel="copies of the clip, k", ylabel="standard deviation of the\ngradient / its norm"
        )
        root = Line2D([], [], **LEVEL, label="first value / √k")
        legend_above(axes, [*legend_keys(axes), root])
    return picture


def plot_batch_curves(
    groups: Mapping[str, Sequence[Mapping]],
    title: str = "",
    provenance: Mapping | None = None,
    like: Mapping[str, str] | None = None,
) -> Picture:
    """Mel L1 over the best constant, against steps and against frames seen, of groups of runs.

    `groups[name]`: runs of {"steps": (S,), "over_constant": (S,)} and, where it is known,
    "frames_per_step". More than three runs of a group are thin lines under their mean. Frames stand
    on a log axis: a batch starts late there. `provenance` goes under the picture in small type;
    `like`: name -> the known name whose colour it has (`style.colours_of`). Raises WorkbookError
    for a group without runs.
    """
    found = {
        name: _batch_curves(f"groups[{name!r}]", runs)
        for name, runs in named("groups", groups).items()
    }
    every = [run for runs in found.values() for run in runs]
    colours = colours_of(found, like)
    with workbook_style():
        picture = new_picture(3.1, title)
        by_steps, by_frames = _columns(picture, 2)
        for name, runs in found.items():
            known = [run for run in runs if run.frames_per_step]
            steps = [(run.steps, run.over_constant) for run in runs]
            frames = [(run.thousand_frames, run.over_constant) for run in known]
            _draw_group(by_steps, steps, colours[name])
            _draw_group(by_frames, frames, colours[name])
        draw_constant_band(by_steps, [run.over_constant for run in every])
        shade_constant_band(by_frames)
        last_step = max(run.steps[-1] for run in every)
        by_steps.set(xlabel="training step", xlim=(1, last_step + 1))
        _frames_axis(by_frames, [run.thousand_frames for run in every if run.frames_per_step])
        keys: list[Line2D | Patch] = [
            Line2D([], [], color=colours[name], linewidth=1.8, label=_label(name, runs))
            for name, runs in found.items()
        ]
        keys.append(band_key())
        half = (len(keys) + 1) // 2
        legend_above(by_steps, keys[:half], width=WIDTH / 2)
        legend_above(by_frames, keys[half:], width=WIDTH / 2)
        state_provenance(picture, provenance)
    return picture


def plot_matched_outcomes(
    panels: Mapping[str, Mapping[str, Sequence[float]]],
    title: str = "",
    provenance: Mapping | None = None,
) -> Picture:
    """Mean of mel L1 / best constant over a common budget: a dot per run, a bar at the mean, a
    panel per budget.

    `panels[budget][group]`: (runs,) values. `provenance` as in `plot_batch_curves`.
    """
    values: dict[str, dict[str, np.ndarray]] = {}
    for panel, groups in named("panels", panels).items():
        where = f"panels[{panel!r}]"
        values[panel] = {
            name: finite_array(f"{where}[{name!r}]", runs, dimensions=1)
            for name, runs in named(where, groups).items()
        }
    names = list(dict.fromkeys(name for groups in values.values() for name in groups))
    colours = colours_of(names)
    with workbook_style():
        picture = new_picture(0.9 + 0.42 * len(names), title)
        columns = _columns(picture, len(values))
        for axes, (panel, outcomes) in zip(columns, values.items(), strict=True):
            for name, runs in outcomes.items():
                _draw_outcomes(axes, names.index(name), runs, colours[name])
            axes.axvline(1, **LEVEL, zorder=1.5)
            axes.set(xlabel="mean of mel L1 / best constant", ylim=(len(names) - 0.4, -0.75))
            axes.xaxis.set_major_locator(MaxNLocator(5))
            axes.set_title(panel, fontsize=9)
        category_ticks(picture.axes[0].yaxis, names)
        state_provenance(picture, provenance)
    return picture


def _columns(picture: Picture, n: int) -> list[Axes]:
    """Axes side by side that share their y axis, which is labelled on the left."""
    columns = list(picture.subplots(1, n, sharey=True, squeeze=False)[0])
    for axes in columns[1:]:
        axes.tick_params(axis="y", left=False)
    return columns


def _differences(where: str, panel: Mapping) -> Differences:
    bar = finite_number(f"{where}.bar", entry_of(where, panel, "bar"))
    series = named("differences", entry_of(where, panel, "differences"))
    numbers = {
        label: finite_numbers(f"{where}.differences[{label!r}]", values)
        for label, values in series.items()
    }
    return Differences(bar, numbers)


def _draw_differences(axes: Axes, panel: Differences, colours: Mapping[str, str]) -> None:
    """Bars side by side, one group per k, and the bar of rounding."""
    copies = list(dict.fromkeys(k for values in panel.series.values() for k in values))
    width = 0.8 / len(panel.series)
    for index, (label, values) in enumerate(panel.series.items()):
        shift = beside_each_other(index, len(panel.series)) * width
        for k, value in values.items():
            x = copies.index(k) + shift
            height = max(value - ZERO_STANDS_AT, 0.0)
            axes.bar(x, height, width * 0.92, bottom=ZERO_STANDS_AT, color=colours[label])
            if value == 0:
                axes.annotate(
                    "0",
                    xy=(x, ZERO_STANDS_AT),
                    xytext=(0, 2),
                    textcoords="offset points",
                    ha="center",
                    fontsize=8,
                    color=GREY,
                )
    category_ticks(axes.xaxis, copies)
    axes.axhline(panel.bar, color=ALARM, linewidth=1.2, zorder=3)
    axes.annotate(
        f"bar {decade(panel.bar)}",
        xy=(0.01, panel.bar),
        xycoords=axes.get_yaxis_transform(),
        xytext=(0, 3),
        textcoords="offset points",
        color=ALARM,
        fontsize=8,
    )


def _batch_curves(where: str, runs: Sequence[Mapping]) -> list[BatchCurve]:
    if not len(runs):
        raise WorkbookError(f"{where}: there is no run in it")
    found = []
    for index, run in enumerate(runs):
        steps, over_constant = curve(f"{where}[{index}]", run, "over_constant")
        found.append(BatchCurve(steps, over_constant, run.get("frames_per_step")))
    return found


def _label(name: str, runs: Sequence[BatchCurve]) -> str:
    """The group's name with its number of runs, and a remark where no frames are known."""
    count = f" ({len(runs)} runs)" if len(runs) > 1 else ""
    frames_known = any(run.frames_per_step for run in runs)
    return name + count + ("" if frames_known else ", frames not known")


def _draw_group(axes: Axes, runs: Sequence[tuple[np.ndarray, np.ndarray]], colour: str) -> None:
    """A few runs in full strength; many as thin lines, with the mean of those that reach a
    place.
    """
    many = len(runs) > FEW_CURVES
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
    if not many:
        return
    start, end = max(x[0] for x, _ in runs), min(x[-1] for x, _ in runs)
    if end > start:
        places = np.geomspace(start, end, 200)
        mean = np.mean([np.interp(places, x, over) for x, over in runs], axis=0)
        axes.plot(places, mean, color=colour, linewidth=2.2, zorder=3)


def _frames_axis(axes: Axes, curves: Sequence[np.ndarray]) -> None:
    """Thousands of frames on a log axis from the first to the last of any run."""
    if curves:
        first, last = min(frames[0] for frames in curves), max(frames[-1] for frames in curves)
        log_axis(axes, "x", first / 1.1, last * 1.1)
    axes.set_xlabel("frames seen (thousands)")


def _draw_outcomes(axes: Axes, row: int, runs: np.ndarray, colour: str) -> None:
    """A dot per run in its row, and a bar with its number at their mean."""
    mean = runs.mean()
    axes.plot(
        runs,
        np.full(len(runs), row),
        "o",
        color=colour,
        markersize=5,
        alpha=0.7,
        markeredgewidth=0,
    )
    axes.plot([mean, mean], [row - 0.28, row + 0.28], color=INK, linewidth=1.6)
    axes.annotate(
        three_digits(mean),
        xy=(mean, row - 0.3),
        xytext=(0, 1),
        textcoords="offset points",
        ha="center",
        va="bottom",
        fontsize=7.5,
    )
