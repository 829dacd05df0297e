"""Parts that several pictures share: log axes, legends that never hide a curve, labelled levels
that never overlap.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator

from tts_workbook.viz.style import GREY, INK, LEVEL, WIDTH

LABEL_POINTS = 8.0  # type size of labels inside a picture
CHARACTER_WIDTH = 0.58  # of the type size, on average, in DejaVu Sans
SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def plain_number(value: float) -> str:
    """Three significant digits: 0.0567, 1.50, 256, 1234, 2.1e-05."""
    if value == 0:
        return "0"
    if 1e-3 <= abs(value) < 1e5:
        return f"{value:#.3g}".rstrip(".") if abs(value) < 999.5 else f"{value:.0f}"
    return f"{value:.1e}"


def decade(value: float) -> str:
    """Tick label of a log axis: 0.01, 0.5, 1, 20, 100, else a power of ten such as 10⁻⁵."""
    if 0.0099 < value < 1001:
        return f"{value:g}"
    exponent = int(np.floor(np.log10(value) + 1e-9))
    mantissa = round(value / 10.0**exponent)
    return ("" if mantissa == 1 else f"{mantissa}·") + "10" + str(exponent).translate(SUPERSCRIPTS)


def log_axis(axes: Axes, which: str, low: float, high: float) -> None:
    """Log axis "x" or "y" over [low, high], with plain tick labels: decades, or 1-2-5 where there
    are few decades.
    """
    axis = axes.xaxis if which == "x" else axes.yaxis
    (axes.set_xscale if which == "x" else axes.set_yscale)("log")
    (axes.set_xlim if which == "x" else axes.set_ylim)(low, high)
    first, last = int(np.floor(np.log10(low))), int(np.ceil(np.log10(high)))
    span = np.log10(high / low)
    steps = (1, 2, 5) if span < 2.6 else (1,)
    stride = 1 if span < 8 else 2
    if span < 0.5:
        steps = (1, 1.5, 2, 3, 4, 5, 6, 8)
    ticks = [step * 10.0**exponent for exponent in range(first, last + 1, stride) for step in steps]
    axis.set_major_locator(FixedLocator([tick for tick in ticks if low <= tick <= high]))
    axis.set_major_formatter(FuncFormatter(lambda value, _: decade(value)))
    axis.set_minor_locator(NullLocator())
    axis.set_minor_formatter(NullFormatter())


def log_limits(values: np.ndarray, pad: float = 1.6) -> tuple[float, float]:
    """Limits of a log axis around the positive `values`, at least one factor of 4 apart."""
    positive = np.asarray(values)[np.asarray(values) > 0]
    low, high = (positive.min(), positive.max()) if positive.size else (0.1, 1.0)
    middle = np.sqrt(low * high)
    return min(low / pad, middle / 2), max(high * pad, middle * 2)


def legend_above(axes: Axes, handles=None, width: float = WIDTH) -> None:
    """The legend above the axes, in as many columns as fit `width` inches."""
    if handles is None:
        handles = axes.get_legend_handles_labels()[0]
    widths = [(len(handle.get_label()) * CHARACTER_WIDTH * 8.5 + 40) / 72 for handle in handles]
    fitting = [
        number for number in range(1, len(widths) + 1) if _width_of(widths, number) <= width - 0.9
    ]
    columns = max(fitting, default=1)
    axes.legend(
        handles=handles,
        loc="lower left",
        bbox_to_anchor=(-0.01, 1.0),
        ncols=columns,
        columnspacing=1.4,
        borderaxespad=0.1,
    )


def _width_of(widths: list[float], columns: int) -> float:
    """Width of a legend whose entries fill `columns` columns downwards, as matplotlib does."""
    long, rows = len(widths) % columns, len(widths) // columns
    ends = np.cumsum([rows + (column < long) for column in range(columns)])
    return sum(
        max(widths[start:end], default=0.0)
        for start, end in zip([0, *ends[:-1]], ends, strict=True)
    )


def category_ticks(axis: Axis, labels: Sequence[str]) -> None:
    """One label per bar or row, at 0, 1, 2 …, without tick marks or grid lines."""
    axis.set_major_locator(FixedLocator(range(len(labels))))
    axis.set_ticklabels([str(label) for label in labels])
    axis.set_tick_params(length=0, labelsize=8.5)
    axis.grid(visible=False)


def mark_levels(axes: Axes, levels: Mapping[str, float], height: float) -> None:
    """A dashed line per level across the axes, its name and value at the right, nudged apart where
    levels are close.

    Call it last: it reads the axis limits. `height` is that of the axes in inches, roughly.
    """
    order = sorted(levels, key=lambda name: levels[name])
    places = axes.transAxes.inverted().transform(
        axes.transData.transform([(axes.get_xlim()[1], levels[name]) for name in order])
    )[:, 1]
    gap = LABEL_POINTS * 1.25 / 72 / height
    for name, place, spread in zip(order, places, spread_apart(places, gap), strict=True):
        axes.axhline(levels[name], **LEVEL, zorder=1.5)
        axes.annotate(
            f"{name} {plain_number(levels[name])}",
            xy=(1, place),
            xytext=(1.025, spread),
            xycoords="axes fraction",
            textcoords="axes fraction",
            va="center",
            ha="left",
            fontsize=LABEL_POINTS,
            color=INK,
            annotation_clip=False,
            arrowprops={
                "arrowstyle": "-",
                "color": GREY,
                "linewidth": 0.6,
                "shrinkA": 0,
                "shrinkB": 0,
            },
        )


def spread_apart(places: np.ndarray, gap: float) -> np.ndarray:
    """The rising `places` moved as little as needed so that neighbours are at least `gap` apart,
    order kept.
    """
    # Pool neighbours that collide; a pool is centred on the mean of its members' wishes (isotonic
    # regression).
    wishes = np.asarray(places, dtype=float) - gap * np.arange(len(places))
    pools: list[list[float]] = []
    for wish in wishes:
        pools.append([wish, 1])
        while len(pools) > 1 and pools[-2][0] > pools[-1][0]:
            value, count = pools.pop()
            pools[-1] = [
                (pools[-1][0] * pools[-1][1] + value * count) / (pools[-1][1] + count),
                pools[-1][1] + count,
            ]
    settled = np.concatenate([np.full(int(count), value) for value, count in pools])
    return settled + gap * np.arange(len(places))
