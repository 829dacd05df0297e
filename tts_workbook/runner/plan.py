"""Which notebooks there are, which earlier ones each reads, and the key under which an execution
counts as done.

Notebooks run in the order of their numbers.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import nbformat

from tts_core.errors import WorkbookError
from tts_workbook.runner.parameters import FIELDS, Parameters
from tts_workbook.runner.parameters_cell import read_cell

# Notebook -> the earlier ones whose verdicts, checkpoints or tables it reads. A notebook that is
# not here reads none.
UPSTREAM: dict[str, tuple[str, ...]] = {"07": ("03",)}
FINDINGS = "09"  # reads the verdict of every earlier one
PART_NAMES = {  # of a key, in words
    "data": "the data",
    "subject": "the subject's source",
    "cells": "its cells",
    "package": "the package's source",
    "upstream": "what it reads",
}


@dataclass(frozen=True)
class Source:
    """One notebook as its author wrote it."""

    number: str  # "03"
    name: str  # "03_overfit_one_clip"
    path: Path

    @cached_property
    def cells(self) -> list[Any]:
        """As in the file; raises WorkbookError where it cannot be read."""
        try:
            return nbformat.read(self.path, as_version=4).cells
        except (OSError, ValueError, AttributeError, nbformat.ValidationError) as error:
            raise WorkbookError(f"{self.path}: not a notebook that can be read ({error})") from None

    @cached_property
    def declared(self) -> dict[str, Any]:
        """The parameters cell: name -> the author's default. Empty when the notebook has no such
        cell.
        """
        tagged = [cell for cell in self.cells if "parameters" in _tags(cell)]
        if len(tagged) > 1:
            raise WorkbookError(
                f"{self.path}: {len(tagged)} cells are tagged `parameters`; keep one"
            )
        return read_cell(tagged[0].source, str(self.path)) if tagged else {}

    def injected_index(self, values: Mapping[str, Any]) -> int | None:
        """Where papermill puts the cell with `values`: after the tagged one, or in place of an
        earlier injection.
        """
        if not values:
            return None
        tags = [_tags(cell) for cell in self.cells]
        for index, names in enumerate(tags):
            if "injected-parameters" in names:
                return index
        return next(index for index, names in enumerate(tags) if "parameters" in names) + 1

    def injected(self, parameters: Parameters) -> dict[str, Any]:
        """What this notebook gets: the parameters that it declares, and no others."""
        values = parameters.to_dict()
        return {name: values[name] for name in FIELDS if name in self.declared}

    @property
    def digest(self) -> str:
        """Hash of the cells' types, tags and sources; outputs do not count."""
        content = [[cell.cell_type, cell.source, _tags(cell)] for cell in self.cells]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _tags(cell: Any) -> list[str]:
    return cell.metadata.get("tags", [])


def discover(folder: Path) -> dict[str, Source]:
    """Number -> notebook, in the order in which they run: the files `NN_name.ipynb` of `folder`.
    Raises WorkbookError when there are none.
    """
    found: dict[str, Source] = {}
    for path in sorted(folder.glob("[0-9][0-9]_*.ipynb")):
        number = path.stem[:2]
        if number in found:
            raise WorkbookError(
                f"{folder}: two notebooks are number {number}: {found[number].path.name} and "
                f"{path.name}"
            )
        found[number] = Source(number, path.stem, path)
    if not found:
        raise WorkbookError(
            f"{folder}: no notebooks NN_name.ipynb here. Run from a checkout of the repository."
        )
    return found


def before(number: str, available: Iterable[str]) -> list[str]:
    """Those of `available` that run before `number`, in order."""
    return sorted(other for other in available if other < number)


def upstream_of(number: str, available: Iterable[str]) -> tuple[str, ...]:
    """The notebooks that `number` reads; the findings read every earlier one that is
    `available`.
    """
    if number == FINDINGS:
        return tuple(before(number, available))
    return UPSTREAM.get(number, ())


def notebooks_asked_for(
    sources: Mapping[str, Source], only: str | Iterable[str] | None
) -> list[str]:
    """Numbers to run, in order. `only` is "03,07", or an iterable of numbers, or None for all."""
    if only is None:
        _check_upstream_is_there(sources)
        return list(sources)
    named = only.split(",") if isinstance(only, str) else [str(part) for part in only]
    wanted = [part.strip() for part in named if part.strip()]
    if not wanted:
        raise WorkbookError("--only: name at least one notebook, for example --only 03,07")
    numbers = set()
    for part in wanted:
        match = re.fullmatch(r"(\d{1,2})(_\w*)?(\.ipynb)?", part)
        number = match[1].zfill(2) if match else part
        if number not in sources:
            raise WorkbookError(
                f"--only {part}: there is no such notebook; there are {', '.join(sources)}"
            )
        numbers.add(number)
    return [number for number in sources if number in numbers]


def _check_upstream_is_there(sources: Mapping[str, Source]) -> None:
    for number, source in sources.items():
        for other in upstream_of(number, sources):
            if other not in sources:
                raise WorkbookError(
                    f"notebook {number} reads notebook {other}, but there is none in "
                    f"{source.path.parent}"
                )


def takers_of(name: str, sources: Mapping[str, Source]) -> list[str]:
    """The notebooks that declare parameter `name`."""
    return [number for number, source in sources.items() if name in source.declared]


def key_parts(
    source: Source,
    parameters: Parameters,
    package: str,
    data: str,
    upstream: Mapping[str, str],
    subject: str = "",
) -> dict[str, Any]:
    """Everything that an execution depends on. Data and a subject's source count by their content,
    `out` not at all.
    """
    values = {
        name: value for name, value in source.injected(parameters).items() if FIELDS[name].in_key
    }
    parts: dict[str, Any] = {
        "cells": source.digest,
        "parameters": values,
        "package": package,
        "data": data,
        "upstream": dict(upstream),
    }
    takes = "subject" in source.declared or "subjects" in source.declared
    if subject and takes:
        parts["subject"] = subject
    return parts


def key_of(parts: Mapping[str, Any]) -> str:
    """The key under which an execution counts: a hash of its parts."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def changed_parts(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """In words, what differs between two keys' parts."""
    words = []
    if old.get("parameters") != new["parameters"]:
        before, after = old.get("parameters") or {}, new["parameters"]
        names = [name for name in FIELDS if before.get(name) != after.get(name)]
        words += [f"{name} {before.get(name)} -> {after.get(name)}" for name in names]
    return words + [label for part, label in PART_NAMES.items() if old.get(part) != new.get(part)]


@dataclass(frozen=True)
class Inputs:
    """What every key of one run is made of besides the upstream results."""

    sources: Mapping[str, Source]
    settled: Mapping[str, Parameters]  # number -> that notebook's parameters
    package: str  # hashes
    data: str
    subject: str = ""

    def parts(self, number: str, upstream: Mapping[str, str]) -> dict[str, Any]:
        """The parts of the key of notebook `number`; `upstream` is number -> key of what it
        reads.
        """
        return key_parts(
            self.sources[number],
            self.settled[number],
            self.package,
            self.data,
            upstream,
            self.subject,
        )
