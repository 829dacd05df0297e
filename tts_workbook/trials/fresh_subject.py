"""A subject whose code is read from its files for one trial alone, whatever the process has loaded
of them before.

A process that lives long (a notebook's kernel, a worker) keeps what it once imported. A trial must
run the source that it was frozen with, and no state that another trial left in a module.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tts_core.errors import WorkbookError
from tts_workbook.subject.addresses import NOT_THEIRS, source_files
from tts_workbook.subject.isolation import unchanged_randomness
from tts_workbook.subject.loading import load_subject
from tts_workbook.subject.subject import Subject
from tts_workbook.trials.subject_trial import SubjectTrial, check_source

LOADING_SEED = 0  # a batch that is drawn while the module loads is the same for every trial
OURS = {"tts_core", "tts_workbook"}


@contextmanager
def fresh_subject(trial: SubjectTrial) -> Iterator[Subject]:
    """The trial's subject inside; the process has its own modules and paths again afterwards.

    Raises WorkbookError where the source is not that of the trial, and where loading it raises.
    """
    check_source(trial)
    root, files = source_files(trial.address, Path.cwd())
    with _modules_read_anew(root, files), unchanged_randomness(LOADING_SEED):
        subject = _load(trial)
        check_source(trial)  # nobody wrote to the files meanwhile
        yield subject


def _load(trial: SubjectTrial) -> Subject:
    try:
        return load_subject(trial.address)
    except WorkbookError:
        raise
    except (Exception, SystemExit) as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        raise WorkbookError(
            f"subject {trial.address!r}: loading it raised {type(error).__name__}: {error}"
            f" ({place.filename}, line {place.lineno})"
        ) from error


@contextmanager
def _modules_read_anew(root: Path, files: list[Path]) -> Iterator[None]:
    """Inside, imports from `root` come first, and those of `files` read the files."""
    names = _module_names(root, files)
    paths = list(sys.path)
    before = {name: sys.modules.pop(name) for name in names if name in sys.modules}
    sys.path.insert(0, str(root))
    try:
        yield
    finally:
        sys.path[:] = paths
        for name in names:
            sys.modules.pop(name, None)
        sys.modules.update(before)


def _module_names(root: Path, files: list[Path]) -> list[str]:
    """The names under which `files` are imported from `root`; the workbook's own and what is
    installed, which has versions and not edits, are left out.
    """
    if NOT_THEIRS & set(root.parts):
        return []
    names = []
    for file in files:
        path = file.relative_to(root)
        is_package = path.name == "__init__.py" and path.parent.parts
        parts = path.parent.parts if is_package else path.with_suffix("").parts
        if parts[0] not in OURS:
            names.append(".".join(parts))
    return names
