"""A training on a corpus by what it says of clips it never heard: error over the steps, and whether
the text is used.

V validations of a run.
"""

from __future__ import annotations

from collections.abc import Mapping

from tts_workbook.viz.axes import legend_above
from tts_workbook.viz.inputs import curve, entry, finite_number, named
from tts_workbook.viz.picture import Picture, new_picture, workbook_style
from tts_workbook.viz.style import LEVEL, colours_of
from tts_workbook.viz.training_plots import step_limits


def plot_corpus_training(
    runs: Mapping[str, Mapping], title: str = "On clips that training never saw"
) -> Picture:
    """Free-running and teacher-forced error over the best constant, above; text use, below.

    `runs`: name -> {"validation": {"steps", "fr_over_constant", "tf_l1", "fr_l1", "text_use": (V,)
    each}, "best_step": int}.
    """
    drawn = {}
    for name, run in named("runs", runs).items():
        where, validation = (
            f"runs[{name!r}]['validation']",
            entry(f"runs[{name!r}]", run, "validation"),
        )
        curves = {
            key: curve(where, validation, key)
            for key in ("fr_over_constant", "fr_l1", "tf_l1", "text_use")
        }
        (steps, fr), (_, fr_l1), (_, tf_l1), (_, use) = curves.values()
        best = finite_number(
            f"runs[{name!r}]['best_step']", entry(f"runs[{name!r}]", run, "best_step")
        )
        drawn[name] = (steps, fr, fr * tf_l1 / fr_l1, use, best)
    with workbook_style():
        picture = new_picture(4.6, title)
        upper, lower = picture.subplots(2, 1, sharex=True, height_ratios=(3, 2))
        colours = colours_of(drawn)
        for name, (steps, fr, tf, use, best) in drawn.items():
            upper.plot(
                steps,
                fr,
                color=colours[name],
                marker=".",
                label=f"{name}: free-running (best at step {best:,.0f})",
            )
            upper.plot(
                steps, tf, color=colours[name], linestyle=":", label=f"{name}: teacher-forced"
            )
            lower.plot(steps, use, color=colours[name], marker=".")
        upper.axhline(1, **LEVEL)
        upper.set_ylim(bottom=0)
        upper.set_ylabel("mel L1 / best constant")
        lower.axhline(1, **LEVEL)
        lower.set(ylabel="text use (1: ignored)", xlabel="training step")
        lower.set_xlim(*step_limits({name: (steps, fr) for name, (steps, fr, *_) in drawn.items()}))
        legend_above(upper)
    return picture
