"""What the loss says of the target itself, and of what is not the target: is it about the target?

The model is made to predict the target, its frames, bins or clips in disorder, and a wrong
level. Nothing here is a cause: loss.wrong_reduction, loss.logged_not_optimised and
loss.padding_included ask it, and so does the selection of paired runs.

Shapes: B batch, T frames, M mel bins.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from tts_workbook.bars import Bar
from tts_workbook.lab.lab import Lab
from tts_workbook.measure.optimizer_parity import nudged
from tts_workbook.measure.prediction import eval_losses, losses_of_prediction
from tts_workbook.measure.term_gradients import term_gradients, value_weights
from tts_workbook.subject.opened import once_per_subject
from tts_workbook.subject.tensor_math import tensors_norm

SAME = Bar(
    1e-3,
    control="of the term's own value: what bf16 autocast and another order of summation may do",
)
FLOORS = Bar(10.0, control="times what weights that are off by a rounding do to the same value")
IDENTITY_SHARE = Bar(
    0.05,
    control="of the loss of shuffled frames, and of a level off by one deviation: a loss of the"
    " target itself above this is worth a question to the trained model",
)
BLIND_SHARE = Bar(
    0.02,
    control="of what a level off by one deviation costs: frames, bins or clips in disorder that"
    " cost less are not seen",
)
OTHER_TARGET = Bar(
    0.5,
    control="of the trained model's loss of the target itself: a broadcast cannot be trained below"
    " 0.7 of it",
)
UNLIKE = Bar(0.1, control="of the target's deviation: clips that differ by less are the same clip")

# "the target": a distance to it, or one that is reduced wrongly; "its opposite": the loss falls
# when the prediction leaves the target; "something else": training brings it far below what the
# target itself has; "not known": it could not be asked
About = Literal["the target", "its opposite", "something else", "not known"]


EXPERIMENT = (
    "the model made to predict the target, its frames, bins and clips in disorder, and the target"
    " off by one deviation"
)


@dataclass(frozen=True)
class TermValues:
    """One term of the loss, of several predictions."""

    own: float  # the fresh model's own
    target: float  # the target itself
    disorder: float  # the target's frames in disorder
    rebinned: float  # its bins in disorder
    level: float  # the target off by one deviation
    clips: float | None = None  # the clips exchanged; None where there is one, or all are alike

    @property
    def _wrong(self) -> list[float]:
        """Of predictions that hold the target's frames, in another order."""
        values = [self.disorder, self.rebinned]
        return values if self.clips is None else [*values, self.clips]

    @property
    def heard(self) -> bool:
        """Whether the term depends on what is predicted."""
        bar = SAME * (abs(self.own) + 1e-9)
        others = (self.target, self.level, *self._wrong)
        return any(abs(other - self.own) > bar for other in others)

    @property
    def offset(self) -> bool:
        """Whether the target itself has a loss worth naming beside what is wrong: a likelihood with
        a learnt width has, frames of padding have, another target has.
        """
        beside_disorder = self.target > IDENTITY_SHARE * max(self.disorder, 1e-12)
        return beside_disorder and self.target > IDENTITY_SHARE * self.level

    @property
    def blind(self) -> bool:
        """Whether it does not see frames, bins or clips, while it sees the level."""
        seen = min(self._wrong) - self.target
        return seen < BLIND_SHARE * abs(self.level - self.target)

    def falls_away(self, rounding: float) -> bool:
        """Whether it falls when the prediction leaves the target, by more than rounding does: a
        broadcast, or a mean taken first, has the same value of frames in disorder but for the order
        in which they are summed.
        """
        values = (self.target, self.disorder, self.rebinned, self.level)
        largest = max(abs(value) for value in values)
        fall = self.target - min(self.disorder, self.level)
        return fall > max(SAME * largest, FLOORS * rounding)


@dataclass(frozen=True)
class Trained:
    """One term of the trained model."""

    own: float  # of its own prediction
    target: float  # of the target itself

    @property
    def elsewhere(self) -> bool:
        """Whether training has brought it far below what the target itself has."""
        return self.target - self.own > (1.0 - OTHER_TARGET) * abs(self.target)


@dataclass(frozen=True)
class Identity:
    """What the terms say, and of the terms that have to be a distance to the target the first one
    that is none.
    """

    reached: bool  # whether the model could be made to predict all that; else nothing below is said
    terms: Mapping[str, TermValues]  # without "total"
    distances: tuple[str, ...]  # terms that have to be a distance to the target, as judged
    broken: str  # the first of them that is none; "" where all are
    # what weights that are off by a rounding do to that one's value of the target
    rounding: float
    trained: Trained | None  # that one after the subject's course, where this was asked
    about: About


UNKNOWN = Identity(False, {}, (), "", 0.0, None, "not known")


def loss_is_about(lab: Lab) -> About:
    """Whether the loss is about the target at all: what is learnt is something else where it is
    not, and faster or slower says nothing about the target.
    """
    return where_it_can_be_asked(lab).about


