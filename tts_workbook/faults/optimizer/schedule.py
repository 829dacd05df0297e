"""optimizer.schedule: the schedule takes the learning rate away, or never lets it start."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from tts_workbook.faults.cause import Cause, Decision, Experiment, Telling
from tts_workbook.faults.optimizer._rates import Rates, rates
from tts_workbook.faults.planting import Build, Setting
from tts_workbook.faults.selection import OneFactor, paired, tell_one_factor
from tts_workbook.faults.suspect import Suspect
from tts_workbook.lab.lab import Lab
from tts_workbook.lab.run_changes import held_rates
from tts_workbook.subject.subject import Subject


def propose(lab: Lab) -> Iterable[Suspect]:
    """The rate held: at its highest where it falls, at what the optimiser was made with where it
    never starts.
    """
    seen = rates(lab)
    evidence = evidence_of(seen)
    if seen.falls and seen.peak > 0.0:
        yield Suspect(
            CAUSE.id, held_rates(seen.peaks), evidence, "make_optimizer", always=seen.dies
        )
    if seen.never_starts:
        yield Suspect(CAUSE.id, held_rates(seen.wanted), evidence, "make_optimizer", always=False)


def evidence_of(seen: Rates) -> dict[str, float | str]:
    """The rates in numbers."""
    return {
        "optimiser steps": float(len(seen.used)),
        "learning rate of the first": seen.used[0] if seen.used else 0.0,
        "highest": seen.peak,
        "of the last": seen.last,
        "as the optimiser was made": max(seen.wanted, default=0.0),
    }


ONE_FACTOR = paired("optimizer.schedule")


@dataclass(frozen=True)
class Scheduled:
    """The rates as used, and what the paired run with the rate held said."""

    rates: Rates
    held: OneFactor


def measure(lab: Lab) -> Scheduled:
    return Scheduled(rates(lab), ONE_FACTOR.measure(lab))


def decide(numbers: Scheduled) -> Decision:
    """Pure: the rate held, as the one factor, removes the harm."""
    seen, held = numbers.rates, numbers.held
    if not seen.used:
        return Decision("undecided", reason="no step")
    if held.accepted is not None:
        suspect = held.accepted.suspect
        reason = "never starts" if seen.never_starts else "falls"
        return Decision("confirmed", suspect.where, held.accepted.gain, reason)
    if seen.warms_up and not held.learns:
        return Decision("undecided", reason="warms up")
    if (seen.dies or seen.never_starts) and not held.learns:
        return Decision("undecided", reason="held in vain")
    if held.tried is not None:
        return Decision("excluded", reason="gains too little")
    if seen.falls or seen.never_starts or seen.warms_up:
        return Decision("excluded", reason="learns")
    return Decision("excluded", reason="steady")


SAID = {
    "no step": "no optimiser step was seen; next: mend that, and diagnose again",
    "warms up": (
        "the rate still rises when the course ends, and nothing is learnt yet; next: more --steps,"
        " until the warm-up is over"
    ),
    "held in vain": (
        "the rate held as the one factor gains nothing beside what was found; next: mend what else"
        " is found, and diagnose again"
    ),
    "learns": "learning rate as each step uses it; the subject learns its batch with it",
    "steady": "learning rate as each step uses it, over a course",
}
FIXES = {
    "falls": "step the schedule in the unit that it counts in (epochs or steps), and let it end"
    " where training does",
    "never starts": "find what leaves the rate at its end or at its warm-up's first value: a"
    " resumed scheduler, one that nobody steps, or one that counts epochs",
}


def tell(numbers: Scheduled, decision: Decision) -> Telling:
    evidence = evidence_of(numbers.rates)
    if decision.reason in SAID:
        return Telling(SAID[decision.reason], evidence)
    told = tell_one_factor(numbers.held, decision)
    return replace(told, evidence={**evidence, **told.evidence}, fix=FIXES.get(decision.reason, ""))


# --- planted --------------------------------------------------------------------------------------


def plant(build: Build, setting: Setting) -> Subject:
    """Drawn: a decay of 0.7 to 0.85 meant for each epoch is made at each step; the rate ends at
    zero after 5 to 15 steps; or the schedule begins at its end, at a thousandth or less.
    """
    subject, kind = build(setting), setting.random.choice(("decay", "end", "late"))
    decay = setting.random.uniform(0.7, 0.85)
    last = setting.random.randint(5, 15)
    share = setting.log_uniform(1e-5, 1e-3)

    def factor(step: int) -> float:
        if kind == "decay":
            return decay**step
        if kind == "end":
            return 1.0 if step < last else 0.0
        return share

    def make_optimizer(model: nn.Module) -> torch.optim.Optimizer:
        optimizer = subject.make_optimizer(model)
        for group in optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])
        base = [float(group["lr"]) for group in optimizer.param_groups]
        made = 0

        def set_rates() -> None:
            for group, rate in zip(optimizer.param_groups, base, strict=True):
                group["lr"] = rate * factor(made)

        def after(optimizer: torch.optim.Optimizer, *_: Any) -> None:
            nonlocal made
            made += 1
            set_rates()

        set_rates()
        optimizer.register_step_post_hook(after)
        return optimizer

    return replace(subject, make_optimizer=make_optimizer)


CAUSE = Cause(
    id="optimizer.schedule",
    title="the schedule takes the learning rate away",
    experiment="the rate as each step uses it, and the rate held as the one factor, same seeds",
    fix="step the schedule in the unit that it counts in",
    experiments=(Experiment(measure, decide, tell),),
    explains=("optimizer.lr_too_small",),
    propose=propose,
    upstream=8,
    plant=plant,
)
