"""A sweep as pictures: heatmaps over learning rate and weight decay, every training's curve, and
the range test.

L learning rates, W weight decays, S steps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm, Normalize, to_hex
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from tts_core.errors import WorkbookError
from tts_workbook.viz.axes import (
    decade,
    legend_above,
    legend_below,
    log_axis,
    log_limits,
    three_digits,
    white_box,
)
from tts_workbook.viz.constant_line import band_key, draw_constant_band
from tts_workbook.viz.inputs import entry_of, finite_array, finite_number, named
from tts_workbook.viz.picture import Picture, new_picture, workbook_style
from tts_workbook.viz.style import ALARM, GREY, INK, LEVEL, SHARE_COLOURS, colours_of

ROW_HEIGHT = 0.27  # inches per learning rate
DARK_FIGURES_ABOVE = 0.6  # share of the colour scale
LOG_SPAN = 4.0  # a measure that spans more than this factor is coloured on a log scale
# of weight decays, in order
DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1.2, 1.4)), (0, (6, 2, 1, 2)))
FAILED_HATCH = "////"


@dataclass(frozen=True)
class RangeTest:
    """One preset's curve of `plot_lr_range`."""

    rates: np.ndarray  # (S,)
    losses: np.ndarray  # (S,) mel L1 over the best constant
    start: float  # the loss before any step
    steepest: float | None  # the learning rate at which it falls fastest
    diverged_at: float | None  # the learning rate

    def label(self, name: str) -> str:
        """What the legend says of it."""
        falls = "never falls"
        if self.steepest is not None:
            falls = f"falls fastest at {three_digits(self.steepest)}"
        text = f"{name}: {falls}"
        if self.diverged_at is not None:
            text += f", diverges at {three_digits(self.diverged_at)}"
        return text


def plot_sweep(
    grids: Mapping[str, Mapping[str, np.ndarray]],
    lrs: Sequence[float],
    weight_decays: Sequence[float],
    framed: Mapping[str, tuple[float, float] | None],
    title: str = "",
    best_by: str = "free-running error",
) -> Picture:
    """Heatmaps: a row of panels per preset, a column per measure, one colour scale per measure.

    `grids[preset][measure]` (L, W), NaN where the training failed, which is hatched;
    `framed[preset]` the (learning rate, weight decay) of the best cell by the measure `best_by`, or
    None. Raises WorkbookError for grids of another shape, and for infinities.
    """
    shape = (len(lrs), len(weight_decays))
    rows: dict[str, dict[str, np.ndarray]] = {}
    for preset, by_measure in named("grids", grids).items():
        where = f"grids[{preset!r}]"
        rows[preset] = {
            measure: _grid(f"{where}[{measure!r}]", values, shape)
            for measure, values in named(where, by_measure).items()
        }
    measures = list(next(iter(rows.values())))
    with workbook_style():
        picture = new_picture(0.85 + len(rows) * (0.42 + ROW_HEIGHT * len(lrs)), title)
        panels = picture.subplots(len(rows), len(measures), squeeze=False, sharex=True, sharey=True)
        for column, measure in zip(panels.T, measures, strict=True):
            of_measure = [
                entry_of(f"grids[{preset!r}]", by_measure, measure)
                for preset, by_measure in rows.items()
            ]
            scale = _scale(of_measure)
            for panel, preset, values in zip(column, rows, of_measure, strict=True):
                _heatmap(panel, values, scale)
                _frame(panel, framed.get(preset), lrs, weight_decays)
            _colour_bar(picture, scale, list(column), measure)
        for panel, preset in zip(panels[:, 0], rows, strict=True):
            panel.set_title(preset, fontsize=9.5, fontweight="bold")
            panel.set_ylabel("learning rate")
        panels[0, 0].set_yticks(range(len(lrs)), [f"{lr:g}" for lr in lrs])
        panels[0, 0].set_xticks(
            range(len(weight_decays)), [f"{decay:g}" for decay in weight_decays]
        )
        for panel in panels[-1]:
            panel.set_xlabel("weight decay")
        every = [values for by_measure in rows.values() for values in by_measure.values()]
        keys = _sweep_keys(best_by, any(np.isnan(values).any() for values in every))
        picture.legend(handles=keys, loc="outside upper right", ncols=len(keys))
    return picture


