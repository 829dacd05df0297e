"""Every cause, found by walking the folders: a new file of `faults/AREA/` is a new cause."""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path

from tts_workbook.faults.cause import AREAS, Cause


def _found() -> dict[str, Cause]:
    causes: dict[str, Cause] = {}
    for area in AREAS:
        folder = Path(__file__).parent / area
        for module in pkgutil.iter_modules([str(folder)]):
            if module.name.startswith("_"):  # what several causes of the area share
                continue
            cause = importlib.import_module(f"{__package__}.{area}.{module.name}").CAUSE
            if cause.id != f"{area}.{module.name}":
                raise ValueError(f"faults/{area}/{module.name}.py holds the cause {cause.id!r}")
            causes[cause.id] = cause
    return causes


CAUSES: dict[str, Cause] = _found()
