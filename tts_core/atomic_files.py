"""Atomic files: complete under their final name, or not there at all.

Every file of a run is written to a hidden temporary name in the same folder, flushed to the disk,
and renamed. A kill or a full disk in between leaves at most a hidden `.name.RANDOM.part`; `sweep`
clears those that a kill left behind.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from secrets import token_hex
from typing import Any


def write_bytes(path: Path | str, content: bytes) -> None:
    """Write `content` to `path` atomically; parent folders are made. Raises OSError (the old file
    then stays).
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".{path.name}.{token_hex(8)}.part"
    try:
        with open(temporary, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def write_text(path: Path | str, text: str) -> None:
    """UTF-8; what cannot be encoded (half of a surrogate pair in a file name) is written as its
    escape.
    """
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


def write_json(path: Path | str, value: Any) -> None:
    """Strict JSON: a NaN or an infinity raises ValueError before anything is written."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def compact_json(value: Any) -> str:
    """One line of strict JSON."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def append_line(path: Path | str, line: str) -> None:
    """Append one whole line in a single write; on failure the file is cut back to what it was.
    Raises OSError.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    content = (line + "\n").encode("utf-8")
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        size = os.fstat(descriptor).st_size
        try:
            written = os.write(descriptor, content)
            # a short write is how a full disk announces itself: the next one raises
            while written < len(content):
                written += os.write(descriptor, content[written:])
        except BaseException:
            os.ftruncate(descriptor, size)
            raise
    finally:
        os.close(descriptor)


def read_json(path: Path | str) -> Any:
    """Raises OSError, or ValueError when the file is not JSON."""
    return json.loads(Path(path).read_text(encoding="utf-8"))


def sweep(folder: Path | str) -> None:
    """Remove the temporary files that killed writers left below `folder`: ours, and the speech
    package's `.tmp`.
    """
    for pattern in (".*.part", ".*.tmp"):
        for leftover in Path(folder).rglob(pattern):
            leftover.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Make the rename itself survive a power cut, where the system can."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:  # Windows opens no folders
        return
    try:
        os.fsync(descriptor)
    except OSError:  # some network file systems refuse; the file's own content is synced already
        pass
    finally:
        os.close(descriptor)
