"""The hash of the data folder: what a run depends on besides its notebooks and the source."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tts_core.errors import WorkbookError
from tts_core.file_hashes import hash_files, visible_files


def hash_data(folder: Path) -> dict[str, Any]:
    """{"hash", "files", "bytes"} of every file below the data folder (hidden ones excepted). Raises
    WorkbookError.
    """
    remedy = "Give --data DIR, a folder with metadata.csv and wavs/ (LJSpeech layout)."
    if not folder.is_dir():
        raise WorkbookError(f"the data folder {folder} does not exist. {remedy}")
    try:
        found = hash_files(folder, visible_files(folder))
    except OSError as error:
        raise WorkbookError(f"the data folder {folder} cannot be read: {error}") from None
    if not found["files"]:
        raise WorkbookError(f"the data folder {folder} is empty. {remedy}")
    return found
