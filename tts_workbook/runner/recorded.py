"""Results that were recorded earlier, by a command that is named in them, and are drawn with their
provenance.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tts_core.atomic_files import read_json
from tts_core.errors import WorkbookError

RESULTS = Path(__file__).resolve().parents[2] / "benchmarks" / "results"


def read_record(
    name: str, command: str = "make evidence", folder: Path | None = None
) -> dict[str, Any]:
    """The record `NAME.json` of `folder` (benchmarks/results); raises WorkbookError naming the
    `command` that makes it.
    """
    path = (folder or RESULTS) / f"{name}.json"
    try:
        record = read_json(path)
    except FileNotFoundError:
        raise WorkbookError(
            f"there is no recorded result {path}; `{command}` computes it"
        ) from None
    except ValueError as error:
        raise WorkbookError(f"{path}: not JSON ({error}); `{command}` computes it anew") from error
    if not isinstance(record, dict) or not record.get("provenance"):
        raise WorkbookError(
            f"{path}: a recorded result without provenance is not shown; `{command}` computes it"
            " anew"
        )
    return record
