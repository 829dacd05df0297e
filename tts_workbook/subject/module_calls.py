"""Modules found by running them: what each one was given and gave, and which of them carry text,
history or the output.

Shapes: B batch, T frames, M mel bins, N text positions, D width.
"""

from __future__ import annotations

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

    def watch(name: str) -> Callable:
        def hook(module, args, kwargs, output):
            calls.append(
                Call(
                    name,
                    tuple(cloned(tensors_in((args, kwargs)))),
                    tuple(cloned(tensors_in(output))),
                )
            )

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
    changed = {}
    for index, (old, new) in enumerate(zip(before, after)):
        if old.name != new.name:
            break
        for a, b in zip(old.outputs, new.outputs):
            if a.shape != b.shape:
                changed[index] = 1.0
            elif a.is_floating_point() and a.numel() and not torch.equal(a, b):
                difference = float(
                    (a.float() - b.float()).abs().max() / (a.float().abs().max() + 1e-12)
                )
                changed[index] = max(
                    changed.get(index, 0.0),
                    difference if difference == difference else float("inf"),
                )
    return changed


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
    noise = torch.randn(tensor.shape, generator=torch.Generator().manual_seed(seed)).to(
        tensor.device
    )
    noise = noise if where is None else noise * where.to(noise)
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
    kinds = dict(model.named_modules())
    found = []
    for call in calls:
        if (
            isinstance(kinds.get(call.name), nn.Embedding)
            and call.inputs
            and not call.inputs[0].is_floating_point()
        ):
            ids = (
                call.inputs[0].reshape(-1, call.inputs[0].shape[-1])
                if call.inputs[0].ndim
                else call.inputs[0][None, None]
            )
            counting = torch.arange(ids.shape[-1], device=ids.device).expand_as(ids)
            if not torch.equal(ids - ids[:, :1], counting) and call.name not in found:
                found.append(call.name)
    return found