def plot_sweep_curves(curves: Mapping[str, Sequence[Mapping]], title: str = "") -> Picture:
    """Mel L1 / best constant of every training, a panel per preset: colour is the learning rate,
    dashes weight decay.

    `curves[preset]`: mappings with "lr", "weight_decay", "over_constant" (S,), and "failed", true
    where the training broke off; a cross stands at the end of such a curve. A training that failed
    at its first step has no curve: the panel says how many there are.
    """
    named("curves", curves)
    every = [run for runs in curves.values() for run in runs]
    lrs, decays = _values_of(every, "lr"), _values_of(every, "weight_decay")
    shades = colormaps[SHARE_COLOURS](np.linspace(0.88, 0.0, len(lrs)))
    colours = {lr: to_hex(shade) for lr, shade in zip(lrs, shades, strict=True)}
    dashes = {decay: DASHES[index % len(DASHES)] for index, decay in enumerate(decays)}
    with workbook_style():
        picture = new_picture(3.3, title)
        panels = picture.subplots(1, len(curves), squeeze=False, sharey=True)[0]
        drawn = [np.ones(1)]  # the best constant, where no training made a step
        for panel, (preset, runs) in zip(panels, curves.items(), strict=True):
            begun = [run for run in runs if len(run["over_constant"])]
            for run in begun:
                values = finite_array(f"curves[{preset!r}]", run["over_constant"], dimensions=1)
                look = {"color": colours[run["lr"]], "linestyle": dashes[run["weight_decay"]]}
                _draw_training(panel, values, bool(run.get("failed")), look)
                drawn.append(values)
            if len(begun) < len(runs):
                _count_failed(panel, len(runs) - len(begun))
            panel.set_title(preset, fontsize=9.5, fontweight="bold")
            panel.set_xlabel("training step")
        for panel in panels:
            draw_constant_band(panel, drawn)
            panel.label_outer()
        keys = [Line2D([], [], color=colour, label=f"lr {lr:g}") for lr, colour in colours.items()]
        keys += [
            Line2D([], [], color=GREY, linestyle=dash, label=f"weight decay {decay:g}")
            for decay, dash in dashes.items()
        ]
        legend_below(picture, [*keys, band_key()], columns=5)
    return picture


def plot_lr_range(curves: Mapping[str, Mapping], title: str = "") -> Picture:
    """The range test: mel L1 / best constant against the rising learning rate, one curve per
    preset.

    `curves[preset]`: {"lrs": (S,), "losses": (S,), "start": loss before any step, "steepest": a
    learning rate or None, "diverged_at": a learning rate or None}. A triangle marks the steepest
    fall, a dotted line where it diverged.
    """
    tests = {
        name: _range_test(f"curves[{name!r}]", values)
        for name, values in named("curves", curves).items()
    }
    colours = colours_of(tests)
    rates = np.concatenate([test.rates for test in tests.values()])
    losses = np.concatenate([[test.start, *test.losses] for test in tests.values()])
    with workbook_style():
        picture = new_picture(3.2, title)
        axes = picture.subplots()
        log_axis(axes, "x", *log_limits(rates, pad=1.5))
        log_axis(axes, "y", *log_limits(np.append(losses, 1.0), pad=1.25))
        axes.axhline(1, **LEVEL)
        axes.annotate(
            "best constant",
            xy=(1, 1),
            xycoords=axes.get_yaxis_transform(),
            xytext=(-3, 2),
            ha="right",
            textcoords="offset points",
            fontsize=8,
        )
        for name, test in tests.items():
            _draw_range_test(axes, name, test, colours[name])
        axes.set(xlabel="learning rate of the step", ylabel="mel L1 after it / best constant")
        legend_above(axes)
    return picture


def _values_of(runs: Sequence[Mapping], key: str) -> list[float]:
    """The values of one setting, rising, each once."""
    return sorted({finite_number(key, entry_of("curves", run, key)) for run in runs})


def _range_test(name: str, values: Mapping) -> RangeTest:
    rates = finite_array(f"{name}.lrs", entry_of(name, values, "lrs"), dimensions=1)
    losses = finite_array(f"{name}.losses", entry_of(name, values, "losses"), dimensions=1)
    if len(rates) != len(losses):
        raise WorkbookError(
            f"{name}: {len(rates)} learning rates but {len(losses)} losses; they must be as many"
        )
    if (rates <= 0).any() or (losses <= 0).any():
        raise WorkbookError(
            f"{name}: learning rates and losses must be above zero, they stand on log axes"
        )
    return RangeTest(rates, losses, values["start"], values["steepest"], values["diverged_at"])


def _draw_range_test(axes: Axes, name: str, test: RangeTest, colour: str) -> None:
    axes.plot(test.rates, test.losses, color=colour, label=test.label(name))
    if test.steepest is not None:
        axes.plot(
            test.steepest,
            np.interp(test.steepest, test.rates, test.losses),
            color=colour,
            marker="v",
            markersize=9,
            linestyle="none",
        )
    if test.diverged_at is not None:
        axes.axvline(test.diverged_at, color=colour, linewidth=1.2, linestyle=(0, (1, 2)))


