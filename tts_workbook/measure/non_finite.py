"""The first tensor that is not finite: from the batch on, through the modules and the losses, to
the gradients.

A tensor of the batch counts only where it does harm: an additive mask holds -inf, and nothing that
follows is the worse for it. Shapes: B clips.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn

from tts_workbook.measure.batch_fields import named_tensors
from tts_workbook.subject.interventions import without_checkpointing
from tts_workbook.subject.isolation import private_copy, tensors_in, without_dropout
from tts_workbook.subject.opened import OpenSubject, once_per_subject
from tts_workbook.subject.subject import Batch
from tts_workbook.subject.training_step import all_parameters

question = "Which tensor is the first that is not finite?"

Where = Literal["batch", "forward", "loss", "backward"]


@dataclass(frozen=True)
class NonFinite:
    """A tensor that holds NaN or an infinity."""

    where: Where
    name: str  # field of the batch, module, loss term, or parameter
    clip: int | None = None  # of the first such value; None where its first axis is not the clips
    position: int | None = None  # of it within the clip: frame or text position
    value: float = math.nan  # it


# --- the batch ------------------------------------------------------------------------------------


def non_finite_fields(batch: Batch, n_clips: int) -> list[NonFinite]:
    """Tensors of a batch of `n_clips` that are not finite, each by its first such value."""
    found = []
    for name, tensor in named_tensors(batch):
        first = first_value(tensor, "batch", name, n_clips)
        if first is not None:
            found.append(first)
    return found


def first_value(tensor: Tensor, where: Where, name: str, n_clips: int) -> NonFinite | None:
    """The first value of a tensor that is not finite; None where all are."""
    if not tensor.is_floating_point():
        return None
    bad = (~tensor.isfinite()).nonzero()
    if not len(bad):
        return None
    place = bad[0].tolist()
    value = float(tensor[tuple(place)])
    if tensor.ndim == 0 or len(tensor) != n_clips:
        return NonFinite(where, name, value=value)
    position = place[1] if tensor.ndim > 1 else None
    return NonFinite(where, name, place[0], position, value)


def with_finite_fields(batch: Batch, names: Collection[str]) -> Batch:
    """A copy of the batch in which the values of these fields that are not finite are the median of
    those that are; zero where none is.
    """
    twin = private_copy(batch)
    for name, tensor in named_tensors(twin):
        if name in names:
            finite = tensor[tensor.isfinite()]
            middle = float(finite.float().median()) if len(finite) else 0.0
            tensor[~tensor.isfinite()] = middle
    return twin


def is_finite(opened: OpenSubject, batch: Batch) -> bool:
    """Whether predictions, losses and gradients of a fresh model are finite on this batch."""
    for field in opened.fields:
        if not opened.predict(opened.model, batch, field)[opened.mask].isfinite().all():
            return False
    terms = opened.losses(opened.build(), batch)
    if not all(bool(term.detach().isfinite().all()) for term in terms.values()):
        return False
    gradients = opened.gradient(opened.build(), batch)
    return all(bool(gradient.isfinite().all()) for gradient in gradients.values())


@dataclass(frozen=True)
class NonFiniteInputs:
    """What of the batch is not finite, and what it does to a fresh model."""

    fields: tuple[NonFinite, ...]
    # predictions, losses and gradients are finite: with the batch as it is
    harmless: bool
    # and the smallest set of fields that has to be mended for it; empty where none is enough
    guilty: tuple[NonFinite, ...]


@once_per_subject
def non_finite_inputs(opened: OpenSubject) -> NonFiniteInputs:
    """The fields of the batch that are not finite; where a fresh model's numbers are not either,
    each is mended alone, then all.
    """
    fields = non_finite_fields(opened.batch, len(opened.target))
    if not fields or is_finite(opened, opened.batch):
        return NonFiniteInputs(tuple(fields), True, ())
    every = [(field,) for field in fields]
    tried: list[tuple[NonFinite, ...]] = [*every, tuple(fields)]
    for fields_to_mend in tried:
        names = {field.name for field in fields_to_mend}
        if is_finite(opened, with_finite_fields(opened.batch, names)):
            return NonFiniteInputs(tuple(fields), False, fields_to_mend)
    return NonFiniteInputs(tuple(fields), False, ())


# --- the model ------------------------------------------------------------------------------------


class Watch:
    """Notes the first thing that is not finite: a module's output, or a parameter's gradient."""

    def __init__(self, n_clips: int) -> None:
        self.n_clips = n_clips
        self._first: NonFinite | None = None
        self._below: NonFinite | None = None  # nothing but -inf: it may mask what must not matter

    @property
    def first(self) -> NonFinite | None:
        """The first NaN or infinity; the first -inf only where there is no other."""
        return self._first or self._below

    @contextmanager
    def on(self, model: nn.Module) -> Iterator[None]:
        """Watches every forward and backward pass of `model` inside."""
        handles = []
        for name, module in model.named_modules():
            hook = self._module_hook(name or type(model).__name__)
            handles.append(module.register_forward_hook(hook, with_kwargs=True))
        for name, parameter in all_parameters(model):
            if parameter.requires_grad:
                handles.append(parameter.register_hook(self._gradient_hook(name)))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _module_hook(self, name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            if self._first is None:
                self._note(name, tensors_in(output))

        return hook

    def _note(self, name: str, outputs: Sequence[Tensor]) -> None:
        for tensor in outputs:
            found = first_value(tensor, "forward", name, self.n_clips)
            if found is None:
                continue
            if bool((tensor.isfinite() | (tensor == -math.inf)).all()):
                self._below = self._below or found
            else:
                self._first = found
                return

    def _gradient_hook(self, name: str) -> Callable[[Tensor], None]:
        def hook(gradient: Tensor) -> None:
            if self._first is None and not gradient.isfinite().all():
                self._first = NonFinite("backward", name)

        return hook


@once_per_subject
def first_of_a_fresh_model(opened: OpenSubject) -> NonFinite | None:
    """The first tensor that is not finite in one pass of a fresh model over the batch: of the
    batch, where mending it is enough; else module, loss term, parameter. None where all is finite.
    """
    inputs = non_finite_inputs(opened)
    if inputs.guilty:
        return inputs.guilty[0]
    model, watch = opened.build(), Watch(len(opened.target))
    with watch.on(model):
        terms = opened.losses(model)
        broken = [name for name, term in terms.items() if not term.detach().isfinite().all()]
        if not broken and terms["total"].requires_grad:
            with without_checkpointing(), without_dropout(model):
                terms["total"].backward()
    if watch.first is not None and (broken or watch.first.where == "backward"):
        return watch.first
    if broken:
        return NonFinite("loss", broken[0])
    if opened.predicts_numbers:
        return None
    evaluated = Watch(len(opened.target))
    with evaluated.on(model):
        opened.predict(model, field="mel")
    return evaluated.first
