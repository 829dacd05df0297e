"""Modules found by running them: what each one was given and gave, and which of them carry text,
history or the output.

Shapes: B batch, T frames, M mel bins, N text positions, D width.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from tts_workbook.subject.isolation import mapped, tensors_in


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


class Intervention:
    """A change of what a module is given or gives, and whether it has acted."""

    def __init__(self) -> None:
        self.handles: list[RemovableHandle] = []
        self.n_calls = 0  # of the module, since it was made
        self.changed = False  # whether a value of one of them came out different

    @property
    def acted(self) -> bool:
        """Whether the module was called, and the change changed something there."""
        return self.changed

    def remove(self) -> None:
        """The module does again what it did before."""
        for handle in self.handles:
            handle.remove()

    def apply(self, change: Callable[[Tensor], Tensor], tensor: Tensor) -> Tensor:
        """What `change` makes of `tensor`; looks whether that is something else."""
        changed = change(tensor)
        if not self.changed:
            before, after = tensor.detach(), changed.detach()
            self.changed = before.shape != after.shape or not torch.equal(before, after)
        return changed


def change_output(module: nn.Module, change: Callable[[Tensor], Tensor]) -> Intervention:
    """From now on `change` is applied to the first floating-point tensor that `module` returns,
    bare or inside a tuple, a mapping or a dataclass.
    """
    made = Intervention()

    def hook(_: nn.Module, __: Any, output: Any) -> Any:
        made.n_calls += 1
        return replaced_first(output, lambda tensor: made.apply(change, tensor))

    made.handles.append(module.register_forward_hook(hook))
    return made


def change_inputs(
    module: nn.Module, indices: Sequence[int], change: Callable[[Tensor], Tensor]
) -> Intervention:
    """From now on `change` is applied to these of the tensors that `module` is given, counted as in
    `Call.inputs`.
    """
    made = Intervention()

    def hook(_: nn.Module, args: Any, kwargs: Any) -> tuple[Any, Any]:
        made.n_calls += 1
        given = _references((args, kwargs))
        for index in indices:
            if index < len(given) and given[index].is_floating_point():
                old = given[index]
                new = made.apply(change, old)
                args, kwargs = _exchanged((args, kwargs), old, new)
        return args, kwargs

    made.handles.append(module.register_forward_pre_hook(hook, with_kwargs=True))
    return made


@contextmanager
def output_changed(module: nn.Module, change: Callable[[Tensor], Tensor]) -> Iterator[Intervention]:
    """`change_output` inside the block only; yields the intervention, which knows whether it
    acted.
    """
    made = change_output(module, change)
    try:
        yield made
    finally:
        made.remove()


@contextmanager
def outputs_changed(
    changes: Iterable[tuple[nn.Module, Callable[[Tensor], Tensor]]],
) -> Iterator[list[Intervention]]:
    """`output_changed` for several modules at once."""
    with ExitStack() as stack:
        yield [stack.enter_context(output_changed(*pair)) for pair in changes]


def rms(tensor: Tensor) -> float:
    """Root mean square in fp32."""
    return float(tensor.detach().float().square().mean().sqrt())


def with_noise(tensor: Tensor, seed: int, where: Tensor | None = None) -> Tensor:
    """`tensor` plus seeded noise of its own size; `where` (a mask that broadcasts) keeps it to some
    places.
    """
    # no draw of the model's: noise that is held still takes no count of it
    with torch._C.DisableTorchFunction():
        noise = torch.randn(tensor.shape, generator=torch.Generator().manual_seed(seed))
    noise = noise.to(tensor.device)
    if where is not None:
        noise = noise * where.to(noise)
    return tensor + (noise * (tensor.float().std() + 1e-6)).to(tensor.dtype)


def replaced_first(output: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """`output` with its first floating-point tensor changed, wherever it stands in tuples, lists,
    mappings, dataclasses and plain objects, which keep their kind; where the same tensor stands
    twice (a last hidden state is also the last of all hidden states), both are. A number without an
    axis, such as a loss, is passed over.
    """
    for tensor in _references(output):
        if tensor.is_floating_point() and tensor.ndim > 0:
            return _exchanged(output, tensor, change(tensor))
    return output


def _references(value: Any) -> list[Tensor]:
    """Every tensor inside `value` itself, not detached, in the order of `tensors_in`."""
    found: list[Tensor] = []

    def note(tensor: Tensor) -> Tensor:
        found.append(tensor)
        return tensor

    mapped(note, value)
    return found


def _exchanged(value: Any, old: Tensor, new: Tensor) -> Any:
    """`value` with `new` wherever it holds the tensor `old` itself; kinds are kept. Parts that
    do not hold it stay the same objects (a cache that is filled in place).
    """
    if value is old:
        return new
    if isinstance(value, Tensor) or all(tensor is not old for tensor in _references(value)):
        return value
    if isinstance(value, list | tuple):
        parts = [_exchanged(part, old, new) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    twin = copy.copy(value)
    if isinstance(value, dict):
        for key, part in value.items():
            twin[key] = _exchanged(part, old, new)
        return twin
    for name, part in vars(value).items():
        object.__setattr__(twin, name, _exchanged(part, old, new))
    return twin


def text_embeddings(model: nn.Module, calls: Sequence[Call]) -> list[str]:
    """Names of the embeddings that are given whole numbers which are no mere count 0, 1, 2 … and no
    distances between places: those that read text. One that is given a single number for each clip,
    as of a speaker, counts only where there is no other.
    """
    modules = dict(model.named_modules())
    found: dict[str, bool] = {}  # name -> whether it is given a row of numbers for each clip
    for call in calls:
        is_embedding = isinstance(modules.get(call.name), nn.Embedding)
        if not is_embedding or not call.inputs or call.name in found:
            continue
        ids = call.inputs[0]
        if not ids.is_floating_point() and not _counts_up(ids) and not _are_distances(ids):
            found[call.name] = ids.ndim > 1 and ids.shape[-1] > 1
    return [name for name, in_rows in found.items() if in_rows] or list(found)


def _counts_up(ids: Tensor) -> bool:
    """Whether every row is 0, 1, 2 … from its first number on, as positions are."""
    rows = ids.reshape(-1, ids.shape[-1]) if ids.ndim else ids[None, None]
    counting = torch.arange(rows.shape[-1], device=rows.device).expand_as(rows)
    return torch.equal(rows - rows[:, :1], counting)


def _are_distances(ids: Tensor) -> bool:
    """Whether each row of a square is the one above moved by a place: relative positions."""
    if ids.ndim != 2 or ids.shape[0] != ids.shape[1] or bool((ids == ids[0, 0]).all()):
        return False
    return ids.shape[0] > 2 and torch.equal(ids[1:, 1:], ids[:-1, :-1])
