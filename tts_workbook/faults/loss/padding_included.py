"""loss.padding_included: the loss averages over padding too."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from tts_core.speech.batch import lengths_to_mask
from tts_workbook.bars import Bar
from tts_workbook.faults.cause import Cause, Decision, Experiment, Telling
from tts_workbook.faults.loss._identity import (
    FLOORS,
    SAME,
    Identity,
    tell_about,
    where_it_can_be_asked,
)
from tts_workbook.faults.model._padding import FAR, padding_moves, with_padding
from tts_workbook.faults.planting import Build, Setting
from tts_workbook.lab.lab import Lab
from tts_workbook.measure.optimizer_parity import nudged
from tts_workbook.measure.prediction import eval_losses, losses_of_prediction
from tts_workbook.subject.interventions import HeldNoise
from tts_workbook.subject.isolation import private_copy
from tts_workbook.subject.opened import OpenSubject
from tts_workbook.subject.subject import Batch, Subject

STAYS = Bar(
    10 * SAME,
    control="of the loss without the padding: ten times what another order of summation may do, for"
    " padding changes the blocks in which a sum is taken",
)
ERRORS = Bar(5.0, control="times the standard error of the difference, where the losses draw noise")
N_DRAWS = 8  # of losses that draw noise which cannot be held still


@dataclass(frozen=True)
class Change:
    """One term with padding appended, against itself without."""

    relative: float
    noise: float = 0.0  # relative, standard error of that where the losses draw noise
    rounding: float = 0.0  # relative, when every weight is off by a rounding
    # the same between much padding and twice as much, which no convolution reaches; None: not asked
    far: float | None = None

    @property
    def moves(self) -> bool:
        """A loss that averages over padding never comes to rest; what looks past a clip's end
        does.
        """
        bar = max(STAYS, ERRORS * self.noise, FLOORS * self.rounding)
        far = self.relative if self.far is None else self.far
        return abs(self.relative) > bar and abs(far) > bar


@dataclass(frozen=True)
class Padded:
    """The losses of a batch with padding appended on one path, against the batch as it is."""

    n: int  # places appended
    # whether the prediction moves with the padding; the model is then made to predict the same
    prediction_moves: bool
    changes: Mapping[str, Change]  # term ("total" too); empty where nothing could be compared
    draws: bool = False  # whether the losses draw noise that cannot be held still


@dataclass(frozen=True)
class PaddedLosses:
    """The paths that could be tried: "frames", "text"."""

    paths: Mapping[str, Padded]
    about: Identity | None  # what the loss says of the target itself
    # terms that do not hang on the predicted frames, where text could not be padded
    text_terms: tuple[str, ...] = ()
    failed: Mapping[str, str] = field(default_factory=dict)  # path -> what its padded batch raised


def measure(lab: Lab) -> PaddedLosses:
    """Append padding and compare the losses; where the prediction moves with it, of the same
    prediction.
    """
    about = where_it_can_be_asked(lab)
    paths: dict[str, Padded] = {}
    failed: dict[str, str] = {}
    pads = {"frames": with_padding, "text": _with_text_padding}
    if lab.subject.pad_text is None:
        del pads["text"]
    for path, pad in pads.items():
        try:
            paths[path] = _path(lab, path, pad, about)
        except Exception as error:  # a model may have no positions for so many
            failed[path] = f"{type(error).__name__}: {error}"
    text_terms: tuple[str, ...] = ()
    if "text" not in paths and about.reached:
        text_terms = tuple(name for name, values in about.terms.items() if not values.heard)
    return PaddedLosses(paths, about, text_terms, failed)


def _with_text_padding(lab: Lab, n: int) -> Batch:
    """The subject's batch with that much more padding behind the texts."""
    assert lab.subject.pad_text is not None
    return lab.subject.pad_text(private_copy(lab.batch), n)


def _path(lab: Lab, path: str, pad: Callable[[Lab, int], Batch], about: Identity) -> Padded:
    moves = padding_moves(lab)
    n = moves.n_padded
    padded = pad(lab, n)
    if path in moves.failed or not moves.appended.get(path, math.inf) <= moves.bar:
        return Padded(n, True, _of_one_prediction(lab, padded, about))
    draws = _draws(lab)
    n_draws = N_DRAWS if draws else 1
    near = _compared(lab, _values(lab, lab.batch, n_draws), _values(lab, padded, n_draws))
    if any(change.moves for change in near.values()):
        far = _far(lab, pad, n_draws)
        near = {name: replace(change, far=far.get(name)) for name, change in near.items()}
    return Padded(n, False, near, draws)


def _far(lab: Lab, pad: Callable[[Lab, int], Batch], n_draws: int) -> dict[str, float]:
    """Term -> its relative change from much padding to twice as much; empty where the model has no
    places for so many.
    """
    for n in FAR:
        try:
            short = _values(lab, pad(lab, n), n_draws)
            long = _values(lab, pad(lab, 2 * n), n_draws)
        except Exception:  # then fewer
            continue
        return {name: change.relative for name, change in _compared(lab, short, long).items()}
    return {}


