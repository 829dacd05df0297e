"""Executes one notebook through papermill, in a process of its own, and reports everything it sees.

Started by the runner as `python -P execute.py EVENTS_FD`; the order of work comes as one JSON line
on stdin, which then stays open: when it closes, the runner is gone, and the kernel and this process
end. Events go to the pipe EVENTS_FD as JSON lines, so that a full disk cannot keep the truth from
the runner. Imports nothing of tts_core; the kernel does.

What papermill hides is caught on the way: every `error` message of the kernel is reported, whether
it lands in a cell, in an Output widget, in an interact callback or in an output that is cleared
afterwards; so is every traceback on a stream.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import shutil
import signal
import sys
import threading
from typing import Any

import papermill
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from nbclient.exceptions import DeadKernelError
from nbclient.util import run_sync
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import NBClientEngine, papermill_engines

TRACEBACK = "Traceback (most recent call last)"
# characters; a longer path leaves no room for a socket's name, and TCP is used
SOCKET_FOLDER = 80
REPLY_POLL = 0.2  # seconds between two looks for a cell's reply
DRAIN_SECONDS = 0.3  # how long the kernel must be silent after the last cell


class OwnPythonKernelManager(AsyncKernelManager):
    """The kernel is this very interpreter, whatever kernels are installed; its sockets lie in our
    scratch folder.
    """

    def __init__(self, **keywords) -> None:
        scratch = os.environ["JUPYTER_RUNTIME_DIR"]
        super().__init__(connection_file=os.path.join(scratch, "kernel.json"), **keywords)
        if len(scratch) < SOCKET_FOLDER:
            self.transport, self.ip = "ipc", os.path.join(scratch, "kernel")

    @property
    def kernel_spec(self) -> KernelSpec:
        return KernelSpec(
            argv=[sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"],
            display_name="Python 3",
            language="python",
        )


class Reporter:
    """Writes events, one JSON line each; the only writer of the pipe."""

    def __init__(self, descriptor: int) -> None:
        self._pipe = os.fdopen(descriptor, "w", encoding="utf-8", errors="backslashreplace")
        self._lock = threading.Lock()
        self.kernel_pid: int | None = None

    def __call__(self, kind: str, **facts: Any) -> None:
        with self._lock:
            self._pipe.write(json.dumps({"kind": kind, **facts}) + "\n")
            self._pipe.flush()


def first_line(source: str) -> str:
    """The first line of a cell that does something, cut to 80 characters."""
    for line in source.splitlines():
        if line.strip() and not line.startswith("#"):
            return line[:80]
    return ""


class HonestClient(PapermillNotebookClient):
    """papermill's client that reports cells, errors wherever they end up, progress, and the death
    of the kernel.
    """

    report: Reporter  # set by main, before papermill makes the client
    progress_mime: str

    def __init__(self, nb_man, **keywords) -> None:
        super().__init__(nb_man, kernel_manager_class=OwnPythonKernelManager, **keywords)
        # index in the executed notebook, from 0
        self._cell: dict[str, Any] = {"index": None, "first_line": ""}
        self._tails = {"stdout": "", "stderr": ""}

    def start_new_kernel(self, **keywords) -> None:
        super().start_new_kernel(**keywords)
        self.report.kernel_pid = self.km.provisioner.pid
        self.report("kernel", pid=self.km.provisioner.pid)

    def start_new_kernel_client(self, **keywords):
        """nbclient's, with every message on iopub looked at before nbclient gets it."""
        client = super().start_new_kernel_client(**keywords)
        receive = client.iopub_channel.get_msg

        async def receive_and_look(*arguments, **keywords):
            message = await receive(*arguments, **keywords)
            self._look(message)
            return message

        client.iopub_channel.get_msg = receive_and_look
        wait = client.shell_channel.get_msg

        async def wait_and_look_again(timeout=None):
            """nbclient answers Output widgets on this very socket, and such a send can swallow the
            wake-up of a reply that arrives meanwhile (nbclient issue 312): waiting without a limit
            would then be waiting for ever.
            """
            while timeout is None:
                try:
                    return await wait(timeout=REPLY_POLL)
                except queue.Empty:
                    continue
            return await wait(timeout=timeout)

        client.shell_channel.get_msg = wait_and_look_again
        return client

    def _look(self, message: dict[str, Any]) -> None:
        """Report an error or a traceback, wherever nbclient will put it."""
        content = message["content"]
        if message["msg_type"] == "error":
            self.report(
                "error", name=content["ename"], value=content["evalue"][:2000], **self._cell
            )
        elif message["msg_type"] == "stream":
            seen = self._tails.get(content["name"], "") + content["text"]
            if TRACEBACK in seen:
                self.report("traceback", text=seen[seen.index(TRACEBACK) :][:2000], **self._cell)
                seen = ""
            self._tails[content["name"]] = seen[-len(TRACEBACK) :]

    def process_message(self, message, cell, cell_index):
        """papermill's, less our progress, which goes to the runner and not into the notebook."""
        data = message["content"].get("data")
        if message["msg_type"] == "display_data" and self.progress_mime in (data or {}):
            self.report("progress", **data[self.progress_mime])
            return None
        return super().process_message(message, cell, cell_index)

    def papermill_execute_cells(self) -> None:
        """papermill's, with every code cell reported as it starts."""
        start = self.nb_man.cell_start

        def cell_start(cell, cell_index=None, **keywords):
            if cell.cell_type == "code":
                self._cell = {"index": cell_index, "first_line": first_line(cell.source)}
                self.report("cell", **self._cell)
            start(cell, cell_index, **keywords)

        self.nb_man.cell_start = cell_start
        super().papermill_execute_cells()
        # papermill then asks the kernel for a reply, which fails if the last cell killed it
        run_sync(self._drain)()

    async def _async_check_alive(self) -> None:
        try:
            await super()._async_check_alive()
        except DeadKernelError:
            self.report("dead_kernel", code=self.km.provisioner.process.poll(), **self._cell)
            raise

    async def _drain(self) -> None:
        """Read what background threads of the kernel still have to say."""
        while True:
            try:
                await self.kc.iopub_channel.get_msg(timeout=DRAIN_SECONDS)
            except queue.Empty:
                return


