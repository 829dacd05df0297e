"""The adapter between a model that is not ours and the diagnosis: a handful of functions around it.

Shapes: B batch, T frames, M mel bins, N text positions (phonemes or characters). Nothing is assumed
about the model but that it is an `nn.Module`; modules are found by running it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from tts_core.errors import WorkbookError

Model = nn.Module
Batch = Any
Part = TypeVar("Part")


class SubjectError(WorkbookError):
    """A part of the subject is not what it should be: names the field, what was seen and what is
    wanted.
    """

    def __init__(self, field: str, seen: str, wanted: str) -> None:
        super().__init__(f"Subject.{field}: {seen}; wanted: {wanted}")
        self.field = field


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A model under diagnosis. Fields after `generate` are optional: each opens more checks, and a
    check whose part is missing says "not applicable: supply X".
    """

    # fresh weights each time, drawn from torch's global generator
    build_model: Callable[[], Model]
    # whatever the model takes; one or a few clips
    batch: Batch
    # each term and "total", the quantity that is optimised
    losses: Callable[[Model, Batch], Mapping[str, Tensor]]
    make_optimizer: Callable[[Model], torch.optim.Optimizer]
    predict_mel: Callable[[Model, Batch], Tensor]  # (B, T, M) teacher-forced
    # (B, T, M) in the units of predict_mel, (B,) valid frames
    target_mel: Callable[[Batch], tuple[Tensor, Tensor]]
    # default: the workbook's own step
    train_step: Callable[[Model, torch.optim.Optimizer, Batch], Any] | None = None
    # (B, T', M) free-running; T' = T where lengths can be forced
    generate: Callable[[Model, Batch], Tensor] | None = None
    # optional
    # (B, T, M) before a non-causal post-net
    predict_frames: Callable[[Model, Batch], Tensor] | None = None
    # state dict or safetensors file, loaded strictly
    checkpoint: Mapping[str, Tensor] | str | PathLike | None = None
    # what training really sees, for data that varies and for corpora
    batches: Callable[[], Iterator[Batch]] | None = None
    duplicate: Callable[[Batch, int], Batch] | None = None  # every clip k times
    # the same clips with n more padded frames
    pad: Callable[[Batch, int], Batch] | None = None
    # the same clips with n more padded text positions (and durations of 0 for them)
    pad_text: Callable[[Batch, int], Batch] | None = None
    # the same clips without their first a and last b frames
    trim: Callable[[Batch, int, int], Batch] | None = None
    # phonemes permuted, the rest kept
    shuffle_text: Callable[[Batch, torch.Generator], Batch] | None = None
    # history (B, t, M) -> (B, M): frame t, by the code path that generation uses
    continue_from: Callable[[Model, Batch, Tensor], Tensor] | None = None
    # frames per text position, per clip
    durations: Callable[[Batch], Tensor | Sequence[Sequence[float]]] | None = None
    # text positions of each clip as they were written
    symbols: Callable[[Batch], Sequence[Sequence[str]]] | None = None
    # (samples, Hz) of each clip
    audio: Callable[[Batch], Sequence[tuple[np.ndarray, int]]] | None = None
    # (samples, Hz) -> (T, M): today's feature extraction
    features: Callable[[np.ndarray, int], Tensor] | None = None
    # (T, M) in target units -> (samples, Hz)
    vocode: Callable[[Tensor], tuple[np.ndarray, int]] | None = None
    # (B, T) teacher-forced probability that the frame is the last
    stop: Callable[[Model, Batch], Tensor] | None = None
    # full inference: (T', M) per clip, own lengths
    infer: Callable[[Model, Batch], Sequence[Tensor]] | None = None
    # the model that is heard in place of the trained one: an average of its weights
    judged: Callable[[Model], Model] | None = None
    # module whose output the decoder attends to, if it is not found
    memory: str | None = None
    # parameter or module names that are not trained, on purpose
    frozen: Sequence[str] = ()
    # module names that draw in eval mode, on purpose (Tacotron 2's prenet)
    stochastic: Sequence[str] = ()

    def has(self, *fields: str) -> bool:
        """Whether every one of these optional parts is supplied."""
        return all(getattr(self, field) is not None for field in fields)


def supplied(part: Part | None, field: str) -> Part:
    """An optional part, for code that is asked for only where there is one. Raises SubjectError
    where it is missing all the same.
    """
    if part is None:
        raise SubjectError(field, "None", "this part of the subject")
    return part


