"""Whether the prediction hears its text: what `model.text_ignored` and `model.bad_initialisation`
decide by.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tts_workbook.bars import Bar
from tts_workbook.lab.lab import Lab
from tts_workbook.lab.run_changes import reinitialise
from tts_workbook.measure.anatomy import anatomy, rms_movement, rounding_of, with_frames_changed
from tts_workbook.measure.initial_weights import odd_weights
from tts_workbook.subject.isolation import private_copy, without_dropout
from tts_workbook.subject.module_calls import outputs_changed, with_noise
from tts_workbook.subject.opened import once_per_subject

FLOORS = Bar(
    10.0,
    control="the move of the same prediction when every weight is off by a rounding: text that"
    " moves it by less does not reach it",
)
HEARD_AGAIN = Bar(
    100.0,
    control="the same rounding, with the weights of odd size drawn anew: the text is heard again",
)
FAINT = Bar(
    1e-3,
    control="the move of the same prediction when its history is disturbed by as much",
)
LEARNT = Bar(
    0.8,
    control="the copied previous frame of the same clips: what needs no text reaches it; clearly"
    " below it something more has been learnt",
)

EXPERIMENT = (
    "noise on what the text embedding gives, as large as its output; fresh and after training"
)


@dataclass(frozen=True)
class Move:
    """How far a model's prediction moves, root mean square, in target deviations."""

    text: float  # under other text
    rounding: float  # when every weight is off by a rounding
    # when its history is disturbed; None where it has none
    history: float | None = None

    @property
    def deaf(self) -> bool:
        """Other text does no more than rounding does."""
        return self.text <= FLOORS * self.rounding

    @property
    def faint(self) -> bool:
        """It is heard, but hardly beside the history."""
        return not self.deaf and self.history is not None and self.text < FAINT * self.history

    @property
    def finite(self) -> bool:
        return math.isfinite(self.text) and math.isfinite(self.rounding)


@dataclass(frozen=True)
class Hearing:
    """What other text does to the fresh model and to the trained one."""

    fresh: Move
    trained: Move
    acted: bool = True  # whether the disturbance changed what the embeddings give
    updated: bool = (
        True  # whether training moves weights, so that it could wake what starts at zero
    )
    # whether the trained model has learnt: TF clearly below the copied frame
    learnt: bool = False
    # fresh, with the weights of odd size drawn anew; None where there are none, or it is not deaf
    redrawn: float | None = None
    oddest: str = ""  # of the modules whose weights were drawn anew

    @property
    def deaf(self) -> bool:
        """Before training and after it."""
        return self.fresh.deaf and self.trained.deaf

    @property
    def heard_when_initialised(self) -> bool:
        """It is deaf by its initialisation alone."""
        if not self.deaf or self.redrawn is None or not self.updated:
            return False
        return self.redrawn > HEARD_AGAIN * max(self.fresh.rounding, 1e-12)

    @property
    def evidence(self) -> dict[str, float | str]:
        found: dict[str, float | str] = {
            "move of the prediction under other text, fresh": self.fresh.text,
            "under a rounding of the weights, fresh": self.fresh.rounding,
            "under other text, trained": self.trained.text,
            "under a rounding of the weights, trained": self.trained.rounding,
        }
        if self.trained.history is not None:
            found["under another history, trained"] = self.trained.history
        return found


@once_per_subject
def hearing(lab: Lab) -> Hearing | None:
    """What the text embeddings give is disturbed, before and after training; None where nothing
    reads text.
    """
    if not anatomy(lab).embeddings:
        return None
    course = lab.course()
    fresh, acted = move_of(lab, lab.model)
    trained, _ = move_of(lab, course.model)
    updated = bool(course.update_ratio > 0)
    heard = Hearing(fresh, trained, acted, updated, course.final < LEARNT * copied_frame(lab))
    odd = odd_weights(lab) if heard.deaf else {}
    if not odd:
        return heard
    model = lab.build()
    change = reinitialise(odd).model
    assert change is not None
    change(model)
    redrawn, _ = text_movement(lab, model)
    return Hearing(
        fresh, trained, acted, updated, heard.learnt, redrawn=redrawn, oddest=next(iter(odd))
    )


def copied_frame(lab: Lab) -> float:
    """Mean L1 of the previous frame in the place of each, over the best constant."""
    change = (lab.target[:, 1:] - lab.target[:, :-1]).abs()
    return float(change[lab.mask[:, 1:]].mean()) / lab.best_constant


def move_of(lab: Lab, model: nn.Module) -> tuple[Move, bool]:
    """The moves of a model's prediction, and whether the disturbance of its text acted."""
    text, acted = text_movement(lab, model)
    move = Move(text, rounding_of(lab, model).rms, _history_movement(lab, model))
    if move.deaf and lab.subject.shuffle_text is not None:
        # another way for the text to enter, beside the embedding that was disturbed
        move = Move(max(text, _shuffled_movement(lab, model)), move.rounding, move.history)
    return move, acted


def text_movement(lab: Lab, model: nn.Module) -> tuple[float, bool]:
    """Root mean square move of the prediction, in target deviations, when the text embeddings'
    outputs are disturbed; and whether that changed each of them.
    """
    modules = dict(model.named_modules())
    with without_dropout(model):
        before = lab.predict(model, field="mel")
        with outputs_changed((modules[name], _disturb) for name in anatomy(lab).embeddings) as made:
            after = lab.predict(model, field="mel")
    return rms_movement(before, after, lab), all(one.acted for one in made)


def _disturb(tensor: Tensor) -> Tensor:
    return with_noise(tensor, 1)


def _shuffled_movement(lab: Lab, model: nn.Module) -> float:
    """The same when the subject shuffles its text."""
    assert lab.subject.shuffle_text is not None
    other = lab.subject.shuffle_text(private_copy(lab.batch), torch.Generator().manual_seed(1))
    with without_dropout(model):
        before = lab.predict(model, field="mel")
        return rms_movement(before, lab.predict(model, other, "mel"), lab)


def _history_movement(lab: Lab, model: nn.Module) -> float | None:
    """The same when all frames of the history are disturbed; None where nothing hears them."""
    histories = anatomy(lab).histories
    if not histories:
        return None
    with without_dropout(model):
        before = lab.predict(model, field="mel")
        batch = with_frames_changed(lab, list(histories), slice(None))
        moved = rms_movement(before, lab.predict(model, batch, "mel"), lab)
    return moved or None
