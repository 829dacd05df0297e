"""How far the subject's own steps move its weights: learning rate and clip are suspected by it."""

from __future__ import annotations

import math

from tts_workbook.bars import Bar
from tts_workbook.lab.lab import Lab
from tts_workbook.measure.observed_steps import reference
from tts_workbook.subject.opened import once_per_subject
from tts_workbook.subject.tensor_math import tensors_norm
from tts_workbook.subject.training_step import all_parameters

ADAM_RATE = Bar(1e-3, convention="the default rate of Adam (Kingma and Ba, 2015, and PyTorch)")
YARDSTICK = "the first step of Adam at its default rate, on the same weights and gradient"
# a subject whose steps are smaller is asked about its rate and its clip even where it seems only
# slow. Sound subjects of six kinds: 0.2 to 4
LAZY = Bar(0.05, control=YARDSTICK)


@once_per_subject
def usual_move(lab: Lab) -> float:
    """‖Δw‖ / ‖w‖ of the first step of Adam at its default rate: each element with a gradient moves
    by that rate, whatever its gradient. NaN where the weights have no size.
    """
    n_moved, squares = 0, []
    gradient = reference(lab)
    for name, parameter in all_parameters(lab.build()):
        if parameter.requires_grad:
            squares.append(parameter.detach())
        if name in gradient:
            n_moved += int((gradient[name] != 0).sum())
    size = tensors_norm(squares)
    return ADAM_RATE * math.sqrt(n_moved) / size if size > 0.0 else math.nan


def relative_move(lab: Lab) -> float:
    """‖Δw‖ / ‖w‖ of a step of the subject's course over the usual one; NaN where it is unknown: the
    course broke before its first step, or no gradient reaches a weight.
    """
    usual = usual_move(lab)
    return lab.course().update_ratio / usual if usual > 0.0 else math.nan


def pace(lab: Lab) -> dict[str, float | str]:
    """The evidence that both learning rates show."""
    base = lab.course()
    return {
        "‖Δw‖ / ‖w‖ of a step": base.update_ratio,
        "the same of Adam's first step at its default rate": usual_move(lab),
        "TF L1 / best constant at the end": base.final,
    }
