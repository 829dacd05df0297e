"""Numbers beside their yardsticks: baselines, teacher-forced against free-running, text use.

T frames. All errors are mel L1 in ln units.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from tts_workbook.viz.axes import category_ticks, legend_above, mark_levels
from tts_workbook.viz.inputs import entry, finite_array, finite_number, finite_numbers, named
from tts_workbook.viz.picture import Picture, new_picture, workbook_style
from tts_workbook.viz.style import COLOURS, LEVEL, YARDSTICK, colours_of

MODES = {"teacher_forced": "teacher-forced", "free_running": "free-running"}
KINDS = {  # of text use: label, colour, hatch
    "tf": ("teacher-forced", COLOURS["teacher-forced"], ""),
    "tf_shuffled": ("teacher-forced, text shuffled", "#A6761D", "////"),
    "fr": ("free-running", COLOURS["free-running"], ""),
}


def plot_baselines(
    bars: Mapping[str, float], title: str = "", measured: Sequence[str] = (), unit: str = "ln units"
) -> Picture:
    """Mel L1 of each predictor as a horizontal bar, best on top, values printed: `bars[name]` in
    `unit`.

    Bars named in `measured` (a model under study) are coloured, yardsticks stay grey.
    """
    values = finite_numbers("bars", bars)
    order = sorted(values, key=lambda name: values[name])
    coloured = colours_of(name for name in order if name in measured)
    with workbook_style():
        picture = new_picture(0.5 + 0.27 * len(order), title)
        axes = picture.subplots()
        drawn = axes.barh(
            range(len(order)),
            [values[name] for name in order],
            0.68,
            color=[coloured.get(name, YARDSTICK) for name in order],
        )
        axes.bar_label(drawn, [f"{values[name]:.3f}" for name in order], padding=3, fontsize=8.5)
        axes.set_ylim(len(order) - 0.5, -0.5)
        category_ticks(axes.yaxis, order)
        axes.set_xlim(0, 1.12 * max(values.values()) or 1)
        axes.set_xlabel(f"mel L1 ({unit})")
    return picture


def plot_tf_fr(
    errors: Mapping[str, Mapping],
    hop_seconds: float,
    best_constant: float | Mapping[str, float],
    title: str = "",
) -> Picture:
    """L1 of each frame, teacher-forced against free-running, one panel per arm on one scale.

    `errors[arm]`: {"teacher_forced": (T,), "free_running": (T,)}; `best_constant` one L1, or one
    per arm.
    """
    hop = finite_number("hop_seconds", hop_seconds)
    arms = {
        arm: {
            mode: finite_array(
                f"errors[{arm!r}].{mode}", entry(f"errors[{arm!r}]", modes, mode), dimensions=1
            )
            for mode in MODES
        }
        for arm, modes in named("errors", errors).items()
    }
    if not isinstance(best_constant, Mapping):
        best_constant = dict.fromkeys(arms, best_constant)
    constants = {
        arm: finite_number("best_constant", entry("best_constant", best_constant, arm))
        for arm in arms
    }
    every = [values for modes in arms.values() for values in modes.values()]
    with workbook_style():
        picture = new_picture(0.7 + 1.35 * len(arms), title)
        panels = picture.subplots(len(arms), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
        panels[0].set_xlim(0, max(len(values) for values in every) * hop)
        panels[0].set_ylim(0, 1.05 * max(*constants.values(), *(values.max() for values in every)))
        for panel, (arm, modes) in zip(panels, arms.items(), strict=True):
            for mode, label in MODES.items():
                times = (np.arange(len(modes[mode])) + 0.5) * hop
                panel.plot(times, modes[mode], color=COLOURS[label], label=label, linewidth=1.2)
            panel.axhline(constants[arm], **LEVEL, label="best constant")
            means = [f"{modes[mode].mean():.3f} {label}" for mode, label in MODES.items()]
            panel.set_title(f"{arm}: mean {', '.join(means)}, {constants[arm]:.3f} best constant")
            panel.set_ylabel("L1 (ln units)")
        panels[-1].set_xlabel("time (s)")
        picture.legend(
            handles=panels[0].get_legend_handles_labels()[0], loc="outside lower center", ncols=3
        )
    return picture


def plot_text_use(
    arms: Mapping[str, Mapping[str, float]],
    best_constant: float,
    copy_previous: float,
    title: str = "",
) -> Picture:
    """Does wrong text hurt? L1 teacher-forced, the same with phonemes shuffled, and free-running,
    per arm.

    `arms[arm]`: {"tf": L1, "tf_shuffled": L1, "fr": L1}. Under each arm stands its text use,
    tf_shuffled / tf: 1.0 means that the text is ignored.
    """
    values = {
        arm: finite_numbers(
            f"arms[{arm!r}]", {kind: entry(f"arms[{arm!r}]", numbers, kind) for kind in KINDS}
        )
        for arm, numbers in named("arms", arms).items()
    }
    levels = finite_numbers(
        "yardsticks", {"best constant": best_constant, "copy previous": copy_previous}
    )
    highest = max(
        *levels.values(), *(value for numbers in values.values() for value in numbers.values())
    )
    with workbook_style():
        picture = new_picture(3.1, title)
        axes = picture.subplots()
        for index, (kind, (label, colour, hatch)) in enumerate(KINDS.items()):
            heights = [numbers[kind] for numbers in values.values()]
            bars = axes.bar(
                np.arange(len(values)) + (index - 1) * 0.27,
                heights,
                0.25,
                color=colour,
                hatch=hatch,
                edgecolor="white",
                linewidth=0,
                label=label,
                zorder=2,
            )
            axes.bar_label(
                bars,
                [f"{height:.3f}" for height in heights],
                fontsize=8,
                padding=1,
                zorder=4,
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.4, "alpha": 0.8},
            )
        ratios = {
            arm: numbers["tf_shuffled"] / max(numbers["tf"], 1e-12)
            for arm, numbers in values.items()
        }
        category_ticks(
            axes.xaxis, [f"{arm}\ntext use {ratio:.2f}" for arm, ratio in ratios.items()]
        )
        axes.set_xlim(-0.5, len(values) - 0.5)
        axes.set_ylim(0, 1.1 * highest)
        axes.set_ylabel("mel L1 (ln units)")
        legend_above(axes)
        mark_levels(axes, levels, height=2.3)
    return picture
