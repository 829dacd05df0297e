"""The house is in order: imports run one way, a cause lives in one file, a question is measured
once, and no two rooms have the same name on the door.
"""

import ast
import re
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tts_workbook.faults.cause import AREAS
from tts_workbook.faults.registry import CAUSES

PACKAGES = ("tts_core", "tts_workbook")
FILES = [
    file
    for package in PACKAGES
    for file in sorted((ROOT / package).rglob("*.py"))
    if file.name != "__init__.py"
]


def test_imports_run_one_way():
    """The contracts of pyproject.toml: the core alone, the rooms in order, viz beside them."""
    found = subprocess.run(
        [Path(sys.executable).with_name("lint-imports")], cwd=ROOT, capture_output=True, text=True
    )
    if not found.stdout and found.returncode:
        pytest.fail(found.stderr)
    assert found.returncode == 0, found.stdout


def test_no_file_name_stands_twice():
    names = Counter(file.name for file in FILES)
    assert {name for name, n in names.items() if n > 1} == set()


def test_a_cause_is_held_by_one_file():
    """Its texts, its rule and its plant; elsewhere its id may stand only where another cause
    explains it, or where a notebook's question is about it.
    """
    held = {path.relative_to(ROOT / "tts_workbook" / "faults") for path in FILES if _cause_of(path)}
    assert held == {Path(*cause.split(".")).with_suffix(".py") for cause in CAUSES}
    assert {cause.split(".")[0] for cause in CAUSES} == set(AREAS)


def _cause_of(path: Path) -> bool:
    return bool(re.search(r"^CAUSE = Cause\(", path.read_text("utf-8"), re.MULTILINE))


def test_every_measurement_names_its_question_and_no_question_is_asked_twice():
    asked: dict[str, list[str]] = defaultdict(list)
    for file in sorted((ROOT / "tts_workbook" / "measure").glob("*.py")):
        if file.name == "__init__.py":
            continue
        questions = _questions(file)
        assert len(questions) == 1, f"{file.name} names {len(questions)} questions, wanted one"
        asked[questions[0].strip().rstrip("?").casefold()].append(file.name)
    assert {question: files for question, files in asked.items() if len(files) > 1} == {}


def _questions(file: Path) -> list[str]:
    """The values of `question = "…"` anywhere in the file."""
    found = []
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if not isinstance(node, ast.Assign) or not isinstance(node.value, ast.Constant):
            continue
        names = [target.id for target in node.targets if isinstance(target, ast.Name)]
        if [name.lower() for name in names] == ["question"]:
            found.append(str(node.value.value))
    return found
