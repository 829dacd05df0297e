"""A folder belongs to one writer at a time: the runner's run folder, a training's `--out`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from tts_core.atomic_files import read_json
from tts_core.errors import WorkbookError

POLL_SECONDS = 0.1  # between two tries of somebody who waits


def lock_folder(path: Path, holder: str, patience: float = 0) -> FileLock:
    """The lock of the existing folder `path`, held until `release()` or the end of this process,
    however it ends.

    `holder` names what holds such a folder, for the message: WorkbookError where another one still
    does after `patience` seconds.
    """
    lock = FileLock(path / ".lock", thread_local=False)  # whoever has it may release it
    try:
        lock.acquire(timeout=patience, poll_interval=POLL_SECONDS)
    except Timeout:
        raise WorkbookError(
            f"another {holder} (process {_recorded_process(path)}) is writing to {path}."
            " Wait for it, or choose another --out."
        ) from None
    return lock


def _recorded_process(path: Path) -> Any:
    """The process number that the folder's run.json names, or `unknown`."""
    try:
        record = read_json(path / "run.json")
    except (OSError, ValueError):
        return "unknown"
    return record.get("pid", "unknown") if isinstance(record, dict) else "unknown"