@once_per_subject
def where_it_can_be_asked(lab: Lab) -> Identity:
    """`identity`, or UNKNOWN where the subject's prediction is not finite, its code raises or the
    budget is spent: for those who only want to know; loss.wrong_reduction says what was in the way.
    """
    try:
        return identity(lab) if lab.predicts_numbers else UNKNOWN
    except Exception:  # the subject's code may raise anything
        return UNKNOWN


@once_per_subject
def identity(lab: Lab) -> Identity:
    """Ask the loss; the subject's course is run only where a broken distance does not fall away
    from the target. The prediction of a fresh model has to be finite.
    """
    terms = _values(lab)
    if terms is None:
        return UNKNOWN
    heard = [name for name, values in terms.items() if values.heard]
    distances = tuple(_distances(lab, heard))
    broken = ""
    for name in distances:
        if terms[name].offset or terms[name].blind:
            broken = name
            break
    if not broken:
        about: About = "the target" if distances else "not known"
        return Identity(True, terms, distances, "", 0.0, None, about)
    rounding = _rounding(lab, broken, terms[broken].target)
    if terms[broken].falls_away(rounding):
        return Identity(True, terms, distances, broken, rounding, None, "its opposite")
    trained = _trained(lab, broken, terms[broken].target)
    about = "something else" if trained.elsewhere else "the target"
    return Identity(True, terms, distances, broken, rounding, trained, about)


def tell_about(found: Identity) -> str:
    """Why a term that is not smallest at the target need not be reduced wrongly; "" where it is
    about the target.
    """
    if found.about == "its opposite":
        return (
            "it falls when the prediction leaves the target; next: look at its sign, and at what it"
            " is given as its target"
        )
    if found.about == "something else" and found.trained is not None:
        return (
            f"but training brings it to {found.trained.own:.3g}, far below the"
            f" {found.trained.target:.3g} of the"
            " target itself: it compares with something else; next: plot what the loss is given as"
            " its target"
        )
    return ""


def shuffled_in_time(target: Tensor, lengths: Tensor, seed: int = 0) -> Tensor:
    """(B, T, M) with the valid frames of each clip in a random order; padding stays."""
    generator = torch.Generator().manual_seed(seed)
    shuffled = target.clone()
    for row, length in enumerate(lengths.tolist()):
        order = torch.randperm(length, generator=generator).to(target.device)
        shuffled[row, :length] = target[row, order]
    return shuffled


def _values(lab: Lab) -> dict[str, TermValues] | None:
    """The terms but for the total; None where the model cannot be made to predict something."""
    n_bins = lab.target.shape[2]
    bins = torch.randperm(n_bins, generator=torch.Generator().manual_seed(0))
    own = eval_losses(lab, lab.model)
    target = losses_of_prediction(lab, lab.model, lab.target)
    frames_in_disorder = shuffled_in_time(lab.target, lab.lengths)
    disorder = losses_of_prediction(lab, lab.model, frames_in_disorder)
    rebinned = losses_of_prediction(lab, lab.model, lab.target[..., bins])
    level = losses_of_prediction(lab, lab.model, lab.target + lab.frames.std())
    if target is None or disorder is None or rebinned is None or level is None:
        return None
    exchanged = lab.target.roll(1, dims=0)
    apart = float((exchanged - lab.target).abs()[lab.mask].mean())
    clips = None
    if apart > UNLIKE * float(lab.frames.std()):
        clips = losses_of_prediction(lab, lab.model, exchanged)
    return {
        name: TermValues(
            own[name],
            target[name],
            disorder[name],
            rebinned[name],
            level[name],
            None if clips is None else clips[name],
        )
        for name in own
        if name != "total"
    }


def _trained(lab: Lab, name: str, fresh: float) -> Trained:
    """A term after the subject's course; where the trained model cannot be made to predict the
    target, `fresh` stands for its loss of the target.
    """
    model = lab.course().model
    target = losses_of_prediction(lab, model, lab.target)
    return Trained(eval_losses(lab, model)[name], fresh if target is None else target[name])


def _rounding(lab: Lab, name: str, value: float) -> float:
    """How far a term's value of the target moves when every weight is off by a rounding; 0 where
    such a model cannot be made to predict the target.
    """
    off = losses_of_prediction(lab, nudged(lab.model), lab.target)
    return 0.0 if off is None else abs(off[name] - value)


def _distances(lab: Lab, heard: list[str]) -> list[str]:
    """Those of the terms that hear the prediction which have to be a distance to the target: called
    after the mel, else the one that makes most of total's gradient. The others may be regularisers
    and critics, which want something else.
    """
    named = [name for name in heard if "mel" in name.lower()]
    if named or len(heard) < 2:
        return named or heard
    gradients, weights = term_gradients(lab), value_weights(lab)

    def pull(name: str) -> float:
        return abs(weights.get(name, 0.0)) * tensors_norm(gradients[name].values())

    return [max(heard, key=pull)]
