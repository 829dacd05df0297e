"""loss.shifted_twice: targets and inputs are shifted both outside and inside the model, so that it
learns frame t + 2 from the frames up to t.

Shapes: B batch, T frames, M mel bins.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from tts_workbook.bars import Bar
from tts_workbook.faults.cause import Cause, Decision, Experiment, Telling
from tts_workbook.faults.loss._identity import where_it_can_be_asked
from tts_workbook.faults.planting import Build, Setting
from tts_workbook.lab.lab import Lab
from tts_workbook.measure.anatomy import anatomy, movement, rounding, with_frames_changed
from tts_workbook.measure.prediction import losses_of_prediction
from tts_workbook.subject.clip_data import mean_l1
from tts_workbook.subject.isolation import without_dropout
from tts_workbook.subject.subject import Subject

# frames by which the target is shifted: one in the data beside one in the model, and two where
# frames go in pairs
SHIFTS = (-2, -1, 0, 1, 2)
N_SPOTS = 8  # frames t in a row, more than any reduction factor has
EXACT = Bar(
    0.1,
    control="of the loss of the target as it is: the loss of the shifted target has to be below,"
    " for a distance is zero at its own target but for a frame at the end",
)


# --- what the loss is given as its target ---------------------------------------------------------


@dataclass(frozen=True)
class ShiftedLosses:
    """The mel term when the model is made to predict the target shifted by some frames."""

    term: str  # "" where the model could not be made to predict it, or no term is a distance
    # shift -> value; at shift s the prediction of frame t is the target's frame t + s
    values: Mapping[int, float]

    @property
    def least(self) -> int:
        """The shift at which the loss is least."""
        return min(self.values, key=lambda shift: self.values[shift])


def measure_losses(lab: Lab) -> ShiftedLosses:
    """The first term that has to be a distance to the target, at each of SHIFTS."""
    about = where_it_can_be_asked(lab)
    if not about.reached or not about.distances:
        return ShiftedLosses("", {})
    term = about.broken or about.distances[0]
    values: dict[int, float] = {}
    for shift in SHIFTS:
        found = losses_of_prediction(lab, lab.model, shifted(lab.target, lab.lengths, shift))
        if found is None:
            return ShiftedLosses("", {})
        values[shift] = found[term]
    return ShiftedLosses(term, values)


def shifted(target: Tensor, lengths: Tensor, shift: int) -> Tensor:
    """(B, T, M): frame t is the target's t + shift; the first or last valid frame is held."""
    found = target.clone()
    for row, length in enumerate(lengths.tolist()):
        places = (torch.arange(length, device=target.device) + shift).clamp(0, length - 1)
        found[row, :length] = target[row, places]
    return found


def decide_losses(numbers: ShiftedLosses) -> Decision:
    """Pure: the loss is least where the prediction is the target as it is."""
    if not numbers.term:
        return Decision("undecided", reason="not reached")
    if not all(math.isfinite(value) for value in numbers.values.values()):
        return Decision("undecided", reason="not finite")
    least = numbers.least
    if least == 0 or numbers.values[least] > EXACT * numbers.values[0]:
        return Decision("excluded", reason="least where it should be")
    where = f"losses[{numbers.term!r}]"
    if least < 0:
        return Decision("undecided", where, reason="an earlier target")
    return Decision("confirmed", where, 1.0, "a later target")


def tell_losses(numbers: ShiftedLosses, decision: Decision) -> Telling:
    evidence: dict[str, float | str] = {
        f"{numbers.term} of the target shifted by {shift:+d} frames": value
        for shift, value in numbers.values.items()
    }
    match decision.reason:
        case "not reached":
            return Telling(
                "next: the last layer could not be made to give the target; compute the loss of the"
                " target shifted by -2 to 2 frames by hand"
            )
        case "not finite":
            return Telling("a loss is not finite; next: mend that, and diagnose again", evidence)
        case "an earlier target":
            return Telling(
                "the loss is least where each frame is predicted a frame or two late; next: compare"
                " what the loss is given as its target with Subject.target_mel",
                evidence,
            )
    if decision.level == "confirmed":
        evidence["least at a shift of"] = float(numbers.least)
    return Telling("the model made to predict the target shifted by -2 to 2 frames", evidence)


# --- what the decoder is given as its history -----------------------------------------------------


@dataclass(frozen=True)
class Lag:
    """How far behind a frame the last frame is that its prediction hears."""

    least: int  # frames, over N_SPOTS frames in a row; 0 where no history was found or heard


def measure_lag(lab: Lab) -> Lag:
    """Disturb one frame of the history after another, in the middle of the shortest clip."""
    if not anatomy(lab).histories:
        return Lag(0)
    middle = int(lab.lengths.min()) // 2
    spots = range(max(0, middle - N_SPOTS), middle)
    bar = rounding(lab).moved
    lags: list[int] = []
    with without_dropout(lab.model):
        before = lab.predict(lab.model)
        for spot in spots:
            batch = with_frames_changed(lab, list(anatomy(lab).histories), slice(spot, spot + 1))
            moved = movement(before, lab.predict(lab.model, batch), lab).amax(dim=0)
            heard = (moved > bar).nonzero().flatten()
            if len(heard):
                lags.append(int(heard[0]) - spot)
    return Lag(max(0, min(lags, default=0)))


def decide_lag(numbers: Lag) -> Decision | None:
    """Pure: some frame hears the one just before it; with a reduction factor it is the first of
    every step. A model may be meant to lag: nothing is accused.
    """
    if numbers.least < 2:
        return None
    return Decision("question", "predict_mel", reason="lags")


def tell_lag(numbers: Lag, decision: Decision) -> Telling:
    return Telling(
        f"noise on {N_SPOTS} frames of the history, one by one",
        {"least lag, frames": float(numbers.least)},
        "is this meant? no frame hears the one just before it: shift the decoder's input either in"
        " the data or in the model",
    )


def plant(build: Build, setting: Setting) -> Subject:
    """The data shifts the target by a frame, and the decoder shifts its input."""

    def a_frame_later(prediction: Tensor, target: Tensor, lengths: Tensor) -> Tensor:
        return mean_l1(prediction[:, :-1], target[:, 1:], lengths - 1)

    return build(setting, mel_loss=a_frame_later)


CAUSE = Cause(
    id="loss.shifted_twice",
    title="the target is shifted twice: in the data and in the model",
    experiment="the loss of the target shifted by -2 to 2 frames: where is it least?",
    fix="shift once: either the data hands over frames t and t + 1, or the model shifts its input",
    experiments=(
        Experiment(measure_losses, decide_losses, tell_losses, finite=True),
        Experiment(measure_lag, decide_lag, tell_lag, finite=True),
    ),
    plant=plant,
)
