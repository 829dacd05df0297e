"""The gradient of every term, and the span of the terms' gradients against the total's: what
loss.detached and loss.logged_not_optimised decide by.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from tts_workbook.bars import Bar
from tts_workbook.lab.lab import Lab
from tts_workbook.measure.optimizer_parity import nudged
from tts_workbook.measure.term_gradients import (
    gradient_weights,
    span,
    term_gradients,
    value_weights,
)
from tts_workbook.subject.opened import once_per_subject
from tts_workbook.subject.tensor_math import Named, factor, tensors_norm
from tts_workbook.subject.training_step import all_parameters

WEIGHTED = Bar(
    1e-3,
    convention="a weight in total below a thousandth is that of a figure that is only shown; terms"
    " of TTS models weigh 0.01 to 45 (Tacotron 2, FastSpeech 2, SpeechT5, VITS)",
)
# terms of these names are meant to be optimised, whatever their weight
MEANT = ("mel", "duration", "stop", "gate")

EXPERIMENT = (
    "gradient of each term at every parameter, and the span of the terms' gradients against total's"
)


@dataclass(frozen=True)
class Part:
    """What of total's gradient is one mel term's, over the elements that this term alone reaches:
    there nothing drowns it out.
    """

    weight: float  # of the term in total's gradient
    rounding: float  # what weights that are off by a rounding, and fp32, do to that number
    alone: bool  # whether there are such elements; else the others are fitted beside it


@dataclass(frozen=True)
class TermNorms:
    """Of a fresh model, without dropout. Terms by name, "total" too."""

    norms: Mapping[str, float]  # of each term's gradient over all parameters
    weights: Mapping[str, float]  # in total's value, without "total"; empty where not asked
    # in total's gradient, of the terms that have one; empty where not asked
    coefficients: Mapping[str, float]
    # squared share of total's gradient outside the span of the terms' gradients
    unshown: float
    unshown_rounding: float = 0.0  # that share of the same gradient, weights off by a rounding
    values: Mapping[str, float] | None = None  # of each term; None where not asked
    # of the terms without a gradient those that have one once nothing is frozen
    frozen: tuple[str, ...] = ()
    mels: Mapping[str, Part] = field(default_factory=dict)  # terms called after the mel

    @property
    def finite(self) -> bool:
        return all(math.isfinite(norm) for norm in self.norms.values())

    @property
    def dead(self) -> list[str]:
        """Terms that are meant to be optimised and have no gradient."""
        return [
            name
            for name, norm in self.norms.items()
            if name != "total" and norm == 0.0 and self._meant(name) and not self._satisfied(name)
        ]

    def _meant(self, name: str) -> bool:
        return abs(self.weights.get(name, 0.0)) > WEIGHTED or name.lower() in MEANT

    def _satisfied(self, name: str) -> bool:
        """A term of zero is at its least: a hinge, or a penalty that nothing offends yet."""
        return self.values is not None and self.values.get(name) == 0.0


@once_per_subject
def term_norms(lab: Lab) -> TermNorms:
    """Norms, weights and span; what is not finite is not fitted to one another."""
    gradients = term_gradients(lab)
    norms = {name: tensors_norm(gradient.values()) for name, gradient in gradients.items()}
    if not all(math.isfinite(norm) for norm in norms.values()):
        return TermNorms(norms, {}, {}, 0.0)
    weights = value_weights(lab)
    values = {name: float(value.detach()) for name, value in lab.losses(lab.build()).items()}
    silent = [name for name, norm in norms.items() if norm == 0.0]
    frozen = _reaching_frozen(lab, silent)
    alive = [name for name, norm in norms.items() if name != "total" and norm > 0.0]
    if norms["total"] == 0.0 or not alive:
        return TermNorms(norms, weights, {}, 0.0, values=values, frozen=frozen)
    total, parts = gradients["total"], {name: gradients[name] for name in alive}
    entered = gradient_weights(lab)
    off = _off_by_a_rounding(lab)
    mels = [name for name in alive if "mel" in name.lower()]
    return TermNorms(
        norms,
        weights,
        entered.weights,
        entered.unshown,
        _unshown_by_rounding(total, off["total"]),
        values,
        frozen,
        {name: _part(name, mels, total, parts, off) for name in mels},
    )


def _reaching_frozen(lab: Lab, silent: list[str]) -> tuple[str, ...]:
    """The terms of `silent` that have a gradient once every parameter wants one: what they would
    move is frozen.
    """
    if not silent:
        return ()
    model = lab.build()
    if all(parameter.requires_grad for _, parameter in all_parameters(model)):
        return ()
    for _, parameter in all_parameters(model):
        if parameter.is_floating_point():
            parameter.requires_grad_(True)
    found = lab.gradients(model, terms=silent)
    return tuple(name for name in silent if tensors_norm(found[name].values()) > 0.0)


def _off_by_a_rounding(lab: Lab) -> dict[str, Named]:
    """The gradient of every term at weights that are off by a rounding: the control."""
    return lab.gradients(nudged(lab.build()))


def _unshown_by_rounding(total: Named, off: Named) -> float:
    """Squared share of one gradient of total that another one, a rounding away, leaves out."""
    if not tensors_norm(off.values()):
        return 1.0
    return span(total, [off])[1]


def _part(
    name: str, mels: list[str], total: Named, parts: dict[str, Named], off: dict[str, Named]
) -> Part:
    """The weight of a mel term in total's gradient."""
    others = [parts[other] for other in parts if other not in mels]
    own = {path: _alone(gradient, others, path) for path, gradient in parts[name].items()}
    alone = tensors_norm(own.values()) > 0.0
    if alone:
        weight, moved = factor(total, own), factor(off["total"], own)
        size = tensors_norm(own.values())
        near = tensors_norm(_where(total, own).values())
    else:
        weight, moved = _fitted(name, total, parts), _fitted(name, off["total"], off)
        size, near = tensors_norm(parts[name].values()), tensors_norm(total.values())
    spacing = torch.finfo(torch.float32).eps * near / size
    return Part(weight, max(abs(moved - weight), spacing), alone)


def _alone(gradient: Tensor, others: list[Named], path: str) -> Tensor:
    """The gradient, zero where one of the others has one."""
    reached = torch.zeros_like(gradient, dtype=torch.bool)
    for other in others:
        if path in other:
            reached |= other[path] != 0
    return gradient.masked_fill(reached, 0.0)


def _where(gradient: Named, own: Named) -> Named:
    """The gradient at the elements where `own` has one."""
    return {path: gradient[path] * (own[path] != 0) for path in own if path in gradient}


def _fitted(name: str, total: Named, parts: Mapping[str, Named]) -> float:
    names = [other for other in parts if other != "total" and tensors_norm(parts[other].values())]
    if name not in names:
        return 0.0
    return span(total, [parts[other] for other in names])[0][names.index(name)]


def norms_by_name(numbers: TermNorms) -> dict[str, float | str]:
    """A table of the norms."""
    return {f"gradient norm of {name}": norm for name, norm in numbers.norms.items()}


NOT_FINITE = "gradients are not finite; next: mend that, and diagnose again"
