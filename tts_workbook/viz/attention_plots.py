"""Cross-attention: where each decoder frame looks, and how sharply.

L layers, H heads, T decoder frames = memory frames, N phonemes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.ticker import FixedLocator

from tts_core.errors import WorkbookError
from tts_workbook.viz.axes import legend_above, plain_number
from tts_workbook.viz.inputs import finite_array, finite_number, finite_numbers, named, spans
from tts_workbook.viz.phoneme_track import MOSTLY, label_rows
from tts_workbook.viz.picture import Picture, new_picture, workbook_style
from tts_workbook.viz.style import GREY, LEVEL, SHARE_COLOURS, colours_of

NAME_POINTS = 6.0  # type size of phoneme names over a map
ROW_SUM_TOLERANCE = 0.02  # bf16 weights sum to 1 within this


def plot_alignment(
    attention: Any,
    durations: Any,
    phonemes: Sequence[str],
    alignment: str,
    hop_seconds: float,
    title: str = "",
    layers: Sequence[int] | None = None,
) -> Picture:
    """Teacher-forced cross-attention, one map per layer on one colour scale, phoneme boundaries on
    the memory axis.

    `attention` (L, H, T, T), averaged over heads here, or (L, T, T), rows are decoder frames;
    `durations` (N,) in frames with Σ = T; `layers` picks some. A diagonal follows the text; a flat
    or vertical picture does not. The colour scale is square-root. Raises WorkbookError where rows
    are not weights that sum to 1, and for what does not fit.
    """
    dimensions = 4 if np.ndim(attention) == 4 else 3
    maps = finite_array("attention", attention, dimensions)
    maps = maps.mean(axis=1) if dimensions == 4 else maps
    if (maps < 0).any() or (np.abs(maps.sum(axis=-1) - 1) > ROW_SUM_TOLERANCE).any():
        raise WorkbookError(
            "attention: each row must hold weights ≥ 0 that sum to 1; take them after the softmax "
            "and cut the padding off"
        )
    chosen = list(range(len(maps))) if layers is None else list(layers)
    if not chosen or not all(0 <= layer < len(maps) for layer in chosen):
        raise WorkbookError(f"layers = {layers}, but the attention has layers 0 … {len(maps) - 1}")
    boundaries = spans(phonemes, durations, maps.shape[2]) * hop_seconds
    columns = 2 if len(chosen) == 4 else min(len(chosen), 3)
    rows = -(-len(chosen) // columns)
    side = 7.0 / columns
    with workbook_style():
        picture = new_picture(0.4 + rows * (min(side, 4.2) + 0.5), title, alignment)
        panels = picture.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
        norm = PowerNorm(0.5, vmin=0, vmax=float(maps[chosen].max()))
        for panel, layer in zip(panels, chosen, strict=False):  # panels may be left over
            drawn = _draw_map(panel, maps[layer], hop_seconds, norm)
            label_height = _mark_phonemes(panel, boundaries, phonemes, side - 0.15)
            panel.set_title(f"decoder layer {layer}", pad=5 + label_height)
        for panel in panels[len(chosen) :]:
            panel.set_visible(False)
        for panel in panels[max(0, len(chosen) - columns) : len(chosen)]:
            panel.tick_params(labelbottom=True)
        for panel in panels[::columns]:
            panel.set_ylabel("decoder frame (s)")
        picture.supxlabel("memory frame (s)", fontsize=9)
        picture.colorbar(
            drawn,
            ax=list(panels[: len(chosen)]),
            label="attention weight (square-root scale)",
            pad=0.01,
            aspect=30,
            fraction=0.05,
        )
    return picture


def plot_attention_entropy(
    entropy: Mapping[str, Mapping[str, float]], n_frames: int, title: str = ""
) -> Picture:
    """Mean entropy of cross-attention per decoder layer and arm, over its bound ln T: 0 one frame,
    1 every frame alike.

    `entropy[arm][layer]` in [0, 1]; `n_frames` T, for the bound's label. Raises WorkbookError for
    values outside.
    """
    n_frames = int(finite_number("n_frames", n_frames))
    arms = {
        arm: finite_numbers(f"entropy[{arm!r}]", values)
        for arm, values in named("entropy", entropy).items()
    }
    for arm, values in arms.items():
        for layer, value in values.items():
            if not -1e-6 <= value <= 1 + 1e-6:
                raise WorkbookError(
                    f"entropy[{arm!r}][{layer!r}] = {value:g}, but it is a share of ln T, so in"
                    " [0, 1]"
                )
    layers = list(dict.fromkeys(layer for values in arms.values() for layer in values))
    colours = colours_of(arms)
    width = 0.8 / len(arms)
    with workbook_style():
        picture = new_picture(2.7, title)
        axes = picture.subplots()
        for index, (arm, values) in enumerate(arms.items()):
            places = [
                layers.index(layer) + (index - (len(arms) - 1) / 2) * width for layer in values
            ]
            bars = axes.bar(
                places, list(values.values()), width * 0.92, color=colours[arm], label=arm
            )
            if len(layers) * len(arms) <= 24:
                axes.bar_label(
                    bars, [f"{value:.2f}" for value in values.values()], fontsize=7.5, padding=1
                )
        axes.axhline(1, **LEVEL)
        axes.set_title(
            f"uniform over {n_frames:,} frames: ln T = {plain_number(math.log(n_frames))} nats",
            loc="right",
            fontsize=8,
            color=GREY,
            pad=3,
        )
        axes.set_ylim(0, 1)
        axes.set_xlim(-0.5, len(layers) - 0.5)
        axes.xaxis.set_major_locator(FixedLocator(range(len(layers))))
        axes.set_xticklabels([_short(layer) for layer in layers])
        axes.grid(axis="x", visible=False)
        axes.set_xlabel("decoder layer")
        axes.set_ylabel("attention entropy / ln T")
        legend_above(axes, width=5.0)
    return picture


def _draw_map(axes: Axes, weights: np.ndarray, hop_seconds: float, norm: PowerNorm):
    extent = (0, weights.shape[1] * hop_seconds, 0, weights.shape[0] * hop_seconds)
    axes.grid(False)
    return axes.imshow(weights, cmap=SHARE_COLOURS, norm=norm, extent=extent)


def _mark_phonemes(
    axes: Axes, boundaries: np.ndarray, phonemes: Sequence[str], width: float
) -> float:
    """Phoneme boundaries as thin lines, and names above the map where they fit; returns the names'
    height in points.
    """
    end = boundaries[-1]
    inner = np.unique(boundaries[1:-1])
    if len(inner) and width / (len(inner) + 1) > 0.05:
        axes.vlines(inner, 0, axes.get_ylim()[1], color="white", linewidth=0.4, alpha=0.5)
    rows = label_rows(boundaries, phonemes, end, width, NAME_POINTS)
    named = [row for row in rows if row is not None]
    if len(named) < MOSTLY * len(rows):
        return 0.0
    for row, start, stop, name in zip(rows, boundaries[:-1], boundaries[1:], phonemes, strict=True):
        if row is not None:
            axes.annotate(
                str(name),
                xy=((start + stop) / 2, 1),
                xycoords=axes.get_xaxis_transform(),
                ha="center",
                va="bottom",
                xytext=(0, 1.5 + 1.15 * NAME_POINTS * row),
                textcoords="offset points",
                fontsize=NAME_POINTS,
                annotation_clip=False,
            )
    return 1.15 * NAME_POINTS * (max(named) + 1)


def _short(layer: str) -> str:
    """`decoder.layers.3` -> `3`, the axis says the rest; other names stay."""
    return layer.rsplit(".", 1)[-1]
