"""Does a recogniser understand it? Word error rate and STOI per version of a clip, beside its
copy-synthesis.

STOI: short-time objective intelligibility (Taal et al. 2011).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator

from tts_workbook.viz.axes import category_ticks, keys_once, legend_above, white_box
from tts_workbook.viz.inputs import entry_of, finite_array, finite_numbers, named
from tts_workbook.viz.picture import Picture, new_picture, workbook_style
from tts_workbook.viz.style import COLOURS, LEVEL, WIDTH, colours_of

DOTS: dict[str, Any] = {"color": "white", "edgecolor": "#444444", "linewidth": 0.6, "zorder": 3}


def plot_intelligibility(
    words: Mapping[str, float | Sequence[float]],
    stoi: Mapping[str, float] | None = None,
    title: str = "",
    reference: str | None = "copy-synthesis",
    warped: Mapping[str, float] | None = None,
    order: Sequence[str] | None = None,
    like: Mapping[str, str] | None = None,
) -> Picture:
    """Word error rate per version of a clip, with the line of the copy-synthesis, and STOI against
    it.

    `words[label]`: one rate, or one per vocoder phase seed: the bar is their mean, the dots are the
    seeds; 0 is every word right, above 1 more errors than words. `stoi[label]` in [-1, 1].
    `reference` names the entry of `words` that the line stands for; None draws none. Without any
    `words` STOI stands alone. `warped[label]` is STOI after time warping, drawn as a diamond: for
    what has another timing, or another length and so no plain STOI. Rows stand as in `words`;
    without them as in `order`. `like`: label -> the known name whose colour it has
    (`style.colours_of`).
    """
    diamonds = finite_numbers("warped", warped) if warped else {}
    if not words:  # another language than the recogniser's: STOI alone
        shares = finite_numbers("stoi", named("stoi", stoi or {}))
        labels = [label for label in order or [*shares, *diamonds] if label in shares | diamonds]
        return _plot_stoi(list(dict.fromkeys(labels)), shares, diamonds, title, reference, like)
    rates = {
        label: finite_array(f"words[{label!r}]", np.atleast_1d(rate), dimensions=1)
        for label, rate in named("words", words).items()
    }
    if reference is not None:
        entry_of("words", rates, reference)
    shares = finite_numbers("stoi", stoi) if stoi else {}
    # by name: a version has one colour, whatever the order of the rows
    colours = colours_of(sorted(rates), like)
    with workbook_style():
        picture = new_picture(0.65 + 0.33 * len(rates), title)
        panels = picture.subplots(1, 2 if shares else 1, sharey=True, squeeze=False)[0]
        _draw_rates(panels[0], rates, colours)
        if reference is not None:
            panels[0].axvline(
                rates[reference].mean(),
                **LEVEL | {"color": COLOURS["copy-synthesis"]},
                zorder=2.5,
                label=f"mean of the {reference}",
            )
        category_ticks(panels[0].yaxis, list(rates))
        keys = keys_once(panels[:1])
        if keys:
            legend_above(panels[0], keys, width=4.6 if shares else WIDTH)
        if shares:
            _draw_stoi(panels[1], list(rates), shares, diamonds, colours)
            panels[1].set_xlabel(_stoi_label(reference))
    return picture


def _plot_stoi(
    labels: Sequence[str],
    shares: Mapping[str, float],
    warped: Mapping[str, float],
    title: str,
    reference: str | None,
    like: Mapping[str, str] | None,
) -> Picture:
    """STOI alone, one row per label."""
    with workbook_style():
        picture = new_picture(0.65 + 0.33 * len(labels), title)
        axes = picture.subplots()
        _draw_stoi(axes, labels, shares, warped, colours_of(sorted(labels), like))
        category_ticks(axes.yaxis, labels)
        axes.set_ylim(len(labels) - 0.5, -0.5)
        axes.set_xlabel(_stoi_label(reference))
    return picture


def _stoi_label(reference: str | None) -> str:
    return f"STOI against the {reference or 'reference'} (1 is best)"


def _draw_rates(axes: Axes, rates: Mapping[str, np.ndarray], colours: Mapping[str, str]) -> None:
    """A bar per version at the mean of its rates, and a dot per rate where there are several."""
    reach = max(1.0, max(rate.max() for rate in rates.values()))
    means = [rate.mean() for rate in rates.values()]
    axes.barh(range(len(rates)), means, 0.66, color=[colours[label] for label in rates])
    for row, rate in enumerate(rates.values()):
        if len(rate) > 1:
            places = row + np.linspace(-0.2, 0.2, len(rate))
            axes.scatter(rate, places, s=9, label="one vocoder phase each", **DOTS)
        axes.text(
            rate.max() + 0.02 * reach,
            row,
            f"{rate.mean():.2f}",
            va="center",
            fontsize=8.5,
            zorder=4,
            bbox=white_box(pad=0.6),
        )
    axes.set(
        xlim=(0, 1.15 * reach),
        ylim=(len(rates) - 0.5, -0.5),
        xlabel="word error rate (lower is better)",
    )


def _draw_stoi(
    axes: Axes,
    labels: Sequence[str],
    shares: Mapping[str, float],
    warped: Mapping[str, float],
    colours: Mapping[str, str],
) -> None:
    """One row per label: its STOI as a bar in the colour of the row, and a diamond after time
    warping where given.
    """
    bars = {row: shares[label] for row, label in enumerate(labels) if label in shares}
    diamonds = {row: warped[label] for row, label in enumerate(labels) if label in warped}
    axes.barh(list(bars), list(bars.values()), 0.66, color=[colours[labels[row]] for row in bars])
    for row in range(len(labels)):
        values = [found[row] for found in (bars, diamonds) if row in found]
        if values:
            axes.text(max(0.0, *values) + 0.03, row, f"{values[0]:.3f}", va="center", fontsize=8.5)
    if diamonds:
        rows, heights = list(diamonds), list(diamonds.values())
        axes.scatter(heights, rows, s=26, marker="D", label="after time warping", **DOTS)
        legend_above(axes, width=4.0)
    axes.set_xlim(min(0.0, *bars.values(), *diamonds.values(), 0.0), 1.18)
    axes.xaxis.set_major_locator(FixedLocator([0, 0.2, 0.4, 0.6, 0.8, 1.0]))
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", visible=False)
