"""The cell tagged `parameters`: plain `name = literal` lines, read without running them."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any

from tts_core.errors import WorkbookError
from tts_workbook.runner.parameters import FIELDS, read_value


def read_cell(source: str, where: str) -> dict[str, Any]:
    """`name = literal` lines -> {name: value}, names and types checked. Raises WorkbookError for
    anything else.
    """
    values = _literals(source)
    if values is None:
        raise WorkbookError(
            f"{where}: the cell tagged `parameters` must hold only lines like `steps = None` "
            "or `lr = 1e-3`"
        )
    for name, value in values.items():
        read_value(name, value, where)
    return values


def parameters_among(values: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters in a notebook's `globals()`.

    IPython keeps the text of every executed cell in `In`: the last one made of literals that
    assigns `profile` or `out` is the parameters cell, and a name in it that the schema lacks is a
    misspelling.
    """
    history = [_literals(source) or {} for source in values.get("In") or []]
    parameter_cells = [assigned for assigned in history if _has_parameters(assigned)]
    if not parameter_cells:
        return {name: values[name] for name in FIELDS if name in values}
    for name, value in parameter_cells[-1].items():
        read_value(name, value, "the notebook's parameters cell")
    # others are variables that happen to be called so
    declared: set[str] = set()
    for assigned in parameter_cells:
        declared.update(assigned)
    return {name: values[name] for name in FIELDS if name in values and name in declared}


def is_parameters_cell(source: str) -> bool:
    """Whether a cell is made of literals and assigns `profile` or `out`."""
    return _has_parameters(_literals(source) or {})


def _has_parameters(assigned: Mapping[str, Any]) -> bool:
    return "profile" in assigned or "out" in assigned


def _literals(source: str) -> dict[str, Any] | None:
    """{name: value} when the source is nothing but literal assignments, else None."""
    try:
        statements = ast.parse(source).body
    except SyntaxError:
        return None
    values = {}
    for statement in statements:
        if isinstance(statement, ast.Assign):
            targets = statement.targets
        elif isinstance(statement, ast.AnnAssign):
            targets = [statement.target]
        else:
            return None
        if len(targets) != 1 or not isinstance(targets[0], ast.Name) or statement.value is None:
            return None
        try:
            values[targets[0].id] = ast.literal_eval(statement.value)
        except (ValueError, TypeError):
            return None
    return values
