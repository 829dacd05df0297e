"""The run folder: what lies where, who may write to it, and how earlier results are kept.

run.json         the record of the latest `tts-workbook run`
notebooks/NN_*   executed notebooks that count
verdicts/NN.json what they found
state/NN.json    the key under which each counts
report.html      all of it on one page
figures/ audio/ metrics/ checkpoints/ ...   what the notebooks made
failed/NN_*      executions that do not count
superseded/      results that were replaced later
"""

from __future__ import annotations

import datetime
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tts_core.atomic_files import read_json, sweep
from tts_core.errors import WorkbookError
from tts_core.folder_lock import lock_folder
from tts_workbook.runner.verdicts import read_verdict

# set aside so that a full disk cannot keep the record from saying so
RESERVE_BYTES = 256 * 1024
# folders whose files carry a notebook's number
# what holds a run folder, in the message to the next one
HOLDER = "tts-workbook run"
NUMBERED = ("notebooks", "verdicts", "figures", "audio", "metrics", "state")
_MOMENT = re.compile(r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)")


def now() -> str:
    """The present time in UTC, ISO 8601, whole seconds."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


@dataclass(frozen=True)
class NotebookState:
    """`state/NN.json`: under which key a notebook's result counts, and what it was made of."""

    name: str  # "03_overfit_one_clip"
    key: str
    token: str  # of the execution; its verdict carries the same
    parts: Mapping[str, Any]  # of the key; see plan.key_parts
    finished: str  # UTC, ISO 8601
    seconds: float | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)


class RunFolder:
    """An opened run folder; only one runner at a time. Use as a context manager, or call
    `close()`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(parents=True, exist_ok=True)
        self._lock = lock_folder(path, HOLDER)
        sweep(path)
        shutil.rmtree(self.partial, ignore_errors=True)
        self.partial.mkdir()
        self._reserve = path / ".reserve"
        self._reserve.write_bytes(os.urandom(RESERVE_BYTES))

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, *exception: Any) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the folder; nothing temporary stays."""
        self.free_reserve()
        shutil.rmtree(self.partial, ignore_errors=True)
        sweep(self.path)
        self._lock.release()

    def free_reserve(self) -> None:
        """Give up the bytes that were set aside for the record."""
        self._reserve.unlink(missing_ok=True)

    @property
    def partial(self) -> Path:
        """Where notebooks are while they run."""
        return self.path / ".partial"

    @property
    def report(self) -> Path:
        """The page of this run."""
        return self.path / "report.html"

    def verdict(self, number: str) -> Path:
        """What a notebook found."""
        return self.path / "verdicts" / f"{number}.json"

    def notebook(self, name: str) -> Path:
        """An executed notebook that counts."""
        return self.path / "notebooks" / f"{name}.ipynb"

    def failed(self, name: str) -> Path:
        """An execution that does not count."""
        return self.path / "failed" / f"{name}.ipynb"

    def state_file(self, number: str) -> Path:
        """Under which key a notebook counts."""
        return self.path / "state" / f"{number}.json"

    def state(self, number: str) -> NotebookState | None:
        """What is recorded of a notebook that counts, or None."""
        return read_state(self.path, number)

    def clear(self, number: str) -> None:
        """Before `number` runs again: results that counted move to superseded/, leftovers of a
        failure go.
        """
        state = self.state(number)
        if state is not None:
            kept = unused(self.path / "superseded" / f"{number}-{time_stamp(state.finished)}")
            for file in self._files_of(number):
                target = kept / file.relative_to(self.path)
                target.parent.mkdir(parents=True, exist_ok=True)
                os.replace(file, target)
        for file in [*self._files_of(number), *(self.path / "failed").glob(f"{number}_*")]:
            file.unlink(missing_ok=True)

    def _files_of(self, number: str) -> list[Path]:
        files: list[Path] = []
        for part in NUMBERED:
            files += (self.path / part).glob(f"{number}_*")
            files += (self.path / part).glob(f"{number}.json*")
        return files


def read_state(folder: Path, number: str) -> NotebookState | None:
    """The state record of a notebook that counts, or None."""
    try:
        content = read_json(folder / "state" / f"{number}.json")
    except (OSError, ValueError):
        return None
    known = NotebookState.__dataclass_fields__
    try:
        return NotebookState(**{name: content[name] for name in known if name in content})
    except TypeError:  # no object, or one that lacks what must be there
        return None


def find_defect(folder: Path, number: str, name: str) -> str | None:
    """Why the recorded result of notebook `number` cannot be used, in words; None when it is whole.

    `name` is the notebook's own: a result of one that had this number before does not count.
    """
    state = read_state(folder, number)
    if state is None:
        return "it has not been run there"
    if state.name != name:
        return renumbered(state, name)
    try:
        verdict = read_verdict(folder / "verdicts" / f"{number}.json")
    except (OSError, WorkbookError) as error:
        return f"its verdict cannot be read ({error})"
    if verdict["provenance"].get("token") != state.token:
        return "its verdict is from another execution"
    if not (folder / "notebooks" / f"{name}.ipynb").is_file():
        return f"its executed notebook {name}.ipynb is missing"
    for artefact, size in verdict["provenance"].get("artefacts", {}).items():
        file = folder / artefact
        if not file.is_file() or file.stat().st_size != size:
            return f"its file {artefact} is missing or has changed"
    return None


def renumbered(state: NotebookState, name: str) -> str:
    """What is said of a result that was made when its number was another notebook's."""
    return f"what is there is of {state.name}, which had the number of {name} when it ran"


def refuse_foreign(path: Path) -> None:
    """WorkbookError when `path` holds something that is not a run: nothing there is ours to
    touch.
    """
    if path.exists() and not path.is_dir():
        raise WorkbookError(f"{path} is a file; give --out a folder")
    if not path.is_dir() or read_run_record(path) is not None:
        return
    if any(not entry.name.startswith(".") for entry in path.iterdir()):
        raise WorkbookError(
            f"{path} is not empty and holds no run (no run.json). Nothing was touched; choose"
            " another --out."
        )


def read_run_record(folder: Path) -> dict[str, Any] | None:
    """run.json, or None when there is none that can be read."""
    try:
        record = read_json(folder / "run.json")
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) else None


def keep_previous(path: Path) -> Path | None:
    """Move the run that `path` holds out of the way; returns its new place. `latest` becomes its
    start time, any other name gets it appended. Raises WorkbookError when the folder holds
    something else, or a run that still goes on.
    """
    refuse_foreign(path)
    record = read_run_record(path)
    if record is None:
        return None
    lock = lock_folder(path, HOLDER)
    try:
        stamp = time_stamp(str(record.get("started", "")))
        name = stamp if path.name == "latest" else f"{path.name}-{stamp}"
        kept = unused(path.with_name(name))
        os.rename(path, kept)
    except OSError as error:
        raise WorkbookError(
            f"the previous run in {path} cannot be moved aside ({error}). Choose another --out."
        ) from None
    finally:
        lock.release()
    return kept


def time_stamp(moment: str) -> str:
    """`2025-11-23T08:17:36+00:00` -> `20251123-081736`; the present time when `moment` is not a
    time.
    """
    match = _MOMENT.match(moment) or _MOMENT.match(now())
    assert match is not None  # the present time is one
    year, month, day, hour, minute, second = match.groups()
    return f"{year}{month}{day}-{hour}{minute}{second}"


def unused(path: Path) -> Path:
    """`path`, or the first of path-2, path-3 ... that does not exist."""
    candidate, count = path, 1
    while candidate.exists():
        count += 1
        candidate = path.with_name(f"{path.name}-{count}")
    return candidate
