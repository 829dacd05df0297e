"""Cross-attention against the scale of the memory: how sharp it is, how loud, and what comes back
through it.

F factors that the memory is multiplied by.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes

from tts_core.errors import WorkbookError
from tts_workbook.viz.axes import legend_below, legend_keys, log_axis, log_limits
from tts_workbook.viz.inputs import SHARE_TOLERANCE, finite_arrays, named
from tts_workbook.viz.picture import Picture, new_picture, workbook_style
from tts_workbook.viz.style import LEVEL, colours_of


@dataclass(frozen=True)
class Panel:
    """One measure of the attention."""

    key: str
    label: str
    is_share: bool = False  # lies in [0, 1]; else positive, on a log axis
    level: float | None = None  # a dashed line


PANELS = (
    Panel("logit_std", "logits: standard deviation"),
    Panel("entropy", "attention entropy / ln T", is_share=True),
    Panel("over_stream", "output / decoder's stream (std)", level=1.0),
    Panel("query_gradient", "gradient at queries' weights"),
    Panel("key_gradient", "gradient at keys' weights"),
    Panel("text_gradient", "gradient at text embedding"),
)
SHARES = {panel.key for panel in PANELS if panel.is_share}


def plot_memory_scale(
    arms: Mapping[str, Mapping[str, Sequence[float]]], title: str = ""
) -> Picture:
    """Six measures of cross-attention against the standard deviation of the memory, one curve per
    arm.

    `arms[arm]`: {"factor": (F,), "memory_std": (F,), and (F,) for each key of `PANELS`}; a large
    marker stands at factor 1, the model as configured. Gradients are those of the mel loss. Raises
    WorkbookError for series of unequal length, for an entropy outside [0, 1], and for other values
    that are not positive.
    """
    keys = ("factor", "memory_std", *(panel.key for panel in PANELS))
    series = {
        arm: finite_arrays(f"arms[{arm!r}]", values, keys)
        for arm, values in named("arms", arms).items()
    }
    for arm, values in series.items():
        _check(arm, values)
    colours = colours_of(series)
    with workbook_style():
        picture = new_picture(4.6, title)
        grid = picture.subplots(2, 3, sharex=True)
        scales = np.concatenate([values["memory_std"] for values in series.values()])
        log_axis(grid[0, 0], "x", *log_limits(scales, pad=1.3))
        for axes, panel in zip(grid.flat, PANELS, strict=True):
            _scale(axes, panel, [values[panel.key] for values in series.values()])
            for arm, values in series.items():
                _draw(axes, values, panel.key, colours[arm], arm)
        for axes in grid[1]:
            axes.set_xlabel("memory (std)")
        legend_below(picture, legend_keys(grid[0, 0]), columns=4)
    return picture


def _check(arm: str, values: Mapping[str, np.ndarray]) -> None:
    for key, numbers in values.items():
        where = f"arms[{arm!r}].{key}"
        if len(numbers) != len(values["factor"]):
            raise WorkbookError(
                f"{where}: {len(numbers)} values for {len(values['factor'])} factors"
            )
        low, high = numbers.min(), numbers.max()
        if key in SHARES and (low < -SHARE_TOLERANCE or high > 1 + SHARE_TOLERANCE):
            raise WorkbookError(f"{where}: {low:g} … {high:g}, but it lies in [0, 1]")
        if key not in SHARES and low <= 0:
            raise WorkbookError(f"{where}: {low:g}, but a log axis wants positive values")


def _scale(axes: Axes, panel: Panel, curves: Sequence[np.ndarray]) -> None:
    """The y axis of one measure around its curves, with its level and its name."""
    if panel.is_share:
        axes.set_ylim(0, 1)
    else:
        log_axis(axes, "y", *log_limits(np.concatenate(curves)))
    if panel.level is not None:
        axes.axhline(panel.level, **LEVEL)
    axes.set_title(panel.label, fontsize=8.5)


def _draw(axes: Axes, values: Mapping[str, np.ndarray], key: str, colour: str, label: str) -> None:
    """A curve over the memory's scale, with a large marker where the memory is left as it is."""
    x, y = values["memory_std"], values[key]
    order = np.argsort(x)
    axes.plot(x[order], y[order], color=colour, marker=".", markersize=5, label=label)
    own = np.isclose(values["factor"], 1.0)
    axes.plot(x[own], y[own], color=colour, marker="o", markersize=8, linestyle="none")
