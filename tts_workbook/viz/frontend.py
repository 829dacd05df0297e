"""Who is looking: a person's kernel, where widgets live, or the runner's, where nobody moves a
slider.
"""

from __future__ import annotations

import os
from types import ModuleType

from tts_core.errors import WorkbookError
from tts_workbook.kernel_protocol import RUNNER_VARIABLE


def under_runner() -> bool:
    """True in a kernel that `tts-workbook run` started: what is shown there is saved, and nobody
    clicks on it.
    """
    return RUNNER_VARIABLE in os.environ


def load_widgets() -> ModuleType:
    """ipywidgets; raises WorkbookError that says how to get it."""
    try:
        import ipywidgets
    except ImportError as error:
        raise WorkbookError(
            f"widgets need ipywidgets ({error}); install the notebooks extra: "
            "pip install -e '.[notebooks]'"
        ) from error
    return ipywidgets
