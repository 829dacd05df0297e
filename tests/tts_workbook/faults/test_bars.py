"""Bars say what they are measured against, and the table of them is that of the code."""

import ast
import copy
import json
import pickle
from pathlib import Path

import pytest

from tts_workbook.bars import Bar
from tts_workbook.faults.bars_table import all_bars, bars_table

ROOT = Path(__file__).parents[3]
FAULTS = ROOT / "tts_workbook" / "faults"


def test_a_bar_is_a_number_with_one_reason():
    bar = Bar(0.25, control="share of the clean noise")
    assert bar == 0.25 and 2 * bar == 0.5 and 0.2 < bar < 0.3
    assert (bar.kind, bar.reason) == ("control", "share of the clean noise")
    for reasons in ({}, {"control": "x", "absolute": "y"}):
        with pytest.raises(ValueError, match="wanted one"):
            Bar(1.0, **reasons)


def test_a_bar_goes_to_another_process_and_into_json():
    bar = Bar(0.25, absolute="a choice")
    for again in (pickle.loads(pickle.dumps(bar)), copy.deepcopy(bar)):
        assert again == bar and (again.kind, again.reason) == ("absolute", "a choice")
    assert json.dumps({"bar": bar}) == '{"bar": 0.25}'


def test_every_bar_is_in_the_table():
    names = {one.name for one in all_bars()}
    assert {"MARGIN", "OVER_SHAM", "FREE_SHARE"} <= names
    committed = (ROOT / "docs" / "BARS.md").read_text(encoding="utf-8")
    assert committed == bars_table(), "python -m tts_workbook.faults.bars_table > docs/BARS.md"


def floats_without_a_reason(source):
    """Names at module level whose value is a number with a fraction, and no Bar; a list of values
    to try decides nothing.
    """
    found = []
    for statement in ast.parse(source).body:
        if isinstance(statement, ast.Assign | ast.AnnAssign) and statement.value is not None:
            value = statement.value
            if isinstance(value, ast.Call):  # Bar(0.1, control="…"), a dataclass, a function
                continue
            first = getattr(statement, "targets", [None])[0]
            if isinstance(value, ast.Tuple) and isinstance(first, ast.Name):
                continue
            constants = [part for part in ast.walk(value) if isinstance(part, ast.Constant)]
            if any(isinstance(constant.value, float) for constant in constants):
                targets = getattr(statement, "targets", None) or [statement.target]
                found += [part.id for part in ast.walk(targets[0]) if isinstance(part, ast.Name)]
    return found


def test_a_number_that_decides_has_a_reason():
    assert floats_without_a_reason("A = 0.5\nB = Bar(0.5, control='x')\nC, D = 3, 1e-3") == [
        "A",
        "C",
        "D",
    ]
    bare = {}
    for file in sorted(FAULTS.rglob("*.py")):
        if names := floats_without_a_reason(file.read_text(encoding="utf-8")):
            bare[str(file.relative_to(FAULTS))] = names
    assert bare == {}, "say what each is measured against: tts_workbook/bars.py"
