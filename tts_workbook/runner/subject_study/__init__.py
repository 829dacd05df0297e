"""The notebooks on a model that is not ours: `study_subject(book)` right after the parameters, one
study per notebook.

    study = study_subject(book)     # does nothing where the parameter `subject` is empty

Each study measures with the laboratory of the diagnosis what its notebook measures on the presets,
draws it with the same figures, and writes the verdict; every later cell then says why it does not
apply (see skipped_cells.py).
"""

from __future__ import annotations

import contextlib
import importlib

from tts_workbook.runner.notebook import Notebook
from tts_workbook.runner.skipped_cells import skip_cells
from tts_workbook.runner.subject_study.study import Study, open_study
from tts_workbook.subject.addresses import short_address

# notebook -> module here
STUDIES = {"07": "listen"}


def study_subject(book: Notebook) -> Study | None:
    """Study the model that the parameter `subject` names as this notebook does, and skip the cells
    below; None without one.

    The subject's code runs in the folder where the command was started, so that its relative files
    are found. Raises WorkbookError for an address that leads nowhere, SubjectError for a part that
    is not what it should be.
    """
    address = book.parameters.subject
    if not address:
        return None
    module = importlib.import_module(f"tts_workbook.runner.subject_study.{STUDIES[book.number]}")
    skip_cells(short_address(address), module.REASON)
    print(f"studied here in place of the presets: {address}")
    with contextlib.chdir(book.started_in):
        study = open_study(book, address)
        with study.randomness():
            study.conclude(module.study(study))
    print(
        "The cells below belong to our presets; each says why it does not apply. A cell of yours"
        " whose first line is `# Subject: run` runs; with an empty `subject`, all run again from"
        " the top."
    )
    return study
