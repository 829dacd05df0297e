"""Every bar of the diagnosis in one table, found by walking the code.

python -m tts_workbook.faults.bars_table > docs/BARS.md
"""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from types import ModuleType

from tts_workbook.bars import KINDS, Bar, BarKind

ROOMS = ("subject", "measure", "lab", "faults", "diagnosis")
HEADINGS: dict[BarKind, str] = {
    "control": "Relative to a control of the same diagnosis",
    "convention": "Conventions of the field",
    "absolute": "Absolute: no control can give it",
}
INTRODUCTION = """# Bars of the diagnosis

Generated from the code by `python -m tts_workbook.faults.bars_table`; a test holds them together. A
number that decides is relative to something measured in the same diagnosis, or is a convention of
the field with its source. What is absolute says why no control can give it.
"""


@dataclass(frozen=True)
class NamedBar:
    """A bar and where it stands."""

    file: str  # from the package on
    name: str
    bar: Bar


def all_bars() -> Iterator[NamedBar]:
    """Module by module in the order of the folders, each bar where it is made."""
    for room in ROOMS:
        package = importlib.import_module(f"tts_workbook.{room}")
        for found in sorted(_modules(package.__path__, package.__name__)):
            module = importlib.import_module(found)
            for name in _assigned(module):
                value = getattr(module, name)
                if isinstance(value, Bar):
                    file = found.removeprefix("tts_workbook.").replace(".", "/")
                    yield NamedBar(file, name, value)


def _assigned(module: ModuleType) -> list[str]:
    """Names that a module gives a value itself, in the order of its lines."""
    names: list[str] = []
    for statement in ast.parse(inspect.getsource(module)).body:
        targets = statement.targets if isinstance(statement, ast.Assign) else []
        for target in targets:
            names += [part.id for part in ast.walk(target) if isinstance(part, ast.Name)]
    return names


def _modules(path: Iterable[str], prefix: str) -> list[str]:
    return [found.name for found in pkgutil.walk_packages(path, f"{prefix}.") if not found.ispkg]


def bars_table() -> str:
    """Markdown: a table for each kind."""
    bars = list(all_bars())
    lines = [INTRODUCTION]
    for kind in KINDS:
        chosen = [one for one in bars if one.bar.kind == kind]
        lines += [f"## {HEADINGS[kind]} ({len(chosen)})", ""]
        lines += ["| where | bar | value | |", "|---|---|---|---|"]
        for one in chosen:
            value = f"{float(one.bar):g}"
            lines.append(f"| `{one.file}` | `{one.name}` | {value} | {one.bar.reason} |")
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    print(bars_table(), end="")
