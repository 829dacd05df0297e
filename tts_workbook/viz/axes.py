"""Parts that several pictures share: log axes, legends that never hide a curve, labelled levels
that never overlap.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.container import Container
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator

from tts_workbook.viz.style import GREY, INK, LEVEL, WIDTH

LABEL_POINTS = 8.0  # type size of labels inside a picture
LEGEND_POINTS = 8.5
CHARACTER_WIDTH = 0.58  # of the type size, on average, in DejaVu Sans
POINTS_PER_INCH = 72
Key = Artist | Container  # what a legend has an entry for
SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def three_digits(value: float) -> str:
    """Three significant digits: 0.0567, 1.50, 256, 1234, 2.1e-05."""
    size = abs(value)
    if size == 0:
        return "0"
    if not 1e-3 <= size < 1e5:
        return f"{value:.1e}"
    if size < 999.5:
        return f"{value:#.3g}".rstrip(".")
    return f"{value:.0f}"


def decade(value: float) -> str:
    """Tick label of a log axis: 0.01, 0.5, 1, 20, 100, else a power of ten such as 10⁻⁵."""
    if 0.0099 < value < 1001:
        return f"{value:g}"
    exponent = int(np.floor(np.log10(value) + 1e-9))
    mantissa = round(value / 10.0**exponent)
    factor = "" if mantissa == 1 else f"{mantissa}·"
    return f"{factor}10{str(exponent).translate(SUPERSCRIPTS)}"


def log_axis(axes: Axes, which: str, low: float, high: float) -> None:
    """Log axis "x" or "y" over [low, high], with plain tick labels: decades, or 1-2-5 where there
    are few decades.
    """
    if which == "x":
        axes.set_xscale("log")
        axes.set_xlim(low, high)
        axis: Axis = axes.xaxis
    else:
        axes.set_yscale("log")
        axes.set_ylim(low, high)
        axis = axes.yaxis
    axis.set_major_locator(FixedLocator(_log_ticks(low, high)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: decade(value)))
    axis.set_minor_locator(NullLocator())
    axis.set_minor_formatter(NullFormatter())


def _log_ticks(low: float, high: float) -> list[float]:
    """The ticks in [low, high], the fewer to a decade the more decades there are."""
    decades = np.log10(high / low)
    steps: tuple[float, ...] = (1,)
    if decades < 2.6:
        steps = (1, 2, 5)
    if decades < 0.5:
        steps = (1, 1.5, 2, 3, 4, 5, 6, 8)
    stride = 1 if decades < 8 else 2
    first, last = int(np.floor(np.log10(low))), int(np.ceil(np.log10(high)))
    exponents = range(first, last + 1, stride)
    ticks = [step * 10.0**exponent for exponent in exponents for step in steps]
    return [tick for tick in ticks if low <= tick <= high]


def log_limits(values: np.ndarray, pad: float = 1.6) -> tuple[float, float]:
    """Limits of a log axis around the positive `values`, at least one factor of 4 apart."""
    values = np.asarray(values)
    positive = values[values > 0]
    low, high = (positive.min(), positive.max()) if positive.size else (0.1, 1.0)
    middle = np.sqrt(low * high)
    return min(low / pad, middle / 2), max(high * pad, middle * 2)


def doubling_axis(axes: Axes, ticks: Sequence[float], labels: Sequence[str]) -> None:
    """An x axis on which every doubling is as wide, with these ticks alone."""
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticklabels(labels)


def category_ticks(axis: Axis, labels: Iterable[object]) -> None:
    """One label per bar or row, at 0, 1, 2 …, without tick marks or grid lines."""
    texts = [str(label) for label in labels]
    axis.set_major_locator(FixedLocator(range(len(texts))))
    axis.set_ticklabels(texts)
    axis.set_tick_params(length=0, labelsize=8.5)
    axis.grid(visible=False)


def module_rows(axes: Axes, modules: Sequence[str]) -> None:
    """The y axis of a picture with a row per module, the first on top."""
    axes.set_ylim(len(modules) - 0.4, -0.6)
    axes.yaxis.set_major_locator(FixedLocator(range(len(modules))))
    axes.set_yticklabels(modules, fontsize=7.5)
    axes.tick_params(axis="y", length=0)


def beside_each_other(index: int, count: int) -> float:
    """Where the one of `count` bars or dots stands in its group, in its own widths from the
    middle.
    """
    return index - (count - 1) / 2


def white_box(pad: float, alpha: float | None = None) -> dict[str, Any]:
    """What stands behind a text that lies over lines: keyword `bbox` of a matplotlib text."""
    box: dict[str, Any] = {"facecolor": "white", "edgecolor": "none", "pad": pad}
    return box if alpha is None else box | {"alpha": alpha}


def legend_keys(axes: Axes) -> list[Key]:
    """What has a label in the axes, in the order drawn."""
    return list(axes.get_legend_handles_labels()[0])


def keys_once(panels: Iterable[Axes]) -> list[Key]:
    """What has a label in any of the panels; of those with one label, the last."""
    keys = {str(key.get_label()): key for panel in panels for key in legend_keys(panel)}
    return list(keys.values())


def legend_below(picture: Figure, keys: Sequence[Key], columns: int, **spacing: float) -> None:
    """One legend for all panels, under them."""
    picture.legend(handles=keys, loc="outside lower center", ncols=columns, **spacing)


def legend_above(axes: Axes, keys: Sequence[Key] | None = None, width: float = WIDTH) -> Legend:
    """The legend above the axes, in as many columns as fit `width` inches."""
    if keys is None:
        keys = legend_keys(axes)
    widths = [_width_of_key(str(key.get_label())) for key in keys]
    columns = 1
    for number in range(1, len(widths) + 1):
        if _width_of_legend(widths, number) <= width - 0.9:
            columns = number
    return axes.legend(
        handles=keys,
        loc="lower left",
        bbox_to_anchor=(-0.01, 1.0),
        ncols=columns,
        columnspacing=1.4,
        borderaxespad=0.1,
    )


def _width_of_key(label: str) -> float:
    """Inches of one entry of a legend: its mark and its label."""
    return (len(label) * CHARACTER_WIDTH * LEGEND_POINTS + 40) / POINTS_PER_INCH


def _width_of_legend(widths: Sequence[float], columns: int) -> float:
    """Width of a legend whose entries fill `columns` columns downwards, as matplotlib does."""
    rows, longer = divmod(len(widths), columns)
    total, start = 0.0, 0
    for column in range(columns):
        end = start + rows + (1 if column < longer else 0)
        total += max(widths[start:end], default=0.0)
        start = end
    return total


def mark_levels(axes: Axes, levels: Mapping[str, float], height: float) -> None:
    """A dashed line per level across the axes, its name and value at the right, nudged apart where
    levels are close.

    Call it last: it reads the axis limits. `height` is that of the axes in inches, roughly.
    """
    order = sorted(levels, key=lambda name: levels[name])
    right = axes.get_xlim()[1]
    pixels = axes.transData.transform([(right, levels[name]) for name in order])
    places = axes.transAxes.inverted().transform(pixels)[:, 1]
    gap = LABEL_POINTS * 1.25 / POINTS_PER_INCH / height
    leader = {"arrowstyle": "-", "color": GREY, "linewidth": 0.6, "shrinkA": 0, "shrinkB": 0}
    for name, place, spread in zip(order, places, spread_apart(places, gap), strict=True):
        axes.axhline(levels[name], **LEVEL, zorder=1.5)
        axes.annotate(
            f"{name} {three_digits(levels[name])}",
            xy=(1, place),
            xytext=(1.025, spread),
            xycoords="axes fraction",
            textcoords="axes fraction",
            va="center",
            ha="left",
            fontsize=LABEL_POINTS,
            color=INK,
            annotation_clip=False,
            arrowprops=leader,
        )


def spread_apart(places: np.ndarray, gap: float) -> np.ndarray:
    """The rising `places` moved as little as needed so that neighbours are at least `gap` apart,
    order kept.
    """
    # Pool neighbours that collide; a pool is centred on the mean of its members' wishes (isotonic
    # regression).
    wishes = np.asarray(places, dtype=float) - gap * np.arange(len(places))
    means: list[float] = []
    counts: list[int] = []
    for wish in wishes:
        means.append(wish)
        counts.append(1)
        while len(means) > 1 and means[-2] > means[-1]:
            mean, count = means.pop(), counts.pop()
            together = counts[-1] + count
            means[-1] = (means[-1] * counts[-1] + mean * count) / together
            counts[-1] = together
    return np.repeat(means, counts) + gap * np.arange(len(places))
