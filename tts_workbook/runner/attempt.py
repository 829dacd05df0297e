"""One attempt at one notebook: run it under a temporary name, judge it, give it its final name or
keep the failure.
"""

from __future__ import annotations

import os
import secrets
import time
from dataclasses import dataclass
from typing import Any

import nbformat

from tts_core import atomic_files
from tts_workbook.runner.console import Console
from tts_workbook.runner.context import Context
from tts_workbook.runner.parameters import Parameters
from tts_workbook.runner.plan import Source, key_of
from tts_workbook.runner.process import execute
from tts_workbook.runner.record import Record
from tts_workbook.runner.run_folder import RunFolder, now
from tts_workbook.runner.validate import ExecutionFault, find_fault, mark


@dataclass(frozen=True)
class NotebookAttempt:
    """One execution of `source`, from a clean start to files that count or a failure that is
    kept.
    """

    source: Source
    parameters: Parameters
    parts: dict[str, Any]  # of the key; see plan.key_parts
    folder: RunFolder
    record: Record
    console: Console

    def make(self) -> ExecutionFault | None:
        """None when the notebook now counts: its final files and state are written. Raises OSError
        on a full disk.
        """
        source, folder = self.source, self.folder
        values = source.injected(self.parameters)
        context = Context(
            token=secrets.token_hex(16),
            number=source.number,
            key=key_of(self.parts),
            data=str(self.parameters.data),
            out=str(folder.path),
            started_in=os.getcwd(),
        )
        folder.clear(source.number)
        self.record.notebook(
            source.number,
            source.name,
            status="running",
            key=context.key,
            started=now(),
            parameters=values,
        )
        self.record.save()
        self.console.start(source.name, len(source.cells) + bool(values))
        clock = time.monotonic()
        partial = folder.partial / f"{source.name}.ipynb"
        outcome = execute(
            source.path, partial, values, context, self.parameters.threads, self.console.event
        )
        seconds = round(time.monotonic() - clock, 1)
        self.record.notebook(source.number, source.name, seconds=seconds)
        fault = find_fault(
            outcome, partial, folder.verdict(source.number), context.token, self.name_cell
        )
        if fault is None:
            self._keep(context, values, seconds)
            return None
        self._keep_failed(fault, context, outcome.log)
        self.record.notebook(
            source.number,
            source.name,
            status="failed",
            cause=fault.cause,
            cell=self.number_of(fault.index),
        )
        return fault

    def number_of(self, index: int | None) -> int | None:
        """Number of a cell in the author's notebook, from 1, given its index in the executed one;
        None if injected.
        """
        injected = self.source.injected_index(self.source.injected(self.parameters))
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

    def _facts(self, context: Context) -> dict[str, Any]:
        return {"notebook": self.source.path.name, "token": context.token, "key": context.key}

    def _keep(self, context: Context, values: dict[str, Any], seconds: float) -> None:
        source, folder = self.source, self.folder
        partial = folder.partial / f"{source.name}.ipynb"
        executed = mark(nbformat.read(partial, as_version=4), "done", self._facts(context))
        partial.unlink()
        atomic_files.write_text(folder.notebook(source.name), nbformat.writes(executed) + "\n")
        atomic_files.write_json(
            folder.state_file(source.number),
            {
                "number": source.number,
                "name": source.name,
                "key": context.key,
                "parts": self.parts,
                "token": context.token,
                "seconds": seconds,
                "finished": now(),
                "parameters": values,
            },
        )
        self.record.notebook(source.number, source.name, status="done")
        self.record.save()

    def _keep_failed(self, fault: ExecutionFault, context: Context, log: str) -> None:
        """The copy in failed/ gets honest marks. (Its verdict, if it wrote one, is removed when the
        run stops.)
        """
        source, folder = self.source, self.folder
        if log.strip():
            self.record.notebook(source.number, source.name, log=log[-2_000:])
        partial = folder.partial / f"{source.name}.ipynb"
        try:
            executed = mark(
                nbformat.read(partial, as_version=4), "failed", self._facts(context), fault
            )
            content = nbformat.writes(executed) + "\n"
            partial.unlink()  # makes room first, should the disk be full
            atomic_files.write_text(folder.failed(source.name), content)
        except (OSError, ValueError, AttributeError, nbformat.ValidationError) as error:
            partial.unlink(missing_ok=True)
            self.record.content["warnings"].append(
                f"no failed copy of {source.name} could be kept: {error}"
            )
