"""One number per module: gradient norms, update : data ratios, and how large each stream is beside
the others.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator

from tts_core.errors import WorkbookError
from tts_workbook.viz.axes import (
    beside_each_other,
    keys_once,
    legend_above,
    legend_below,
    log_axis,
    log_limits,
    module_rows,
)
from tts_workbook.viz.inputs import finite_numbers, named, numbers_from_zero
from tts_workbook.viz.picture import Picture, new_picture, workbook_style
from tts_workbook.viz.style import ALARM, BAND, GREY, colours_of

ROW_INCHES = 0.185
USUAL_UPDATE = (3e-4, 3e-3)  # a step that moves weights by about a thousandth is the usual advice
LAYER = re.compile(r"(?:.*\.)?layers\.(\d+)(\.self_attention|\.cross_attention)?$")


@dataclass(frozen=True)
class Stream:
    """What a decoder layer writes."""

    suffix: str  # of its key, after the layer's path
    label: str
    colour: str
    marker: str


STREAMS = (
    Stream("", "residual stream", "#222222", "o"),
    Stream(".self_attention", "self-attention output", "#0072B2", "s"),
    Stream(".cross_attention", "cross-attention output", "#D55E00", "D"),
)


def plot_gradient_norms(
    norms: Mapping[str, Mapping[str, float]],
    title: str = "",
    like: Mapping[str, str] | None = None,
) -> Picture:
    """Gradient norm of one step per module, arms side by side: `norms[arm][module path]`, modules
    in network order.

    The axis is logarithmic; a gradient of exactly zero is a cross at its left end. `like`: arm ->
    the known name whose colour it has (`style.colours_of`). Raises WorkbookError for negative or
    non-finite values.
    """
    arms = {
        arm: numbers_from_zero(f"norms[{arm!r}]", values)
        for arm, values in named("norms", norms).items()
    }
    return _plot_modules(arms, title, "gradient norm", like)


def plot_update_ratios(
    ratios: Mapping[str, Mapping[str, float]],
    title: str = "",
    like: Mapping[str, str] | None = None,
) -> Picture:
    """Norm of a step's change of the weights over the norm of the weights, per module:
    `ratios[arm][module path]`.

    The grey band, 3e-4 to 3e-3, is where training usually goes well. `like` and errors as in
    `plot_gradient_norms`.
    """
    arms = {
        arm: numbers_from_zero(f"ratios[{arm!r}]", values)
        for arm, values in named("ratios", ratios).items()
    }
    label = "update : data ratio (norm of the step / norm of the weights)"
    return _plot_modules(arms, title, label, like, USUAL_UPDATE)


def plot_module_scales(scales: Mapping[str, Mapping[str, float]], title: str = "") -> Picture:
    """What decoder layers read and write, standard deviations, one panel per arm on one log axis.

    `scales[arm]`: {"memory": std, "mel_projection_in": std, "decoder.layers.0": residual stream
    after layer 0, "decoder.layers.0.self_attention": its output,
    "decoder.layers.0.cross_attention": its output, …}; other keys are left out. A cross-attention
    output far above the residual stream drowns what the decoder itself knows. Raises WorkbookError
    where an arm has no decoder layer, and for values that are not positive.
    """
    arms = {
        arm: _positive_numbers(f"scales[{arm!r}]", values)
        for arm, values in named("scales", scales).items()
    }
    streams = {arm: _streams(arm, values) for arm, values in arms.items()}
    drawn: list[float] = []
    for arm, values in arms.items():
        for layers in streams[arm].values():
            drawn += layers.values()
        drawn += [values[key] for key in ("memory", "mel_projection_in") if key in values]
    with workbook_style():
        picture = new_picture(3.1, title)
        panels = picture.subplots(1, len(arms), sharey=True, squeeze=False)[0]
        log_axis(panels[0], "y", *log_limits(np.array(drawn)))
        for panel, (arm, values) in zip(panels, arms.items(), strict=True):
            _draw_streams(panel, values, streams[arm])
            panel.set_title(arm, fontweight="bold")
        panels[0].set_ylabel("standard deviation")
        legend_below(picture, keys_once(panels), columns=5, columnspacing=1.4)
    return picture


def network_order(orders: Sequence[Sequence[str]]) -> list[str]:
    """Every module once, in the order of the first list; what only later ones have follows its
    predecessor there.
    """
    merged = list(orders[0])
    for order in orders[1:]:
        for index, module in enumerate(order):
            if module in merged:
                continue
            place = merged.index(order[index - 1]) + 1 if index else 0
            merged.insert(place, module)
    return merged


def _plot_modules(
    arms: Mapping[str, Mapping[str, float]],
    title: str,
    label: str,
    like: Mapping[str, str] | None,
    band: tuple[float, float] | None = None,
) -> Picture:
    modules = network_order([list(norms) for norms in arms.values()])
    values = np.array([value for norms in arms.values() for value in norms.values()])
    low, high = log_limits(values if band is None else np.append(values, band))
    zeros_at = low / 1.6
    left = zeros_at / 1.8 if (values == 0).any() else low
    colours = colours_of(arms, like)
    gap = min(0.22, 0.66 / len(arms))  # between the arms of one module, in rows
    with workbook_style():
        picture = new_picture(0.75 + ROW_INCHES * len(modules), title)
        axes = picture.subplots()
        log_axis(axes, "x", left, high)
        if band is not None:
            axes.axvspan(*band, color=BAND, zorder=0.5)
        for index, (arm, norms) in enumerate(arms.items()):
            offset = beside_each_other(index, len(arms)) * gap
            places = {module: row + offset for row, module in enumerate(modules)}
            _draw_dots(axes, arm, norms, places, colours[arm], zeros_at)
        module_rows(axes, modules)
        axes.set_xlabel(label)
        legend_above(axes)
    return picture


def _draw_dots(
    axes: Axes,
    arm: str,
    norms: Mapping[str, float],
    places: Mapping[str, float],
    colour: str,
    zeros_at: float,
) -> None:
    """A dot per module at its norm and place; where the norm is zero, a cross at `zeros_at`."""
    reached = [module for module in norms if norms[module] > 0]
    zero = [module for module in norms if norms[module] == 0]
    axes.scatter(
        [norms[module] for module in reached],
        [places[module] for module in reached],
        s=24,
        color=colour,
        label=arm,
        zorder=3,
        linewidth=0,
    )
    if not zero:
        return
    axes.scatter(
        [zeros_at] * len(zero),
        [places[module] for module in zero],
        s=44,
        marker="X",
        color=colour,
        edgecolor=ALARM,
        linewidth=1.1,
        zorder=4,
        label=f"{arm}: exactly zero in {len(zero)}",
    )


def _positive_numbers(name: str, values: Mapping[str, float]) -> dict[str, float]:
    numbers = finite_numbers(name, values)
    for key, value in numbers.items():
        if value <= 0:
            raise WorkbookError(
                f"{name}[{key!r}] = {value:g}, but a standard deviation on a log axis must be"
                " positive"
            )
    return numbers


def _streams(arm: str, values: Mapping[str, float]) -> dict[str, dict[int, float]]:
    """Suffix of the stream -> layer number -> standard deviation, of the decoder layers among the
    module paths of `values`.
    """
    streams: dict[str, dict[int, float]] = {stream.suffix: {} for stream in STREAMS}
    for path, value in values.items():
        found = LAYER.match(path)
        if found and "encoder" not in path:
            layer, suffix = int(found[1]), found[2] or ""
            streams[suffix][layer] = value
    if not any(streams.values()):
        raise WorkbookError(
            f"scales[{arm!r}]: no decoder layer among {list(values)}; keys such as "
            "'decoder.layers.0.cross_attention' are wanted"
        )
    return streams


def _draw_streams(
    axes: Axes, values: Mapping[str, float], streams: Mapping[str, Mapping[int, float]]
) -> None:
    for stream in STREAMS:
        layers = sorted(streams[stream.suffix])
        if not layers:
            continue
        axes.plot(
            layers,
            [streams[stream.suffix][layer] for layer in layers],
            color=stream.colour,
            marker=stream.marker,
            markersize=5,
            label=stream.label,
        )
    if "mel_projection_in" in values:
        axes.plot(
            [-0.8],
            [values["mel_projection_in"]],
            color=GREY,
            marker="v",
            markersize=6,
            linestyle="none",
            label="decoder input",
        )
    if "memory" in values:
        axes.axhline(
            values["memory"], color="#AA4499", linestyle=(0, (5, 3)), linewidth=1.3, label="memory"
        )
    numbers = sorted({layer for layers in streams.values() for layer in layers})
    axes.set_xlim(-1.2, numbers[-1] + 0.4)
    axes.xaxis.set_major_locator(FixedLocator(numbers))
    axes.set_xlabel("decoder layer")
