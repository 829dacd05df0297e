"""optimizer.lr_too_small: the learning rate is too small."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from tts_workbook.bars import Bar
from tts_workbook.faults.cause import Cause, Decision, Experiment, Telling
from tts_workbook.faults.optimizer._pace import LAZY, YARDSTICK, pace, relative_move
from tts_workbook.faults.optimizer._rates import Rates, rates
from tts_workbook.faults.planting import Build, Setting, with_groups
from tts_workbook.faults.selection import OneFactor, decide_one_factor, paired, tell_one_factor
from tts_workbook.faults.suspect import Suspect
from tts_workbook.lab.lab import Lab
from tts_workbook.lab.run_changes import lr_times
from tts_workbook.measure.observed_steps import observe_steps, reference
from tts_workbook.subject.subject import Subject
from tts_workbook.subject.tensor_math import tensors_norm

# a rate is raised to about this; sound subjects of six kinds: 0.2 to 4
USUAL = Bar(0.3, control=YARDSTICK)
# of a subject that moves more, no higher rate is tried
MOVES_MUCH = Bar(1.0, control=YARDSTICK)


def propose(lab: Lab) -> Iterable[Suspect]:
    """The learning rate by powers of ten, up where a step hardly moves the weights; not while it
    still warms up.
    """
    base, move = lab.course(), relative_move(lab)
    if not 0.0 < move < MOVES_MUCH or rates(lab).warms_up:
        return
    nearest = 10.0 ** max(1, math.floor(math.log10(USUAL / move)))
    for factor in (nearest, 10.0 * nearest):
        yield Suspect(
            CAUSE.id,
            lr_times(factor),
            pace(lab),
            "make_optimizer",
            general=True,
            always=move < LAZY and not base.learnt,
        )


# --- what the paired runs say, beside a schedule --------------------------------------------------

ONE_FACTOR = paired("optimizer.lr_too_small")


@dataclass(frozen=True)
class Raised:
    """What the paired runs at higher rates said, and what becomes of the rate in a course."""

    raised: OneFactor
    rates: Rates


def measure(lab: Lab) -> Raised:
    return Raised(ONE_FACTOR.measure(lab), rates(lab))


def decide(numbers: Raised) -> Decision:
    """Pure: a higher rate, as the one factor, removes the harm. Where the rate dies, or still rises
    and nothing is learnt yet, a course cannot rule it out.
    """
    decision = decide_one_factor(numbers.raised)
    if decision.level != "excluded":
        return decision
    if numbers.rates.dies or numbers.rates.never_starts:
        return Decision("undecided", "make_optimizer", reason="the rate dies")
    if numbers.rates.warms_up and not numbers.raised.learns:
        return Decision("undecided", "make_optimizer", reason="it warms up")
    return decision


SAID = {
    "the rate dies": (
        "the rate is small because its schedule takes it away; next: mend optimizer.schedule, and"
        " diagnose again"
    ),
    "it warms up": (
        "the rate still rises when the course ends, and nothing is learnt yet; next: more --steps,"
        " until the warm-up is over"
    ),
}


def tell(numbers: Raised, decision: Decision) -> Telling:
    if decision.reason in SAID:
        seen = numbers.rates
        return Telling(SAID[decision.reason], {"highest rate": seen.peak, "last": seen.last})
    return tell_one_factor(numbers.raised, decision)


# --- a rate of zero -------------------------------------------------------------------------------


@dataclass(frozen=True)
class ObservedRates:
    """The observed steps of the subject's train step, and the rates that they were made at."""

    n_calls: int
    n_optimizer_steps: int
    wanted_norm: float  # of the loss's gradient
    given_norm: float | None  # of the gradient at the first optimiser step; None: it never stepped
    learning_rate: float  # the largest of that step's groups


def measure_rates(lab: Lab) -> ObservedRates:
    seen, step = observe_steps(lab), observe_steps(lab).step
    return ObservedRates(
        n_calls=seen.n_calls,
        n_optimizer_steps=len(seen.steps),
        wanted_norm=tensors_norm(reference(lab).values()),
        given_norm=tensors_norm(step.gradient.values()) if step else None,
        learning_rate=max(seen.lr.values(), default=0.0),
    )


def decide_rates(numbers: ObservedRates) -> Decision | None:
    """Pure: it steps on a gradient, at a rate of zero; else the paired runs decide."""
    steps_on_a_gradient = bool(numbers.wanted_norm) and bool(numbers.given_norm)
    if not steps_on_a_gradient or numbers.learning_rate:
        return None
    return Decision("confirmed", "make_optimizer", 1.0, "rate of zero")


def tell_rates(numbers: ObservedRates, decision: Decision) -> Telling:
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
        Experiment(measure, decide, tell),
    ),
    remedy=True,
    propose=propose,
    upstream=11,
    plant=plant,
    plant_layers=True,
)
