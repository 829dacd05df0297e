"""optimizer.lr_too_small: the learning rate is too small."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from tts_workbook.faults.cause import Cause, Decision, Experiment, Telling
from tts_workbook.faults.optimizer._pace import LAZY, pace
from tts_workbook.faults.planting import Build, Setting, with_groups
from tts_workbook.faults.selection import paired
from tts_workbook.faults.suspect import Suspect
from tts_workbook.lab.lab import Lab
from tts_workbook.lab.run_changes import lr_times
from tts_workbook.measure.observed_steps import observe_steps, reference
from tts_workbook.subject.subject import Subject
from tts_workbook.subject.tensor_math import tensors_norm

USUAL_MOVE = 2e-3  # ‖Δw‖ / ‖w‖ of a step of a subject that learns (seen: 1.6e-3 to 1.1e-2)
MOVES_MUCH = 5e-3  # above this no higher learning rate is tried


def propose(lab: Lab) -> Iterable[Suspect]:
    """The learning rate by powers of ten, up where a step hardly moves the weights."""
    base = lab.course()
    ratio = base.update_ratio
    if not 0.0 < ratio < MOVES_MUCH:
        return
    nearest = 10.0 ** max(1, math.floor(math.log10(USUAL_MOVE / ratio)))
    for factor in (nearest, 10.0 * nearest):
        yield Suspect(
            CAUSE.id,
            lr_times(factor),
            pace(lab),
            "make_optimizer",
            general=True,
            always=ratio < LAZY and not base.learnt,
        )


# --- a rate of zero -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rates:
    """The observed steps of the subject's train step, and the rates that they were made at."""

    n_calls: int
    n_optimizer_steps: int
    wanted_norm: float  # of the loss's gradient
    given_norm: float | None  # of the gradient at the first optimiser step; None: it never stepped
    learning_rate: float  # the largest of that step's groups


def measure_rates(lab: Lab) -> Rates:
    seen, step = observe_steps(lab), observe_steps(lab).step
    return Rates(
        n_calls=seen.n_calls,
        n_optimizer_steps=len(seen.steps),
        wanted_norm=tensors_norm(reference(lab).values()),
        given_norm=tensors_norm(step.gradient.values()) if step else None,
        learning_rate=max(seen.lr.values(), default=0.0),
    )


def decide_rates(numbers: Rates) -> Decision | None:
    """Pure: it steps on a gradient, at a rate of zero; else the paired runs decide."""
    steps_on_a_gradient = bool(numbers.wanted_norm) and bool(numbers.given_norm)
    if not steps_on_a_gradient or numbers.learning_rate:
        return None
    return Decision("confirmed", "make_optimizer", 1.0, "rate of zero")


def tell_rates(numbers: Rates, decision: Decision) -> Telling:
    return Telling(
        "learning rate of every group at each observed step",
        {
            "calls": float(numbers.n_calls),
            "optimiser steps": float(numbers.n_optimizer_steps),
            "norm of the loss's gradient": numbers.wanted_norm,
            "largest learning rate": numbers.learning_rate,
        },
    )


def plant(build: Build, setting: Setting) -> Subject:
    """Learning rate 30 to 3,000 times too small."""
    factor = setting.log_uniform(30, 3_000)
    return with_groups(build(setting), lambda group: group.update(lr=group["lr"] / factor))


CAUSE = Cause(
    id="optimizer.lr_too_small",
    title="the learning rate is too small",
    experiment="the learning rate raised as the one factor, same seeds",
    fix="raise the learning rate (a range test shows how far)",
    experiments=(
        Experiment(measure_rates, decide_rates, tell_rates),
        paired("optimizer.lr_too_small"),
    ),
    remedy=True,
    propose=propose,
    upstream=10,
    plant=plant,
    plant_layers=True,
)
