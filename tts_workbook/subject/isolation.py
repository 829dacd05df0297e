"""What keeps a diagnosis from leaving traces: random states, modes, copies, and dropout switched
off on request.
"""

from __future__ import annotations

import copy
import dataclasses
import random
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

DROPOUTS = (
    "dropout",
    "dropout1d",
    "dropout2d",
    "dropout3d",
    "alpha_dropout",
    "feature_alpha_dropout",
)


@contextmanager
def unchanged_randomness(seed: int | None = None) -> Iterator[None]:
    """Python's, NumPy's and torch's random states come out as they went in; inside they start from
    `seed`.
    """
    python, numpy_state = random.getstate(), np.random.get_state()
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    try:
        with torch.random.fork_rng(devices=devices):
            if seed is not None:
                random.seed(seed)
                np.random.seed(seed)
                torch.manual_seed(seed)
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy_state)


@contextmanager
def uncompiled() -> Iterator[None]:
    """What `torch.compile` wraps, before or inside, runs as it is written: hooks and interventions
    see every call.
    """
    compile_ = torch.compile
    with ExitStack() as stack:

        def run_as_written() -> None:
            stack.enter_context(torch.compiler.set_stance("force_eager"))

        def compiled(*args: Any, **kwargs: Any) -> Any:
            result = compile_(*args, **kwargs)
            if torch.compile is compiled:
                torch.compile = compile_  # once is enough
                run_as_written()
            return result

        if "torch._dynamo" in sys.modules:  # importing it takes seconds: only for who compiles
            run_as_written()
        else:
            torch.compile = compiled
        try:
            yield
        finally:
            torch.compile = compile_


@contextmanager
def without_dropout(model: nn.Module) -> Iterator[None]:
    """No dropout anywhere in `model`, whatever its mode: functional, in modules, inside attention
    and recurrent layers.
    """
    functions = {name: getattr(F, name) for name in DROPOUTS}
    kept: list[tuple[nn.Module, str, float]] = []  # module, its attribute, the value it had
    for module in model.modules():
        if isinstance(module, nn.RNNBase | nn.MultiheadAttention):
            kept.append((module, "dropout", module.dropout))
        elif isinstance(module, nn.modules.dropout._DropoutNd):
            kept.append((module, "p", module.p))
    attention = F.scaled_dot_product_attention

    def identity(input: Tensor, *_: Any, **__: Any) -> Tensor:
        return input

    def steady_attention(query, key, value, attn_mask=None, dropout_p=0.0, *rest, **options):
        return attention(query, key, value, attn_mask, 0.0, *rest, **options)

    try:
        for name in functions:
            setattr(F, name, identity)
        F.scaled_dot_product_attention = steady_attention
        for module, name, _ in kept:
            setattr(module, name, 0.0)
        yield
    finally:
        for name, function in functions.items():
            setattr(F, name, function)
        F.scaled_dot_product_attention = attention
        for module, name, value in kept:
            setattr(module, name, value)


def private_copy(value: Any) -> Any:
    """A deep copy that shares no tensor with the original; tensors leave the graph."""
    return mapped(lambda tensor: copy.deepcopy(tensor.detach()), value)


def mapped(function: Callable[[Tensor], Tensor], value: Any) -> Any:
    """`function` on every tensor and array inside mappings, sequences, dataclasses and plain
    objects; the rest is shared.
    """
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, np.ndarray):
        return copy.deepcopy(value)
    if isinstance(value, dict):
        inside = {key: mapped(function, part) for key, part in value.items()}
        try:
            return type(value)(inside)
        except TypeError:  # a mapping whose constructor wants something else
            return inside
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(mapped(function, part) for part in value))
    if isinstance(value, list | tuple):
        return type(value)(mapped(function, part) for part in value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        twin = copy.copy(value)
        for field in dataclasses.fields(value):
            object.__setattr__(twin, field.name, mapped(function, getattr(value, field.name)))
        return twin
    if hasattr(value, "__dict__") and not callable(value) and not isinstance(value, type):
        twin = copy.copy(value)
        for name, part in vars(value).items():
            object.__setattr__(twin, name, mapped(function, part))
        return twin
    return value


def placed_like(example: Any, value: Any) -> Any:
    """A copy of `value` with each tensor on the device of its counterpart in `example`: a loader's
    batches lie on the CPU until the train step moves them. Itself where they have other parts.
    """
    devices = [tensor.device for tensor in tensors_in(example)]
    if len(devices) != len(tensors_in(value)):
        return value
    places = iter(devices)
    return mapped(lambda tensor: tensor.to(next(places)), value)


def tensors_in(value: Any) -> list[Tensor]:
    """Every tensor inside `value`, in the order in which `mapped` meets them."""
    found: list[Tensor] = []

    def note(tensor: Tensor) -> Tensor:
        found.append(tensor.detach())
        return tensor

    mapped(note, value)
    return found
