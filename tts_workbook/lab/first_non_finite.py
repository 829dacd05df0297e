"""The first tensor that is not finite, of a fresh model or on the way of its course."""

from __future__ import annotations

from tts_core.errors import WorkbookError
from tts_workbook.lab.lab import Lab
from tts_workbook.lab.short_run import Change
from tts_workbook.measure.non_finite import NonFinite, Watch, first_of_a_fresh_model
from tts_workbook.subject.opened import once_per_subject


@once_per_subject
def first_non_finite(lab: Lab) -> NonFinite | None:
    """The first tensor that is not finite: in one pass of a fresh model; else, where the course
    broke, in the same course run again and watched up to there. None where nothing is.
    """
    try:
        found = first_of_a_fresh_model(lab)
    except (WorkbookError, RuntimeError, ValueError, ArithmeticError):
        found = None  # the subject's code stops by itself; the course says where
    if found is not None or not lab.course().broke:
        return found
    watch = Watch(len(lab.target))
    lab._run((Change("watched", around=watch.on),), lab.seed, lab.n_steps)
    return watch.first
