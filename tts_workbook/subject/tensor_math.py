"""Gradients of a whole model as vectors: dictionaries from parameter name to tensor.

A name that one of two vectors lacks counts as zero.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Container, Mapping, Sequence

import torch
from torch import Tensor

Named = dict[str, Tensor]


def tensors_norm(tensors: Collection[Tensor]) -> float:
    """Euclidean norm over all elements of all tensors, in fp64; 0 for none."""
    if not tensors:
        return 0.0
    squares = torch.stack([tensor.double().square().sum() for tensor in tensors])
    return float(squares.sum().sqrt())


def dot_product(a: Mapping[str, Tensor], b: Mapping[str, Tensor], names: Sequence[str]) -> float:
    """Inner product over the tensors in `names`, in fp64."""
    return float(sum((a[name].double() * b[name].double()).sum() for name in names))


def only(gradient: Named, names: Container[str]) -> Named:
    """The parts of a gradient under these names."""
    return {name: gradient[name] for name in gradient if name in names}


def inner(a: Named, b: Named) -> float:
    """Inner product."""
    return dot_product(a, b, sorted(a.keys() & b.keys()))


def factor(a: Named, b: Named) -> float:
    """How many times b is in a: ⟨a, b⟩ / ⟨b, b⟩; NaN where b is zero."""
    size = inner(b, b)
    return inner(a, b) / size if size else math.nan


def cosine(a: Named, b: Named) -> float:
    """Cosine between gradients; 0 where one is zero."""
    size = math.sqrt(inner(a, a) * inner(b, b))
    return inner(a, b) / size if size else 0.0


def difference(a: Named, b: Named) -> float:
    """‖a - b‖ / ‖b‖ over the names of both; infinite where only b is zero."""
    square = 0.0
    for name in sorted(a.keys() | b.keys()):  # sorted: a sum in the same order every time
        apart = a.get(name, 0) - torch.as_tensor(b.get(name, 0))
        square += float(apart.double().square().sum())
    gap = math.sqrt(max(0.0, square))
    size = tensors_norm(b.values())
    if size:
        return gap / size
    return math.inf if gap else 0.0
