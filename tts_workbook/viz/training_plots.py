"""Training curves beside what needs no learning: mel L1 over its baselines, over the best constant,
and collapse.

S steps of a run.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Patch

from tts_core.errors import WorkbookError
from tts_workbook.measure.trajectory import COLLAPSE_SHARE, PLATEAU_BAND, plateaus
from tts_workbook.viz.axes import legend_above, log_axis, log_limits, mark_levels, plain_number
from tts_workbook.viz.inputs import curve, finite_numbers, named
from tts_workbook.viz.picture import Picture, new_picture, workbook_style
from tts_workbook.viz.style import ALARM, BAND, GREY, LEVEL, colours_of

# a linear axis that would span more than this factor of the best constant is log
LONG_SPAN = 8.0


def plot_loss_curves(
    runs: Mapping[str, Mapping],
    baselines: Mapping[str, float],
    title: str = "",
    scale: str = "log",
    unit: str = "ln units",
) -> Picture:
    """Mel L1 over the steps of each run, every baseline a labelled line.

    `runs`: name -> {"steps": (S,), "mel_l1": (S,)} in `unit`; `baselines`: name -> L1; `scale`
    "log" or "linear". Runs of another mel recipe have other baselines: draw them with
    `plot_loss_over_constant`.
    """
    if scale not in ("log", "linear"):
        raise WorkbookError(f"scale = {scale!r}, but it must be 'log' or 'linear'")
    curves = {
        name: curve(f"runs[{name!r}]", run, "mel_l1") for name, run in named("runs", runs).items()
    }
    levels = finite_numbers("baselines", baselines)
    values = np.concatenate([*(values for _, values in curves.values()), list(levels.values())])
    with workbook_style():
        picture = new_picture(3.4, title)
        axes = picture.subplots()
        _draw_runs(axes, curves)
        if scale == "log":
            log_axis(axes, "y", *log_limits(values, pad=1.25))
        else:
            axes.set_ylim(0, 1.05 * values.max())
        axes.set(xlabel="training step", ylabel=f"mel L1 ({unit})")
        legend_above(axes)
        mark_levels(axes, levels, height=2.7)
    return picture


def plot_loss_over_constant(runs: Mapping[str, Mapping], title: str = "") -> Picture:
    """Mel L1 divided by the best constant of the run's own recipe: 1 is one spectrum for every
    frame.

    `runs`: name -> {"steps": (S,), "over_constant": (S,)}. The grey band is the plateau, 1 ± 5 %.
    """
    curves = {
        name: curve(f"runs[{name!r}]", run, "over_constant")
        for name, run in named("runs", runs).items()
    }
    with workbook_style():
        picture = new_picture(3.2, title)
        axes = picture.subplots()
        _draw_runs(axes, curves)
        draw_constant_band(axes, [values for _, values in curves.values()])
        axes.set_xlabel("training step")
        legend_above(axes, [*axes.get_legend_handles_labels()[0], band_key()])
    return picture


def plot_collapse(runs: Mapping[str, Mapping], title: str = "") -> Picture:
    """Collapse needs both: a plateau on the best-constant line and a decoder output that hardly
    moves in time.

    `runs`: name -> {"steps": (S,), "over_constant": (S,), "time_variance_share": (S,) in [0, 1]}; a
    share measured at fewer steps brings them as "time_variance_share_steps". Where a plateau (≥ 50
    steps within 5 % of the best constant) and a share below 10 % coincide, the area under the 10 %
    line is shaded in the run's colour.
    """
    above, below = {}, {}
    for name, run in named("runs", runs).items():
        above[name] = curve(f"runs[{name!r}]", run, "over_constant")
        below[name] = curve(f"runs[{name!r}]", run, "time_variance_share")
        if (below[name][1] < 0).any() or (below[name][1] > 1.0001).any():
            raise WorkbookError(
                f"runs[{name!r}].time_variance_share: it is a share and must lie in [0, 1]"
            )
    with workbook_style():
        picture = new_picture(4.6, title)
        upper, lower = picture.subplots(2, 1, sharex=True, height_ratios=[1.2, 1])
        colours = _draw_runs(upper, above)
        draw_constant_band(upper, [values for _, values in above.values()])
        draw_share(lower, below, colours)
        for name, (steps, over) in above.items():
            collapsed = plateau_mask(steps, over) & (
                np.interp(steps, *below[name]) < COLLAPSE_SHARE
            )
            lower.fill_between(
                steps,
                0,
                100 * COLLAPSE_SHARE,
                where=collapsed,
                color=colours[name],
                alpha=0.35,
                linewidth=0,
            )
        lower.set_xlabel("training step")
        keys = [
            *upper.get_legend_handles_labels()[0],
            band_key(),
            Patch(facecolor=GREY, alpha=0.35, label="collapse, in the run's colour"),
        ]
        legend_above(upper, keys)
    return picture


def plateau_mask(steps: np.ndarray, over_constant: np.ndarray) -> np.ndarray:
    """Which entries (S,) belong to a plateau, as the probe defines it."""
    mask = np.zeros(len(over_constant), dtype=bool)
    for part in plateaus(over_constant, steps):
        mask[part] = True
    return mask


def draw_constant_band(axes: Axes, curves: list[np.ndarray]) -> None:
    """The line at 1, the ± 5 % band, and limits that hold every one of `curves`."""
    highest, lowest = max(values.max() for values in curves), min(values.min() for values in curves)
    axes.axhspan(1 - PLATEAU_BAND, 1 + PLATEAU_BAND, color=BAND, zorder=0.5)
    axes.axhline(1, **LEVEL, zorder=1.5)
    if highest > LONG_SPAN or lowest < 0.04:
        log_axis(axes, "y", *log_limits(np.array([highest, lowest, 1.0]), pad=1.25))
    else:
        axes.set_ylim(0, max(1.25, 1.05 * highest))
    axes.set_ylabel("mel L1 / best constant")


def draw_share(
    axes: Axes, curves: Mapping[str, tuple[np.ndarray, np.ndarray]], colours: Mapping[str, str]
) -> None:
    """Shares of variance across time, in per cent, with the 10 % line."""
    for name, (steps, share) in curves.items():
        axes.plot(steps, 100 * share, color=colours[name], label=name)
    line = 100 * COLLAPSE_SHARE
    axes.axhline(line, **LEVEL | {"color": ALARM})
    axes.annotate(
        f"{line:.0f} %",
        xy=(1, line),
        xycoords=axes.get_yaxis_transform(),
        xytext=(4, 0),
        textcoords="offset points",
        va="center",
        color=ALARM,
        fontsize=8,
        annotation_clip=False,
    )
    axes.set_ylim(0, max(25.0, 105 * max(share.max() for _, share in curves.values())))
    axes.set_ylabel("variance across time\n(% of decoder output)")


def _draw_runs(axes: Axes, curves: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> dict[str, str]:
    """One line per run, its last value in the legend; returns the colours."""
    colours = colours_of(curves)
    for name, (steps, values) in curves.items():
        last = f"{plain_number(values[-1])} at step {steps[-1]:,.0f}"
        axes.plot(
            steps,
            values,
            color=colours[name],
            label=f"{name}: {last}",
            marker="o" if len(steps) == 1 else None,
        )
    axes.set_xlim(*step_limits(curves))
    return colours


def step_limits(curves: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> tuple[float, float]:
    """First and last step of any curve, never the same."""
    return (
        min(steps[0] for steps, _ in curves.values()),
        max(steps[-1] for steps, _ in curves.values()) + 1,
    )


def band_key() -> Patch:
    """Legend entry of the plateau band."""
    return Patch(facecolor=BAND, label="best constant ± 5 %")
