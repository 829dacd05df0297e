"""One look for every figure: sizes, type, and one colour per arm that colour-blind readers tell too
(Okabe & Ito).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

DPI = 110
WIDTH = 8.2  # inches; 902 pixels, the width of a notebook column
MEL_COLOURS = "magma"  # log-mels, everywhere
SHARE_COLOURS = "viridis"  # attention weights and other shares
INK = "#222222"
GREY = "#6e6e6e"
ALARM = "#b2182b"  # banners and exact zeros
BAND = "#e8e8e8"  # shaded ranges behind curves
YARDSTICK = "#9a9a9a"  # bars of what is not a model
# the dashed line of a baseline or bound, as keywords of a matplotlib line
LEVEL: dict[str, Any] = {"color": GREY, "linewidth": 1.0, "linestyle": (0, (5, 3))}

# What is heard or predicted, then the presets. Orange and vermilion never stand for two things in
# one figure.
COLOURS = {
    "recording": INK,
    "target": INK,
    "copy-synthesis": "#0072B2",
    "teacher-forced": "#E69F00",
    "free-running": "#56B4E9",
    "healthy": "#009E73",
    "no_norm": "#D55E00",
    "seed": "#AA4499",
}
SPARE_COLOURS = (
    "#332288",
    "#117733",
    "#882255",
    "#999933",
    "#44AA99",
    "#661100",
    "#6699CC",
    "#888888",
)

RC = {
    "font.family": ["DejaVu Sans"],  # carries IPA and Cyrillic
    "font.size": 9.0,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.titlepad": 5.0,
    "axes.labelsize": 9.0,
    "axes.labelcolor": INK,
    "axes.edgecolor": "#8a8a8a",
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#d9d9d9",
    "grid.linewidth": 0.5,
    "xtick.labelsize": 8.0,
    "ytick.labelsize": 8.0,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.minor.width": 0.4,
    "ytick.minor.width": 0.4,
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "legend.borderpad": 0.2,
    "legend.handlelength": 1.8,
    "lines.linewidth": 1.4,
    "image.origin": "lower",
    "image.aspect": "auto",
    "figure.dpi": DPI,
    "savefig.dpi": "figure",
    "text.color": INK,
    "text.parse_math": False,  # a transcript may hold dollar signs
}


def colours_of(names: Iterable[str], like: Mapping[str, str] | None = None) -> dict[str, str]:
    """A colour per name, in the order given, no two alike.

    A name of `COLOURS` has the colour that stands there, and so has a name that `like` maps to one
    ("healthy, 1 clip" -> "healthy"): lighter each time the colour comes again. Any other name has
    the next spare one.
    """
    like = like or {}
    spare = 0
    uses: Counter[str] = Counter()
    chosen = {}
    for name in names:
        colour = _KNOWN.get(_plain(like.get(name, name)))
        if colour is None:
            colour = SPARE_COLOURS[spare % len(SPARE_COLOURS)]
            spare += 1
        chosen[name] = lighter(colour, uses[colour])
        uses[colour] += 1
    return chosen


def _plain(name: str) -> str:
    """The name as it is looked up: "No_norm" and "no-norm" are one."""
    return str(name).replace("_", "-").lower()


_KNOWN = {_plain(name): colour for name, colour in COLOURS.items()}


def lighter(colour: str, times: int) -> str:
    """Hex `colour` with `times` thirds of the way to white taken, each of what remains."""
    keep = (2 / 3) ** times
    channels = [int(colour[place : place + 2], 16) for place in (1, 3, 5)]
    mixed = [round(255 - (255 - channel) * keep) for channel in channels]
    return "#" + "".join(f"{channel:02X}" for channel in mixed)


def luminance(colour: tuple[float, float, float]) -> float:
    """Relative luminance of red, green and blue in [0, 1]: 0 black, 1 white."""
    return float(np.dot([0.2126, 0.7152, 0.0722], colour))
