"""The gradient of each loss term of any subject, and how much of each term the total holds.

Gradients are dictionaries by parameter name, at fresh weights and without dropout.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch

from tts_workbook.subject.opened import OpenSubject, once_per_subject
from tts_workbook.subject.tensor_math import Named, inner

question = "What gradient does each loss send, and with what weight does it enter the total?"


@once_per_subject
def term_gradients(opened: OpenSubject) -> dict[str, Named]:
    """Term ("total" too) -> its gradient at fresh weights, without dropout."""
    model = opened.build()
    return {name: opened.gradient(model, term=name) for name in opened.losses(model)}


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


def declared(name: str, modules: Iterable[str]) -> bool:
    """Whether a parameter is one of `modules` (names of modules or parameters), or inside one of
    them.
    """
    return any(name == module or name.startswith(f"{module}.") for module in modules)
