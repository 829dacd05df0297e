"""One step taken apart: which loss pulls each module, what the update owes to each loss, what
precision changes.

S steps of a short run.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, cycle

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator

from tts_core.errors import WorkbookError
from tts_workbook.viz.axes import legend_below, legend_keys, log_axis, log_limits, module_rows
from tts_workbook.viz.inputs import (
    SHARE_TOLERANCE,
    entry_of,
    finite_array,
    finite_numbers,
    named,
    numbers_from_zero,
)
from tts_workbook.viz.module_plots import ROW_INCHES, network_order
from tts_workbook.viz.picture import Picture, new_picture, workbook_style
from tts_workbook.viz.style import GREY, INK, LEVEL, SPARE_COLOURS

Numbers = Mapping[str, float]  # by module
THE_CLIP = "clip"  # what can be left out of an update beside the losses
LOSS_COLOURS = {"mel": "#0072B2", "duration": "#E69F00", "stop": "#CC79A7", THE_CLIP: INK}
LOSS_MARKERS = {"mel": "o", "duration": "s", "stop": "^", THE_CLIP: "x"}
OTHER_MARKERS = ("D", "v", "P", "*")  # of losses that a model of the user's own brings
PRECISION_MARKERS = {"bf16": "s", "fp16": "o"}
PRECISION_COLOURS = {"bf16": "#D55E00", "fp16": "#0072B2"}
RUN_LINES = ("-", "--", ":", "-.")
RUN_COLOURS = (INK, "#D55E00", "#0072B2", SPARE_COLOURS[0])
COSINE_TOLERANCE = 1e-6  # a cosine may leave ±1 by so much
UNRELATED = 2**0.5  # what two unrelated updates of one size differ by, over that size


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
    named("arms", arms)
    shares = {arm: entry_of(f"arms[{arm!r}]", parts, "share") for arm, parts in arms.items()}
    rows = _rows(chain.from_iterable(share.values() for share in shares.values()), modules)
    with workbook_style():
        picture = new_picture(1.0 + ROW_INCHES * len(rows), title)
        panels = picture.subplots(1, 2 * len(arms), sharey=True, squeeze=False)[0]
        of_shares, of_cosines = panels[: len(arms)], panels[len(arms) :]
        for index, (arm, parts) in enumerate(arms.items()):
            cosine = entry_of(f"arms[{arm!r}]", parts, "cosine")
            _draw_shares(of_shares[index], arm, shares[arm], rows)
            _draw_cosines(of_cosines[index], arm, cosine, rows)
        module_rows(panels[0], rows)
        keys = [*legend_keys(of_shares[0]), *legend_keys(of_cosines[0])]
        legend_below(picture, keys, columns=6, columnspacing=1.2)
    return picture


def plot_updates_without(
    changes: Mapping[str, Mapping[str, Numbers]],
    title: str = "",
    modules: Sequence[str] | None = None,
) -> Picture:
    """How much of AdamW's update changes without each loss, or without the clip: `changes[arm][left
    out][module]`.

    0: the update does not notice; 1: a change as large as the update itself; the dashed line, √2,
    is what two unrelated updates of one size differ by. One panel per arm. Raises WorkbookError for
    negative values.
    """
    values = _from_zero("changes", changes)
    series = [numbers for parts in values.values() for numbers in parts.values()]
    rows = _rows(series, modules)
    highest = max(number for numbers in series for number in numbers.values())
    end = max(highest, 1.5)
    with workbook_style():
        picture = new_picture(1.0 + ROW_INCHES * len(rows), title)
        panels = picture.subplots(1, len(values), sharex=True, sharey=True, squeeze=False)[0]
        for panel, (arm, parts) in zip(panels, values.items(), strict=True):
            for left_out, numbers in parts.items():
                places, drawn = _placed(numbers, rows)
                panel.scatter(
                    drawn,
                    places,
                    s=26,
                    marker=LOSS_MARKERS[left_out],
                    color=LOSS_COLOURS[left_out],
                    label="without the clip" if left_out == THE_CLIP else f"without {left_out}",
                    zorder=3,
                    linewidth=1.2,
                )
            panel.axvline(UNRELATED, **LEVEL, zorder=1)
            panel.set_title(arm)
            panel.set_xlabel("change / size of the update")
        panels[0].set_xlim(-0.04 * end, 1.05 * end)
        module_rows(panels[0], rows)
        legend_below(picture, legend_keys(panels[0]), columns=4)
    return picture


def plot_precision(
    errors: Mapping[str, Mapping[str, Numbers]],
    floors: Mapping[str, Mapping[str, Numbers]] | None = None,
    title: str = "",
    modules: Sequence[str] | None = None,
) -> Picture:
    """Relative error of the gradient per module in 16 bits, beside its floor:
    `errors[arm][precision][module]`, and `floors` alike.

    A precision is "bf16" or "fp16". Filled markers are the step; hollow ones, where `floors` has
    the arm and the precision, what one rounding of the weights does alone. One panel per arm, log
    axis; exact zeros are left out. Raises WorkbookError for negative values, and where there is
    nothing above zero.
    """
    steps = _from_zero("errors", errors)
    rounded = _from_zero("floors", floors) if floors else {}
    series = [numbers for parts in steps.values() for numbers in parts.values()]
    series += [numbers for parts in rounded.values() for numbers in parts.values()]
    rows = _rows(series, modules)
    every = np.array([number for numbers in series for number in numbers.values()])
    positive = every[every > 0]
    if not positive.size:
        raise WorkbookError("errors: all are zero, so there is nothing to draw on a log axis")
    with workbook_style():
        picture = new_picture(1.0 + ROW_INCHES * len(rows), title)
        panels = picture.subplots(1, len(steps), sharex=True, sharey=True, squeeze=False)[0]
        log_axis(panels[0], "x", *log_limits(positive))
        for panel, (arm, parts) in zip(panels, steps.items(), strict=True):
            for precision, numbers in parts.items():
                _draw_errors(panel, precision, numbers, rows)
                floor = rounded.get(arm, {}).get(precision)
                if floor is not None:
                    _draw_errors(panel, precision, floor, rows, hollow=True)
            panel.set_title(arm)
            panel.set_xlabel("relative error of the gradient")
        module_rows(panels[0], rows)
        legend_below(picture, legend_keys(panels[0]), columns=4)
    return picture


def plot_short_runs(arms: Mapping[str, Mapping[str, Sequence[float]]], title: str = "") -> Picture:
    """Mel loss of some steps from one start, one panel per arm: `arms[arm][run]` (S,), model
    units.
    """
    curves: dict[str, dict[str, np.ndarray]] = {}
    for arm, runs in named("arms", arms).items():
        curves[arm] = {
            run: finite_array(f"arms[{arm!r}][{run!r}]", values, dimensions=1)
            for run, values in runs.items()
        }
    labels = dict.fromkeys(run for runs in curves.values() for run in runs)
    looks = dict(zip(labels, zip(RUN_LINES, RUN_COLOURS, strict=True), strict=False))
    with workbook_style():
        picture = new_picture(2.7, title)
        panels = picture.subplots(1, len(curves), squeeze=False)[0]
        for panel, (arm, runs) in zip(panels, curves.items(), strict=True):
            for run, values in runs.items():
                line, colour = looks[run]
                steps = np.arange(1, len(values) + 1)
                panel.plot(steps, values, line, color=colour, label=run)
            panel.set_title(arm)
            panel.set_xlabel("step")
        panels[0].set_ylabel("mel loss (model units)")
        legend_below(picture, legend_keys(panels[0]), columns=4)
    return picture


def loss_looks(losses: Iterable[str]) -> tuple[dict[str, str], dict[str, str]]:
    """Colour and marker of each loss: the workbook's own have theirs, others the next spare ones in
    the order given.
    """
    colours, markers = dict(LOSS_COLOURS), dict(LOSS_MARKERS)
    others = [loss for loss in losses if loss not in LOSS_COLOURS]
    spare_looks = zip(others, cycle(SPARE_COLOURS), cycle(OTHER_MARKERS), strict=False)  # endless
    for loss, colour, marker in spare_looks:
        colours[loss], markers[loss] = colour, marker
    return colours, markers


def _rows(series: Iterable[Numbers], modules: Sequence[str] | None) -> list[str]:
    """Modules to draw, in network order."""
    every = network_order([list(numbers) for numbers in series])
    if modules is None:
        return every
    missing = [module for module in modules if module not in every]
    if missing:
        raise WorkbookError(f"modules: {', '.join(missing)} not among {', '.join(every)}")
    return list(modules)


def _from_zero(
    name: str, arms: Mapping[str, Mapping[str, Numbers]]
) -> dict[str, dict[str, dict[str, float]]]:
    """`arms[arm][series][module]` as finite floats, none of them negative."""
    checked: dict[str, dict[str, dict[str, float]]] = {}
    for arm, parts in named(name, arms).items():
        checked[arm] = {
            series: numbers_from_zero(f"{name}[{arm!r}][{series!r}]", numbers)
            for series, numbers in parts.items()
        }
    return checked


def _placed(numbers: Numbers, rows: Sequence[str]) -> tuple[list[int], list[float]]:
    """The rows that have a number, and their numbers."""
    places = [row for row, module in enumerate(rows) if module in numbers]
    return places, [numbers[rows[row]] for row in places]


def _draw_errors(
    axes: Axes, precision: str, numbers: Numbers, rows: Sequence[str], hollow: bool = False
) -> None:
    """A mark per module whose error is not zero: filled the step, hollow its floor."""
    positive = {module: number for module, number in numbers.items() if number > 0}
    places, drawn = _placed(positive, rows)
    colour = PRECISION_COLOURS[precision]
    axes.scatter(
        drawn,
        places,
        s=26,
        marker=PRECISION_MARKERS[precision],
        linewidth=1.1,
        facecolor="none" if hollow else colour,
        edgecolor=colour,
        label=f"{precision} floor" if hollow else precision,
        zorder=3,
    )


def _draw_shares(axes: Axes, arm: str, share: Mapping[str, Numbers], rows: Sequence[str]) -> None:
    """Stacked bars; a row that this arm does not have stays empty."""
    numbers = {loss: finite_numbers(f"share[{loss!r}]", values) for loss, values in share.items()}
    colours, _ = loss_looks(numbers)
    reached = set(rows).intersection(*numbers.values())
    places = [row for row, module in enumerate(rows) if module in reached]
    left = np.zeros(len(places))
    for loss, values in numbers.items():
        widths = np.array([values[rows[row]] for row in places])
        axes.barh(places, widths, 0.72, left=left, color=colours[loss], label=loss)
        left += widths
    for row, total in zip(places, left, strict=True):
        if abs(total - 1) > SHARE_TOLERANCE:
            raise WorkbookError(
                f"shares of {rows[row]} in {arm} add up to {total:g}, but those of a reached module"
                " add up to 1"
            )
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_locator(FixedLocator([0, 0.5, 1]))
    axes.set_title(arm)
    axes.set_xlabel("share of the gradient")


def _draw_cosines(
    axes: Axes, arm: str, cosine: Mapping[tuple[str, str], Numbers], rows: Sequence[str]
) -> None:
    """A mark per module for each pair of losses: filled with the one's colour, edged with the
    other's.
    """
    colours, markers = loss_looks(dict.fromkeys(loss for pair in cosine for loss in pair))
    for (a, b), numbers in cosine.items():
        places, values = _placed(numbers, rows)
        if any(abs(value) > 1 + COSINE_TOLERANCE for value in values):
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
