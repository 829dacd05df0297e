"""How the error grows with the number of frames that a model has heard from itself. K spans of
frames.
"""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, NullLocator

from tts_core.errors import WorkbookError
from tts_workbook.viz.axes import legend_above, mark_levels
from tts_workbook.viz.inputs import entry, finite_array, finite_numbers, named
from tts_workbook.viz.picture import Picture, new_picture, workbook_style
from tts_workbook.viz.style import GREY, colours_of

KEYS = ("last", "error", "teacher_forced")


def plot_self_feeding(
    arms: Mapping[str, Mapping], levels: Mapping[str, float], title: str = ""
) -> Picture:
    """Free-running error against the number of self-fed frames, and teacher-forced error of the
    same frames, per arm.

    `arms[arm]`: {"last": (K,) the last frame of each span, rising from 1, "error": (K,),
    "teacher_forced": (K,)}, in ln units; `levels`: yardsticks, name -> L1. Where the solid line
    stays on the dotted one, hearing itself costs nothing. Raises WorkbookError for spans that do
    not rise or curves of another length.
    """
    curves = {
        arm: {
            key: finite_array(
                f"arms[{arm!r}].{key}", entry(f"arms[{arm!r}]", values, key), dimensions=1
            )
            for key in KEYS
        }
        for arm, values in named("arms", arms).items()
    }
    for arm, values in curves.items():
        lengths = {key: len(values[key]) for key in KEYS}
        if (
            len(set(lengths.values())) > 1
            or values["last"][0] < 1
            or (values["last"][1:] <= values["last"][:-1]).any()
        ):
            raise WorkbookError(
                f"arms[{arm!r}]: as many errors as spans are wanted, and spans that rise from 1;"
                f" seen {lengths}"
            )
    levels = finite_numbers("levels", levels)
    highest = max(
        *levels.values(), *(values[key].max() for values in curves.values() for key in KEYS[1:])
    )
    longest = max((values["last"] for values in curves.values()), key=lambda last: last[-1])
    colours = colours_of(curves)
    with workbook_style():
        picture = new_picture(3.1, title)
        axes = picture.subplots()
        for arm, values in curves.items():
            axes.plot(
                values["last"],
                values["error"],
                color=colours[arm],
                marker="o",
                markersize=4,
                label=arm,
            )
            axes.plot(
                values["last"],
                values["teacher_forced"],
                color=colours[arm],
                linestyle=":",
                linewidth=1.3,
            )
        axes.set_xscale("log", base=2)
        axes.set_xlim(0.9, 1.12 * longest[-1])
        axes.xaxis.set_major_locator(FixedLocator(longest))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xticklabels(_span_labels(longest))
        axes.set_ylim(0, 1.06 * highest)
        axes.set(
            xlabel=(
                "frames since the model began to hear itself (the first one still has a true"
                " history)"
            ),
            ylabel="mel L1 (ln units)",
        )
        dotted = Line2D([], [], color=GREY, linestyle=":", label="the same frames, teacher-forced")
        legend_above(axes, [*axes.get_legend_handles_labels()[0], dotted])
        mark_levels(axes, levels, height=2.4)
    return picture


def _span_labels(last) -> list[str]:
    """1, 2, 3–4, 5–8 …: each span by its first and last frame."""
    first = [1, *(int(end) + 1 for end in last[:-1])]
    return [
        f"{start}" if start == end else f"{start}–{int(end)}"
        for start, end in zip(first, last, strict=True)
    ]