def _grid(name: str, values: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """(L, W) of float64 in which NaN may stand, and nothing else that is not finite."""
    array = np.asarray(values, dtype=np.float64)
    if array.shape != shape:
        raise WorkbookError(
            f"{name}: shape {array.shape}, but {shape[0]} learning rates x {shape[1]} weight decays"
            " are wanted"
        )
    if np.isinf(array).any():
        raise WorkbookError(f"{name}: it holds infinities; NaN marks a training that failed")
    return array


def _scale(grids: Sequence[np.ndarray]) -> Normalize:
    """The colours of one measure over all presets: log where it is positive and spans much."""
    values = np.concatenate([grid[~np.isnan(grid)] for grid in grids])
    low, high = (values.min(), values.max()) if values.size else (0.0, 1.0)
    if low > 0 and high / low > LOG_SPAN:
        return LogNorm(low, high)
    return Normalize(low, high if high > low else low + 1.0)


def _heatmap(axes: Axes, values: np.ndarray, scale: Normalize) -> None:
    """The coloured cells with their numbers; NaN is hatched and says so."""
    axes.imshow(values, cmap=SHARE_COLOURS, norm=scale, origin="lower", aspect="auto")
    axes.grid(visible=False)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    for (row, column), number in np.ndenumerate(values):
        if np.isnan(number):
            _draw_failed_cell(axes, column, row)
            continue
        bright = scale(number) > DARK_FIGURES_ABOVE
        axes.text(
            column,
            row,
            three_digits(number),
            ha="center",
            va="center",
            fontsize=8.5,
            color=INK if bright else "white",
        )


def _draw_failed_cell(axes: Axes, column: int, row: int) -> None:
    look = {"facecolor": "white", "edgecolor": GREY, "hatch": FAILED_HATCH, "linewidth": 0}
    axes.add_patch(_cell(column, row, **look))
    axes.text(
        column,
        row,
        "failed",
        ha="center",
        va="center",
        fontsize=8,
        color=ALARM,
        gid="failed",
        bbox=white_box(pad=1),
    )


def _frame(
    axes: Axes,
    best: tuple[float, float] | None,
    lrs: Sequence[float],
    weight_decays: Sequence[float],
) -> None:
    """A frame around the best cell, given by its learning rate and weight decay."""
    if best is None:
        return
    lr, decay = best
    row, column = list(lrs).index(lr), list(weight_decays).index(decay)
    look = {"facecolor": "none", "edgecolor": ALARM, "linewidth": 2.4, "zorder": 5}
    axes.add_patch(_cell(column, row, clip_on=False, gid="best", **look))


def _cell(column: int, row: int, **look: Any) -> Rectangle:
    return Rectangle((column - 0.5, row - 0.5), 1, 1, **look)


def _sweep_keys(best_by: str, some_failed: bool) -> list[Patch]:
    best = Patch(facecolor="none", edgecolor=ALARM, linewidth=2, label=f"best cell by {best_by}")
    if not some_failed:
        return [best]
    failed = Patch(facecolor="white", edgecolor=GREY, hatch=FAILED_HATCH, label="training failed")
    return [best, failed]


def _colour_bar(picture: Picture, scale: Normalize, panels: Sequence[Axes], label: str) -> None:
    bar = picture.colorbar(
        ScalarMappable(scale, SHARE_COLOURS), ax=panels, location="bottom", aspect=30
    )
    assert scale.vmin is not None and scale.vmax is not None  # `_scale` sets both
    space = np.geomspace if isinstance(scale, LogNorm) else np.linspace
    bar.ax.xaxis.set_major_locator(FixedLocator(list(space(scale.vmin, scale.vmax, 4))))
    bar.ax.xaxis.set_minor_locator(NullLocator())
    bar.ax.xaxis.set_major_formatter(
        FuncFormatter(lambda tick, _: f"{tick:.2g}" if tick < 99 else decade(tick))
    )
    bar.outline.set_visible(False)
    bar.set_label(label, fontsize=8.5)


def _draw_training(axes: Axes, values: np.ndarray, failed: bool, look: Mapping[str, Any]) -> None:
    """The curve of one training, with a cross at its end where it failed."""
    steps = np.arange(1, len(values) + 1)
    axes.plot(steps, values, linewidth=1.2, marker="o" if len(steps) == 1 else None, **look)
    if failed:
        axes.plot(
            steps[-1],
            values[-1],
            color=ALARM,
            marker="x",
            markersize=8,
            markeredgewidth=2,
            linestyle="none",
            gid="failed",
        )


def _count_failed(axes: Axes, count: int) -> None:
    axes.annotate(
        f"{count} failed at the first step",
        xy=(0.98, 0.96),
        xycoords="axes fraction",
        ha="right",
        va="top",
        fontsize=8.5,
        color=ALARM,
    )
