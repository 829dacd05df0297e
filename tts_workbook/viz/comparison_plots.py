"""Numbers beside their yardsticks: baselines, teacher-forced against free-running, text use.

T frames. All errors are mel L1 in ln units.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np

from tts_workbook.viz.axes import (
    category_ticks,
    legend_above,
    legend_below,
    legend_keys,
    mark_levels,
    white_box,
)
from tts_workbook.viz.inputs import entry_of, finite_arrays, finite_number, finite_numbers, named
from tts_workbook.viz.picture import Picture, new_picture, workbook_style
from tts_workbook.viz.style import COLOURS, LEVEL, YARDSTICK, colours_of

MODES = {"teacher_forced": "teacher-forced", "free_running": "free-running"}


@dataclass(frozen=True)
class TextUseBar:
    """One of the bars that an arm has in `plot_text_use`."""

    key: str
    label: str
    colour: str
    hatch: str = ""


TEXT_USE_BARS = (
    TextUseBar("tf", "teacher-forced", COLOURS["teacher-forced"]),
    TextUseBar("tf_shuffled", "teacher-forced, text shuffled", "#A6761D", hatch="////"),
    TextUseBar("fr", "free-running", COLOURS["free-running"]),
)


def plot_baselines(
    bars: Mapping[str, float],
    title: str = "",
    measured: Collection[str] = (),
    unit: str = "ln units",
) -> Picture:
    """Mel L1 of each predictor as a horizontal bar, best on top, values printed: `bars[name]` in
    `unit`.

    Bars named in `measured` (a model under study) are coloured, yardsticks stay grey.
    """
    values = finite_numbers("bars", bars)
    order = sorted(values, key=lambda name: values[name])
    lengths = [values[name] for name in order]
    coloured = colours_of(name for name in order if name in measured)
    colours = [coloured.get(name, YARDSTICK) for name in order]
    with workbook_style():
        picture = new_picture(0.5 + 0.27 * len(order), title)
        axes = picture.subplots()
        drawn = axes.barh(range(len(order)), lengths, 0.68, color=colours)
        axes.bar_label(drawn, [f"{length:.3f}" for length in lengths], padding=3, fontsize=8.5)
        axes.set_ylim(len(order) - 0.5, -0.5)
        category_ticks(axes.yaxis, order)
        axes.set_xlim(0, 1.12 * max(lengths) or 1)
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
        arm: finite_arrays(f"errors[{arm!r}]", by_mode, MODES)
        for arm, by_mode in named("errors", errors).items()
    }
    if not isinstance(best_constant, Mapping):
        best_constant = dict.fromkeys(arms, best_constant)
    constants = {
        arm: finite_number("best_constant", entry_of("best_constant", best_constant, arm))
        for arm in arms
    }
    every = [values for by_mode in arms.values() for values in by_mode.values()]
    longest = max(len(values) for values in every)
    highest = max(*constants.values(), *(values.max() for values in every))
    with workbook_style():
        picture = new_picture(0.7 + 1.35 * len(arms), title)
        panels = picture.subplots(len(arms), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
        panels[0].set_xlim(0, longest * hop)
        panels[0].set_ylim(0, 1.05 * highest)
        for panel, (arm, by_mode) in zip(panels, arms.items(), strict=True):
            for mode, label in MODES.items():
                times = (np.arange(len(by_mode[mode])) + 0.5) * hop
                panel.plot(times, by_mode[mode], color=COLOURS[label], label=label, linewidth=1.2)
            panel.axhline(constants[arm], **LEVEL, label="best constant")
            means = [f"{by_mode[mode].mean():.3f} {label}" for mode, label in MODES.items()]
            panel.set_title(f"{arm}: mean {', '.join(means)}, {constants[arm]:.3f} best constant")
            panel.set_ylabel("L1 (ln units)")
        panels[-1].set_xlabel("time (s)")
        legend_below(picture, legend_keys(panels[0]), columns=3)
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
        arm: _text_use_numbers(f"arms[{arm!r}]", numbers)
        for arm, numbers in named("arms", arms).items()
    }
    levels = finite_numbers(
        "yardsticks", {"best constant": best_constant, "copy previous": copy_previous}
    )
    every = [value for numbers in values.values() for value in numbers.values()]
    with workbook_style():
        picture = new_picture(3.1, title)
        axes = picture.subplots()
        for index, kind in enumerate(TEXT_USE_BARS):
            heights = [numbers[kind.key] for numbers in values.values()]
            bars = axes.bar(
                np.arange(len(values)) + (index - 1) * 0.27,
                heights,
                0.25,
                color=kind.colour,
                hatch=kind.hatch,
                edgecolor="white",
                linewidth=0,
                label=kind.label,
                zorder=2,
            )
            axes.bar_label(
                bars,
                [f"{height:.3f}" for height in heights],
                fontsize=8,
                padding=1,
                zorder=4,
                bbox=white_box(pad=0.4, alpha=0.8),
            )
        category_ticks(axes.xaxis, [_text_use_label(arm, values[arm]) for arm in values])
        axes.set_xlim(-0.5, len(values) - 0.5)
        axes.set_ylim(0, 1.1 * max(*levels.values(), *every))
        axes.set_ylabel("mel L1 (ln units)")
        legend_above(axes)
        mark_levels(axes, levels, height=2.3)
    return picture


def _text_use_numbers(where: str, numbers: Mapping[str, float]) -> dict[str, float]:
    wanted = {kind.key: entry_of(where, numbers, kind.key) for kind in TEXT_USE_BARS}
    return finite_numbers(where, wanted)


def _text_use_label(arm: str, numbers: Mapping[str, float]) -> str:
    ratio = numbers["tf_shuffled"] / max(numbers["tf"], 1e-12)
    return f"{arm}\ntext use {ratio:.2f}"
