"""Hashes of files by their names and contents, and of this package's own source."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).resolve().parent


def hash_package(root: Path = PACKAGE) -> str:
    """Hash of the source of `tts_core`: every .py and every template."""
    source = [path for path in visible_files(root) if path.suffix in (".py", ".j2")]
    return str(hash_files(root, source)["hash"])


def visible_files(root: Path) -> Iterator[Path]:
    """Visible files below `root`, through linked folders too, each folder once."""
    seen: set[str] = set()
    for folder, names, files in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            names.clear()
            continue
        seen.add(real)
        names[:] = [name for name in names if not name.startswith(".") and name != "__pycache__"]
        for name in files:
            if not name.startswith("."):
                yield Path(folder, name)


def hash_files(root: Path, paths: Iterable[Path]) -> dict[str, Any]:
    """{"hash", "files", "bytes"} of `paths`, named relative to `root`."""
    total = hashlib.sha256()
    files = sorted(path for path in paths if path.is_file())
    size = 0
    for path in files:
        with open(path, "rb") as stream:
            content = hashlib.file_digest(stream, "sha256").hexdigest()
        line = f"{path.relative_to(root).as_posix()}\0{content}\n"
        total.update(line.encode("utf-8", "backslashreplace"))
        size += path.stat().st_size
    return {"hash": total.hexdigest(), "files": len(files), "bytes": size}
