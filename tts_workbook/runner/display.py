"""What a notebook shows while it runs: pictures and progress. The runner's only door to `viz`."""

from __future__ import annotations

import io
from typing import Any

from tts_workbook.viz.progress import Progress

FIGURE_DPI = 110  # dots per inch
FIGURE_MAX_PIXELS = 2_400  # longest side; a larger figure is saved at a lower resolution


def new_progress(total: int, label: str, under_runner: bool) -> Progress:
    """Context manager with `.update(step, text)`, step counted from 1 to `total`."""
    return Progress(total, label, under_runner=under_runner)


def figure_png(figure: Any, uniform_durations: bool) -> bytes:
    """A figure as PNG; one that knows of no warning gets it here where durations are not
    measured.
    """
    # the package's own pictures know a smaller way than a plain matplotlib figure
    picture = figure.png() if hasattr(figure, "png") else _plain_png(figure)
    if uniform_durations and not getattr(figure, "has_banner", False):
        from tts_workbook.viz.picture import with_banner

        return with_banner(picture)
    return picture


def mels_figure(*given: Any, **options: Any) -> Any:
    """The figure of `viz.plot_mels`."""
    from tts_workbook.viz import plot_mels

    return plot_mels(*given, **options)


def intelligibility_figure(*given: Any, **options: Any) -> Any:
    """The figure of `viz.plot_intelligibility`."""
    from tts_workbook.viz import plot_intelligibility

    return plot_intelligibility(*given, **options)


def players(*given: Any, **options: Any) -> Any:
    """The row of `viz.play_row`."""
    from tts_workbook.viz import play_row

    return play_row(*given, **options)


def _plain_png(figure: Any) -> bytes:
    pixels = max(figure.get_size_inches()) * FIGURE_DPI
    dpi = FIGURE_DPI * min(1.0, FIGURE_MAX_PIXELS / pixels)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=dpi, bbox_inches="tight")
    return picture.getvalue()


def show_once(figure: Any, picture: bytes) -> None:
    """In a kernel: display the saved picture, and keep pyplot from drawing the figure a second
    time.
    """
    try:
        from IPython import get_ipython
    except ImportError:
        return
    if get_ipython() is None:
        return
    from IPython.display import Image, display
    from matplotlib import pyplot

    display(Image(data=picture, format="png"))
    pyplot.close(figure)