class HonestEngine(NBClientEngine):
    """papermill's engine with our client."""

    @classmethod
    def execute_managed_notebook(cls, nb_man, kernel_name, start_timeout=60, **unused):
        client = HonestClient(
            nb_man,
            kernel_name=kernel_name,
            startup_timeout=start_timeout,
            log=papermill.log.logger,
        )
        return client.execute()


def end_with_kernel(report: Reporter, code: int) -> None:
    """Kill the kernel and everything it started, clear the scratch folder, and end this process at
    once.
    """
    if report.kernel_pid is not None:
        with contextlib.suppress(OSError):  # it is gone
            os.killpg(report.kernel_pid, signal.SIGKILL)
    shutil.rmtree(os.environ["JUPYTER_RUNTIME_DIR"], ignore_errors=True)
    os._exit(code)


def watch_runner(report: Reporter) -> None:
    """When the runner dies, its end of stdin closes."""
    while sys.stdin.readline():
        pass
    end_with_kernel(report, 1)


def literal(path: str) -> str:
    """papermill formats paths; braces in a folder's name are not meant for it."""
    return path.replace("{", "{{").replace("}", "}}")


def main() -> int:
    """Execute the notebook that standard input names; events go to the file descriptor in the first
    argument.
    """
    report = Reporter(int(sys.argv[1]))
    order = json.loads(sys.stdin.readline())
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda signum, frame: end_with_kernel(report, 128 + signum))
    threading.Thread(target=watch_runner, args=(report,), daemon=True).start()

    HonestClient.report = report
    HonestClient.progress_mime = order["progress_mime"]
    papermill_engines.register("honest", HonestEngine)
    try:
        papermill.execute_notebook(
            literal(order["notebook"]),
            literal(order["output"]),
            parameters=order["parameters"],
            engine_name="honest",
            kernel_name="python3",
            language="python",
            progress_bar=False,
            start_timeout=180,
            cwd=order["cwd"],
        )
    # whatever it is, the runner hears of it and this process ends with a failure
    except Exception as error:
        report("failed", name=type(error).__name__, value=str(error)[:4000])
        return 1
    report("finished")
    return 0


if __name__ == "__main__":
    sys.exit(main())
