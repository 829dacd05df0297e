"""Progress of long work, in whatever the reader is looking at.

JupyterLab: a bar that leaves one line behind. Under the runner: events that the runner prints, and
one line in the saved notebook. Anywhere else: a live line on a terminal, one plain line every few
seconds on a log.

tqdm draws the terminal's line as well. It stays out because of the other views: in a notebook its
bars stay behind, as a dead widget or as hundreds of redrawn lines, it knows no events for a runner
in another process, and on a log it writes a line that is never ended.
"""

from __future__ import annotations

import sys
import time
from typing import Any, Protocol, TextIO

from tts_workbook.kernel_protocol import PROGRESS_MIME
from tts_workbook.number_text import seconds_text

LOG_INTERVAL = 4.0  # seconds between two plain lines
RUNNER_INTERVAL = 1.0  # seconds between two events
LIVE_INTERVAL = 0.2  # seconds between two redraws
START_OF_LINE = "\r\x1b[K"  # back to its beginning, and wipe what stands there


def progress_line(label: str, step: int, total: int, text: str, elapsed: float) -> str:
    """`healthy 240/500 mel 0.312, 41 s, about 44 s left`."""
    line = f"{label} {step}/{total}"
    if text:
        line += f" {text}"
    line += f", {seconds_text(elapsed)}"
    if 0 < step < total:
        left = elapsed / step * (total - step)
        line += f", about {seconds_text(left)} left"
    return line


class View(Protocol):
    """One way of showing progress."""

    interval: float  # seconds between two redraws, at least

    def draw(self, progress: Progress) -> None:
        """Show where `progress` stands."""

    def finish(self, progress: Progress, remark: str) -> None:
        """Leave one line, with `remark` after it."""


class Progress:
    """`with Progress(500, "healthy") as progress: progress.update(step, "mel 0.312")`, step counted
    from 1 to total.
    """

    def __init__(
        self, total: int, label: str, *, under_runner: bool = False, stream: TextIO | None = None
    ) -> None:
        self.total, self.label = total, label
        self.step, self.text = 0, ""
        # widgets to stand under the bar, set before it is shown; JupyterLab only
        self.below: list[Any] = []
        self._view = _view_of_the_reader(under_runner, sys.stderr if stream is None else stream)
        self._start = self._shown = 0.0

    def __enter__(self) -> Progress:
        self._start = time.monotonic()
        self._draw()
        return self

    def update(self, step: int, text: str = "") -> None:
        """Say that `step` of `total` is done; cheap enough to call at every step."""
        self.step, self.text = step, text
        if time.monotonic() - self._shown >= self._view.interval:
            self._draw()

    @property
    def has_widgets(self) -> bool:
        """Whether this is shown as widgets: a person's kernel, not the runner's, and no
        terminal.
        """
        return isinstance(self._view, _WidgetView)

    def finish(self, remark: str = "") -> None:
        """Leave one line, with `remark` after it. `with` does this at its end."""
        self._view.finish(self, remark)

    def line(self) -> str:
        """Where it stands, in one line."""
        elapsed = time.monotonic() - self._start
        return progress_line(self.label, self.step, self.total, self.text, elapsed)

    def _draw(self) -> None:
        self._shown = time.monotonic()
        self._view.draw(self)

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        self.finish("" if kind is None else f" (stopped by {kind.__name__})")


def _view_of_the_reader(under_runner: bool, stream: TextIO) -> View:
    if under_runner:
        return _RunnerView()
    if _in_kernel():
        return _WidgetView()
    return _StreamView(stream)


def _in_kernel() -> bool:
    """True inside a Jupyter kernel, without importing IPython elsewhere."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return getattr(shell, "kernel", None) is not None


class _RunnerView:
    interval = RUNNER_INTERVAL

    def draw(self, progress: Progress) -> None:
        from IPython.display import display

        state = {
            "label": progress.label,
            "step": progress.step,
            "total": progress.total,
            "text": progress.text,
            "line": progress.line(),
        }
        display({PROGRESS_MIME: state}, raw=True)

    def finish(self, progress: Progress, remark: str) -> None:
        self.draw(progress)
        print(progress.line() + remark)


class _WidgetView:
    interval = LIVE_INTERVAL

    def __init__(self) -> None:
        # ipywidgets, which ship no types; made when first drawn
        self._bar: Any = None
        self._note: Any = None
        self._line: Any = None
        self._box: Any = None
        self._handle: Any = None

    def draw(self, progress: Progress) -> None:
        """Show where `progress` stands: a bar and a note, made at the first call."""
        if self._bar is None:
            self._make(progress)
        self._bar.value = progress.step
        self._note.value = progress.line()

    def _make(self, progress: Progress) -> None:
        import ipywidgets
        from IPython.display import display

        layout = ipywidgets.Layout(width="40%")
        self._bar = ipywidgets.IntProgress(value=0, max=progress.total, layout=layout)
        self._note = ipywidgets.Label()
        self._line = ipywidgets.HBox([self._bar, self._note])
        self._box = ipywidgets.VBox([self._line, *progress.below])
        self._handle = display(self._box, display_id=True)

    def finish(self, progress: Progress, remark: str) -> None:
        """The bar's place is taken by one line of text: a saved notebook holds no dead widget."""
        self._handle.update({"text/plain": progress.line() + remark}, raw=True)
        for widget in (self._bar, self._note, self._line, *progress.below, self._box):
            widget.close()


class _StreamView:
    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._live = bool(getattr(stream, "isatty", lambda: False)())
        self.interval = LIVE_INTERVAL if self._live else LOG_INTERVAL

    def draw(self, progress: Progress) -> None:
        line = progress.line()
        self._write(START_OF_LINE + line if self._live else line + "\n")

    def finish(self, progress: Progress, remark: str) -> None:
        line = progress.line() + remark + "\n"
        self._write(START_OF_LINE + line if self._live else line)

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()