def _compared(
    lab: Lab, short: dict[str, list[float]], long: dict[str, list[float]]
) -> dict[str, Change]:
    own = _losses(lab, lab.model, lab.batch)
    off = _losses(lab, nudged(lab.model), lab.batch)
    changes = {}
    for name in short:
        size = abs(_mean(short[name])) + 1e-9
        error = math.hypot(_standard_error(short[name]), _standard_error(long[name]))
        changes[name] = Change(
            (_mean(long[name]) - _mean(short[name])) / size,
            error / size,
            abs(off[name] - own[name]) / size,
        )
    return changes


def _losses(opened: OpenSubject, model: nn.Module, batch: Batch) -> dict[str, float]:
    """The terms, every draw that can be held still the same for valid places however much padding
    there is.
    """
    with HeldNoise():
        return eval_losses(opened, model, batch)


def _draws(lab: Lab) -> bool:
    """Whether the losses draw noise that is not held still: another seed gives other values."""
    own = _losses(lab, lab.model, lab.batch)
    again = _losses(OpenSubject(lab.subject, lab.seed + 1), lab.model, lab.batch)
    return any(again[name] != own[name] for name in own)


def _values(lab: Lab, batch: Batch, n_draws: int) -> dict[str, list[float]]:
    """Term -> its values on a batch, from several seeds."""
    rows = []
    for number in range(n_draws):
        opened = OpenSubject(lab.subject, lab.seed + number) if number else lab
        rows.append(_losses(opened, lab.model, batch))
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


def worst(numbers: PaddedLosses) -> tuple[str, str]:
    """The path and the term that changes most; "total" where there is no other. Terms that move
    come before those that only look past an end.
    """
    found = [
        (change.moves, abs(change.relative), path, name)
        for path, padded in numbers.paths.items()
        for name, change in padded.changes.items()
        if name != "total" or len(padded.changes) == 1
    ]
    _, _, path, name = max(found, key=lambda row: row[:2])
    return path, name


def decide(numbers: PaddedLosses) -> Decision | None:
    """Pure: no loss changes with padding, on any path. One that is not about the target may change
    for that.
    """
    changes = [change for padded in numbers.paths.values() for change in padded.changes.values()]
    if not changes:
        return Decision("undecided", reason="prediction moves")
    if not all(math.isfinite(change.relative) for change in changes):
        return Decision("undecided", reason="not finite")
    path, name = worst(numbers)
    strength = min(1.0, abs(numbers.paths[path].changes[name].relative))
    if any(change.moves for change in changes):
        if numbers.about is not None and numbers.about.about in ("its opposite", "something else"):
            return Decision("undecided", strength=strength, reason="not about the target")
        return Decision("confirmed", f"losses[{name!r}]", strength, "changes")
    if any(padded.prediction_moves for padded in numbers.paths.values()):
        # the other terms hang on predictions that move
        return Decision("undecided", strength=strength, reason="only the mel could be asked")
    if numbers.text_terms or numbers.failed:
        return Decision("undecided", strength=strength, reason="a path was not tried")
    return Decision("excluded", strength=strength, reason="stays")


SAID = {
    "prediction moves": "next: mend the padding mask first, the prediction moves",
    "only the mel could be asked": "the mel term of one prediction stays; the prediction itself"
    " moves with the padding; next: mend that first, and judge the other terms then",
    "not finite": "a loss is not finite; next: mend that, and diagnose again",
}


def tell(numbers: PaddedLosses, decision: Decision) -> Telling:
    evidence: dict[str, float | str] = {}
    for path, padded in numbers.paths.items():
        for name, change in padded.changes.items():
            evidence[f"relative change of {name}, {path} padded"] = change.relative
            if change.far is not None:
                evidence[f"the same of {name} far behind every end"] = change.far
            if padded.draws:
                evidence[f"standard error of the change of {name}"] = change.noise
    if decision.reason in SAID:
        return Telling(SAID[decision.reason], evidence)
    tried = [
        f"{padded.n} padded places behind the {path}"
        + (", the model made to predict the same" if padded.prediction_moves else "")
        for path, padded in numbers.paths.items()
    ]
    experiment = "; ".join(tried)
    if decision.reason == "a path was not tried":
        reasons = [f"{path}: {error}" for path, error in numbers.failed.items()]
        if numbers.text_terms:
            reasons.append(f"{', '.join(numbers.text_terms)}: supply Subject.pad_text")
        return Telling(f"{experiment}; next: {'; '.join(reasons)}", evidence)
    about = tell_about(numbers.about) if numbers.about is not None else ""
    return Telling(f"{experiment}; {about}" if about else experiment, evidence)


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
