"""Cells that do not apply to a subject: each is replaced, before it runs, by a line that says why.

A cell gives its reason in its first line, `# Subject: compares our presets`; one without it has the
notebook's own reason. IPython hands every cell to its input transformers, under JupyterLab,
papermill and nbval alike, so the notebooks need no `if` in each cell. What starts a notebook (its
parameters, its `Notebook(...)`, its `study_subject(...)`) always runs, and so does a cell whose
first line is `# Subject: run`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from tts_workbook.runner.parameters_cell import is_parameters_cell

MARK = "# Subject:"
RUN = "run"
STARTS = ("Notebook(", "study_subject(")


def skip_cells(address: str, reason: str) -> bool:
    """From the next cell on, cells of this kernel say why they do not apply to `address`. False
    where there is no kernel.
    """
    run_all_cells()
    shell = _shell()
    if shell is None:
        return False
    shell.input_transformers_cleanup.append(skipper(address, reason))
    return True


def run_all_cells() -> None:
    """Undo `skip_cells`: a notebook that starts anew decides anew."""
    shell = _shell()
    if shell is not None:
        transformers = shell.input_transformers_cleanup
        transformers[:] = [
            transform for transform in transformers if not getattr(transform, "skips_cells", False)
        ]


def skipper(address: str, reason: str) -> Callable[[list[str]], list[str]]:
    """The input transformer: lines of a cell -> the same lines, or one that prints why it does not
    apply.
    """

    def transform(lines: list[str]) -> list[str]:
        source = "".join(lines)
        own = reason_of(source)
        if (
            not source.strip()
            or own == RUN
            or is_parameters_cell(source)
            or any(start in source for start in STARTS)
        ):
            return lines
        return [f"print({f'does not apply to {address}: {own or reason}'!r})\n"]

    transform.skips_cells = True
    return transform


def reason_of(source: str) -> str:
    """What a cell's first line gives as its reason; empty where it gives none."""
    first = source.strip().partition("\n")[0]
    return first.removeprefix(MARK).strip() if first.startswith(MARK) else ""


def _shell() -> Any:
    """IPython's shell, without importing IPython where it is not."""
    ipython = sys.modules.get("IPython")
    return ipython.get_ipython() if ipython is not None else None
