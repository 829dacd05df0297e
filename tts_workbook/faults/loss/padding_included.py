"""loss.padding_included: the loss averages over padding too."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from tts_workbook.faults.cause import Cause, Decision, Experiment, Telling
from tts_workbook.faults.loss._identity import SAME, Identity, tell_about, where_it_can_be_asked
from tts_workbook.faults.model._padding import padding_moves, with_padding
from tts_workbook.faults.planting import Build, Setting
from tts_workbook.lab.lab import Lab
from tts_workbook.measure.prediction import eval_losses
from tts_workbook.subject.subject import Subject

STAYS = 10 * SAME  # the relative change of a loss that sums over the same values


@dataclass(frozen=True)
class PaddedLosses:
    """The losses of a batch with padding appended, against those of the batch as it is."""

    n_padded: int  # frames appended
    prediction_moves: bool  # then nothing below is asked
    changes: Mapping[str, float]  # term ("total" too) -> relative change
    about: Identity | None  # what the loss says of the target itself


def measure(lab: Lab) -> PaddedLosses:
    """Append padding; where the prediction stays, compare the losses."""
    moves = padding_moves(lab)
    if moves.broken:
        return PaddedLosses(moves.n_padded, True, {}, None)
    padded = with_padding(lab, moves.n_padded)
    short, long = eval_losses(lab, lab.model), eval_losses(lab, lab.model, padded)
    changes = {name: (long[name] - short[name]) / (abs(short[name]) + 1e-9) for name in short}
    return PaddedLosses(moves.n_padded, False, changes, where_it_can_be_asked(lab))


def worst_term(numbers: PaddedLosses) -> str:
    """The term that changes most; "total" where there is no other."""
    names = [name for name in numbers.changes if name != "total"]
    return max(names, key=lambda name: abs(numbers.changes[name]), default="total")


def decide(numbers: PaddedLosses) -> Decision | None:
    """Pure: no loss changes with padding. One that is not about the target may change for that."""
    if numbers.prediction_moves:
        return Decision("undecided", reason="prediction moves")
    worst = worst_term(numbers)
    strength = min(1.0, abs(numbers.changes[worst]))
    if max(abs(change) for change in numbers.changes.values()) <= STAYS:
        return Decision("excluded", strength=strength, reason="stays")
    if numbers.about is not None and numbers.about.about in ("its opposite", "something else"):
        return Decision("undecided", strength=strength, reason="not about the target")
    return Decision("confirmed", f"losses[{worst!r}]", strength, "changes")


def tell(numbers: PaddedLosses, decision: Decision) -> Telling:
    if decision.reason == "prediction moves":
        return Telling("next: mend the padding mask first, the prediction moves")
    experiment = f"{numbers.n_padded} padded frames appended"
    about = tell_about(numbers.about) if numbers.about is not None else ""
    if about:
        experiment = f"{experiment}; {about}"
    evidence = {f"relative change of {name}": change for name, change in numbers.changes.items()}
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
