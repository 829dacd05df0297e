"""Whether generation is fed what training fed, on weights that can tell."""

from __future__ import annotations

from tts_core.errors import WorkbookError
from tts_workbook.lab.lab import Lab
from tts_workbook.measure.history_parity import HistoryParity, measure_history_parity
from tts_workbook.subject.isolation import without_dropout
from tts_workbook.subject.opened import once_per_subject


@once_per_subject
def fed_as_trained(lab: Lab) -> HistoryParity:
    """On the trained model if its predictions are finite and decide, else on a fresh one. Raises
    WorkbookError where neither predicts numbers.
    """
    first = None
    for model in (lab.trained, lab.model):
        if not lab.predict(model)[lab.mask].isfinite().all():
            continue
        with without_dropout(model):
            found = measure_history_parity(lab, model)
        if found.judged:
            return found
        first = first or found
    if first is None:
        raise WorkbookError("the predictions are not finite")
    return first
