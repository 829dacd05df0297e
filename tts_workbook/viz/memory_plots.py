"""Cross-attention against the scale of the memory: how sharp it is, how loud, and what comes back
through it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes

from tts_core.errors import WorkbookError
from tts_workbook.viz.axes import log_axis, log_limits
from tts_workbook.viz.inputs import entry, finite_array, named
from tts_workbook.viz.picture import Picture, new_picture, workbook_style
from tts_workbook.viz.style import LEVEL, colours_of

PANELS = {  # key -> axis label; all but entropy on log axes
    "logit_std": "logits: standard deviation",
    "entropy": "attention entropy / ln T",
    "over_stream": "output / decoder's stream (std)",
    "query_gradient": "gradient at queries' weights",
    "key_gradient": "gradient at keys' weights",
    "text_gradient": "gradient at text embedding",
}


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
    series = {
        arm: {
            key: finite_array(
                f"arms[{arm!r}].{key}", entry(f"arms[{arm!r}]", values, key), dimensions=1
            )
            for key in ("factor", "memory_std", *PANELS)
        }
        for arm, values in named("arms", arms).items()
    }
    for arm, values in series.items():
        _check(arm, values)
    colours = colours_of(series)
    with workbook_style():
        picture = new_picture(4.6, title)
        panels = picture.subplots(2, 3, sharex=True).ravel()
        scales = np.concatenate([values["memory_std"] for values in series.values()])
        log_axis(panels[0], "x", *log_limits(scales, pad=1.3))
        for panel, (key, label) in zip(panels, PANELS.items(), strict=True):
            if key == "entropy":
                panel.set_ylim(0, 1)
            else:
                log_axis(
                    panel,
                    "y",
                    *log_limits(np.concatenate([values[key] for values in series.values()])),
                )
            if key == "over_stream":
                panel.axhline(1, **LEVEL)
            for arm, values in series.items():
                _draw(panel, values["memory_std"], values[key], values["factor"], colours[arm], arm)
            panel.set_title(label, fontsize=8.5)
        for panel in panels[3:]:
            panel.set_xlabel("memory (std)")
        picture.legend(
            handles=panels[0].get_legend_handles_labels()[0], loc="outside lower center", ncols=4
        )
    return picture


def _check(arm: str, values: Mapping[str, np.ndarray]) -> None:
    for key, numbers in values.items():
        if len(numbers) != len(values["factor"]):
            raise WorkbookError(
                f"arms[{arm!r}].{key}: {len(numbers)} values for {len(values['factor'])} factors"
            )
        if key == "entropy" and ((numbers < -1e-6) | (numbers > 1 + 1e-6)).any():
            raise WorkbookError(
                f"arms[{arm!r}].entropy: {numbers.min():g} … {numbers.max():g}, but it lies in"
                " [0, 1]"
            )
        if key != "entropy" and (numbers <= 0).any():
            raise WorkbookError(
                f"arms[{arm!r}].{key}: {numbers.min():g}, but a log axis wants positive values"
            )


def _draw(
    axes: Axes, x: np.ndarray, y: np.ndarray, factor: np.ndarray, colour: str, label: str
) -> None:
    order = np.argsort(x)
    axes.plot(x[order], y[order], color=colour, marker=".", markersize=5, label=label)
    own = np.isclose(factor, 1.0)
    axes.plot(x[own], y[own], color=colour, marker="o", markersize=8, linestyle="none")
