"""Progress of long work, in whatever the reader is looking at.

JupyterLab: a bar that leaves one line behind. Under the runner: events that the runner prints, and
one line in the saved notebook. Anywhere else: a live line on a terminal, one plain line every few
seconds on a log.
"""

from __future__ import annotations

import sys
import time
from typing import Any, TextIO

from tts_workbook.kernel_protocol import PROGRESS_MIME
from tts_workbook.number_text import seconds_text

PLAIN_INTERVAL = 4.0  # seconds between two plain lines
LIVE_INTERVAL = 0.2  # seconds between two redraws


def progress_line(label: str, step: int, total: int, text: str, elapsed: float) -> str:
    """`healthy 240/500 mel 0.312, 41 s, about 44 s left`."""
    line = f"{label} {step}/{total}" + (f" {text}" if text else "") + f", {seconds_text(elapsed)}"
    if 0 < step < total:
        line += f", about {seconds_text(elapsed / step * (total - step))} left"
    return line


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
        self._stream = stream if stream is not None else sys.stderr
        self._show = (
            _RunnerView()
            if under_runner
            else _WidgetView()
            if _in_kernel()
            else _StreamView(self._stream)
        )
        self._start = self._shown = 0.0

    def __enter__(self) -> Progress:
        self._start = time.monotonic()
        self._shown = float("-inf")
        self._draw()
        return self

    def update(self, step: int, text: str = "") -> None:
        """Say that `step` of `total` is done; cheap enough to call at every step."""
        self.step, self.text = step, text
        if time.monotonic() - self._shown >= self._show.interval:
            self._draw()

    @property
    def has_widgets(self) -> bool:
        """Whether this is shown as widgets: a person's kernel, not the runner's, and no
        terminal.
        """
        return isinstance(self._show, _WidgetView)

    def finish(self, remark: str = "") -> None:
        """Leave one line, with `remark` after it. `with` does this at its end."""
        self._show.finish(self, remark)

    def line(self) -> str:
        return progress_line(
            self.label, self.step, self.total, self.text, time.monotonic() - self._start
        )

    def _draw(self) -> None:
        self._shown = time.monotonic()
        self._show.draw(self)

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        self.finish("" if kind is None else f" (stopped by {kind.__name__})")


def _in_kernel() -> bool:
    """True inside a Jupyter kernel, without importing IPython elsewhere."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return getattr(shell, "kernel", None) is not None


class _RunnerView:
    interval = 1.0

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
        self._bar = self._note = self._line = self._box = self._handle = None

    def draw(self, progress: Progress) -> None:
        """Show where `progress` stands: a bar and a note, made at the first call."""
        import ipywidgets
        from IPython.display import display

        if self._bar is None:
            self._bar = ipywidgets.IntProgress(
                value=0, max=progress.total, layout=ipywidgets.Layout(width="40%")
            )
            self._note = ipywidgets.Label()
            self._line = ipywidgets.HBox([self._bar, self._note])
            self._box = ipywidgets.VBox([self._line, *progress.below])
            self._handle = display(self._box, display_id=True)
        self._bar.value = progress.step
        self._note.value = progress.line()

    def finish(self, progress: Progress, remark: str) -> None:
        """The bar's place is taken by one line of text: a saved notebook holds no dead widget."""
        self._handle.update({"text/plain": progress.line() + remark}, raw=True)
        for widget in (self._bar, self._note, self._line, *progress.below, self._box):
            widget.close()


class _StreamView:
    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._live = bool(getattr(stream, "isatty", lambda: False)())
        self.interval = LIVE_INTERVAL if self._live else PLAIN_INTERVAL

    def draw(self, progress: Progress) -> None:
        self._write(("\r\x1b[K" if self._live else ""), progress.line(), "" if self._live else "\n")

    def finish(self, progress: Progress, remark: str) -> None:
        self._write(("\r\x1b[K" if self._live else ""), progress.line() + remark, "\n")

    def _write(self, before: str, line: str, after: str) -> None:
        self._stream.write(before + line + after)
        self._stream.flush()
