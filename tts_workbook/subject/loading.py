"""A subject by its address, `package.module:name` or `file.py:name`."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
import traceback
from collections.abc import Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any

from tts_core.errors import WorkbookError
from tts_core.file_hashes import hash_files
from tts_workbook.subject.addresses import source_files
from tts_workbook.subject.isolation import unchanged_randomness
from tts_workbook.subject.opened import OpenSubject
from tts_workbook.subject.subject import Subject, check_subject


def load_subject(address: str, checkpoint: str | None = None) -> Subject:
    """The Subject at `address`, or what the function there returns; `checkpoint` takes the place of
    its own.

    Modules are looked for in the working folder too. Raises WorkbookError that names what is
    missing.
    """
    place, colon, name = address.rpartition(":")
    if not colon or not place or not name:
        raise WorkbookError(f"subject {address!r}: write package.module:name or file.py:name")
    module = _module(place, address)
    if not hasattr(module, name):
        public = ", ".join(sorted(key for key in vars(module) if not key.startswith("_"))[:12])
        raise WorkbookError(f"subject {address!r}: {place} has no {name!r}; it has {public}")
    found = getattr(module, name)
    if not isinstance(found, Subject) and callable(found):
        found = found()
    if not isinstance(found, Subject):
        raise WorkbookError(
            f"subject {address!r}: it is a {type(found).__name__}; wanted a"
            " tts_workbook.Subject, or a function without arguments that returns one"
        )
    if checkpoint is None:
        return found
    if not Path(checkpoint).is_file():
        raise WorkbookError(
            f"--checkpoint {checkpoint}: there is no such file; wanted a safetensors file"
        )
    return replace(found, checkpoint=checkpoint)


def inspect_subject(address: str) -> dict[str, Any]:
    """What a run needs to know of a subject before anything runs: {"address", "hash", "files",
    "bytes"} of its source.

    It is loaded, and each of its required parts is run once. Raises WorkbookError for an address
    that leads nowhere, for code that raises, and for a part that is not what it should be.
    """
    try:
        subject = load_subject(address)
    except WorkbookError:
        raise
    except (Exception, SystemExit) as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        raise WorkbookError(
            f"subject {address!r}: loading it raised {type(error).__name__}: {error}"
            f" ({place.filename}, line {place.lineno}). Nothing was run"
        ) from error
    with unchanged_randomness(0):
        opened = OpenSubject(subject)
        check_subject(opened.subject)
        weights = (
            Path(subject.checkpoint) if isinstance(subject.checkpoint, str | PathLike) else None
        )
        if weights is not None:
            opened.checkpoint_state  # raises where it cannot be read
    return {"address": address, **hash_subject(address, Path.cwd(), weights)}


def inspect_subjects(addresses: Sequence[str]) -> dict[str, Any]:
    """`inspect_subject` of one address; of several, their hashes in one, files and bytes added."""
    found = [inspect_subject(address) for address in addresses]
    if len(found) == 1:
        return found[0]
    together = "".join(one["hash"] for one in found)
    return {
        "address": ",".join(one["address"] for one in found),
        "hash": hashlib.sha256(together.encode()).hexdigest(),
        "files": sum(one["files"] for one in found),
        "bytes": sum(one["bytes"] for one in found),
    }


def hash_subject(address: str, folder: Path, checkpoint: Path | None = None) -> dict[str, Any]:
    """{"hash", "files", "bytes"} of the source that `address` names and imports from its own
    folder, and of its checkpoint.
    """
    root, files = source_files(address, folder)
    found = hash_files(root, files)
    if checkpoint is None or not checkpoint.is_file():
        return found
    weights = hash_files(checkpoint.parent, [checkpoint])
    return {
        "hash": hashlib.sha256((found["hash"] + weights["hash"]).encode()).hexdigest(),
        **{name: found[name] + weights[name] for name in ("files", "bytes")},
    }


def _module(place: str, address: str):
    if place.endswith(".py"):
        path = Path(place).resolve()
        if not path.is_file():
            raise WorkbookError(f"subject {address!r}: there is no file {path}")
        if str(path.parent) not in sys.path:
            sys.path.insert(0, str(path.parent))
        spec = importlib.util.spec_from_file_location(path.stem, path)
        if spec is None or spec.loader is None:
            raise WorkbookError(f"subject {address!r}: {path} cannot be loaded as a module")
        module = importlib.util.module_from_spec(spec)
        sys.modules.setdefault(path.stem, module)
        spec.loader.exec_module(module)
        return module
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        return importlib.import_module(place)
    except ModuleNotFoundError as error:
        if error.name and (place == error.name or place.startswith(error.name + ".")):
            raise WorkbookError(
                f"subject {address!r}: there is no module {error.name!r} here ({Path.cwd()}) or"
                " installed"
            ) from error
        raise
