"""A run recorded elsewhere, drawn with where, when and from which commit it comes."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping

import numpy as np

from tts_workbook.viz.axes import legend_above, log_axis, log_limits, plain_number
from tts_workbook.viz.inputs import curve, entry, finite_number, named
from tts_workbook.viz.picture import Picture, new_picture, workbook_style
from tts_workbook.viz.style import GREY, INK, LEVEL, WIDTH, colours_of
from tts_workbook.viz.training_plots import band_key, draw_constant_band, draw_share, step_limits

LINE_CHARACTERS = 150  # of small type across a picture


def plot_recorded_run(record: Mapping, title: str = "") -> Picture:
    """Four curves per recorded run, and the record's provenance in small type underneath.

    `record`: {"provenance": {"device", "date", "commit", "command", …}, "runs": name -> {"steps":
    (S,), "over_constant": (S,), "time_variance_share": (S,) in [0, 1], "duration_loss": (S,),
    "gradient_norm": (S,) before the clip}, and optionally "clip_norm"}. What was measured at fewer
    steps brings them, as in "time_variance_share_steps". Raises WorkbookError for a missing key or
    a value that is not finite.
    """
    runs = named("record['runs']", entry("record", record, "runs"))
    provenance = entry("record", record, "provenance")
    keys = ("over_constant", "time_variance_share", "duration_loss", "gradient_norm")
    curves = {
        key: {name: curve(f"runs[{name!r}]", run, key) for name, run in runs.items()}
        for key in keys
    }
    colours = colours_of(runs)
    with workbook_style():
        picture = new_picture(5.0, title)
        (loss, share), (duration, gradient) = picture.subplots(2, 2, sharex=True)
        for axes, key in (
            (loss, "over_constant"),
            (duration, "duration_loss"),
            (gradient, "gradient_norm"),
        ):
            for name, (steps, values) in curves[key].items():
                axes.plot(steps, values, color=colours[name], label=name, linewidth=1.2)
        draw_constant_band(loss, [values for _, values in curves["over_constant"].values()])
        draw_share(share, curves["time_variance_share"], colours)
        for axes, key, label in (
            (duration, "duration_loss", "duration loss\n(MSE of log1p durations)"),
            (gradient, "gradient_norm", "gradient norm\n(before the clip)"),
        ):
            log_axis(
                axes,
                "y",
                *log_limits(np.concatenate([values for _, values in curves[key].values()])),
            )
            axes.set(xlabel="training step", ylabel=label)
        if "clip_norm" in record:
            clip_norm = finite_number("record['clip_norm']", record["clip_norm"])
            gradient.axhline(clip_norm, **LEVEL | {"color": INK}, zorder=2.5)
            low, high = gradient.get_ylim()
            log_axis(gradient, "y", min(low, clip_norm / 1.6), max(high, clip_norm * 1.6))
            gradient.set_title(
                f"dashed: the clip at {plain_number(clip_norm)}",
                loc="right",
                fontsize=8,
                color=GREY,
            )
        loss.set_xlim(*step_limits(curves["over_constant"]))
        legend_above(loss, [*loss.get_legend_handles_labels()[0], band_key()], width=WIDTH / 2)
        state_provenance(picture, provenance)
    return picture


def state_provenance(picture: Picture, provenance: Mapping | None) -> None:
    """Where a recorded picture comes from, in small type underneath; nothing where it was not
    recorded.
    """
    if provenance is not None:
        picture.supxlabel(provenance_line(provenance), fontsize=7, color=GREY, x=0.01, ha="left")


def provenance_line(provenance: Mapping) -> str:
    """The record's origin in at most two lines of small type: device, date, commit, then the
    command.
    """
    words = {"date": "recorded", "device": "on", "commit": "at commit"}
    origin = ", ".join(
        f"{word} {provenance[key]}" for key, word in words.items() if provenance.get(key)
    )
    lines = [origin or "recorded; where and when is not stated", str(provenance.get("command", ""))]
    return "\n".join(
        textwrap.shorten(line, LINE_CHARACTERS, placeholder=" …") for line in lines if line
    )
