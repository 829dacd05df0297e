"""Notebooks stay thin: a question, tagged parameters that the schema knows, short cells, imports
from torch and the two packages only.
"""

import ast
import json

import pytest

from tests.conftest import ROOT
from tts_workbook.runner.parameters import FIELDS

FILES = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
notebooks = pytest.mark.parametrize(
    "cells", [json.loads(file.read_text())["cells"] for file in FILES], ids=[f.stem for f in FILES]
)


PACKAGES = {"tts_core", "tts_workbook", "IPython"}


def source(cell):
    return "".join(cell["source"])


def code(cells):
    return [cell for cell in cells if cell["cell_type"] == "code"]


def test_the_ordered_notebooks_are_there():
    assert [file.stem[:2] for file in FILES] == [
        "01",
        "02",
        "03",
        "04",
        "05",
        "06",
        "07",
        "08",
        "09",
    ]


@notebooks
def test_it_opens_with_a_question(cells):
    title = source(cells[0]).splitlines()[0]
    assert title.startswith("# ") and title.endswith("?")


@notebooks
def test_the_first_code_cell_is_tagged_parameters_and_known_to_the_schema(cells):
    cell = code(cells)[0]
    assert "parameters" in cell["metadata"]["tags"]
    names = {target.id for node in ast.parse(source(cell)).body for target in node.targets}
    assert names <= set(FIELDS) and {"profile", "data", "clip", "out"} <= names


@notebooks
def test_cells_are_short_and_define_no_classes(cells):
    for cell in code(cells):
        tree = ast.parse(source(cell))
        assert len(source(cell).splitlines()) <= 25
        assert not any(isinstance(node, ast.ClassDef | ast.FunctionDef) for node in tree.body)


@notebooks
def test_a_control_inside_a_condition_is_displayed(cells):
    """Jupyter shows the value of a cell's last statement only where that is an expression."""
    controls = {"choose", "scrub", "sweep_explorer"}
    for cell in code(cells):
        compound = [one for one in ast.parse(source(cell)).body if not isinstance(one, ast.Expr)]
        for node in (inner for one in compound for inner in ast.walk(one)):
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
                assert getattr(node.value.func, "id", "") not in controls, source(cell)


@notebooks
def test_imports_come_from_the_package_only(cells):
    for cell in code(cells):
        for node in ast.walk(ast.parse(source(cell))):
            if isinstance(node, ast.ImportFrom):
                assert node.module.split(".")[0] in PACKAGES
            if isinstance(node, ast.Import):
                assert [alias.name for alias in node.names] == ["torch"]


@notebooks
def test_the_last_cell_writes_the_verdict(cells):
    assert "book.verdict(" in source(code(cells)[-1])


@notebooks
def test_what_takes_subjects_opens_them_by_one_function_and_rewrites_no_cell(cells):
    parameters, *rest = [source(cell) for cell in code(cells)]
    opened = sum(text.count("open_subjects(") for text in rest)
    assert opened == ("subjects =" in parameters)
    assert not any("# Subject:" in text or "study_subject" in text for text in rest)


@notebooks
def test_no_output_is_committed(cells):
    assert all(not cell["outputs"] and cell["execution_count"] is None for cell in code(cells))
