"""The generation code on the true history of t frames, against the teacher-forced frame t.

Shapes: B clips, T frames, M mel bins. Errors are over the best constant.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tts_core.model.modes import evaluating
from tts_workbook.bars import Bar
from tts_workbook.measure.anatomy import find_history, movement, with_frames_changed
from tts_workbook.subject.isolation import unchanged_randomness
from tts_workbook.subject.opened import OpenSubject
from tts_workbook.subject.subject import supplied

question = "Does the generation code give the teacher-forced frames when it is fed the truth?"

PARITY = Bar(
    0.01,
    control="of the subject's best constant; 16-bit sums with a cache make less than half of it",
)
STEADY = Bar(
    0.01,
    control="of the best constant: a frame that rounding of the history moves more is not compared",
)
BROKEN = Bar(0.06, control="of the best constant, worst frame; six times what counts as parity")
UNLIKE = Bar(0.02, control="of the best constant, where another history changes less than twice it")
HALF = Bar(0.5, control="of what another history altogether changes in the same model")
SHARE = Bar(0.2, control="of what another history altogether changes in the same model")
BLIND = Bar(1e-3, control="of the best constant: another history that changes less cannot judge")
# of the history: a model that makes much of it is chaotic, and no two ways of computing it agree
JITTER = 1e-5
NOT_FINITE = 10.0  # stands for a difference that is no number
SHIFTS = (-2, -1, 0, 1, 2)  # frames by which generation may be off


@dataclass(frozen=True)
class HistoryParity:
    """Generation code on the true history, against teacher forcing."""

    difference: dict[int, float]  # by frame, mean |difference| over the best constant
    rounding: dict[int, float]  # the same for a history that is JITTER off
    sensitivity: float  # the same for another history in the middle: a yardstick
    # mean |difference| of two teacher-forced predictions from other random states
    unsteady: float
    # how far frames from t on move the teacher-forced frame t; None where that cannot be tried
    leaks: float | None
    # how many frames later the teacher-forced frame is that generation gives; None where there is
    # no difference to explain
    nearest: int | None
    largest: float  # |difference| at any frame and bin, over the best constant

    @property
    def worst(self) -> float:
        """Largest difference over the frames that can be compared; infinite where none after the
        first can.
        """
        return max((self.difference[frame] for frame in self.comparable), default=math.inf)

    @property
    def comparable(self) -> list[int]:
        """Frames at which rounding does not decide; none where only the first, that has no history,
        is left.
        """
        steady = [frame for frame in self.difference if self.rounding[frame] < STEADY]
        return steady if steady != [0] else []

    @property
    def holds(self) -> bool:
        """Parity."""
        return self.worst < min(PARITY, SHARE * self.sensitivity)

    @property
    def broken(self) -> bool:
        """A difference that no rounding makes."""
        if not self.comparable:
            return False
        return self.worst > BROKEN or UNLIKE < self.worst > HALF * self.sensitivity

    @property
    def judged(self) -> bool:
        """Whether these weights decide; others may, for the code that generates is the same
        whatever they are.
        """
        if self.sensitivity < BLIND or self.unsteady > STEADY:
            return False
        return self.broken or (bool(self.comparable) and self.holds)


def measure_history_parity(
    opened: OpenSubject, model: nn.Module, frames: Iterable[int] | None = None
) -> HistoryParity:
    """Of one model, in eval mode; switch its dropout off around the call. `frames` are compared,
    those that every clip has: by default the first three, the middle and the last. Raises
    SubjectError where the subject has no continue_from.
    """
    forced = opened.predict(model)
    shortest = int(opened.lengths.min())
    middle = shortest // 2
    asked = {0, 1, 2, middle, shortest - 1} if frames is None else set(frames)
    frames = sorted((asked | {middle}) & set(range(shortest)))
    own = {frame: _continued(opened, model, opened.target[:, :frame]) for frame in frames}
    difference = {frame: _distance(opened, own[frame], forced[:, frame]) for frame in frames}
    rounding = {}
    for frame in frames:
        jittered = _continued(opened, model, opened.target[:, :frame] * (1 + JITTER))
        rounding[frame] = _distance(opened, jittered, own[frame])
    other = _continued(opened, model, _other_history(opened, middle))
    explains = max(difference.values()) >= PARITY and middle >= 2
    return HistoryParity(
        difference=difference,
        rounding=rounding,
        sensitivity=_distance(opened, other, own[middle]),
        unsteady=_unsteady(opened, model, forced),
        leaks=_leaks(opened, model, forced, middle),
        nearest=_nearest(opened, own[middle], forced, middle) if explains else None,
        largest=_largest(opened, torch.stack([own[frame] - forced[:, frame] for frame in frames])),
    )


def _continued(opened: OpenSubject, model: nn.Module, history: Tensor) -> Tensor:
    """(B, M): the frame that generation gives behind `history` (B, t, M)."""
    continue_from = supplied(opened.subject.continue_from, "continue_from")
    with unchanged_randomness(opened.seed), evaluating(model):
        return continue_from(model, opened.batch, history.contiguous()).detach().float()


def _distance(opened: OpenSubject, a: Tensor, b: Tensor) -> float:
    value = float((a - b).abs().mean()) / opened.best_constant
    return value if math.isfinite(value) else NOT_FINITE


def _largest(opened: OpenSubject, difference: Tensor) -> float:
    value = float(difference.abs().max()) / opened.best_constant
    return value if math.isfinite(value) else NOT_FINITE


def _other_history(opened: OpenSubject, n_frames: int) -> Tensor:
    """(B, t, M): the true frames and noise of their spread."""
    true = opened.target[:, :n_frames]
    noise = torch.randn(true.shape, generator=torch.Generator().manual_seed(0))
    return true + opened.frames.std() * noise.to(opened.target)


def _unsteady(opened: OpenSubject, model: nn.Module, forced: Tensor) -> float:
    """What another random state changes in a teacher-forced prediction."""
    predict = opened.subject.predict_frames or opened.subject.predict_mel
    with unchanged_randomness(opened.seed + 1), evaluating(model):
        again = predict(model, opened.batch).detach().float()
    return _distance(opened, again[opened.mask], forced[opened.mask])


def _leaks(opened: OpenSubject, model: nn.Module, forced: Tensor, frame: int) -> float | None:
    """How far the frames from `frame` on move what is predicted up to it; None where the batch
    holds no history to change.
    """
    histories = find_history(opened)
    if not histories:
        return None
    changed = with_frames_changed(opened, histories, slice(frame, None))
    moved = movement(opened.predict(model, changed), forced, opened)
    return float(moved[:, : frame + 1].max())


def _nearest(opened: OpenSubject, own: Tensor, forced: Tensor, frame: int) -> int:
    """How many frames later the teacher-forced frame is that `own`, generated at `frame`, is most
    like.
    """
    distances = {
        shift: _distance(opened, own, forced[:, frame + shift])
        for shift in SHIFTS
        if frame + shift < forced.shape[1]
    }
    return min(distances, key=lambda shift: distances[shift])
