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
from matplotlib.image import AxesImage
from matplotlib.ticker import FixedLocator

from tts_core.errors import WorkbookError
from tts_workbook.viz.axes import beside_each_other, legend_above, three_digits
from tts_workbook.viz.inputs import (
    SHARE_TOLERANCE,
    finite_array,
    finite_number,
    finite_numbers,
    named,
    spans,
)
from tts_workbook.viz.phoneme_track import MOSTLY, label_rows
from tts_workbook.viz.picture import Picture, new_picture, workbook_style
from tts_workbook.viz.style import GREY, LEVEL, SHARE_COLOURS, colours_of

NAME_POINTS = 6.0  # type size of phoneme names over a map
NAME_LINE = 1.15 * NAME_POINTS  # points from one row of names to the next
ROW_SUM_TOLERANCE = 0.02  # bf16 weights sum to 1 within this
MOST_NUMBERED_BARS = 24


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
    maps = _layer_maps(attention)
    chosen = list(range(len(maps))) if layers is None else list(layers)
    if not chosen or not all(0 <= layer < len(maps) for layer in chosen):
        raise WorkbookError(f"layers = {layers}, but the attention has layers 0 … {len(maps) - 1}")
    boundaries = spans(phonemes, durations, maps.shape[2]) * hop_seconds
    columns = 2 if len(chosen) == 4 else min(len(chosen), 3)
    rows = math.ceil(len(chosen) / columns)
    side = 7.0 / columns  # inches
    with workbook_style():
        picture = new_picture(0.4 + rows * (min(side, 4.2) + 0.5), title, alignment)
        grid = picture.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
        panels, spare = list(grid[: len(chosen)]), grid[len(chosen) :]
        norm = PowerNorm(0.5, vmin=0, vmax=float(maps[chosen].max()))
        for panel, layer in zip(panels, chosen, strict=True):
            drawn = _draw_map(panel, maps[layer], hop_seconds, norm)
            label_height = _mark_phonemes(panel, boundaries, phonemes, side - 0.15)
            panel.set_title(f"decoder layer {layer}", pad=5 + label_height)
        for panel in spare:
            panel.set_visible(False)
        for panel in panels[-columns:]:  # the lowest of each column
            panel.tick_params(labelbottom=True)
        for panel in grid[::columns]:
            panel.set_ylabel("decoder frame (s)")
        picture.supxlabel("memory frame (s)", fontsize=9)
        picture.colorbar(
            drawn,
            ax=panels,
            label="attention weight (square-root scale)",
            pad=0.01,
            aspect=30,
            fraction=0.05,
        )
    return picture


def plot_attention_entropy(
    entropy: Mapping[str, Mapping[str, float]],
    n_frames: int,
    title: str = "",
    like: Mapping[str, str] | None = None,
) -> Picture:
    """Mean entropy of cross-attention per decoder layer and arm, over its bound ln T: 0 one frame,
    1 every frame alike.

    `entropy[arm][layer]` in [0, 1]; `n_frames` T, for the bound's label; `like`: arm -> the known
    name whose colour it has (`style.colours_of`). Raises WorkbookError for values outside.
    """
    n_frames = int(finite_number("n_frames", n_frames))
    arms = {
        arm: _shares_of_bound(f"entropy[{arm!r}]", values)
        for arm, values in named("entropy", entropy).items()
    }
    layers = list(dict.fromkeys(layer for values in arms.values() for layer in values))
    colours = colours_of(arms, like)
    width = 0.8 / len(arms)
    with workbook_style():
        picture = new_picture(2.7, title)
        axes = picture.subplots()
        for index, (arm, values) in enumerate(arms.items()):
            shift = beside_each_other(index, len(arms)) * width
            places = [layers.index(layer) + shift for layer in values]
            heights = list(values.values())
            bars = axes.bar(places, heights, width * 0.92, color=colours[arm], label=arm)
            if len(layers) * len(arms) <= MOST_NUMBERED_BARS:
                numbers = [f"{height:.2f}" for height in heights]
                axes.bar_label(bars, numbers, fontsize=7.5, padding=1)
        axes.axhline(1, **LEVEL)
        bound = f"uniform over {n_frames:,} frames: ln T = {three_digits(math.log(n_frames))} nats"
        axes.set_title(bound, loc="right", fontsize=8, color=GREY, pad=3)
        axes.set_ylim(0, 1)
        axes.set_xlim(-0.5, len(layers) - 0.5)
        axes.xaxis.set_major_locator(FixedLocator(range(len(layers))))
        axes.set_xticklabels([_last_part(layer) for layer in layers])
        axes.grid(axis="x", visible=False)
        axes.set_xlabel("decoder layer")
        axes.set_ylabel("attention entropy / ln T")
        legend_above(axes, width=5.0)
    return picture


def _layer_maps(attention: Any) -> np.ndarray:
    """(L, T, T): the mean over heads, if there are any. Raises WorkbookError for what is no
    attention.
    """
    has_heads = np.ndim(attention) == 4
    maps = finite_array("attention", attention, 4 if has_heads else 3)
    if has_heads:
        maps = maps.mean(axis=1)
    off = np.abs(maps.sum(axis=-1) - 1)
    if (maps < 0).any() or (off > ROW_SUM_TOLERANCE).any():
        raise WorkbookError(
            "attention: each row must hold weights ≥ 0 that sum to 1; take them after the softmax "
            "and cut the padding off"
        )
    return maps


def _shares_of_bound(name: str, values: Mapping[str, float]) -> dict[str, float]:
    shares = finite_numbers(name, values)
    for layer, share in shares.items():
        if not -SHARE_TOLERANCE <= share <= 1 + SHARE_TOLERANCE:
            raise WorkbookError(
                f"{name}[{layer!r}] = {share:g}, but it is a share of ln T, so in [0, 1]"
            )
    return shares


def _draw_map(axes: Axes, weights: np.ndarray, hop_seconds: float, norm: PowerNorm) -> AxesImage:
    extent = (0, weights.shape[1] * hop_seconds, 0, weights.shape[0] * hop_seconds)
    axes.grid(False)
    return axes.imshow(weights, cmap=SHARE_COLOURS, norm=norm, extent=extent)


def _mark_phonemes(
    axes: Axes, boundaries: np.ndarray, phonemes: Sequence[str], width: float
) -> float:
    """Phoneme boundaries as thin lines, and names above the map where they fit; returns the names'
    height in points.
    """
    inner = np.unique(boundaries[1:-1])
    if len(inner) and width / (len(inner) + 1) > 0.05:
        axes.vlines(inner, 0, axes.get_ylim()[1], color="white", linewidth=0.4, alpha=0.5)
    rows = label_rows(boundaries, phonemes, boundaries[-1], width, NAME_POINTS)
    used = [row for row in rows if row is not None]
    if len(used) < MOSTLY * len(rows):
        return 0.0
    for row, start, stop, name in zip(rows, boundaries[:-1], boundaries[1:], phonemes, strict=True):
        if row is None:
            continue
        axes.annotate(
            str(name),
            xy=((start + stop) / 2, 1),
            xycoords=axes.get_xaxis_transform(),
            ha="center",
            va="bottom",
            xytext=(0, 1.5 + NAME_LINE * row),
            textcoords="offset points",
            fontsize=NAME_POINTS,
            annotation_clip=False,
        )
    return NAME_LINE * (max(used) + 1)


def _last_part(path: str) -> str:
    """`decoder.layers.3` -> `3`, the axis says the rest; other names stay."""
    return path.rsplit(".", 1)[-1]
