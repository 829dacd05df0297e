"""How far the subject's own steps move its weights: learning rate and clip are suspected by it."""

from __future__ import annotations

from tts_workbook.lab.lab import Lab

LAZY = 3e-4  # ‖Δw‖ / ‖w‖ of a step below which a subject that is only slow is asked too


def pace(lab: Lab) -> dict[str, float | str]:
    """The evidence that both learning rates show."""
    base = lab.course()
    return {
        "‖Δw‖ / ‖w‖ of a step": base.update_ratio,
        "TF L1 / best constant at the end": base.final,
    }
