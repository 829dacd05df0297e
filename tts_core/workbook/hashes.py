"""Hashes of what a run depends on besides its notebooks: the package's source, the data folder, the user's own model."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tts_core.errors import WorkbookError
from tts_core.workbook.addresses import source_files

PACKAGE = Path(__file__).resolve().parents[1]


def hash_package(root: Path = PACKAGE) -> str:
    """Hash of the source of `tts_core`: every .py and every template."""
    return _hash_files(root, (path for path in _walk(root) if path.suffix in (".py", ".j2")))["hash"]


def hash_data(folder: Path) -> dict[str, Any]:
    """{"hash", "files", "bytes"} of every file below the data folder (hidden ones excepted). Raises WorkbookError."""
    remedy = "Give --data DIR, a folder with metadata.csv and wavs/ (LJSpeech layout)."
    if not folder.is_dir():
        raise WorkbookError(f"the data folder {folder} does not exist. {remedy}")
    try:
        found = _hash_files(folder, _walk(folder))
    except OSError as error:
        raise WorkbookError(f"the data folder {folder} cannot be read: {error}") from None
    if not found["files"]:
        raise WorkbookError(f"the data folder {folder} is empty. {remedy}")
    return found


def hash_subject(address: str, folder: Path, checkpoint: Path | None = None) -> dict[str, Any]:
    """{"hash", "files", "bytes"} of the source that `address` names and imports from its own folder, and of its checkpoint."""
    root, files = source_files(address, folder)
    found = _hash_files(root, files)
    if checkpoint is None or not checkpoint.is_file():
        return found
    weights = _hash_files(checkpoint.parent, [checkpoint])
    return {"hash": hashlib.sha256((found["hash"] + weights["hash"]).encode()).hexdigest(),
            **{name: found[name] + weights[name] for name in ("files", "bytes")}}


def _walk(root: Path) -> Iterator[Path]:
    """Visible files below `root`, through linked folders too, each folder once."""
    seen = set()
    for folder, names, files in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            names.clear()
            continue
        seen.add(real)
        names[:] = [name for name in names if not name.startswith(".") and name != "__pycache__"]
        yield from (Path(folder, name) for name in files if not name.startswith("."))


def _hash_files(root: Path, paths: Iterable[Path]) -> dict[str, Any]:
    total = hashlib.sha256()
    files = sorted(path for path in paths if path.is_file())
    size = 0
    for path in files:
        with open(path, "rb") as stream:
            content = hashlib.file_digest(stream, "sha256").hexdigest()
        total.update(f"{path.relative_to(root).as_posix()}\0{content}\n".encode("utf-8", "backslashreplace"))
        size += path.stat().st_size
    return {"hash": total.hexdigest(), "files": len(files), "bytes": size}
