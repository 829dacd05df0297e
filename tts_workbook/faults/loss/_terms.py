"""The gradient of every term, and the span of the terms' gradients against the total's: what
loss.detached and loss.logged_not_optimised decide by.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from tts_workbook.lab.lab import Lab
from tts_workbook.measure.term_gradients import gradient_weights, term_gradients, value_weights
from tts_workbook.subject.opened import once_per_subject
from tts_workbook.subject.tensor_math import tensors_norm

WEIGHTED = 1e-3  # weight in total's value above which a term is meant to be optimised
# terms of these names are meant to be optimised, whatever their weight
MEANT = ("mel", "duration", "stop", "gate")

EXPERIMENT = (
    "gradient of each term at every parameter, and the span of the terms' gradients against total's"
)


@dataclass(frozen=True)
class TermNorms:
    """Of a fresh model, without dropout. Terms by name, "total" too."""

    norms: Mapping[str, float]  # of each term's gradient over all parameters
    weights: Mapping[str, float]  # in total's value, without "total"; empty where not asked
    # in total's gradient, of the terms that have one; empty where not asked
    coefficients: Mapping[str, float]
    # squared share of total's gradient outside the span of the terms' gradients
    unshown: float

    @property
    def finite(self) -> bool:
        return all(math.isfinite(norm) for norm in self.norms.values())

    @property
    def dead(self) -> list[str]:
        """Terms that are meant to be optimised and have no gradient."""
        return [
            name
            for name, norm in self.norms.items()
            if name != "total" and norm == 0.0 and self._meant(name)
        ]

    def _meant(self, name: str) -> bool:
        return abs(self.weights.get(name, 0.0)) > WEIGHTED or name.lower() in MEANT


@once_per_subject
def term_norms(lab: Lab) -> TermNorms:
    """Norms, weights and span; what is not finite is not fitted to one another."""
    gradients = term_gradients(lab)
    norms = {name: tensors_norm(gradient.values()) for name, gradient in gradients.items()}
    if not all(math.isfinite(norm) for norm in norms.values()):
        return TermNorms(norms, {}, {}, 0.0)
    entered = gradient_weights(lab)
    return TermNorms(norms, value_weights(lab), entered.weights, entered.unshown)


def norms_by_name(numbers: TermNorms) -> dict[str, float | str]:
    """A table of the norms."""
    return {f"gradient norm of {name}": norm for name, norm in numbers.norms.items()}


NOT_FINITE = "gradients are not finite; next: mend that, and diagnose again"
