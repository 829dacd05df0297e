"""optimizer.averaged_weights: what is judged is an average that has not caught up."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from tts_workbook.faults.cause import Cause, Decision, Experiment, Telling
from tts_workbook.faults.optimizer._other_weights import watched_weights
from tts_workbook.faults.planting import Build, Setting
from tts_workbook.faults.selection import MARGIN, OneFactor, paired, tell_one_factor
from tts_workbook.faults.suspect import Suspect
from tts_workbook.lab.lab import Lab
from tts_workbook.lab.short_run import Change, ChangeKey
from tts_workbook.subject.opened import once_per_subject
from tts_workbook.subject.subject import Subject
from tts_workbook.subject.tensor_math import tensors_norm
from tts_workbook.subject.training_step import plain_step


@dataclass(frozen=True)
class JudgedWith:
    """The weights of the judgement at the end of the subject's course, against the trained ones."""

    n_calls: int  # calls of modules that were looked at: 0 where none was seen
    n_other: int  # tensors that were used with other values than the trained
    unpaired: tuple[str, ...]  # kinds of called modules that are none of the model's
    # of the judged weights from the trained ones, over that of the first ones from them: 1 is an
    # average that has not moved, 0 one that has caught up
    behind: float


@once_per_subject
def judged_with(lab: Lab) -> JudgedWith:
    """One prediction of the model as the subject's course left it, by `predict_mel`."""
    model = lab.course().model
    with watched_weights(model) as watch:
        lab.predict(model, field="mel")
    first = dict(lab.build().named_parameters())
    moves = [
        trained - first[name].detach() for name, trained in watch.trained.items() if name in first
    ]
    moved = tensors_norm(moves)
    behind = math.sqrt(watch.distance) / moved if moved > 0.0 else math.nan
    return JudgedWith(watch.n_calls, watch.n_other, tuple(watch.unpaired), behind)


def trained_weights() -> Change:
    """The model is judged with the weights that it was trained to, wherever others come from."""

    def around(model: nn.Module) -> AbstractContextManager[Any]:
        return watched_weights(model, swap=True)

    return Change("trained_weights", (), "judged with the trained weights".format, around=around)


def propose(lab: Lab) -> Iterable[Suspect]:
    """Judgement with the trained weights, where a prediction uses others."""
    seen = judged_with(lab)
    if seen.n_other:
        evidence = {"tensors that are judged with other values": float(seen.n_other)}
        yield Suspect(CAUSE.id, trained_weights(), evidence, "predict_mel")


# --- other weights behind predict_mel -------------------------------------------------------------

ONE_FACTOR = paired("optimizer.averaged_weights")


@dataclass(frozen=True)
class Averaged:
    """The weights of the judgement, and what the paired run with the trained ones said."""

    seen: JudgedWith
    raw: OneFactor


def measure(lab: Lab) -> Averaged:
    return Averaged(judged_with(lab), ONE_FACTOR.measure(lab))


def decide(numbers: Averaged) -> Decision:
    """Pure: the trained weights, as the one factor, remove the harm."""
    seen, raw = numbers.seen, numbers.raw
    if raw.accepted is not None:
        return Decision("confirmed", raw.accepted.suspect.where, raw.accepted.gain, "lags")
    if not seen.n_calls:
        return Decision("undecided", reason="not seen")
    if seen.unpaired:
        return Decision("undecided", reason="unpaired")
    if seen.n_other:
        return Decision("excluded", reason="caught up")
    return Decision("excluded", reason="the trained ones")


SAID = {
    "not seen": (
        "a prediction called no module that could be watched; next: supply Subject.judged, or"
        " predict with the eager model"
    ),
    "unpaired": (
        "a prediction calls modules that are none of the model's; next: supply Subject.judged with"
        " the model that is heard, and let predict_mel use the one that it is given"
    ),
    "caught up": "judged with the trained weights as the one factor, same seeds: it gains nothing",
    "the trained ones": "weights that a prediction uses, against those that were trained",
}


