"""loop.no_step: the optimiser never steps, or what it does is undone."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from tts_workbook.faults.cause import Cause, Decision, Experiment, Level, Telling
from tts_workbook.faults.planting import Build, Setting
from tts_workbook.lab.lab import Lab
from tts_workbook.measure.observed_steps import observe, observe_steps, reference
from tts_workbook.subject.clip_data import CLIP_NORM
from tts_workbook.subject.subject import Subject
from tts_workbook.subject.tensor_math import only, tensors_norm


@dataclass(frozen=True)
class Steps:
    """Calls of the subject's train step, seen from outside, until the weights differ."""

    n_calls: int
    n_optimizer_steps: int
    n_attempts: int  # calls of the scaler's step, skipped ones too
    wanted_norm: float  # of the loss's gradient
    holds_parameters: bool  # whether the optimiser holds any of the model's
    held_norm: float  # of the loss's gradient at what the optimiser holds
    given_norm: float | None  # of the gradient at the first optimiser step; None: it never stepped
    learning_rate: float  # the largest of that step's groups
    moved_inside: bool  # the optimiser moved the weights
    n_moved: int  # tensors that differ after the train step
    update_ratio: float  # ‖Δw‖ / ‖w‖
    error: str  # what the train step raised
    without_gradients: bool  # the model ran with gradients switched off
    plain_moves: bool  # the workbook's own step moves the weights, where the subject's never did
    plain_update_ratio: float


def measure(lab: Lab) -> Steps:
    """Call the train step until the optimiser steps on a gradient; where it never does, the
    workbook's own step once.
    """
    seen, step = observe_steps(lab), observe_steps(lab).step
    wanted_norm = tensors_norm(reference(lab).values())
    without_gradients = seen.grad_mode is False
    silent = step is None and not seen.n_attempts
    asks_plain = bool(wanted_norm) and silent and (not seen.error or without_gradients)
    plain = observe(lab, plain=True, n_steps=1) if asks_plain else None
    return Steps(
        n_calls=seen.n_calls,
        n_optimizer_steps=len(seen.steps),
        n_attempts=seen.n_attempts,
        wanted_norm=wanted_norm,
        holds_parameters=bool(seen.held),
        held_norm=tensors_norm(only(reference(lab), seen.held).values()),
        given_norm=tensors_norm(step.gradient.values()) if step else None,
        learning_rate=max(seen.lr.values(), default=0.0),
        moved_inside=bool(step and step.moved_inside),
        n_moved=sum(map(bool, step.changed.values())) if step else 0,
        update_ratio=step.update_ratio if step else 0.0,
        error=seen.error,
        without_gradients=without_gradients,
        plain_moves=bool(plain and plain.step and any(plain.step.changed.values())),
        plain_update_ratio=plain.update_ratio if plain else 0.0,
    )


def decide(numbers: Steps) -> Decision | None:
    """Pure: which of the ends it is."""
    if not numbers.wanted_norm:
        return Decision("undecided", reason="no gradient at all")
    if numbers.given_norm is None:
        return _never_stepped(numbers)
    if not numbers.given_norm:
        if not numbers.holds_parameters:
            return Decision("confirmed", "make_optimizer", 1.0, "holds none")
        if numbers.held_norm:
            return Decision("confirmed", "train_step", 1.0, "given none")
        return None
    if not numbers.learning_rate:
        return Decision("excluded", reason="rate of zero")
    if numbers.moved_inside and not numbers.n_moved:
        return Decision("confirmed", "train_step", 1.0, "put back")
    return Decision("excluded", reason="moves")


def _never_stepped(numbers: Steps) -> Decision:
    if numbers.n_attempts:
        return Decision("excluded", reason="skipped by the scaler")
    if numbers.error and not numbers.without_gradients:
        return Decision("undecided", "train_step", reason="raises")
    level: Level = "confirmed" if numbers.plain_moves else "suspected"
    return Decision(level, "train_step", 1.0, "never called")


WATCHED = "weights before and after each call of the train step"
WHY = {
    "holds none": "the optimiser holds none of the model's parameters",
    "given none": (
        "the optimiser is given no gradient (zero_grad() between backward() and step(), or a pass"
        " without gradients)"
    ),
}


def tell(numbers: Steps, decision: Decision) -> Telling:
    evidence: dict[str, float | str] = {
        "calls": float(numbers.n_calls),
        "optimiser steps": float(numbers.n_optimizer_steps),
        "norm of the loss's gradient": numbers.wanted_norm,
    }
    match decision.reason:
        case "no gradient at all":
            return Telling("the loss has no gradient at any parameter; next: mend that", evidence)
        case "skipped by the scaler":
            return Telling(f"{WATCHED}: the step is called, the loss scaler skips it", evidence)
        case "raises":
            return Telling(f"the train step raises: {numbers.error}", evidence)
        case "never called":
            evidence["‖Δw‖ / ‖w‖ by the workbook's own step"] = numbers.plain_update_ratio
            if numbers.without_gradients:
                evidence["seen"] = "the model runs without gradients"
            if numbers.error:
                evidence["raises"] = numbers.error
            return Telling(f"{WATCHED}, and of the workbook's own step", evidence)
        case "holds none" | "given none" as reason:
            evidence |= {"seen": WHY[reason], "norm at the optimiser": 0.0}
            return Telling(WATCHED, evidence, fix=f"{WHY[reason]}: mend that")
        case "rate of zero":
            return Telling(f"{WATCHED}: it steps, at learning rate 0", evidence)
        case "put back":
            evidence["seen"] = "the optimiser moves the weights, the train step puts them back"
            return Telling(WATCHED, evidence)
    evidence |= {
        "‖Δw‖ / ‖w‖": numbers.update_ratio,
        "tensors that moved": float(numbers.n_moved),
    }
    return Telling(WATCHED, evidence)


def plant(build: Build, setting: Setting) -> Subject:
    """The optimiser never steps: the call is missing, or the optimiser holds the weights of a copy
    of the model (drawn).
    """
    subject = build(setting)
    if setting.random.random() < 0.5:
        return replace(
            subject, make_optimizer=lambda model: subject.make_optimizer(copy.deepcopy(model))
        )

    def train_step(
        model: nn.Module, optimizer: torch.optim.Optimizer, batch: Any
    ) -> dict[str, float]:
        optimizer.zero_grad(set_to_none=True)
        terms = subject.losses(model, batch)
        terms["total"].backward()
        nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
        return {name: float(term.detach()) for name, term in terms.items()}

    return replace(subject, train_step=train_step)


CAUSE = Cause(
    id="loop.no_step",
    title="the optimiser never steps",
    experiment="hash of the parameters before and after",
    fix="call optimizer.step(), with gradients enabled",
    experiments=(Experiment(measure, decide, tell),),
    plant=plant,
    plant_layers=True,
)
