"""The best-constant line, the band of a plateau around it, and the line of collapse.

Plateau and collapse are defined and measured in `measure/trajectory.py`; here stands what is drawn,
and a test holds the two together. S steps of a run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Patch

from tts_workbook.viz.axes import log_axis, log_limits
from tts_workbook.viz.style import ALARM, BAND, LEVEL

DRAWN_BAND = (0.95, 1.05)  # mel L1 / best constant: where a plateau lies
DRAWN_PLATEAU_STEPS = 50  # that a plateau lasts at least
DRAWN_COLLAPSE = 10.0  # % of decoder-output variance across time; below, the output stands still
# a linear axis that would span more than this factor of the best constant is log
LONG_SPAN = 8.0

Curves = Mapping[str, tuple[np.ndarray, np.ndarray]]  # name -> steps and values, both (S,)


def draw_constant_band(axes: Axes, curves: Sequence[np.ndarray]) -> None:
    """The line at 1, the ± 5 % band, and limits that hold every one of `curves`."""
    shade_constant_band(axes)
    highest = max(values.max() for values in curves)
    lowest = min(values.min() for values in curves)
    if highest > LONG_SPAN or lowest < 0.04:
        log_axis(axes, "y", *log_limits(np.array([highest, lowest, 1.0]), pad=1.25))
    else:
        axes.set_ylim(0, max(1.25, 1.05 * highest))
    axes.set_ylabel("mel L1 / best constant")


def shade_constant_band(axes: Axes) -> None:
    """The line at 1 and the ± 5 % band; the limits stay."""
    axes.axhspan(*DRAWN_BAND, color=BAND, zorder=0.5)
    axes.axhline(1, **LEVEL, zorder=1.5)


def band_key() -> Patch:
    """Legend entry of the plateau band."""
    return Patch(facecolor=BAND, label="best constant ± 5 %")


def draw_share(axes: Axes, curves: Curves, colours: Mapping[str, str]) -> None:
    """Shares of variance across time, in per cent, with the 10 % line."""
    for name, (steps, share) in curves.items():
        axes.plot(steps, 100 * share, color=colours[name], label=name)
    axes.axhline(DRAWN_COLLAPSE, **LEVEL | {"color": ALARM})
    axes.annotate(
        f"{DRAWN_COLLAPSE:.0f} %",
        xy=(1, DRAWN_COLLAPSE),
        xycoords=axes.get_yaxis_transform(),
        xytext=(4, 0),
        textcoords="offset points",
        va="center",
        color=ALARM,
        fontsize=8,
        annotation_clip=False,
    )
    highest = max(share.max() for _, share in curves.values())
    axes.set_ylim(0, max(25.0, 105 * highest))
    axes.set_ylabel("variance across time\n(% of decoder output)")


def step_limits(curves: Curves) -> tuple[float, float]:
    """First and last step of any curve, never the same."""
    first = min(steps[0] for steps, _ in curves.values())
    last = max(steps[-1] for steps, _ in curves.values())
    return first, last + 1