def tell(numbers: Averaged, decision: Decision) -> Telling:
    evidence: dict[str, float | str] = {
        "tensors that are judged with other values": float(numbers.seen.n_other)
    }
    if numbers.seen.n_other:
        evidence["distance from the trained weights / way that these went"] = numbers.seen.behind
    if numbers.seen.unpaired:
        evidence["none of the model's"] = numbers.seen.unpaired[0]
    if decision.level != "confirmed":
        return Telling(SAID[decision.reason], evidence)
    told = tell_one_factor(numbers.raw, decision)
    return replace(told, evidence={**evidence, **told.evidence})


# --- Subject.judged -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Heard:
    """TF L1 over the best constant at the end of the subject's course, by both sets of weights."""

    trained: float
    judged: float
    mended_by: tuple[ChangeKey, ...] = ()


def measure_heard(lab: Lab) -> Heard:
    """The model that `Subject.judged` gives, beside the trained one."""
    judged = lab.subject.judged
    assert judged is not None  # the experiment needs it
    model = lab.course().model
    return Heard(
        trained=lab.error(lab.predict(model, field="mel")),
        judged=lab.error(lab.predict(judged(model), field="mel")),
        mended_by=(trained_weights().key,),
    )


def decide_heard(numbers: Heard) -> Decision:
    """Pure: the same judgement with the trained weights is better by the margin."""
    if not math.isfinite(numbers.trained) or not math.isfinite(numbers.judged):
        return Decision("undecided", reason="not finite")
    gain = numbers.judged - numbers.trained
    if gain > MARGIN:
        return Decision("confirmed", "judged", gain, "lags")
    return Decision("excluded", reason="caught up")


def tell_heard(numbers: Heard, decision: Decision) -> Telling:
    evidence = {
        "TF L1 / best constant with the judged weights": numbers.judged,
        "with the trained weights": numbers.trained,
    }
    experiment = "the same judgement with the trained weights, at the end of a course"
    if decision.reason == "not finite":
        experiment = f"{experiment}: one is not finite; next: mend that"
    mending = numbers.mended_by if decision.level == "confirmed" else ()
    return Telling(experiment, evidence, mended_by=mending)


# --- planted --------------------------------------------------------------------------------------

# parts of Subject that judge a model: they are given it first
JUDGING = ("predict_mel", "predict_frames", "generate", "continue_from", "infer", "stop")


def averaging(subject: Subject, average: Callable[..., AveragedModel]) -> Subject:
    """The subject whose judging parts use `average(model)`, updated after each of its steps."""
    averages: weakref.WeakKeyDictionary[nn.Module, AveragedModel] = weakref.WeakKeyDictionary()

    def train_step(model: nn.Module, optimizer: torch.optim.Optimizer, batch: Any) -> Any:
        if model not in averages:
            averages[model] = average(model)
        if subject.train_step is None:
            seen: Any = plain_step(model, optimizer, batch, subject.losses)
        else:
            seen = subject.train_step(model, optimizer, batch)
        averages[model].update_parameters(model)
        return seen

    def judged(model: nn.Module) -> nn.Module:
        return averages[model].module.eval() if model in averages else model

    def by_average(function: Callable[..., Any]) -> Callable[..., Any]:
        return lambda model, *arguments: function(judged(model), *arguments)

    parts: dict[str, Any] = {
        name: by_average(getattr(subject, name))
        for name in JUDGING
        if getattr(subject, name) is not None
    }
    return replace(subject, train_step=train_step, **parts)


def plant(build: Build, setting: Setting) -> Subject:
    """Judged is an exponential average with a decay of 0.999 to 0.9999, from the first weights."""
    decay = 1.0 - setting.log_uniform(1e-4, 1e-3)

    def average(model: nn.Module) -> AveragedModel:
        averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)
        averaged.n_averaged += 1  # the first update would copy instead of averaging
        return averaged

    return averaging(build(setting), average)


CAUSE = Cause(
    id="optimizer.averaged_weights",
    title="what is judged is an average of the weights that has not caught up",
    experiment="the same judgement with the trained weights",
    fix="let the average's decay grow with the steps, min(decay, (1 + n) / (10 + n)), or judge the"
    " trained weights until it has caught up",
    experiments=(
        Experiment(measure, decide, tell),
        Experiment(measure_heard, decide_heard, tell_heard, needs=("judged",)),
    ),
    propose=propose,
    upstream=13,
    plant=plant,
)
