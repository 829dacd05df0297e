"""Training curves beside what needs no learning: mel L1 over its baselines, over the best constant,
and collapse.

S steps of a run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Patch

from tts_core.errors import WorkbookError
from tts_workbook.viz.axes import (
    legend_above,
    legend_keys,
    log_axis,
    log_limits,
    mark_levels,
    three_digits,
)
from tts_workbook.viz.constant_line import (
    DRAWN_COLLAPSE,
    Curves,
    band_key,
    draw_constant_band,
    draw_share,
    step_limits,
)
from tts_workbook.viz.inputs import curves_of, entry_of, finite_numbers
from tts_workbook.viz.picture import Picture, new_picture, workbook_style
from tts_workbook.viz.style import GREY, colours_of

COLLAPSE_SHADE = 0.35  # opacity


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
    curves = curves_of("runs", runs, "mel_l1")
    levels = finite_numbers("baselines", baselines)
    drawn = [values for _, values in curves.values()]
    every = np.concatenate([*drawn, list(levels.values())])
    with workbook_style():
        picture = new_picture(3.4, title)
        axes = picture.subplots()
        _draw_runs(axes, curves)
        if scale == "log":
            log_axis(axes, "y", *log_limits(every, pad=1.25))
        else:
            axes.set_ylim(0, 1.05 * every.max())
        axes.set(xlabel="training step", ylabel=f"mel L1 ({unit})")
        legend_above(axes)
        mark_levels(axes, levels, height=2.7)
    return picture


def plot_loss_over_constant(runs: Mapping[str, Mapping], title: str = "") -> Picture:
    """Mel L1 divided by the best constant of the run's own recipe: 1 is one spectrum for every
    frame.

    `runs`: name -> {"steps": (S,), "over_constant": (S,)}. The grey band is the plateau, 1 ± 5 %.
    """
    curves = curves_of("runs", runs, "over_constant")
    with workbook_style():
        picture = new_picture(3.2, title)
        axes = picture.subplots()
        _draw_runs(axes, curves)
        draw_constant_band(axes, [values for _, values in curves.values()])
        axes.set_xlabel("training step")
        legend_above(axes, [*legend_keys(axes), band_key()])
    return picture


def plot_collapse(
    runs: Mapping[str, Mapping], plateaus: Mapping[str, Sequence[slice]], title: str = ""
) -> Picture:
    """Collapse needs both: a plateau on the best-constant line and a decoder output that hardly
    moves in time.

    `runs`: name -> {"steps": (S,), "over_constant": (S,), "time_variance_share": (S,) in [0, 1]}; a
    share measured at fewer steps brings them as "time_variance_share_steps". `plateaus`: name ->
    the parts of the run's steps that are a plateau (≥ 50 steps within 5 % of the best constant), as
    `measure.trajectory.plateaus` finds them. Where a plateau and a share below 10 % coincide, the
    area under the 10 % line is shaded in the run's colour. Raises WorkbookError for shares beyond
    [0, 1].
    """
    above = curves_of("runs", runs, "over_constant")
    below = curves_of("runs", runs, "time_variance_share")
    for name, (_, share) in below.items():
        if (share < 0).any() or (share > 1.0001).any():
            raise WorkbookError(
                f"runs[{name!r}].time_variance_share: it is a share and must lie in [0, 1]"
            )
    collapsed = {
        name: _collapsed(steps, entry_of("plateaus", plateaus, name), below[name])
        for name, (steps, _) in above.items()
    }
    with workbook_style():
        picture = new_picture(4.6, title)
        upper, lower = picture.subplots(2, 1, sharex=True, height_ratios=[1.2, 1])
        colours = _draw_runs(upper, above)
        draw_constant_band(upper, [values for _, values in above.values()])
        draw_share(lower, below, colours)
        for name, (steps, _) in above.items():
            lower.fill_between(
                steps,
                0,
                DRAWN_COLLAPSE,
                where=collapsed[name],
                color=colours[name],
                alpha=COLLAPSE_SHADE,
                linewidth=0,
            )
        lower.set_xlabel("training step")
        shade = Patch(facecolor=GREY, alpha=COLLAPSE_SHADE, label="collapse, in the run's colour")
        legend_above(upper, [*legend_keys(upper), band_key(), shade])
    return picture


def _collapsed(
    steps: np.ndarray, plateaus: Sequence[slice], share: tuple[np.ndarray, np.ndarray]
) -> np.ndarray:
    """Which of the steps (S,) lie on a plateau while the share, read between its measurements, is
    below 10 %.
    """
    on_plateau = np.zeros(len(steps), dtype=bool)
    for part in plateaus:
        on_plateau[part] = True
    return on_plateau & (np.interp(steps, *share) < DRAWN_COLLAPSE / 100)


def _draw_runs(axes: Axes, curves: Curves) -> dict[str, str]:
    """One line per run, its last value in the legend; returns the colours."""
    colours = colours_of(curves)
    for name, (steps, values) in curves.items():
        axes.plot(
            steps,
            values,
            color=colours[name],
            label=f"{name}: {three_digits(values[-1])} at step {steps[-1]:,.0f}",
            marker="o" if len(steps) == 1 else None,
        )
    axes.set_xlim(*step_limits(curves))
    return colours
