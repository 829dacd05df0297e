"""The address of a subject, `package.module:name` or `file.py:name`, and the source files behind
it. Nothing is imported here.
"""

from __future__ import annotations

import ast
import os
import sys
from collections.abc import Iterator
from pathlib import Path

WANTED = "package.module:name or file.py:name"
NOT_THEIRS = {"site-packages", "dist-packages"}  # installed code has versions, not edits


def is_address(text: str) -> bool:
    """Whether `text` is written like an address; what it names need not be there."""
    place, _, name = text.rpartition(":")
    if not place or not name.isidentifier():
        return False
    return place.endswith(".py") or all(part.isidentifier() for part in place.split("."))


def absolute_address(address: str, base: Path) -> str:
    """The file of `file.py:name` against `base`, a leading ~/ being the home folder; a module's
    address as it is.
    """
    place, _, name = address.rpartition(":")
    if not place.endswith(".py"):
        return address
    file = os.path.abspath(base / os.path.expanduser(place))
    return f"{file}:{name}"


def short_address(address: str) -> str:
    """The address without the folders of its file: what a title has room for."""
    place, _, name = address.rpartition(":")
    return f"{Path(place).name}:{name}" if place.endswith(".py") else address


def source_files(address: str, folder: Path) -> tuple[Path, list[Path]]:
    """(root, files): the .py file that `address` names and all that it imports from `root`,
    directly or through others.

    `folder` is where modules are looked for first, then Python's own path. `root` is the folder of
    the file, or the one that holds the package. Imports are read, not run: what `importlib` or an
    `exec` brings in is not seen, and neither are data files. Installed code and tts_core, which has
    a hash of its own, are left out. No files where the address leads nowhere.
    """
    place = address.rpartition(":")[0]
    root, start = _locate(place, folder)
    only = root / place.split(".")[0] if NOT_THEIRS & set(root.parts) else root
    found: list[Path] = []
    waiting = start
    while waiting:
        file = waiting.pop(0)
        if file in found:
            continue
        found.append(file)
        for name in _imports(file, root):
            for other in _files_of(name, root):
                if other.is_relative_to(only) and not _foreign(other.relative_to(root)):
                    waiting.append(other)
    return root, sorted(found)


def _locate(place: str, folder: Path) -> tuple[Path, list[Path]]:
    """The folder that imports start from, and the module's file with the __init__.py of every
    package above it.
    """
    if place.endswith(".py"):
        file = Path(os.path.abspath(folder / place))
        return file.parent, [file] if file.is_file() else []
    for entry in (folder, *map(Path, sys.path)):
        module = entry.absolute().joinpath(*place.split("."))
        if (module / "__init__.py").is_file() or module.with_suffix(".py").is_file():
            return entry.absolute(), _files_of(place, entry.absolute())
    return folder, []


def _files_of(name: str, root: Path) -> list[Path]:
    """The files that `import name` runs below `root`: a/__init__.py and a/b.py for a.b, as far as
    they are there.
    """
    parts = name.split(".")
    files = []
    for length in range(1, len(parts) + 1):
        path = root.joinpath(*parts[:length])
        files += [path / "__init__.py", path.with_suffix(".py")]
    return [file for file in files if file.is_file()]


def _foreign(path: Path) -> bool:
    return bool(NOT_THEIRS & set(path.parts)) or path.parts[0] in {"tts_core", "tts_workbook"}


def _imports(file: Path, root: Path) -> Iterator[str]:
    """Dotted names that `file` imports, relative ones made absolute against `root`; `from a import
    b` may mean a.b too.
    """
    try:
        tree = ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError):  # loading it says so in better words
        return
    here = file.relative_to(root).parent.parts
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = here[: len(here) - node.level + 1] if node.level else ()
            module = ".".join([*above, *filter(None, [node.module])])
            yield from (".".join(filter(None, [module, alias.name])) for alias in node.names)
