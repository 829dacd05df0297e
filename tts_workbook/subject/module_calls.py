"""Modules found by running them: what each one was given and gave, and which of them carry text,
history or the output.

Shapes: B batch, T frames, M mel bins, N text positions, D width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from tts_workbook.subject.isolation import tensors_in


@dataclass(frozen=True)
class Call:
    """One call of a module during a forward pass."""

    name: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


@contextmanager
def recorded_calls(model: nn.Module) -> Iterator[list[Call]]:
    """Every module call inside, in the order in which the modules finish; tensors are copies, which
    in-place work spares.
    """
    calls: list[Call] = []

    def watch(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            given = tuple(cloned(tensors_in((args, kwargs))))
            calls.append(Call(name, given, tuple(cloned(tensors_in(output)))))

        return hook

    handles = [
        module.register_forward_hook(watch(name), with_kwargs=True)
        for name, module in model.named_modules()
    ]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def trace(model: nn.Module, run: Callable[[], Any]) -> list[Call]:
    """The calls of `run()`, without gradients."""
    with torch.no_grad(), recorded_calls(model) as calls:
        run()
    return calls


def cloned(tensors: Sequence[Tensor]) -> list[Tensor]:
    return [tensor.clone() for tensor in tensors]


def changed_outputs(before: Sequence[Call], after: Sequence[Call]) -> dict[int, float]:
    """Index of each call whose output differs -> largest difference over the output's scale; NaN
    differs from all else.

    Only calls that both traces have under the same name and position are compared; a changed shape
    counts as 1.
    """
    changed: dict[int, float] = {}
    # one of two traces may be longer
    for index, (old, new) in enumerate(zip(before, after, strict=False)):
        if old.name != new.name:
            break
        for a, b in zip(old.outputs, new.outputs, strict=False):
            if a.shape != b.shape:
                changed[index] = 1.0
            elif a.is_floating_point() and a.numel() and not torch.equal(a, b):
                changed[index] = max(changed.get(index, 0.0), _relative_difference(a, b))
    return changed


def _relative_difference(a: Tensor, b: Tensor) -> float:
    """Largest difference over the largest value of `a`; infinite where there is a NaN."""
    difference = float((a.float() - b.float()).abs().max() / (a.float().abs().max() + 1e-12))
    return math.inf if math.isnan(difference) else difference


def change_output(module: nn.Module, change: Callable[[Tensor], Tensor]) -> RemovableHandle:
    """From now on `change` is applied to the first floating-point tensor that `module` returns."""
    return module.register_forward_hook(lambda _, __, output: replaced_first(output, change))


@contextmanager
def output_changed(module: nn.Module, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """`change_output` inside the block only."""
    handle = change_output(module, change)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def outputs_changed(
    changes: Iterable[tuple[nn.Module, Callable[[Tensor], Tensor]]],
) -> Iterator[None]:
    """`output_changed` for several modules at once."""
    with ExitStack() as stack:
        for module, change in changes:
            stack.enter_context(output_changed(module, change))
        yield


def rms(tensor: Tensor) -> float:
    """Root mean square in fp32."""
    return float(tensor.detach().float().square().mean().sqrt())


def with_noise(tensor: Tensor, seed: int, where: Tensor | None = None) -> Tensor:
    """`tensor` plus seeded noise of its own size; `where` (a mask that broadcasts) keeps it to some
    places.
    """
    noise = torch.randn(tensor.shape, generator=torch.Generator().manual_seed(seed))
    noise = noise.to(tensor.device)
    if where is not None:
        noise = noise * where.to(noise)
    return tensor + (noise * (tensor.float().std() + 1e-6)).to(tensor.dtype)


def replaced_first(output: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """`output` with its first floating-point tensor changed; tuples and lists keep their kind."""
    if isinstance(output, Tensor):
        return change(output) if output.is_floating_point() else output
    if isinstance(output, tuple | list) and output:
        parts = list(output)
        for index, part in enumerate(parts):
            if isinstance(part, Tensor) and part.is_floating_point():
                parts[index] = change(part)
                break
        return type(output)(*parts) if hasattr(output, "_fields") else type(output)(parts)
    return output


def text_embeddings(model: nn.Module, calls: Sequence[Call]) -> list[str]:
    """Names of the embeddings that are given whole numbers which are no mere count 0, 1, 2 …: those
    that read text.
    """
    modules = dict(model.named_modules())
    found: list[str] = []
    for call in calls:
        is_embedding = isinstance(modules.get(call.name), nn.Embedding)
        if not is_embedding or not call.inputs or call.name in found:
            continue
        ids = call.inputs[0]
        if not ids.is_floating_point() and not _counts_up(ids):
            found.append(call.name)
    return found


def _counts_up(ids: Tensor) -> bool:
    """Whether every row is 0, 1, 2 … from its first number on, as positions are."""
    rows = ids.reshape(-1, ids.shape[-1]) if ids.ndim else ids[None, None]
    counting = torch.arange(rows.shape[-1], device=rows.device).expand_as(rows)
    return torch.equal(rows - rows[:, :1], counting)
