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
from typing import Any, TextIO

from tts_workbook.number_text import seconds_text

LOG_INTERVAL = 5.0  # seconds between two lines about the same notebook on a log
QUIET_INTERVAL = 30.0  # seconds between two lines when there is nothing new to say
DRAW_INTERVAL = 0.2  # seconds between two redraws of the line on a terminal
CLEAR_LINE = "\r\x1b[K"


class Console:
    """Prints to `stream` (stdout). Progress comes as the events of `execute.py`, None being a clock
    tick.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream if stream is not None else sys.stdout
        self._live = bool(getattr(self._stream, "isatty", lambda: False)())
        self._name, self._what, self._said = "", "", ""
        self._cells = 0
        self._start = self._shown = 0.0

    def say(self, text: str) -> None:
        """One line that stays."""
        self._write((CLEAR_LINE if self._live else "") + text + "\n")

    def start(self, name: str, cells: int) -> None:
        """A notebook of so many cells begins."""
        self._name, self._cells = name, cells
        self._what = self._said = "starting"
        self._start = self._shown = time.monotonic()
        if not self._live:
            self.say(f"{name}: starting")

    def event(self, event: dict[str, Any] | None) -> None:
        """Note what the notebook's process reported; None is a tick without news."""
        if event is not None and event["kind"] == "progress":
            self._what = event["line"]
        elif event is not None and event["kind"] == "cell":
            self._what = f"cell {event['index'] + 1} of {self._cells}: {event['first_line']}"
        since = time.monotonic() - self._shown
        if self._live and since >= DRAW_INTERVAL:
            self._draw()
        elif not self._live:
            self._log(since)

    def _log(self, since: float) -> None:
        nothing_new = self._what == self._said
        if since < (QUIET_INTERVAL if nothing_new else LOG_INTERVAL):
            return
        line = f"{self._name}: {self._what}"
        if nothing_new:
            line += f" ... still, after {self._elapsed()} in this notebook"
        self.say(line)
        self._shown, self._said = time.monotonic(), self._what

    def end(self, how: str) -> None:
        """The notebook ended: `how`, and after which time."""
        self.say(f"{self._name}: {how} after {self._elapsed()}")

    def _elapsed(self) -> str:
        return seconds_text(time.monotonic() - self._start)

    def _draw(self) -> None:
        self._shown = time.monotonic()
        width = shutil.get_terminal_size().columns
        line = f"{self._name} [{self._elapsed()}]: {self._what}"
        self._write(CLEAR_LINE + line[: max(20, width - 1)])

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
