"""Teacher forcing on what generation gave, against what it gave: the same frames, where generation
lays its history out as training does.

It asks for no more than `Subject.generate`, and for a history in the batch that can be exchanged.
Shapes: B clips, T frames, M mel bins. Errors are over the best constant.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tts_workbook.measure.anatomy import (
    History,
    find_history,
    movement,
    rounding_of,
    with_frames_changed,
)
from tts_workbook.measure.headline import generated
from tts_workbook.measure.history_parity import (
    BLIND,
    BROKEN,
    HALF,
    JITTER,
    PARITY,
    SHARE,
    STEADY,
    UNLIKE,
)
from tts_workbook.measure.paths import run_path
from tts_workbook.subject.isolation import private_copy, tensors_in, without_dropout
from tts_workbook.subject.opened import OpenSubject
from tts_workbook.subject.subject import Batch

question = "Does teacher forcing on what generation gave give it again?"


@dataclass(frozen=True)
class OwnHistory:
    """Generated frames beside the teacher-forced ones of the same history."""

    worst: float  # mean |difference| at the worst frame
    rounding: float  # the same of two teacher-forced predictions whose history is JITTER apart
    sensitivity: float  # and of two whose histories are others altogether, mean over the frames
    unsteady: float  # what another random state changes in what is generated
    leaks: float  # how far frames from the middle on move teacher-forced frames before them

    @property
    def judged(self) -> bool:
        """Whether these weights can tell."""
        steady = self.rounding < STEADY and self.unsteady < STEADY
        return steady and self.sensitivity > BLIND and math.isfinite(self.worst)

    @property
    def holds(self) -> bool:
        """Parity."""
        return self.worst < min(PARITY, SHARE * self.sensitivity)

    @property
    def broken(self) -> bool:
        """A difference that no rounding makes."""
        return self.worst > BROKEN or UNLIKE < self.worst > HALF * self.sensitivity


def hears_history(opened: OpenSubject, model: nn.Module) -> bool | None:
    """Whether a teacher-forced prediction follows the frames that the batch holds; None where the
    batch holds none that are found, or holds whole numbers by the frame that it follows: a history
    of tokens.
    """
    histories = find_history(opened)
    if not histories:
        return None
    if _moves(opened, model, with_frames_changed(opened, histories, slice(None))):
        return True
    return None if _moves(opened, model, _other_tokens(opened)) else False


def _moves(opened: OpenSubject, model: nn.Module, batch: Batch) -> bool:
    """Whether another batch gives another prediction, beyond rounding."""
    with without_dropout(model):
        own = opened.predict(model, field="mel")
        moved = movement(opened.predict(model, batch, "mel"), own, opened)
    return float(moved.max()) > rounding_of(opened, model).moved


def _other_tokens(opened: OpenSubject) -> Batch:
    """The batch with the whole numbers that it holds by the frame turned round in time."""
    batch = private_copy(opened.batch)
    n_clips, n_frames = opened.target.shape[:2]
    for tensor in tensors_in(batch):
        whole = not tensor.is_floating_point() and tensor.dtype != torch.bool
        if whole and tensor.ndim > 1 and len(tensor) == n_clips and n_frames in tensor.shape[1:]:
            time = tensor.shape[1:].index(n_frames) + 1
            tensor.copy_(tensor.flip(time))
    return batch


def own_history(opened: OpenSubject, model: nn.Module) -> OwnHistory:
    """Of a model that hears a history which the batch holds; without dropout."""
    histories = find_history(opened)
    with without_dropout(model):
        mel = generated(opened, model)
        batch = with_history(opened, histories, mel)
        forced = opened.predict(model, batch, "mel")
        jittered = with_history(opened, histories, mel * (1 + JITTER))
        other = with_frames_changed(opened, histories, slice(None))
        middle = int(opened.lengths.min()) // 2
        later = with_frames_changed(opened, histories, slice(middle, None))
        true = opened.predict(model, field="mel")
        moved = movement(opened.predict(model, later, "mel"), true, opened)
        rounding = opened.predict(model, jittered, "mel")
        disturbed = opened.predict(model, other, "mel")
        unsteady = _unsteady(opened, model, mel)
    return OwnHistory(
        worst=_worst(opened, mel, forced),
        rounding=_worst(opened, rounding, forced),
        sensitivity=_mean(opened, disturbed, true),
        unsteady=unsteady,
        leaks=float(moved[:, :middle].max()) if middle else 0.0,
    )


def with_history(opened: OpenSubject, histories: list[History], mel: Tensor) -> Batch:
    """The batch whose histories are these frames (B, T', M) in target units, in their own units and
    at their own places; padding stays.
    """
    batch = opened.batch
    for history in histories:

        def exchange(frames: Tensor, shift: int = history.shift) -> None:
            _lay_in(opened, frames, shift, mel)

        batch = history.changed(batch, exchange)
    return batch


def _lay_in(opened: OpenSubject, frames: Tensor, shift: int, mel: Tensor) -> None:
    """Writes `mel` (B, T', M) into a history (B, L, M), on its per-bin scale."""
    first = max(0, -shift)
    shortest = int(opened.lengths.min()) - 1
    given = frames[:, first + shift : shortest + shift].reshape(-1, frames.shape[2]).float()
    wanted = opened.target[:, first:shortest].reshape(-1, frames.shape[2])
    centre, middle = given.mean(dim=0), wanted.mean(dim=0)
    spread = (wanted - middle).square().sum(dim=0).clamp(min=1e-9)
    slope = ((given - centre) * (wanted - middle)).sum(dim=0) / spread
    for row, own, n_valid in zip(frames, mel, opened.lengths.tolist(), strict=True):
        last = min(len(own), n_valid, len(row) - shift)
        row[first + shift : last + shift] = (centre + slope * (own[first:last] - middle)).to(row)


def _worst(opened: OpenSubject, a: Tensor, b: Tensor) -> float:
    """Mean |difference| over the bins at the worst valid frame that both have."""
    length = min(a.shape[1], b.shape[1])
    frames = (a[:, :length] - b[:, :length]).abs().mean(dim=2)
    valid = frames[opened.mask[:, :length]]
    return float(valid.max()) / opened.best_constant if len(valid) else math.nan


def _mean(opened: OpenSubject, a: Tensor, b: Tensor) -> float:
    return float((a - b).abs()[opened.mask].mean()) / opened.best_constant


def _unsteady(opened: OpenSubject, model: nn.Module, mel: Tensor) -> float:
    again = run_path(opened, model, "generate", opened.seed + 1)
    differences = [
        float((row[: len(other)] - other[: len(row)]).abs().mean())
        for row, other in zip(mel, again, strict=True)
    ]
    return max(differences) / opened.best_constant
