"""`Picture`: a matplotlib Figure that shows itself in Jupyter and leaves nothing behind.

A bare `Figure` as the last expression of a cell is displayed only after the inline backend has been
activated, which importing pyplot alone does not do. A `Picture` carries `_repr_png_`, so it is
displayed by JupyterLab, papermill and nbconvert alike; pyplot is never imported, so there is no
registry that keeps figures alive.

JupyterLab runs a widget's callback on a thread of its own while a cell is running, and matplotlib's
settings are global: one lock lets one thread draw at a time.
"""

from __future__ import annotations

import io
import textwrap
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from matplotlib import style
from matplotlib.backend_bases import RendererBase
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Rectangle
from matplotlib.transforms import Bbox
from PIL import Image

from tts_core.errors import WorkbookError
from tts_workbook.viz.style import ALARM, DPI, RC, WIDTH

ALIGNMENTS = ("textgrid", "forced", "uniform")
UNIFORM_BANNER = "uniform durations: not measured"
BANNER_HEIGHT = 0.34  # inches
TITLE_CHARACTERS = 84  # one line at title size, on average
TITLE_LINES = 3
TITLE_POINTS = 10.5
_DRAWING = threading.RLock()


class Picture(Figure):
    """A Figure drawn in the workbook's style whatever the caller's matplotlibrc says."""

    def __init__(self, height: float, width: float = WIDTH) -> None:
        """`height`, `width` in inches."""
        super().__init__(figsize=(width, height), dpi=DPI, facecolor="white")
        self.agg = FigureCanvasAgg(self)  # sets self.canvas too
        self.has_banner = False

    def draw(self, renderer: RendererBase) -> None:
        with workbook_style():  # tick labels are written while drawing
            super().draw(renderer)

    def png(self) -> bytes:
        """The picture as a small PNG file: 256 colours of its own choosing, a third of the size of
        true colour.
        """
        self.agg.draw()
        pixels = Image.fromarray(np.asarray(self.agg.buffer_rgba())).convert("RGB")
        return _small_png(pixels, dpi=(self.dpi, self.dpi))

    def get_tightbbox(self, *_: Any, **__: Any) -> Bbox:
        """The whole picture, in inches: `savefig(bbox_inches="tight")` cuts nothing off and keeps
        the size.
        """
        return Bbox.from_bounds(0, 0, *self.get_size_inches())

    def _repr_png_(self) -> bytes:
        return self.png()


@contextmanager
def workbook_style() -> Iterator[None]:
    """Context in which every artist of a Picture is made: matplotlib's defaults plus ours; restores
    what was there.

    One thread at a time is inside: the settings are the process's.
    """
    with _DRAWING, style.context(["default", RC]):
        yield


def new_picture(height: float, title: str = "", alignment: str | None = None) -> Picture:
    """An empty Picture, `height` inches for the drawing; title and banner get their own room above
    it.

    `alignment` says where the durations in the picture come from ("textgrid", "forced", "uniform");
    None where it holds none. Uniform durations put a red banner on top. Raises WorkbookError for
    another word.
    """
    if alignment is not None and alignment not in ALIGNMENTS:
        raise WorkbookError(
            f"alignment = {alignment!r}, but it must be one of {', '.join(map(repr, ALIGNMENTS))}"
        )
    lines = _wrapped(title)
    room_for_title = 0.2 * len(lines) + 0.06 if lines else 0.0
    room_for_banner = BANNER_HEIGHT if alignment == "uniform" else 0.0
    total = height + room_for_title + room_for_banner
    picture = Picture(total)
    picture.has_banner = bool(room_for_banner)
    share_of_drawing = (total - room_for_title - room_for_banner) / total
    room = (0.004, 0.004, 0.992, share_of_drawing - 0.008)
    picture.set_layout_engine(ConstrainedLayoutEngine(rect=room, h_pad=0.04, w_pad=0.04))
    if lines:
        _add_title(picture, lines, top=(total - room_for_banner - 0.05) / total)
    if room_for_banner:
        _add_banner(picture, room_for_banner / total)
    return picture


def take_room_on_top(picture: Picture, inches: float) -> float:
    """Take room from the top of the drawing, for what stands between title and drawing; returns
    where it ends, as a share of the picture's height.
    """
    engine = picture.get_layout_engine()
    assert isinstance(engine, ConstrainedLayoutEngine)  # `new_picture` has set it
    left, bottom, width, height = engine.get()["rect"]
    less = inches / picture.get_size_inches()[1]
    engine.set(rect=(left, bottom, width, height - less))
    return bottom + height


def with_banner(png: bytes) -> bytes:
    """The PNG of any figure with the banner of uniform durations on top of it, PNG again."""
    below = Image.open(io.BytesIO(png)).convert("RGB")
    strip = Picture(BANNER_HEIGHT, below.width / DPI)
    _add_banner(strip, 1.0)
    above = Image.open(io.BytesIO(strip.png())).convert("RGB")
    whole = Image.new("RGB", (below.width, above.height + below.height), "white")
    whole.paste(above, (0, 0))
    whole.paste(below, (0, above.height))
    return _small_png(whole)


def _small_png(pixels: Image.Image, **keywords: Any) -> bytes:
    """A PNG file of 256 colours; `keywords` go into the file."""
    small = pixels.quantize(256, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    target = io.BytesIO()
    small.save(target, format="png", optimize=True, **keywords)
    return target.getvalue()


def show(*pictures: Figure) -> None:
    """Display pictures now, in order: for a cell that draws more than one. Works for any matplotlib
    Figure.
    """
    from IPython.display import Image as Displayed
    from IPython.display import display

    for picture in pictures:
        if isinstance(picture, Picture):
            display(picture)
        else:
            target = io.BytesIO()
            picture.savefig(target, format="png")
            display(Displayed(data=target.getvalue(), format="png"))


def _wrapped(title: str) -> list[str]:
    """The lines of a title; where there are too many, the last one ends in an ellipsis."""
    lines: list[str] = []
    for line in str(title).splitlines():
        lines += textwrap.wrap(line, TITLE_CHARACTERS)
    if len(lines) <= TITLE_LINES:
        return lines
    last = lines[TITLE_LINES - 1]
    return [*lines[: TITLE_LINES - 1], last[: TITLE_CHARACTERS - 1] + "…"]


def _add_title(picture: Picture, lines: list[str], top: float) -> None:
    text = picture.text(
        0.008,
        top,
        "\n".join(lines),
        ha="left",
        va="top",
        fontsize=TITLE_POINTS,
        fontweight="bold",
        linespacing=1.15,
    )
    # a line of capitals is wider than the average
    too_wide = text.get_window_extent().width / (0.984 * picture.bbox.width)
    text.set_fontsize(TITLE_POINTS / max(1.0, too_wide))


def _add_banner(picture: Picture, share: float) -> None:
    """A red strip over the top `share` of the picture."""
    strip = Rectangle(
        (0, 1 - share), 1, share, transform=picture.transFigure, facecolor=ALARM, edgecolor="none"
    )
    picture.add_artist(strip)
    picture.text(
        0.5,
        1 - share / 2,
        UNIFORM_BANNER,
        ha="center",
        va="center",
        color="white",
        fontsize=12,
        fontweight="bold",
    )
