"""What the reader of `tts-workbook run` sees: a live line on a terminal, one plain line every few
seconds on a log.

No progress library draws this: what is shown are the lines that a kernel reports of its own bars,
and a log must get whole lines, each worth reading, and one "still" where nothing is new.
"""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
import time
from dataclasses import dataclass
from typing import Any, TextIO

from tts_workbook.number_text import seconds_text

LOG_INTERVAL = 5.0  # seconds between two lines about the same notebook on a log
QUIET_INTERVAL = 30.0  # seconds between two lines when there is nothing new to say
DRAW_INTERVAL = 0.2  # seconds between two redraws of the line on a terminal
CLEAR_LINE = "\r\x1b[K"
SIDE_BY_SIDE = " | "  # between notebooks on the one line of a terminal


@dataclass
class _Shown:
    """What is known and what was said of one notebook that runs."""

    n_cells: int
    start: float  # time.monotonic()
    shown: float  # when its last line was written
    what: str = "starting"
    said: str = "starting"

    @property
    def elapsed(self) -> str:
        return seconds_text(time.monotonic() - self.start)


class Console:
    """Prints to `stream` (stdout), of as many notebooks as run side by side. Progress comes as the
    events of `execute.py`.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream if stream is not None else sys.stdout
        self._live = bool(getattr(self._stream, "isatty", lambda: False)())
        self._running: dict[str, _Shown] = {}
        self._drawn = 0.0  # when the line on the terminal was drawn last

    def say(self, text: str) -> None:
        """One line that stays."""
        self._write((CLEAR_LINE if self._live else "") + text + "\n")

    def start(self, name: str, n_cells: int) -> None:
        """A notebook of so many cells begins."""
        now = time.monotonic()
        self._running[name] = _Shown(n_cells, now, now)
        if not self._live:
            self.say(f"{name}: starting")

    def event(self, name: str, event: dict[str, Any]) -> None:
        """Note what a notebook's process reported."""
        shown = self._running[name]
        if event["kind"] == "progress":
            shown.what = event["line"]
        elif event["kind"] == "cell":
            shown.what = f"cell {event['index'] + 1} of {shown.n_cells}: {event['first_line']}"
        self.tick()

    def tick(self) -> None:
        """Say what is due: called now and then, also while nothing happens."""
        if self._live:
            if time.monotonic() - self._drawn >= DRAW_INTERVAL:
                self._draw()
            return
        for name, shown in self._running.items():
            self._log(name, shown)

    def _log(self, name: str, shown: _Shown) -> None:
        nothing_new = shown.what == shown.said
        since = time.monotonic() - shown.shown
        if since < (QUIET_INTERVAL if nothing_new else LOG_INTERVAL):
            return
        line = f"{name}: {shown.what}"
        if nothing_new:
            line += f" ... still, after {shown.elapsed} in this notebook"
        self.say(line)
        shown.shown, shown.said = time.monotonic(), shown.what

    def end(self, name: str, how: str) -> None:
        """A notebook ended: `how`, and after which time."""
        shown = self._running.pop(name)
        self.say(f"{name}: {how} after {shown.elapsed}")

    def _draw(self) -> None:
        self._drawn = time.monotonic()
        parts = []
        for name, shown in self._running.items():
            parts.append(f"{name} [{shown.elapsed}]: {shown.what}")
        width = max(20, shutil.get_terminal_size().columns - 1)
        share = width // max(1, len(parts)) - len(SIDE_BY_SIDE)
        cut = parts if len(parts) < 2 else [part[:share] for part in parts]
        self._write(CLEAR_LINE + SIDE_BY_SIDE.join(cut)[:width])

    def _write(self, text: str) -> None:
        encoding = getattr(self._stream, "encoding", None) or "utf-8"
        try:
            self._stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
            self._stream.flush()
        # nobody reads any more (`| head`); the run goes on, run.json and the report tell
        except BrokenPipeError:
            self._stream = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  open to the end


def verdict_table(rows: list[dict[str, Any]]) -> str:
    """Rows {number, name, status, seconds, answer, items} as text: one block per notebook, the
    answer beneath it.
    """
    width = min(110, max(60, shutil.get_terminal_size((100, 20)).columns))
    lines = []
    for row in rows:
        seconds = "" if row["seconds"] is None else seconds_text(row["seconds"])
        lines.append(f"{row['name']:<26} {row['status']:<14} {seconds:>9}  {row['items']}".rstrip())
        if row["answer"]:
            lines.append(textwrap.indent(textwrap.fill(row["answer"], width - 4), "    "))
    return "\n".join(lines)
