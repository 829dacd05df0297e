"""Another way to write the same batch: do loss and gradient stay? Judged against what rounding
alone does to both.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from tts_workbook.bars import Bar
from tts_workbook.measure.optimizer_parity import nudged
from tts_workbook.subject.opened import OpenSubject
from tts_workbook.subject.subject import Batch, SubjectError
from tts_workbook.subject.tensor_math import difference, tensors_norm

question = "Does the same batch, written otherwise, change loss or gradient beyond rounding?"

FP32 = Bar(1e-5, control="relative: some dozen roundings of fp32, the least floor")
FLOORS = Bar(10.0, control="times the measured rounding floor of the same equivalence")
LARGE = Bar(0.02, absolute="beyond it no 16-bit sum explains a difference; between the bars it may")


@dataclass(frozen=True)
class Difference:
    """Relative to the batch as it is: |Δloss| / |loss| of the total, ‖Δgradient‖ / ‖gradient‖ over
    all parameters.
    """

    loss: float
    gradient: float

    @property
    def largest(self) -> float:
        return max(self.loss, self.gradient)


@dataclass(frozen=True)
class Equivalence:
    """Several ways to write the batch, with the bar that they are held to."""

    # copies of each clip, or frames of padding -> what it changes
    changes: Mapping[int, Difference]
    floor: Difference  # by weights that are off by a rounding

    @property
    def bar(self) -> float:
        """The largest difference that is rounding."""
        return max(FP32, FLOORS * self.floor.largest)

    @property
    def largest(self) -> float:
        return max(change.largest for change in self.changes.values())

    @property
    def verdict(self) -> Literal["supported", "refuted", "undecided"]:
        """Whether nothing changes; undecided where 16-bit sums could be the reason."""
        if self.largest <= self.bar:
            return "supported"
        return "refuted" if self.largest > max(LARGE, self.bar) else "undecided"


def compare_batches(opened: OpenSubject, batches: Mapping[int, Batch], field: str) -> Equivalence:
    """Total loss and gradient of each of `batches` against those of the subject's own batch: fresh
    weights, training mode, no dropout.

    Raises SubjectError where a loss is not finite or nothing has a gradient; `field` is the part
    that made the batches.
    """
    model = opened.build()
    loss, gradient = _total(opened, model, opened.batch)
    size = tensors_norm(gradient.values())
    if not (math.isfinite(loss) and math.isfinite(size) and size > 0):
        raise SubjectError(
            "losses",
            f"a total of {loss} with a gradient of norm {size}",
            "both finite, the gradient not zero",
        )
    changes = {}
    for key, batch in batches.items():
        other, other_gradient = _total(opened, model, batch)
        if not math.isfinite(other):
            raise SubjectError(
                field, f"a batch with a loss of {other}", "the same clips, whose loss is finite"
            )
        changes[key] = Difference(_relative(other, loss), difference(other_gradient, gradient))
    rounded, rounded_gradient = _total(opened, nudged(model), opened.batch)
    floor = Difference(_relative(rounded, loss), difference(rounded_gradient, gradient))
    return Equivalence(changes, floor)


def _relative(value: float, reference: float) -> float:
    return abs(value - reference) / max(abs(reference), 1e-12)


def _total(opened: OpenSubject, model: nn.Module, batch: Batch) -> tuple[float, dict[str, Tensor]]:
    return float(opened.losses(model, batch)["total"].detach()), opened.gradient(model, batch)
