"""Which frames a prediction sees: what model.no_causal_mask and model.no_right_shift decide by.

Shapes: B batch, T frames, M mel bins.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from tts_workbook.lab.lab import Lab
from tts_workbook.measure.anatomy import MOVED, anatomy, movement, with_frames_changed
from tts_workbook.subject.isolation import without_dropout
from tts_workbook.subject.opened import once_per_subject

NO_HISTORY = (
    "nothing in the batch is the target mel, so its frames cannot be disturbed; next: put"
    " the decoder's input, or the target itself, into the batch as a tensor"
)


@dataclass(frozen=True)
class Sight:
    """Moves of the prediction when frames of the target are disturbed, in target deviations."""

    spots: tuple[int, ...]  # the frames t that were tried; empty: the batch holds no target
    later: float  # of frames up to t, when the frames after it change
    reach: int  # frames: how far before t the earliest of them that moves is
    own: float  # of frame t, when it alone changes
    frames_given: bool  # whether the subject says what stands before a post-net

    @property
    def sees_later(self) -> bool:
        return self.later > MOVED

    @property
    def sees_itself(self) -> bool:
        return self.own > MOVED

    @property
    def experiment(self) -> str:
        spots = ", ".join(str(spot) for spot in self.spots)
        return f"noise on frames after t, and on frame t alone, at t = {spots}"

    @property
    def evidence(self) -> dict[str, float | str]:
        return {
            "move of frames up to t when later ones change, target deviations": self.later,
            "look-ahead, frames": float(self.reach),
            "move of frame t when it alone changes": self.own,
        }


@once_per_subject
def sight(lab: Lab) -> Sight:
    """Disturb the frames after t, and then frame t alone, at three places of the shortest clip."""
    given = lab.subject.predict_frames is not None
    if not anatomy(lab).histories:
        return Sight((), 0.0, 0, 0.0, given)
    n_frames = int(lab.lengths.min())
    spots = sorted({n_frames // 4, n_frames // 2, 3 * n_frames // 4})
    with without_dropout(lab.model):
        before = lab.predict(lab.model)
        later = {t: _moved(lab, before, slice(t + 1, None))[:, : t + 1] for t in spots}
        own = {t: _moved(lab, before, slice(t, t + 1))[:, t] for t in spots}
    reaches = [_reach(moved, t) for t, moved in later.items() if bool((moved > MOVED).any())]
    return Sight(
        spots=tuple(spots),
        later=max(float(moved.max()) for moved in later.values()),
        reach=max(reaches, default=0),
        own=max(float(moved.max()) for moved in own.values()),
        frames_given=given,
    )


def _moved(lab: Lab, before: Tensor, frames: slice) -> Tensor:
    """(B, T) how far every frame moves when these frames of the target change."""
    batch = with_frames_changed(lab, list(anatomy(lab).histories), frames)
    return movement(before, lab.predict(lab.model, batch), lab)


def _reach(moved: Tensor, spot: int) -> int:
    """How far before frame `spot` the earliest frame that moves is."""
    return spot - int((moved > MOVED).any(dim=0).nonzero().min())
