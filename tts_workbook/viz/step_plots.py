"""One step taken apart: which loss pulls each module, what the update owes to each loss, what
precision changes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import cycle

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator

from tts_core.errors import WorkbookError
from tts_workbook.viz.axes import log_axis, log_limits
from tts_workbook.viz.inputs import entry, finite_array, finite_numbers, named
from tts_workbook.viz.module_plots import ROW_INCHES, network_order
from tts_workbook.viz.picture import Picture, new_picture, workbook_style
from tts_workbook.viz.style import GREY, INK, LEVEL, SPARE_COLOURS

LOSS_COLOURS = {"mel": "#0072B2", "duration": "#E69F00", "stop": "#CC79A7", "clip": INK}
LOSS_MARKERS = {"mel": "o", "duration": "s", "stop": "^", "clip": "x"}
OTHER_MARKERS = ("D", "v", "P", "*")  # of losses that a model of the user's own brings
PRECISION_MARKERS = {"bf16": ("s", "#D55E00"), "fp16": ("o", "#0072B2")}


def plot_loss_shares(
    arms: Mapping[str, Mapping], title: str = "", modules: Sequence[str] | None = None
) -> Picture:
    """Share of each loss in the gradient of each module, and the cosine between the losses'
    gradients, per arm.

    `arms[arm]`: {"share": {loss: {module: share in [0, 1]}}, "cosine": {(loss, loss): {module:
    cosine}}}; `modules` picks rows. Shares of a module add up to 1. A cosine near 0 means that two
    losses want unrelated changes, below 0 that one undoes the other. Raises WorkbookError for
    shares that do not add up and cosines beyond ±1.
    """
    rows = _rows(
        [entry(f"arms[{arm!r}]", parts, "share") for arm, parts in named("arms", arms).items()],
        modules,
    )
    with workbook_style():
        picture = new_picture(1.0 + ROW_INCHES * len(rows), title)
        panels = picture.subplots(1, 2 * len(arms), sharey=True, squeeze=False)[0]
        for index, (arm, parts) in enumerate(arms.items()):
            _draw_shares(panels[index], arm, parts["share"], rows)
            _draw_cosines(
                panels[len(arms) + index], arm, entry(f"arms[{arm!r}]", parts, "cosine"), rows
            )
        _name_rows(panels[0], rows)
        handles = [
            *panels[0].get_legend_handles_labels()[0],
            *panels[len(arms)].get_legend_handles_labels()[0],
        ]
        picture.legend(handles=handles, loc="outside lower center", ncols=6, columnspacing=1.2)
    return picture


def plot_updates_without(
    changes: Mapping[str, Mapping[str, Mapping[str, float]]],
    title: str = "",
    modules: Sequence[str] | None = None,
) -> Picture:
    """How much of AdamW's update changes without each loss, or without the clip: `changes[arm][left
    out][module]`.

    0: the update does not notice; 1: a change as large as the update itself; the dashed line, √2,
    is what two unrelated updates of one size differ by. One panel per arm. Raises WorkbookError for
    negative values.
    """
    rows = _rows(list(named("changes", changes).values()), modules)
    values = _checked("changes", changes)
    highest = max(
        number
        for parts in values.values()
        for numbers in parts.values()
        for number in numbers.values()
    )
    with workbook_style():
        picture = new_picture(1.0 + ROW_INCHES * len(rows), title)
        panels = picture.subplots(1, len(values), sharex=True, sharey=True, squeeze=False)[0]
        for panel, (arm, parts) in zip(panels, values.items(), strict=True):
            for left_out, numbers in parts.items():
                places = [row for row, module in enumerate(rows) if module in numbers]
                label = "without the clip" if left_out == "clip" else f"without {left_out}"
                panel.scatter(
                    [numbers[rows[row]] for row in places],
                    places,
                    s=26,
                    marker=LOSS_MARKERS[left_out],
                    color=LOSS_COLOURS[left_out],
                    label=label,
                    zorder=3,
                    linewidth=1.2,
                )
            panel.axvline(2**0.5, **LEVEL, zorder=1)
            panel.set_title(arm)
            panel.set_xlabel("change / size of the update")
        panels[0].set_xlim(-0.04 * max(highest, 1.5), 1.05 * max(highest, 1.5))
        _name_rows(panels[0], rows)
        picture.legend(
            handles=panels[0].get_legend_handles_labels()[0], loc="outside lower center", ncols=4
        )
    return picture


def plot_precision(
    errors: Mapping[str, Mapping[str, Mapping[str, float]]],
    title: str = "",
    modules: Sequence[str] | None = None,
) -> Picture:
    """Relative error of the gradient per module in 16 bits, beside its floor:
    `errors[arm][series][module]`.

    A series is a precision ("bf16", "fp16"), or its floor ("bf16 floor"): filled markers are the
    step, hollow ones what one rounding of the weights does alone. One panel per arm, log axis;
    exact zeros are left out. Raises WorkbookError for negative values, and where there is nothing
    above zero.
    """
    rows = _rows(list(named("errors", errors).values()), modules)
    values = _checked("errors", errors)
    every = np.array(
        [
            number
            for parts in values.values()
            for numbers in parts.values()
            for number in numbers.values()
        ]
    )
    positive = every[every > 0]
    if not positive.size:
        raise WorkbookError("errors: all are zero, so there is nothing to draw on a log axis")
    with workbook_style():
        picture = new_picture(1.0 + ROW_INCHES * len(rows), title)
        panels = picture.subplots(1, len(values), sharex=True, sharey=True, squeeze=False)[0]
        log_axis(panels[0], "x", *log_limits(positive))
        for panel, (arm, parts) in zip(panels, values.items(), strict=True):
            for series, numbers in parts.items():
                marker, colour = PRECISION_MARKERS[series.split()[0]]
                places = [row for row, module in enumerate(rows) if numbers.get(module, 0.0) > 0]
                panel.scatter(
                    [numbers[rows[row]] for row in places],
                    places,
                    s=26,
                    marker=marker,
                    linewidth=1.1,
                    facecolor="none" if series.endswith("floor") else colour,
                    edgecolor=colour,
                    label=series,
                    zorder=3,
                )
            panel.set_title(arm)
            panel.set_xlabel("relative error of the gradient")
        _name_rows(panels[0], rows)
        picture.legend(
            handles=panels[0].get_legend_handles_labels()[0], loc="outside lower center", ncols=4
        )
    return picture


def plot_short_runs(arms: Mapping[str, Mapping[str, Sequence[float]]], title: str = "") -> Picture:
    """Mel loss of some steps from one start, one panel per arm: `arms[arm][run]` (S,), model
    units.
    """
    curves = {
        arm: {
            run: finite_array(f"arms[{arm!r}][{run!r}]", values, dimensions=1)
            for run, values in runs.items()
        }
        for arm, runs in named("arms", arms).items()
    }
    labels = list(dict.fromkeys(run for runs in curves.values() for run in runs))
    styles = dict(zip(labels, ("-", "--", ":", "-."), strict=False))
    colours = dict(zip(labels, (INK, "#D55E00", "#0072B2", SPARE_COLOURS[0]), strict=False))
    with workbook_style():
        picture = new_picture(2.7, title)
        panels = picture.subplots(1, len(curves), squeeze=False)[0]
        for panel, (arm, runs) in zip(panels, curves.items(), strict=True):
            for run, values in runs.items():
                panel.plot(
                    np.arange(1, len(values) + 1),
                    values,
                    styles[run],
                    color=colours[run],
                    label=run,
                )
            panel.set_title(arm)
            panel.set_xlabel("step")
        panels[0].set_ylabel("mel loss (model units)")
        picture.legend(
            handles=panels[0].get_legend_handles_labels()[0], loc="outside lower center", ncols=4
        )
    return picture


def loss_looks(losses: Iterable[str]) -> tuple[dict[str, str], dict[str, str]]:
    """Colour and marker of each loss: the workbook's own have theirs, others the next spare ones in
    the order given.
    """
    others = [loss for loss in losses if loss not in LOSS_COLOURS]
    spare = zip(others, cycle(SPARE_COLOURS), cycle(OTHER_MARKERS))
    colours, markers = dict(LOSS_COLOURS), dict(LOSS_MARKERS)
    for loss, colour, marker in spare:
        colours[loss], markers[loss] = colour, marker
    return colours, markers


def _rows(parts: list[Mapping], modules: Sequence[str] | None) -> list[str]:
    """Modules to draw, in network order."""
    every = network_order([list(numbers) for losses in parts for numbers in losses.values()])
    if modules is None:
        return every
    missing = [module for module in modules if module not in every]
    if missing:
        raise WorkbookError(f"modules: {', '.join(missing)} not among {', '.join(every)}")
    return list(modules)


def _checked(
    name: str, arms: Mapping[str, Mapping[str, Mapping[str, float]]]
) -> dict[str, dict[str, dict[str, float]]]:
    """`arms[arm][series][module]` as finite floats, none of them negative."""
    checked = {
        arm: {
            series: finite_numbers(f"{name}[{arm!r}][{series!r}]", numbers)
            for series, numbers in parts.items()
        }
        for arm, parts in arms.items()
    }
    for arm, parts in checked.items():
        for series, numbers in parts.items():
            for module, value in numbers.items():
                if value < 0:
                    raise WorkbookError(
                        f"{name}[{arm!r}][{series!r}][{module!r}] = {value:g}, but it must not be"
                        " negative"
                    )
    return checked


def _draw_shares(
    axes: Axes, arm: str, share: Mapping[str, Mapping[str, float]], rows: list[str]
) -> None:
    """Stacked bars; a row that this arm does not have stays empty."""
    numbers = {loss: finite_numbers(f"share[{loss!r}]", values) for loss, values in share.items()}
    colours, _ = loss_looks(numbers)
    places = [
        row
        for row, module in enumerate(rows)
        if all(module in values for values in numbers.values())
    ]
    left = np.zeros(len(places))
    for loss, values in numbers.items():
        widths = np.array([values[rows[row]] for row in places])
        axes.barh(places, widths, 0.72, left=left, color=colours[loss], label=loss)
        left += widths
    for row, total in zip(places, left, strict=True):
        if abs(total - 1) > 1e-6:
            raise WorkbookError(
                f"shares of {rows[row]} in {arm} add up to {total:g}, but those of a reached module"
                " add up to 1"
            )
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_locator(FixedLocator([0, 0.5, 1]))
    axes.set_title(arm)
    axes.set_xlabel("share of the gradient")


def _draw_cosines(
    axes: Axes, arm: str, cosine: Mapping[tuple[str, str], Mapping[str, float]], rows: list[str]
) -> None:
    colours, markers = loss_looks(dict.fromkeys(loss for pair in cosine for loss in pair))
    for (a, b), numbers in cosine.items():
        places = [row for row, module in enumerate(rows) if module in numbers]
        values = [numbers[rows[row]] for row in places]
        if any(not -1 - 1e-6 <= value <= 1 + 1e-6 for value in values):
            raise WorkbookError(f"cosine of {a} and {b} in {arm}: beyond ±1")
        axes.scatter(
            values,
            places,
            s=22,
            marker=markers[b],
            facecolor=colours[a],
            edgecolor=colours[b],
            linewidth=1.1,
            label=f"{a} · {b}",
            zorder=3,
        )
    axes.axvline(0, color=GREY, linewidth=0.8)
    axes.set_xlim(-1.08, 1.08)
    axes.xaxis.set_major_locator(FixedLocator([-1, 0, 1]))
    axes.set_title(arm)
    axes.set_xlabel("cosine")


def _name_rows(axes: Axes, rows: list[str]) -> None:
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.yaxis.set_major_locator(FixedLocator(range(len(rows))))
    axes.set_yticklabels(rows, fontsize=7.5)
    axes.tick_params(axis="y", length=0)
