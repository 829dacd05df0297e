"""The gradient of each loss term of any subject, and how much of each term the total holds.

Gradients are dictionaries by parameter name, at fresh weights and without dropout. A term enters
the total twice, by its value and by its gradient: a detached term has a weight in the value alone,
and that is how it is found.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tts_core.model.modes import evaluating
from tts_workbook.subject.isolation import unchanged_randomness
from tts_workbook.subject.opened import OpenSubject, once_per_subject
from tts_workbook.subject.tensor_math import Named, inner, tensors_norm

question = "What gradient does each loss send, and with what weight does it enter the total?"
N_POINTS = 10  # disturbed weights at which the terms are compared with the total
FURTHEST = 0.3  # of a parameter's own deviation: how far it is disturbed at most


@once_per_subject
def term_gradients(opened: OpenSubject) -> dict[str, Named]:
    """Term ("total" too) -> its gradient at fresh weights, without dropout."""
    return opened.gradients(opened.build())


@once_per_subject
def mel_gradient(opened: OpenSubject) -> Named:
    """The gradient of the term that is called after the mel, of the total where none is."""
    model = opened.build()
    return opened.gradient(model, term=mel_term(opened.losses(model)))


def mel_term(terms: Iterable[str]) -> str:
    """The first of the terms that is called after the mel, else "total"."""
    named = [name for name in terms if name != "total" and "mel" in name.lower()]
    return named[0] if named else "total"


@dataclass(frozen=True)
class GradientWeights:
    """The terms' gradients in the total's, by least squares."""

    # of the terms that send a gradient; empty where none does, or one is not finite
    weights: Mapping[str, float]
    unshown: float  # squared share of the total's gradient that no term explains


@once_per_subject
def gradient_weights(opened: OpenSubject) -> GradientWeights:
    """Weights with which the terms' gradients enter that of the total, and what they leave."""
    gradients = dict(term_gradients(opened))
    total = gradients.pop("total")
    sizes = {name: tensors_norm(gradient.values()) for name, gradient in gradients.items()}
    whole = tensors_norm(total.values())
    alive = [name for name, size in sizes.items() if size > 0]
    finite = math.isfinite(whole) and all(math.isfinite(size) for size in sizes.values())
    if not alive or not finite or whole == 0:
        return GradientWeights({}, 0.0)
    found, unshown = span(total, [gradients[name] for name in alive])
    return GradientWeights(dict(zip(alive, found, strict=True)), unshown)


def span(total: Named, parts: list[Named]) -> tuple[list[float], float]:
    """Least-squares weights of the parts in `total`, and the squared share of `total` that they
    leave unexplained; all finite.
    """
    gram = torch.tensor([[inner(a, b) for b in parts] for a in parts], dtype=torch.float64)
    right = torch.tensor([inner(part, total) for part in parts], dtype=torch.float64)
    scale = gram.diagonal().sqrt()
    scaled = gram / scale[:, None] / scale
    solution = torch.linalg.lstsq(scaled, (right / scale)[:, None], driver="gelsd").solution
    weights = solution[:, 0] / scale
    square = inner(total, total)
    unexplained = square - 2 * float(weights @ right) + float(weights @ gram @ weights)
    return weights.tolist(), max(0.0, unexplained / square)


@once_per_subject
def value_weights(opened: OpenSubject) -> dict[str, float]:
    """Weights with which the terms' values enter that of the total, over disturbed weights (least
    squares); empty where there are no other terms, or a value is not finite.
    """
    model = opened.build()
    fresh = [parameter.detach().clone() for parameter in model.parameters()]
    rows: list[dict[str, float]] = []
    for point in range(N_POINTS):
        _disturb(model, fresh, point)
        with torch.no_grad(), evaluating(model), unchanged_randomness(opened.seed):
            terms = opened.subject.losses(model, opened.batch)
        rows.append({name: float(term.detach()) for name, term in terms.items()})
    names = [name for name in rows[-1] if name != "total"]
    values = torch.tensor([[row[name] for name in names] for row in rows], dtype=torch.float64)
    totals = torch.tensor([[row["total"]] for row in rows], dtype=torch.float64)
    if not names or not torch.isfinite(values).all() or not torch.isfinite(totals).all():
        return {}
    scale = values.abs().amax(dim=0).clamp(min=1e-12)
    solution = torch.linalg.lstsq(values / scale, totals, driver="gelsd").solution
    weights = solution[:, 0] / scale
    return dict(zip(names, weights.tolist(), strict=True))


@torch.no_grad()
def _disturb(model: nn.Module, fresh: list[Tensor], point: int) -> None:
    """Set every parameter to its fresh value plus seeded noise; at point 0 the noise is none."""
    generator = torch.Generator().manual_seed(point)
    for parameter, old in zip(model.parameters(), fresh, strict=True):
        noise = torch.randn(old.shape, generator=generator).to(old.device)
        deviation = old.float().std(unbiased=False).to(old.dtype)
        parameter.copy_(old + FURTHEST * point / N_POINTS * noise.to(old.dtype) * deviation)


def declared(name: str, modules: Iterable[str]) -> bool:
    """Whether a parameter is one of `modules` (names of modules or parameters), or inside one of
    them.
    """
    return any(name == module or name.startswith(f"{module}.") for module in modules)
