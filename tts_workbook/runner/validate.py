"""Is this execution to be believed? The runner's judgement of it, and honest marks on a notebook
that failed.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat

from tts_core.errors import WorkbookError
from tts_workbook.runner.process import ProcessOutcome
from tts_workbook.runner.verdicts import read_verdict

# papermill puts such cells before the one that failed
ERROR_MARKER_TAG = "papermill-error-cell-tag"
# as in execute.py, which imports nothing of the package and is imported by nothing
TRACEBACK = "Traceback (most recent call last)"
WIDGET_STATE = "application/vnd.jupyter.widget-state+json"


@dataclass(frozen=True)
class ExecutionFault:
    """Why an execution does not count. `index` is the cell in the executed notebook, None where no
    cell is to blame.
    """

    cause: str
    index: int | None = None


def signal_name(code: int | None) -> str:
    """`SIGKILL` for -9 (and for a shell's 137), `exit code 1` else."""
    number = None
    if code is not None and code < 0:
        number = -code
    elif code is not None and code > 128:
        number = code - 128
    if number is not None and number in set(signal.Signals):
        return signal.Signals(number).name
    return f"exit code {code}"


def find_fault(
    outcome: ProcessOutcome,
    notebook: Path,
    verdict: Path,
    token: str,
    name_cell: Callable[[int | None], str],
) -> ExecutionFault | None:
    """None when the process exited 0, all cells ran in order, none hid an error, and the verdict is
    this execution's.

    `name_cell` turns an index in the executed notebook into words for the reader ("cell 5").
    """
    fault = _fault_of_process(outcome, name_cell)
    if fault is not None:
        return fault
    try:
        executed = nbformat.read(notebook, as_version=4)
    except (OSError, ValueError, nbformat.ValidationError) as error:
        return ExecutionFault(f"the executed notebook cannot be read ({error})")
    return (
        _fault_of_cells(executed, name_cell)
        or _fault_of_widgets(executed)
        or _fault_of_verdict(verdict, token)
    )


def _fault_of_process(
    outcome: ProcessOutcome, name_cell: Callable[[int | None], str]
) -> ExecutionFault | None:
    last = outcome.last_cell["index"] if outcome.last_cell else None
    if outcome.dead_kernel is not None:
        index = outcome.dead_kernel["index"]
        return ExecutionFault(
            f"kernel died ({signal_name(outcome.dead_kernel['code'])}) in {name_cell(index)}", index
        )
    for error in outcome.errors:
        index = error["index"]
        if error["name"] == "SystemExit":
            return ExecutionFault(
                f"{name_cell(index)} called sys.exit({error['value']}): the cells after it"
                " never ran",
                index,
            )
        hidden = (
            " inside a widget or an output that hides it"
            if outcome.finished or index != last
            else ""
        )
        return ExecutionFault(
            f"{name_cell(index)} raised {error['name']}{hidden}: {error['value']}", index
        )
    if outcome.failure is not None:
        return ExecutionFault(
            f"papermill stopped at {name_cell(last)}: {outcome.failure['name']}:"
            f" {outcome.failure['value']}",
            last,
        )
    if outcome.code != 0 or not outcome.finished:
        end = signal_name(outcome.code)
        return ExecutionFault(
            f"the process that executes the notebook ended with {end} at {name_cell(last)}", last
        )
    for trace in outcome.tracebacks:
        last_line = trace["text"].strip().splitlines()[-1]
        return ExecutionFault(
            f"{name_cell(trace['index'])} printed a traceback, so something failed unseen:"
            f" {last_line}",
            trace["index"],
        )
    return None


def _fault_of_cells(notebook: Any, name_cell: Callable[[int | None], str]) -> ExecutionFault | None:
    previous = 0
    for index, cell in enumerate(notebook.cells):
        if cell.cell_type != "code" or not cell.source.strip():
            continue
        count = cell.get("execution_count")
        if not isinstance(count, int):
            tags = ", ".join(cell.metadata.get("tags", [])) or "none"
            return ExecutionFault(f"{name_cell(index)} was not executed (tags: {tags})", index)
        if count <= previous:
            return ExecutionFault(f"{name_cell(index)} was executed out of order", index)
        previous = count
        for output in cell.outputs:
            if output.output_type == "error":
                return ExecutionFault(
                    f"{name_cell(index)} raised {output.ename}: {output.evalue}", index
                )
    return None


def _fault_of_widgets(notebook: Any) -> ExecutionFault | None:
    """Output widgets keep what was shown in them in the notebook's metadata."""
    for part in _parts(notebook.metadata.get("widgets", {}).get(WIDGET_STATE, {})):
        if part.get("output_type") == "error":
            return ExecutionFault(
                f"a widget hides an error, {part.get('ename')}: {part.get('evalue')}"
            )
        if part.get("output_type") == "stream" and TRACEBACK in "".join(part.get("text", "")):
            return ExecutionFault("a widget hides a traceback")
    return None


def _parts(value: Any) -> Iterator[dict]:
    if isinstance(value, dict):
        yield value
        value = list(value.values())
    if isinstance(value, list):
        for part in value:
            yield from _parts(part)


def _fault_of_verdict(path: Path, token: str) -> ExecutionFault | None:
    try:
        verdict = read_verdict(path)
    except FileNotFoundError:
        return ExecutionFault(
            f"it never wrote its verdict ({path.name}); book.verdict(...) must be the last call"
        )
    except (OSError, WorkbookError) as error:
        return ExecutionFault(f"its verdict is not valid: {error}")
    if verdict["provenance"].get("token") != token:
        return ExecutionFault(f"its verdict ({path.name}) is not from this execution")
    return None


def mark(
    notebook: Any, status: str, facts: dict[str, Any], fault: ExecutionFault | None = None
) -> Any:
    """Say in the notebook itself what it is. papermill calls killed and never-run cells
    `completed`; not so here.
    """
    notebook.metadata["tts_workbook"] = {"status": status, **facts}
    if "papermill" in notebook.metadata:
        notebook.metadata.papermill.update(
            input_path=facts["notebook"], output_path=facts["notebook"]
        )
    if fault is None:
        return notebook
    notebook.metadata["tts_workbook"]["cause"] = fault.cause
    notebook.metadata.setdefault("papermill", {})["exception"] = True
    own_cells = [
        cell for cell in notebook.cells if ERROR_MARKER_TAG not in cell.metadata.get("tags", [])
    ]
    for index, cell in enumerate(own_cells):
        if index == fault.index:
            told = "failed"
        elif cell.cell_type == "code" and cell.source.strip():
            told = "completed" if isinstance(cell.get("execution_count"), int) else "pending"
        else:
            told = "completed" if fault.index is None or index < fault.index else "pending"
        cell.metadata.setdefault("papermill", {}).update(status=told, exception=told == "failed")
    return notebook
