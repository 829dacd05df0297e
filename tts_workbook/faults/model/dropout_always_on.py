"""model.dropout_always_on: dropout is active in eval mode, or its p means keep."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tts_core.model.modes import evaluating
from tts_workbook.faults.cause import Cause, Decision, Experiment, Telling
from tts_workbook.faults.selection import paired
from tts_workbook.faults.suspect import Suspect
from tts_workbook.lab.lab import Lab
from tts_workbook.lab.short_run import Change
from tts_workbook.measure.term_gradients import declared
from tts_workbook.subject.isolation import unchanged_randomness, without_dropout
from tts_workbook.subject.module_calls import Call, trace

KEPT = 0.5  # a dropout probability above this keeps less than it drops


# --- two eval forwards ----------------------------------------------------------------------------


@dataclass(frozen=True)
class EvalForwards:
    """Two predictions of one batch in eval mode, from different random states."""

    # modules that were given the same and gave something else; "" is the model's own forward
    origins: tuple[str, ...]
    difference: float  # the largest, of what the last module gives


def measure(lab: Lab) -> EvalForwards:
    """Two predictions in eval mode from different random states, with the modules that are declared
    stochastic held still.
    """
    stochastic = lab.subject.stochastic
    with held_still(lab.model, stochastic):
        first, second = (_eval_trace(lab, lab.model, seed) for seed in (1, 2))
    origins = []
    for a, b in zip(first, second, strict=False):
        begins_here = a.name == b.name and _alike(a.inputs, b.inputs)
        if begins_here and not _alike(a.outputs, b.outputs) and not declared(a.name, stochastic):
            origins.append(a.name)
    differences = []
    for a, b in zip(first[-1:], second[-1:], strict=False):
        for x, y in zip(a.outputs, b.outputs, strict=False):
            if x.is_floating_point() and x.shape == y.shape:
                differences.append(float((x.float() - y.float()).abs().max()))
    return EvalForwards(tuple(origins), max(differences, default=0.0))


def _eval_trace(lab: Lab, model: nn.Module, seed: int) -> list[Call]:
    with unchanged_randomness(seed), evaluating(model):
        return trace(model, lambda: lab.subject.predict_mel(model, lab.batch))


def _alike(a: tuple[Tensor, ...], b: tuple[Tensor, ...]) -> bool:
    return all(map(_equal, a, b))


def _equal(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.equal(torch.nan_to_num(a), torch.nan_to_num(b))


@contextmanager
def held_still(model: nn.Module, names: Iterable[str]) -> Iterator[None]:
    """Inside, each of these modules draws the same numbers at every call, and leaves the stream of
    the others alone.
    """
    modules = dict(model.named_modules())
    states: list[Tensor] = []

    def enter(*_: Any) -> None:
        states.append(torch.get_rng_state())
        torch.manual_seed(0)

    def leave(*_: Any) -> None:
        torch.set_rng_state(states.pop())

    handles = []
    for name in names:
        if name in modules:
            handles.append(modules[name].register_forward_pre_hook(enter))
            handles.append(modules[name].register_forward_hook(leave))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def decide(numbers: EvalForwards) -> Decision:
    """Pure: which of the ends it is."""
    if not numbers.origins or not numbers.difference > 0:
        return Decision("excluded", reason="alike")
    innermost = min(numbers.origins, key=lambda name: -name.count("."))
    return Decision("confirmed", innermost or "the model's own forward", 0.8, "differ")


def tell(numbers: EvalForwards, decision: Decision) -> Telling:
    return Telling(
        "two eval-mode predictions of one batch from different random states",
        {"largest difference between two eval forwards": numbers.difference},
    )


# --- a heavy dropout ------------------------------------------------------------------------------


def propose(lab: Lab) -> Iterable[Suspect]:
    """A dropout that drops more than half in training; all dropout off."""
    model = lab.build()
    in_training: list[float] = []
    with unchanged_randomness(lab.seed), recorded_dropout(in_training), torch.no_grad():
        lab.subject.losses(model.train(), lab.batch)
    highest = max(in_training, default=0.0)
    if highest > KEPT:
        yield Suspect(
            CAUSE.id,
            Change("dropout_off", around=without_dropout),
            {"largest share dropped in training": highest},
            "dropout",
        )


@contextmanager
def recorded_dropout(found: list[float]) -> Iterator[None]:
    """The probabilities that dropout is called with while it is active, functional and in
    modules.
    """
    original = F.dropout

    def watch(
        input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
    ) -> Tensor:
        if training:
            found.append(float(p))
        return original(input, p, training, inplace)

    F.dropout = watch
    try:
        yield
    finally:
        F.dropout = original


CAUSE = Cause(
    id="model.dropout_always_on",
    title="dropout is active in eval mode, or its p means keep",
    experiment="two eval forwards of one batch; p = 0 as the one factor",
    fix="use nn.Dropout with p = share that is dropped, and eval() before predicting",
    experiments=(
        Experiment(measure, decide, tell),
        paired("model.dropout_always_on", only_accepted=True),
    ),
    propose=propose,
    upstream=6,
)
