"""One evaluation of the losses and one train step at loss scale 1, as they are, with mask values in
range, and in fp32: what precision.mask_overflow and precision.scaler_skips decide by.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tts_workbook.lab.lab import Lab
from tts_workbook.lab.run_changes import to_fp32
from tts_workbook.measure.observed_steps import observe
from tts_workbook.subject.interventions import HALVES, in_fp32, masks_in_range
from tts_workbook.subject.isolation import mapped, tensors_in
from tts_workbook.subject.opened import once_per_subject
from tts_workbook.subject.subject import Batch
from tts_workbook.subject.tensor_math import tensors_norm
from tts_workbook.subject.training_step import all_parameters

# in what is raised about numbers rather than about their types
OVERFLOW = ("overflow", "finite", "nan", "inf ")


@dataclass(frozen=True)
class Attempt:
    """One evaluation of the losses and one train step at loss scale 1."""

    finite: bool
    where: str  # the first module whose output is not finite, or in which it raises
    said: str  # what was raised

    @property
    def raises_about_types(self) -> bool:
        """Whether something was raised that does not name a number."""
        return bool(self.said) and not any(word in self.said.lower() for word in OVERFLOW)


@once_per_subject
def as_it_is(lab: Lab) -> Attempt:
    """Whether everything is finite for a fresh model."""
    return attempt(lab, lab.build, lab.batch)


@once_per_subject
def with_masks_in_range(lab: Lab) -> Attempt:
    """The same with mask values brought into the range of the 16-bit type."""
    return attempt_with_masks_in_range(lab, lab.batch)


def attempt_with_masks_in_range(lab: Lab, batch: Batch) -> Attempt:
    return attempt(lab, lab.build, batch, masks_in_range())


@once_per_subject
def all_in_fp32(lab: Lab) -> Attempt:
    """The same in fp32: weights, batch, and no casts to 16 bits."""
    return attempt_in_fp32(lab, lab.batch)


def attempt_in_fp32(lab: Lab, batch: Batch) -> Attempt:
    def widened(tensor: Tensor) -> Tensor:
        return tensor.float() if tensor.dtype in HALVES else tensor

    def build() -> nn.Module:
        return to_fp32(lab.build())

    return attempt(lab, build, mapped(widened, batch), in_fp32())


def attempt(
    lab: Lab,
    build: Callable[[], nn.Module],
    batch: Batch,
    inside: AbstractContextManager[Any] | None = None,
) -> Attempt:
    """First the losses and their gradients; where these are finite, a train step."""
    model = build()
    with inside or nullcontext():
        with first_failure(model) as failure:
            finite, said = _try_losses(lab, model, batch)
        if finite:
            model = build()
            with first_failure(model) as failure:
                seen = observe(
                    lab, model=model, batch=batch, n_steps=1, max_calls=2, loss_scale=1.0
                )
            finite, said = seen.finite and not seen.error, seen.error
    where = failure[0] if failure and not finite else ""
    return Attempt(finite, where, said)


def _try_losses(lab: Lab, model: nn.Module, batch: Batch) -> tuple[bool, str]:
    """Whether total and its gradients are finite, and what was raised."""
    try:
        value = lab.losses(model, batch)["total"]
        value.backward()
        gradients = [
            parameter.grad for _, parameter in all_parameters(model) if parameter.grad is not None
        ]
        finite = math.isfinite(float(value.detach())) and math.isfinite(tensors_norm(gradients))
    except Exception as error:  # the subject's code may raise anything
        return False, f"{type(error).__name__}: {error}"
    return finite, ""


@contextmanager
def first_failure(model: nn.Module) -> Iterator[list[str]]:
    """Names of modules, in order, whose output is not finite; after an exception, the innermost
    module that did not end.
    """
    found: list[str] = []
    open_modules: list[str] = []

    def begin(name: str) -> Callable[..., None]:
        return lambda *_: open_modules.append(name)

    def end(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            while open_modules and open_modules.pop() != name:
                pass
            if any(_not_finite(tensor) for tensor in _tensors(output)):
                found.append(name or type(module).__name__)

        return hook

    handles = []
    for name, module in model.named_modules():
        handles += [
            module.register_forward_pre_hook(begin(name)),
            module.register_forward_hook(end(name)),
        ]
    try:
        yield found
    finally:
        if open_modules and not found:
            found.append(open_modules[-1] or type(model).__name__)
        for handle in handles:
            handle.remove()


def _not_finite(tensor: Tensor) -> bool:
    return tensor.is_floating_point() and not bool(torch.isfinite(tensor).all())


def _tensors(output: Any) -> list[Tensor]:
    return [output] if isinstance(output, Tensor) else tensors_in(output)
