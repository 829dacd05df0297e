"""The tensors of a batch by the names of its fields: keys, attributes and numbers along the way.

Shapes: B clips.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from torch import Tensor

question = "Which tensors does a batch hold, and what are they called?"


def named_tensors(batch: Any) -> list[tuple[str, Tensor]]:
    """Every tensor inside a batch with its name, "mel" or "clips.0.mel", in the order of
    `tensors_in`; a tensor that is the whole batch is called "batch".
    """
    return [(".".join(path) or "batch", tensor) for path, tensor in _walk((), batch)]


def _walk(path: tuple[str, ...], value: Any) -> Iterator[tuple[tuple[str, ...], Tensor]]:
    if isinstance(value, Tensor):
        yield path, value.detach()
        return
    for name, part in _parts(value):
        yield from _walk((*path, name), part)


def _parts(value: Any) -> list[tuple[str, Any]]:
    """What `subject.isolation.mapped` goes into, by name."""
    if isinstance(value, dict):
        return [(str(key), part) for key, part in value.items()]
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return list(zip(value._fields, value, strict=True))
    if isinstance(value, list | tuple):
        return [(str(index), part) for index, part in enumerate(value)]
    if isinstance(value, type) or callable(value):
        return []
    if dataclasses.is_dataclass(value):
        return [(field.name, getattr(value, field.name)) for field in dataclasses.fields(value)]
    if hasattr(value, "__dict__"):
        return list(vars(value).items())
    return []
