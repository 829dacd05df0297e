"""loss.padding_included: the loss averages over padding too."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from tts_core.speech.batch import lengths_to_mask
from tts_workbook.faults.bars import Bar
from tts_workbook.faults.cause import Cause, Decision, Experiment, Telling
from tts_workbook.faults.loss._identity import (
    FLOORS,
    SAME,
    Identity,
    tell_about,
    where_it_can_be_asked,
)
from tts_workbook.faults.model._padding import padding_moves, with_padding
from tts_workbook.faults.planting import Build, Setting
from tts_workbook.lab.lab import Lab
from tts_workbook.measure.optimizer_parity import nudged
from tts_workbook.measure.prediction import eval_losses, losses_of_prediction
from tts_workbook.subject.opened import OpenSubject
from tts_workbook.subject.subject import Batch, Subject

STAYS = Bar(
    10 * SAME,
    control="of the loss without the padding: ten times what another order of summation may do, for"
    " padding changes the blocks in which a sum is taken",
)
ERRORS = Bar(5.0, control="times the standard error of the difference, where the losses draw noise")
N_DRAWS = 8  # of losses that draw noise


@dataclass(frozen=True)
class Change:
    """One term with padding appended, against itself without."""

    relative: float
    noise: float = 0.0  # relative, standard error of that where the losses draw noise
    rounding: float = 0.0  # relative, when every weight is off by a rounding

    @property
    def moves(self) -> bool:
        bar = max(STAYS, ERRORS * self.noise, FLOORS * self.rounding)
        return abs(self.relative) > bar


@dataclass(frozen=True)
class PaddedLosses:
    """The losses of a batch with padding appended, against those of the batch as it is."""

    n_padded: int  # frames appended
    # whether the prediction moves with the padding; the model is then made to predict the same
    prediction_moves: bool
    changes: Mapping[str, Change]  # term ("total" too); empty where nothing could be compared
    about: Identity | None  # what the loss says of the target itself
    draws: bool = False  # whether the losses draw noise


def measure(lab: Lab) -> PaddedLosses:
    """Append padding and compare the losses; where the prediction moves with it, of the same
    prediction.
    """
    moves = padding_moves(lab)
    padded = with_padding(lab, moves.n_padded)
    about = where_it_can_be_asked(lab)
    if moves.broken:
        changes = _of_one_prediction(lab, padded, about)
        return PaddedLosses(moves.n_padded, True, changes, about)
    draws = _draws(lab)
    n_draws = N_DRAWS if draws else 1
    short, long = _values(lab, lab.batch, n_draws), _values(lab, padded, n_draws)
    off = eval_losses(lab, nudged(lab.model))
    own = eval_losses(lab, lab.model)
    changes = {}
    for name in own:
        size = abs(_mean(short[name])) + 1e-9
        error = math.hypot(_standard_error(short[name]), _standard_error(long[name]))
        changes[name] = Change(
            (_mean(long[name]) - _mean(short[name])) / size,
            error / size,
            abs(off[name] - own[name]) / size,
        )
    return PaddedLosses(moves.n_padded, False, changes, about, draws)


def _draws(lab: Lab) -> bool:
    """Whether the losses draw noise of their own: another seed gives other values."""
    again = eval_losses(OpenSubject(lab.subject, lab.seed + 1), lab.model)
    own = eval_losses(lab, lab.model)
    return any(again[name] != own[name] for name in own)


def _values(lab: Lab, batch: Batch, n_draws: int) -> dict[str, list[float]]:
    """Term -> its values on a batch, from several seeds."""
    rows = []
    for number in range(n_draws):
        opened = OpenSubject(lab.subject, lab.seed + number)
        rows.append(eval_losses(opened, lab.model, batch))
    return {name: [row[name] for row in rows] for name in rows[0]}


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def _standard_error(values: list[float]) -> float:
    """Of their mean; 0 of a single one."""
    if len(values) < 2:
        return 0.0
    mean = _mean(values)
    squares = sum((value - mean) ** 2 for value in values)
    return math.sqrt(squares / (len(values) - 1) / len(values))


def _of_one_prediction(lab: Lab, padded: Batch, about: Identity) -> dict[str, Change]:
    """The distances to the target of one prediction, made on the batch and on the padded one: the
    target off by a deviation, and right in the padding, so that a mean over padding is diluted.
    Empty where the model cannot be made to predict it.
    """
    opened = OpenSubject(replace(lab.subject, batch=padded), lab.seed)
    short = losses_of_prediction(lab, lab.model, _off_by_a_deviation(lab, lab))
    long = losses_of_prediction(opened, lab.model, _off_by_a_deviation(opened, lab))
    if short is None or long is None:
        return {}
    return {
        name: Change((long[name] - short[name]) / (abs(short[name]) + 1e-9))
        for name in about.distances
    }


def _off_by_a_deviation(opened: OpenSubject, lab: Lab) -> Tensor:
    valid = lengths_to_mask(opened.lengths, opened.target.shape[1])
    return opened.target + valid[..., None] * torch.as_tensor(lab.frames.std())


def worst_term(numbers: PaddedLosses) -> str:
    """The term that changes most; "total" where there is no other."""
    names = [name for name in numbers.changes if name != "total"]
    return max(names, key=lambda name: abs(numbers.changes[name].relative), default="total")


def decide(numbers: PaddedLosses) -> Decision | None:
    """Pure: no loss changes with padding. One that is not about the target may change for that."""
    if not numbers.changes:
        return Decision("undecided", reason="prediction moves")
    if not all(math.isfinite(change.relative) for change in numbers.changes.values()):
        return Decision("undecided", reason="not finite")
    worst = worst_term(numbers)
    strength = min(1.0, abs(numbers.changes[worst].relative))
    moving = [name for name, change in numbers.changes.items() if change.moves]
    if not moving and numbers.prediction_moves:
        # the other terms hang on predictions that move
        return Decision("undecided", strength=strength, reason="only the mel could be asked")
    if not moving:
        return Decision("excluded", strength=strength, reason="stays")
    if numbers.about is not None and numbers.about.about in ("its opposite", "something else"):
        return Decision("undecided", strength=strength, reason="not about the target")
    return Decision("confirmed", f"losses[{worst!r}]", strength, "changes")


def tell(numbers: PaddedLosses, decision: Decision) -> Telling:
    evidence: dict[str, float | str] = {
        f"relative change of {name}": change.relative for name, change in numbers.changes.items()
    }
    if decision.reason == "prediction moves":
        return Telling("next: mend the padding mask first, the prediction moves")
    if decision.reason == "only the mel could be asked":
        return Telling(
            "the mel term of one prediction stays; the prediction itself moves with the padding;"
            " next: mend that first, and judge the other terms then",
            evidence,
        )
    if decision.reason == "not finite":
        return Telling("a loss is not finite; next: mend that, and diagnose again", evidence)
    experiment = f"{numbers.n_padded} padded frames appended"
    if numbers.prediction_moves:
        experiment += ", the model made to predict the same"
    if numbers.draws:
        experiment += f", the mean of {N_DRAWS} draws of the losses' own noise"
        evidence |= {
            f"standard error of the change of {name}": change.noise
            for name, change in numbers.changes.items()
        }
    about = tell_about(numbers.about) if numbers.about is not None else ""
    if about:
        experiment = f"{experiment}; {about}"
    return Telling(experiment, evidence)


def plant(build: Build, setting: Setting) -> Subject:
    """Mean over padding too, in batches padded to 2 to 4 times their length, as for a fixed
    maximum.
    """
    factor = setting.log_uniform(2, 4)

    def over_padding_too(prediction: Tensor, target: Tensor, lengths: Tensor) -> Tensor:
        return (prediction.float() - target).abs().mean()

    subject = build(setting, mel_loss=over_padding_too)
    pad, batches = subject.pad, subject.batches
    assert pad is not None
    n_frames = round(subject.target_mel(subject.batch)[0].shape[1] * factor)

    def padded(batch: Any) -> Any:
        return pad(batch, max(0, n_frames - subject.target_mel(batch)[0].shape[1]))

    return replace(
        subject,
        batch=padded(subject.batch),
        batches=None if batches is None else lambda: map(padded, batches()),
    )


CAUSE = Cause(
    id="loss.padding_included",
    title="the loss averages over padding too",
    experiment="append padding and watch the loss",
    fix="mask by lengths and divide by the number of valid values",
    experiments=(Experiment(measure, decide, tell, needs=("pad",), finite=True),),
    plant=plant,
    plant_needs={"batch_size": 2},
)
