"""The runner's side of one execution: starts `execute.py`, listens to it, and ends it with its
kernel when asked to.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from tts_workbook.kernel_protocol import PROGRESS_MIME
from tts_workbook.runner.context import Context
from tts_workbook.runner.parameters import ENVIRONMENT_PREFIX

EXECUTE = Path(__file__).with_name("execute.py")
LOG_TAIL = 8_000  # characters of the child's and kernel's stderr that are kept
END_PATIENCE = 5.0  # seconds that the child gets to end itself


@dataclass
class ProcessOutcome:
    """What was seen of one execution. `code` is the child's exit status, negative for a signal."""

    code: int | None = None
    finished: bool = False  # papermill itself saw nothing wrong
    kernel_pid: int | None = None
    # {"index": in the executed notebook, "first_line"}
    last_cell: dict | None = None
    # every error message of the kernel, hidden ones too
    errors: list[dict] = field(default_factory=list)
    tracebacks: list[dict] = field(default_factory=list)
    dead_kernel: dict | None = None  # {"code": exit status of the kernel, ...}
    failure: dict | None = None  # what papermill raised
    log: str = ""

    def take(self, event: dict) -> None:
        """Note one event of the process."""
        kind = event["kind"]
        if kind == "kernel":
            self.kernel_pid = event["pid"]
        elif kind == "cell":
            self.last_cell = event
        elif kind == "error":
            self.errors.append(event)
        elif kind == "traceback":
            self.tracebacks.append(event)
        elif kind == "dead_kernel":
            self.dead_kernel = self.dead_kernel or event
        elif kind == "failed":
            self.failure = event
        elif kind == "finished":
            self.finished = True


# (number of the notebook, what its process reported); None: the process has closed its end
Messages = queue.Queue[tuple[str, dict | None]]


class NotebookProcess:
    """One notebook executed in a process of its own. Use as a context manager: whatever happens, no
    child and no kernel outlives it.
    """

    def __init__(self, number: str, messages: Messages) -> None:
        self.number, self.messages = number, messages
        self.outcome = ProcessOutcome()
        self._process: subprocess.Popen[str] | None = None
        self._log_reader: threading.Thread | None = None
        # a short path: the kernel's sockets are in it
        self._scratch = Path(tempfile.mkdtemp(prefix="tts-"))

    def __enter__(self) -> NotebookProcess:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            _end(self._process, self.outcome)
        shutil.rmtree(self._scratch, ignore_errors=True)

    def start(
        self,
        notebook: Path,
        output: Path,
        values: Mapping[str, Any],
        context: Context,
        threads: int | None,
    ) -> None:
        """Execute `notebook` with `values` injected, writing to `output` as cells complete; never
        raises for what cells do.

        Works in the notebook's own folder, as JupyterLab and nbval do. Its events come in as
        messages.
        """
        order = {
            "notebook": str(notebook),
            "output": str(output),
            "parameters": dict(values),
            "cwd": str(notebook.parent),
            "progress_mime": PROGRESS_MIME,
        }
        read_end, write_end = os.pipe()
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", str(EXECUTE), str(write_end)],
                pass_fds=[write_end],
                start_new_session=True,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                env=child_environment(os.environ, context, threads, self._scratch),
            )
        except BaseException:
            os.close(read_end)
            raise
        finally:
            os.close(write_end)
        events = os.fdopen(read_end, encoding="utf-8")
        self._log_reader = threading.Thread(
            target=_read_log, args=(self._process.stdout, self.outcome), daemon=True
        )
        self._log_reader.start()
        threading.Thread(
            target=_read_events, args=(events, self.number, self.messages), daemon=True
        ).start()
        _order(self._process, order)

    def finish(self) -> ProcessOutcome:
        """After the last message: wait for the process itself, and for the rest of its log."""
        if self._process is None or self._log_reader is None:
            raise RuntimeError("it was never started")
        self.outcome.code = self._process.wait()
        self._log_reader.join(timeout=END_PATIENCE)
        return self.outcome


def child_environment(
    environment: Mapping[str, str], context: Context, threads: int | None, scratch: Path
) -> dict[str, str]:
    """The caller's environment less the parameters' door, plus a private IPython profile and the
    runner's context.
    """
    kept = {
        name: value
        for name, value in environment.items()
        # kernels draw inline
        if not name.startswith(ENVIRONMENT_PREFIX) and name != "MPLBACKEND"
    }
    kept.update(context.to_environment())
    kept.update(JUPYTER_RUNTIME_DIR=str(scratch), IPYTHONDIR=str(scratch / "ipython"))
    # Threads that wait for each other spin for long by default: beside other work on the same cores
    # a step then takes 8 times as long. A short spin costs an idle machine nothing (both measured,
    # LOG.md), and no result depends on it.
    kept.setdefault("GOMP_SPINCOUNT", "10000")
    if threads is not None:
        kept["OMP_NUM_THREADS"] = kept["MKL_NUM_THREADS"] = str(threads)
    return kept


def _order(process: subprocess.Popen[str], order: dict[str, Any]) -> None:
    try:
        assert process.stdin is not None  # a pipe was asked for
        process.stdin.write(json.dumps(order) + "\n")
        # and stays open: its closing tells the child that the runner is gone
        process.stdin.flush()
    except BrokenPipeError:  # the child died at once; its exit status says so
        pass


def _read_events(pipe: IO[str], number: str, messages: Messages) -> None:
    with pipe:
        for line in pipe:
            if line.endswith("\n"):  # a killed child may leave half a line
                messages.put((number, json.loads(line)))
    messages.put((number, None))


def _read_log(pipe: IO[str], outcome: ProcessOutcome) -> None:
    with pipe:
        for line in pipe:
            outcome.log = (outcome.log + line)[-LOG_TAIL:]


def _end(process: subprocess.Popen[str], outcome: ProcessOutcome) -> None:
    """No child, no kernel and none of its own children outlive this call."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(END_PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    if process.stdin is not None:
        with contextlib.suppress(BrokenPipeError):  # the order that a dead child never read
            process.stdin.close()
    if not outcome.finished and outcome.kernel_pid is not None:
        with contextlib.suppress(OSError):  # it is gone already
            # the kernel leads a process group of its own
            os.killpg(outcome.kernel_pid, signal.SIGKILL)