def check_subject(subject: Subject) -> None:
    """Run every required part once. Raises SubjectError naming the first field that is not what it
    should be.
    """
    model = _called("build_model", subject.build_model)
    if not isinstance(model, nn.Module):
        raise SubjectError(
            "build_model", f"returned a {type(model).__name__}", "an nn.Module with fresh weights"
        )
    if not any(True for _ in model.parameters()):
        raise SubjectError(
            "build_model", f"a {type(model).__name__} without parameters", "a model that can learn"
        )
    target, _ = check_target(subject, subject.batch)
    for field in ("predict_mel", "predict_frames", "generate"):
        if getattr(subject, field) is not None:
            with torch.no_grad():
                mel = _called(field, getattr(subject, field), model, subject.batch)
            _check_mel(field, mel, target, same_length=field != "generate")
    _check_losses(_called("losses", subject.losses, model, subject.batch))
    optimizer = _called("make_optimizer", subject.make_optimizer, model)
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise SubjectError(
            "make_optimizer", f"returned a {type(optimizer).__name__}", "a torch.optim.Optimizer"
        )
    _check_names(subject, model)


def _check_names(subject: Subject, model: nn.Module) -> None:
    """The names that the subject gives of modules and parameters are names of its model."""
    known = {name for name, _ in model.named_modules()}
    known |= {name for name, _ in model.named_parameters()}
    for field in ("frozen", "stochastic", "memory"):
        names = getattr(subject, field) or ()
        if isinstance(names, str):
            names = (names,)
        for name in names:
            if name not in known:
                raise SubjectError(
                    field,
                    f"{name!r} is no module or parameter of {type(model).__name__}",
                    "names as in named_modules()",
                )


def check_target(subject: Subject, batch: Batch) -> tuple[Tensor, Tensor]:
    """The target (B, T, M) of a batch, detached, and its lengths (B,). Raises SubjectError where it
    is no mel with lengths.
    """
    pair = _called("target_mel", subject.target_mel, batch)
    is_pair = isinstance(pair, tuple) and len(pair) == 2
    if not is_pair or not all(isinstance(part, Tensor) for part in pair):
        raise SubjectError(
            "target_mel",
            f"returned {_shape(pair)}",
            "a pair of tensors: mel (B, T, M) and lengths (B,)",
        )
    target, lengths = pair
    if target.ndim != 3 or not target.is_floating_point():
        raise SubjectError("target_mel", f"a mel of {_shape(target)}", "floating point, (B, T, M)")
    if lengths.shape != target.shape[:1] or lengths.is_floating_point():
        raise SubjectError(
            "target_mel",
            f"lengths of {_shape(lengths)} for a mel of {_shape(target)}",
            "(B,) whole numbers",
        )
    if int(lengths.min()) < 1 or int(lengths.max()) > target.shape[1]:
        raise SubjectError(
            "target_mel",
            f"lengths {lengths.tolist()} for {target.shape[1]} frames",
            "1 to T valid frames (is the mel (B, M, T)? transpose it)",
        )
    return target.detach(), lengths


def _check_mel(field: str, mel: Any, target: Tensor, same_length: bool) -> None:
    wanted = f"(B, T, M) like target_mel, {tuple(target.shape)}"
    if not isinstance(mel, Tensor) or mel.ndim != 3:
        raise SubjectError(field, f"returned {_shape(mel)}", wanted)
    if same_length:
        fits = mel.shape == target.shape
    else:
        wanted += ", T may differ"
        fits = mel.shape[0] == target.shape[0] and mel.shape[2] == target.shape[2]
    if not fits:
        raise SubjectError(field, f"returned {_shape(mel)}", wanted)


def _check_losses(terms: Any) -> None:
    if not isinstance(terms, Mapping) or "total" not in terms:
        seen = sorted(terms) if isinstance(terms, Mapping) else _shape(terms)
        wanted = 'a mapping of scalar tensors with the key "total"'
        raise SubjectError("losses", f"returned {seen}", wanted)
    for name, term in terms.items():
        if not isinstance(term, Tensor) or term.numel() != 1:
            raise SubjectError(
                "losses", f"{name!r} is {_shape(term)}", "a scalar tensor for each term"
            )


def _called(field: str, function: Callable, *arguments: Any) -> Any:
    """`function(*arguments)`; an exception from the user's code is told apart from ours."""
    if not callable(function):
        raise SubjectError(field, f"is a {type(function).__name__}", "a function")
    try:
        return function(*arguments)
    except Exception as error:
        raise SubjectError(
            field, f"raised {type(error).__name__}: {error}", "a call that returns"
        ) from error


def _shape(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor {tuple(value.shape)} of {value.dtype}"
    size = f" of {len(value)}" if isinstance(value, Sequence) else ""
    return f"a {type(value).__name__}{size}"
