"""A sweep as pictures: heatmaps over learning rate and weight decay, every training's curve, and
the range test.

L learning rates, W weight decays, S steps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm, Normalize, to_hex
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from tts_core.errors import WorkbookError
from tts_workbook.viz.axes import decade, legend_above, log_axis, log_limits, plain_number
from tts_workbook.viz.inputs import entry, finite_array, finite_number, named
from tts_workbook.viz.picture import Picture, new_picture, workbook_style
from tts_workbook.viz.style import ALARM, GREY, INK, LEVEL, SHARE_COLOURS, colours_of
from tts_workbook.viz.training_plots import band_key, draw_constant_band

ROW_HEIGHT = 0.27  # inches per learning rate
BRIGHT = 0.6  # share of the colour scale above which figures are dark
LOG_SPAN = 4.0  # a measure that spans more than this factor is coloured on a log scale
DASHES = ("-", (0, (5, 2)), (0, (1.2, 1.4)), (0, (6, 2, 1, 2)))  # weight decays, in order


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
    rows = {
        preset: {
            measure: _grid(
                f"grids[{preset!r}][{measure!r}]", values, (len(lrs), len(weight_decays))
            )
            for measure, values in named(f"grids[{preset!r}]", measures).items()
        }
        for preset, measures in named("grids", grids).items()
    }
    measures = list(next(iter(rows.values())))
    with workbook_style():
        picture = new_picture(0.85 + len(rows) * (0.42 + ROW_HEIGHT * len(lrs)), title)
        panels = picture.subplots(len(rows), len(measures), squeeze=False, sharex=True, sharey=True)
        for column, measure in enumerate(measures):
            scale = _scale([entry(f"grids[{preset!r}]", rows[preset], measure) for preset in rows])
            for panel, preset in zip(panels[:, column], rows, strict=True):
                _heatmap(panel, rows[preset][measure], scale)
                _frame(panel, framed.get(preset), lrs, weight_decays)
                panel.set_title(preset if column == 0 else "", fontsize=9.5, fontweight="bold")
            _colour_bar(picture, scale, panels[:, column], measure)
        panels[0, 0].set_yticks(range(len(lrs)), [f"{lr:g}" for lr in lrs])
        panels[0, 0].set_xticks(
            range(len(weight_decays)), [f"{decay:g}" for decay in weight_decays]
        )
        for panel in panels[:, 0]:
            panel.set_ylabel("learning rate")
        for panel in panels[-1]:
            panel.set_xlabel("weight decay")
        keys = [
            Patch(facecolor="none", edgecolor=ALARM, linewidth=2, label=f"best cell by {best_by}")
        ]
        if any(
            np.isnan(values).any() for grids_of in rows.values() for values in grids_of.values()
        ):
            keys.append(
                Patch(facecolor="white", edgecolor=GREY, hatch="////", label="training failed")
            )
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
    lrs, decays = (
        sorted({finite_number(key, entry("curves", run, key)) for run in every})
        for key in ("lr", "weight_decay")
    )
    shades = colormaps[SHARE_COLOURS](np.linspace(0.88, 0.0, len(lrs)))
    colours = {lr: to_hex(shade) for lr, shade in zip(lrs, shades, strict=True)}
    dashes = {decay: DASHES[index % len(DASHES)] for index, decay in enumerate(decays)}
    with workbook_style():
        picture = new_picture(3.3, title)
        panels = picture.subplots(1, len(curves), squeeze=False, sharey=True)[0]
        drawn = [np.ones(1)]  # the best constant, where no training made a step
        for panel, (preset, runs) in zip(panels, curves.items(), strict=True):
            for run in runs:
                if len(run["over_constant"]):
                    drawn.append(
                        finite_array(f"curves[{preset!r}]", run["over_constant"], dimensions=1)
                    )
                    _curve(panel, drawn[-1], run, colours[run["lr"]], dashes[run["weight_decay"]])
            if none := sum(not len(run["over_constant"]) for run in runs):
                panel.annotate(
                    f"{none} failed at the first step",
                    xy=(0.98, 0.96),
                    xycoords="axes fraction",
                    ha="right",
                    va="top",
                    fontsize=8.5,
                    color=ALARM,
                )
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
        picture.legend(handles=[*keys, band_key()], loc="outside lower center", ncols=5)
    return picture


def plot_lr_range(curves: Mapping[str, Mapping], title: str = "") -> Picture:
    """The range test: mel L1 / best constant against the rising learning rate, one curve per
    preset.

    `curves[preset]`: {"lrs": (S,), "losses": (S,), "start": loss before any step, "steepest": a
    learning rate or None, "diverged_at": a learning rate or None}. A triangle marks the steepest
    fall, a dotted line where it diverged.
    """
    found = {
        name: _range(f"curves[{name!r}]", curve) for name, curve in named("curves", curves).items()
    }
    colours = colours_of(found)
    losses = np.concatenate(
        [[curves[name]["start"], *values] for name, (_, values) in found.items()]
    )
    with workbook_style():
        picture = new_picture(3.2, title)
        axes = picture.subplots()
        rates = np.concatenate([rates for rates, _ in found.values()])
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
        for name, (rates, values) in found.items():
            axes.plot(rates, values, color=colours[name], label=_range_label(name, curves[name]))
            steepest, diverged = curves[name]["steepest"], curves[name]["diverged_at"]
            if steepest is not None:
                axes.plot(
                    steepest,
                    np.interp(steepest, rates, values),
                    color=colours[name],
                    marker="v",
                    markersize=9,
                    linestyle="none",
                )
            if diverged is not None:
                axes.axvline(diverged, color=colours[name], linewidth=1.2, linestyle=(0, (1, 2)))
        axes.set(xlabel="learning rate of the step", ylabel="mel L1 after it / best constant")
        legend_above(axes)
    return picture


def _range_label(name: str, curve: Mapping) -> str:
    steepest, diverged = curve["steepest"], curve["diverged_at"]
    falls = "never falls" if steepest is None else f"falls fastest at {plain_number(steepest)}"
    return f"{name}: {falls}" + (
        "" if diverged is None else f", diverges at {plain_number(diverged)}"
    )


def _range(name: str, curve: Mapping) -> tuple[np.ndarray, np.ndarray]:
    rates, losses = (
        finite_array(f"{name}.{key}", entry(name, curve, key), dimensions=1)
        for key in ("lrs", "losses")
    )
    if len(rates) != len(losses):
        raise WorkbookError(
            f"{name}: {len(rates)} learning rates but {len(losses)} losses; they must be as many"
        )
    if (rates <= 0).any() or (losses <= 0).any():
        raise WorkbookError(
            f"{name}: learning rates and losses must be above zero, they stand on log axes"
        )
    return rates, losses


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
            axes.add_patch(
                Rectangle(
                    (column - 0.5, row - 0.5),
                    1,
                    1,
                    facecolor="white",
                    edgecolor=GREY,
                    hatch="////",
                    linewidth=0,
                )
            )
            axes.text(
                column,
                row,
                "failed",
                ha="center",
                va="center",
                fontsize=8,
                color=ALARM,
                gid="failed",
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
            )
        else:
            axes.text(
                column,
                row,
                plain_number(number),
                ha="center",
                va="center",
                fontsize=8.5,
                color=INK if scale(number) > BRIGHT else "white",
            )


def _frame(
    axes: Axes,
    cell: tuple[float, float] | None,
    lrs: Sequence[float],
    weight_decays: Sequence[float],
) -> None:
    if cell is not None:
        row, column = list(lrs).index(cell[0]), list(weight_decays).index(cell[1])
        axes.add_patch(
            Rectangle(
                (column - 0.5, row - 0.5),
                1,
                1,
                facecolor="none",
                edgecolor=ALARM,
                linewidth=2.4,
                zorder=5,
                clip_on=False,
                gid="best",
            )
        )


def _colour_bar(picture: Picture, scale: Normalize, panels: Sequence[Axes], label: str) -> None:
    bar = picture.colorbar(
        ScalarMappable(scale, SHARE_COLOURS), ax=list(panels), location="bottom", aspect=30
    )
    space = np.geomspace if isinstance(scale, LogNorm) else np.linspace
    ticks = space(scale.vmin, scale.vmax, 4)
    bar.ax.xaxis.set_major_locator(FixedLocator(ticks))
    bar.ax.xaxis.set_minor_locator(NullLocator())
    bar.ax.xaxis.set_major_formatter(
        FuncFormatter(lambda tick, _: f"{tick:.2g}" if tick < 99 else decade(tick))
    )
    bar.outline.set_visible(False)
    bar.set_label(label, fontsize=8.5)


def _curve(axes: Axes, values: np.ndarray, run: Mapping, colour: str, dash) -> None:
    steps = np.arange(1, len(values) + 1)
    axes.plot(
        steps,
        values,
        color=colour,
        linestyle=dash,
        linewidth=1.2,
        marker="o" if len(steps) == 1 else None,
    )
    if run.get("failed"):
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
