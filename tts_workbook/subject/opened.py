"""A Subject opened for measurement: a private copy of its batch, fresh models, predictions and
gradients. Nothing of the caller's is trained, moved or overwritten.

Everything here is judged against the best constant (the per-bin median over the valid frames).
Shapes: B batch, T frames, M bins.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from tts_core.metrics.baselines import best_constant_l1
from tts_core.metrics.free_running import l1_over_frames
from tts_core.model.modes import evaluating
from tts_core.speech.batch import lengths_to_mask
from tts_workbook.subject.interventions import without_checkpointing
from tts_workbook.subject.isolation import (
    placed_like,
    private_copy,
    tensors_in,
    unchanged_randomness,
    without_dropout,
)
from tts_workbook.subject.module_calls import Call, trace
from tts_workbook.subject.subject import Batch, Subject, SubjectError, check_target
from tts_workbook.subject.training_step import all_parameters


def _with_batches_like(subject: Subject) -> Subject:
    """The subject whose drawn batches lie where its batch lies."""
    draw = subject.batches
    if draw is None:
        return subject
    return replace(subject, batches=lambda: (placed_like(subject.batch, batch) for batch in draw()))


class OpenSubject:
    """What can be asked of a subject without training it."""

    def __init__(self, subject: Subject, seed: int = 0) -> None:
        self.subject = replace(subject, batch=private_copy(subject.batch))
        self.seed = seed
        self.batch: Batch = self.subject.batch
        target, lengths = check_target(self.subject, self.batch)
        self.target = target.float()
        self.lengths = lengths.to(target.device)
        if any(tensor.device.type != "cpu" for tensor in tensors_in(self.batch)):
            self.subject = _with_batches_like(self.subject)
        self.mask = lengths_to_mask(self.lengths, target.shape[1])
        self.frames = self.target[self.mask]  # (valid frames, M)
        self.best_constant = best_constant_l1(self.frames)
        if not torch.isfinite(self.frames).all() or self.best_constant == 0.0:
            raise SubjectError(
                "target_mel",
                f"a best-constant error of {self.best_constant}",
                "finite valid frames that are not all alike",
            )
        self.remembered: dict[Callable, Any] = {}  # results of `once_per_subject`

    # --- models -----------------------------------------------------------------------------------

    def build(self, seed: int | None = None) -> nn.Module:
        """A fresh model of its own, in training mode."""
        with unchanged_randomness(self.seed if seed is None else seed):
            return copy.deepcopy(self.subject.build_model()).train()

    @functools.cached_property
    def model(self) -> nn.Module:
        """A fresh model for audits that do not train; use it and leave it as it was."""
        return self.build()

    @functools.cached_property
    def checkpoint_state(self) -> Mapping[str, Tensor]:
        """The tensors of `Subject.checkpoint`."""
        source = self.subject.checkpoint
        if isinstance(source, Mapping):
            return source
        if source is None:
            raise SubjectError("checkpoint", "is absent", "a safetensors file, or a state dict")
        from safetensors.torch import load_file

        path = Path(source)
        try:
            return load_file(path)
        except Exception as error:
            raise SubjectError(
                "checkpoint", f"{path}: {error}", "a safetensors file, or a state dict"
            ) from error

    @property
    def fields(self) -> tuple[str, ...]:
        """What `predict` can be asked for: "frames" differs from "mel" only where the subject has a
        post-net.
        """
        return ("frames", "mel") if self.subject.predict_frames is not None else ("mel",)

    # --- predictions ------------------------------------------------------------------------------

    def predict(
        self, model: nn.Module, batch: Batch | None = None, field: str = "frames"
    ) -> Tensor:
        """(B, T, M) fp32 in eval mode, from the same random state each time. `frames` is before a
        post-net, `mel` after.
        """
        function = self.subject.predict_mel
        if field == "frames" and self.subject.predict_frames is not None:
            function = self.subject.predict_frames
        with unchanged_randomness(self.seed), evaluating(model):
            mel = function(model, self.batch if batch is None else batch)
        return mel.detach().float()

    @functools.cached_property
    def predicts_numbers(self) -> bool:
        """Whether what the fresh model predicts is finite on every valid frame."""
        predictions = [self.predict(self.model, field=field) for field in self.fields]
        return all(bool(mel[self.mask].isfinite().all()) for mel in predictions)

    def error(self, mel: Tensor) -> float:
        """L1 over the valid frames that both have, (B, T', M) against the target, over the best
        constant.
        """
        return l1_over_frames(mel, self.target, self.lengths) / self.best_constant

    def calls(self, model: nn.Module, batch: Batch | None = None) -> list[Call]:
        """The module calls of one teacher-forced prediction."""
        with without_dropout(model):
            return trace(model, lambda: self.predict(model, batch, "mel"))

    # --- gradients --------------------------------------------------------------------------------

    def losses(self, model: nn.Module, batch: Batch | None = None) -> dict[str, Tensor]:
        """The subject's terms in training mode without dropout, with their graph."""
        model.train()
        with unchanged_randomness(self.seed), without_dropout(model), torch.enable_grad():
            return dict(self.subject.losses(model, self.batch if batch is None else batch))

    def gradient(
        self, model: nn.Module, batch: Batch | None = None, term: str = "total"
    ) -> dict[str, Tensor]:
        """Gradient of a term at each parameter that it reaches, without dropout and without
        activation checkpointing (which has a check of its own). The model's own .grad is left
        alone.
        """
        return self.gradients(model, batch, (term,))[term]

    def gradients(
        self, model: nn.Module, batch: Batch | None = None, terms: Sequence[str] | None = None
    ) -> dict[str, dict[str, Tensor]]:
        """The same of several terms (all, "total" too, where none are named) from one forward
        pass.
        """
        with without_checkpointing():
            values = self.losses(model, batch)
            parameters = {
                name: parameter
                for name, parameter in all_parameters(model)
                if parameter.requires_grad
            }
            names = list(values) if terms is None else list(terms)
            last = names[-1]
            return {name: _gradient(values[name], parameters, name != last) for name in names}


def _gradient(
    value: Tensor, parameters: Mapping[str, nn.Parameter], keep_graph: bool
) -> dict[str, Tensor]:
    if not value.requires_grad:
        return {}
    tensors = list(parameters.values())
    gradients = torch.autograd.grad(value, tensors, allow_unused=True, retain_graph=keep_graph)
    found = zip(parameters, gradients, strict=True)
    return {name: gradient.detach() for name, gradient in found if gradient is not None}


Opened = TypeVar("Opened", bound=OpenSubject)
Measured = TypeVar("Measured")


def once_per_subject(measure: Callable[[Opened], Measured]) -> Callable[[Opened], Measured]:
    """A measurement that is made when it is first asked for, and remembered with the subject."""

    @functools.wraps(measure)
    def remembered(opened: Opened) -> Measured:
        if measure not in opened.remembered:
            opened.remembered[measure] = measure(opened)
        return opened.remembered[measure]

    return remembered
