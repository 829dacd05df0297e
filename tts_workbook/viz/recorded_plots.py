"""A run recorded elsewhere, drawn with where, when and from which commit it comes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes

from tts_workbook.viz.axes import legend_above, legend_keys, log_axis, log_limits, three_digits
from tts_workbook.viz.constant_line import (
    Curves,
    band_key,
    draw_constant_band,
    draw_share,
    step_limits,
)
from tts_workbook.viz.inputs import curves_of, entry_of, finite_number, named
from tts_workbook.viz.picture import Picture, new_picture, workbook_style
from tts_workbook.viz.provenance import state_provenance
from tts_workbook.viz.style import GREY, INK, LEVEL, WIDTH, colours_of


def plot_recorded_run(record: Mapping, title: str = "") -> Picture:
    """Four curves per recorded run, and the record's provenance in small type underneath.

    `record`: {"provenance": {"device", "date", "commit", "command", …}, "runs": name -> {"steps":
    (S,), "over_constant": (S,), "time_variance_share": (S,) in [0, 1], "duration_loss": (S,),
    "gradient_norm": (S,) before the clip}, and optionally "clip_norm"}. What was measured at fewer
    steps brings them, as in "time_variance_share_steps". Raises WorkbookError for a missing key or
    a value that is not finite.
    """
    runs = named("record['runs']", entry_of("record", record, "runs"))
    provenance = entry_of("record", record, "provenance")
    over_constant = curves_of("runs", runs, "over_constant")
    shares = curves_of("runs", runs, "time_variance_share")
    durations = curves_of("runs", runs, "duration_loss")
    gradients = curves_of("runs", runs, "gradient_norm")
    colours = colours_of(runs)
    with workbook_style():
        picture = new_picture(5.0, title)
        (loss, share), (duration, gradient) = picture.subplots(2, 2, sharex=True)
        _draw_lines(loss, over_constant, colours)
        draw_constant_band(loss, [values for _, values in over_constant.values()])
        draw_share(share, shares, colours)
        _draw_lines(duration, durations, colours)
        _scale(duration, durations, "duration loss\n(MSE of log1p durations)")
        _draw_lines(gradient, gradients, colours)
        _scale(gradient, gradients, "gradient norm\n(before the clip)")
        if "clip_norm" in record:
            _mark_clip(gradient, finite_number("record['clip_norm']", record["clip_norm"]))
        loss.set_xlim(*step_limits(over_constant))
        legend_above(loss, [*legend_keys(loss), band_key()], width=WIDTH / 2)
        state_provenance(picture, provenance)
    return picture


def _draw_lines(axes: Axes, curves: Curves, colours: Mapping[str, str]) -> None:
    for name, (steps, values) in curves.items():
        axes.plot(steps, values, color=colours[name], label=name, linewidth=1.2)


def _scale(axes: Axes, curves: Curves, label: str) -> None:
    """A log axis around the curves, under its name."""
    values = np.concatenate([values for _, values in curves.values()])
    log_axis(axes, "y", *log_limits(values))
    axes.set(xlabel="training step", ylabel=label)


def _mark_clip(axes: Axes, clip_norm: float) -> None:
    """The norm that gradients are clipped to, with room around it."""
    axes.axhline(clip_norm, **LEVEL | {"color": INK}, zorder=2.5)
    low, high = axes.get_ylim()
    log_axis(axes, "y", min(low, clip_norm / 1.6), max(high, clip_norm * 1.6))
    note = f"dashed: the clip at {three_digits(clip_norm)}"
    axes.set_title(note, loc="right", fontsize=8, color=GREY)
