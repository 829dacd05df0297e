"""One attempt at one notebook: run it under a temporary name, judge it, give it its final name or
keep the failure.
"""

from __future__ import annotations

import os
import secrets
import time
from typing import Any

import nbformat

from tts_core import atomic_files
from tts_workbook.runner.console import Console
from tts_workbook.runner.context import Context
from tts_workbook.runner.parameters import Parameters
from tts_workbook.runner.plan import Source, key_of
from tts_workbook.runner.process import Messages, NotebookProcess
from tts_workbook.runner.record import Record
from tts_workbook.runner.run_folder import RunFolder, now
from tts_workbook.runner.validate import ExecutionFault, find_fault, mark


class NotebookAttempt:
    """One execution of `source`, from a clean start to files that count or a failure that is
    kept. Use as a context manager: its process does not outlive it.
    """

    def __init__(
        self,
        source: Source,
        parameters: Parameters,
        parts: dict[str, Any],  # of the key; see plan.key_parts
        folder: RunFolder,
        record: Record,
        console: Console,
        messages: Messages,
    ) -> None:
        self.source, self.parameters, self.parts = source, parameters, parts
        self.folder, self.record, self.console = folder, record, console
        self.values = source.injected(parameters)
        self.partial = folder.partial / f"{source.name}.ipynb"
        self.context = Context(
            token=secrets.token_hex(16),
            number=source.number,
            key=key_of(parts),
            data=str(parameters.data),
            out=str(folder.path),
            started_in=os.getcwd(),
        )
        self._process = NotebookProcess(source.number, messages)
        self._clock = time.monotonic()

    def __enter__(self) -> NotebookAttempt:
        return self

    def __exit__(self, *exception: object) -> None:
        self._process.__exit__(*exception)

    def start(self, threads: int | None) -> None:
        """Begin, with so many threads for computing. Raises OSError on a full disk."""
        source = self.source
        self.folder.clear(source.number)
        self.record.notebook(
            source.number,
            source.name,
            status="running",
            key=self.context.key,
            started=now(),
            parameters=self.values,
        )
        self.record.save()
        self.console.start(source.name, len(source.cells) + bool(self.values))
        self._clock = time.monotonic()
        self._process.start(source.path, self.partial, self.values, self.context, threads)

    def event(self, event: dict) -> None:
        """Note what the process reported."""
        self._process.outcome.take(event)
        self.console.event(self.source.name, event)

    def finish(self) -> ExecutionFault | None:
        """After the process has closed its end: None when the notebook now counts, its final files
        and state are written. Raises OSError on a full disk.
        """
        source = self.source
        outcome = self._process.finish()
        seconds = round(time.monotonic() - self._clock, 1)
        self.record.notebook(source.number, source.name, seconds=seconds)
        verdict = self.folder.verdict(source.number)
        fault = find_fault(outcome, self.partial, verdict, self.context.token, self.name_cell)
        if fault is None:
            self._keep(seconds)
        else:
            self._keep_failed(fault, outcome.log)
            self.record.notebook(
                source.number,
                source.name,
                status="failed",
                cause=fault.cause,
                cell=self.number_of(fault.index),
            )
        self.console.end(source.name, "done" if fault is None else "FAILED")
        return fault

    def number_of(self, index: int | None) -> int | None:
        """Number of a cell in the author's notebook, from 1, given its index in the executed one;
        None if injected.
        """
        injected = self.source.injected_index(self.values)
        if index is None or index == injected:
            return None
        cells_before_it = index if injected is None or index < injected else index - 1
        return cells_before_it + 1

    def name_cell(self, index: int | None) -> str:
        """A cell of the executed notebook in words, for the reader."""
        number = self.number_of(index)
        if number is not None:
            return f"cell {number}"
        return "the start, before any cell" if index is None else "the injected parameters"

    def _facts(self) -> dict[str, Any]:
        return {
            "notebook": self.source.path.name,
            "token": self.context.token,
            "key": self.context.key,
        }

    def _keep(self, seconds: float) -> None:
        source, folder = self.source, self.folder
        executed = mark(nbformat.read(self.partial, as_version=4), "done", self._facts())
        self.partial.unlink()
        atomic_files.write_text(folder.notebook(source.name), nbformat.writes(executed) + "\n")
        atomic_files.write_json(
            folder.state_file(source.number),
            {
                "number": source.number,
                "name": source.name,
                "key": self.context.key,
                "parts": self.parts,
                "token": self.context.token,
                "seconds": seconds,
                "finished": now(),
                "parameters": self.values,
            },
        )
        self.record.notebook(source.number, source.name, status="done")
        self.record.save()

    def _keep_failed(self, fault: ExecutionFault, log: str) -> None:
        """The copy in failed/ gets honest marks. (Its verdict, if it wrote one, is removed when the
        run stops.)
        """
        source, folder = self.source, self.folder
        if log.strip():
            self.record.notebook(source.number, source.name, log=log[-2_000:])
        try:
            executed = nbformat.read(self.partial, as_version=4)
            executed = mark(executed, "failed", self._facts(), fault)
            content = nbformat.writes(executed) + "\n"
            self.partial.unlink()  # makes room first, should the disk be full
            atomic_files.write_text(folder.failed(source.name), content)
        except (OSError, ValueError, AttributeError, nbformat.ValidationError) as error:
            self.partial.unlink(missing_ok=True)
            self.record.content["warnings"].append(
                f"no failed copy of {source.name} could be kept: {error}"
            )
