"""What tests read off a picture."""

from collections.abc import Iterable

from matplotlib.axes import Axes
from matplotlib.text import Text


def texts_of(written: Iterable[Text]) -> list[str]:
    """What is written: tick labels, entries of a legend, texts of axes."""
    return [text.get_text() for text in written]


def horizontal_lines(axes: Axes) -> list[float]:
    """Where the lines across the axes stand, the lowest first."""
    return sorted(line.get_ydata()[0] for line in axes.lines if len(line.get_ydata()) == 2)
