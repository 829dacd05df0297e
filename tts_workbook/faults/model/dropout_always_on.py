"""model.dropout_always_on: dropout is active in eval mode, or its p means keep."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tts_core.model.modes import evaluating
from tts_workbook.bars import Bar
from tts_workbook.faults.cause import Cause, Decision, Experiment, Telling
from tts_workbook.faults.selection import paired
from tts_workbook.faults.suspect import Suspect
from tts_workbook.lab.lab import Lab
from tts_workbook.lab.short_run import Change
from tts_workbook.measure.anatomy import anatomy
from tts_workbook.measure.term_gradients import declared
from tts_workbook.subject.isolation import unchanged_randomness, without_dropout
from tts_workbook.subject.module_calls import Call, trace

KEPT = Bar(
    0.5, convention="p is the share that is dropped (torch.nn.Dropout); Tacotron 2 has 0.5 at most"
)
HARM = Bar(
    0.05,
    control="the error of the same trained model, judged with its dropout off: so much more is"
    " harm",
)
SPREADS = Bar(
    3.0, control="the spread of the same error over the seeds that the dropout is drawn from"
)
JUDGED_SEEDS = (1, 2, 3, 4)


# --- two eval forwards ----------------------------------------------------------------------------


@dataclass(frozen=True)
class EvalForwards:
    """Two predictions of one batch in eval mode, from different random states."""

    # modules that were given the same and gave something else; "" is the model's own forward
    origins: tuple[str, ...]
    difference: float  # the largest, of what the last module gives
    is_dropout: bool = True  # whether it is gone with every dropout off; else noise of another kind
    on_history_alone: bool = False  # whether it begins before the text is heard, as in a pre-net
    # TF L1 over the best constant of the trained model in eval mode: mean and deviation over seeds,
    # and with every dropout off
    error: float = math.nan
    spread: float = math.nan
    error_without: float = math.nan

    @property
    def origin(self) -> str:
        """The innermost."""
        return min(self.origins, key=lambda name: -name.count("."))

    @property
    def harms(self) -> bool:
        """Whether the trained model is judged worse for it."""
        lost = self.error - self.error_without
        return lost > SPREADS * self.spread and lost > HARM * self.error_without


def measure(lab: Lab) -> EvalForwards:
    """Two predictions in eval mode from different random states, with the modules that are declared
    stochastic held still; where they differ, the trained model is judged with dropout and without.
    """
    origins, difference = _differing(lab)
    if not origins or not difference > 0:
        return EvalForwards(origins, difference)
    with without_dropout(lab.model):
        left, _ = _differing(lab)
    found = EvalForwards(origins, difference, is_dropout=not left)
    if found.origin in anatomy(lab).history_side:
        return replace(found, on_history_alone=True)
    if not found.is_dropout:
        return found
    model = lab.course().model
    errors = [_judged(lab, model, seed) for seed in JUDGED_SEEDS]
    with without_dropout(model):
        without = _judged(lab, model, JUDGED_SEEDS[0])
    return replace(
        found,
        error=statistics.fmean(errors),
        spread=statistics.stdev(errors),
        error_without=without,
    )


def _judged(lab: Lab, model: nn.Module, seed: int) -> float:
    with unchanged_randomness(seed), evaluating(model):
        return lab.error(lab.subject.predict_mel(model, lab.batch).detach().float())


def _differing(lab: Lab) -> tuple[tuple[str, ...], float]:
    """(where it begins, the largest difference of what the last module gives)."""
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
    return tuple(origins), max(differences, default=0.0)


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
    """Pure: which of the ends it is.

    A pre-net that drops in eval mode, and noise that generation samples from, may be meant; any
    other dropout is a fault where the trained model is judged worse for it.
    """
    if not numbers.origins or not numbers.difference > 0:
        return Decision("excluded", reason="alike")
    where = numbers.origin or "the model's own forward"
    if numbers.on_history_alone:
        return Decision("question", where, 0.5, "a pre-net")
    if not numbers.is_dropout:
        return Decision("question", where, 0.5, "noise")
    if numbers.harms:
        return Decision("confirmed", where, 0.8, "differ")
    return Decision("suspected", where, 0.3, "differ, no harm")


MEANT = {
    "a pre-net": "it begins before the text is heard, as in Tacotron 2's pre-net",
    "noise": "it is no dropout, as where generation samples from noise",
}


def tell(numbers: EvalForwards, decision: Decision) -> Telling:
    experiment = "two eval-mode predictions of one batch from different random states"
    evidence: dict[str, float | str] = {
        "largest difference between two eval forwards": numbers.difference
    }
    if decision.reason in MEANT:
        return Telling(
            f"{experiment}: {MEANT[decision.reason]}",
            evidence,
            fix=f'is this meant? declare Subject.stochastic = ("{decision.where}",)',
        )
    if math.isfinite(numbers.error):
        experiment += "; the trained model judged in eval mode as it is and with dropout off"
        evidence |= {
            "TF L1 / best constant of the trained model": numbers.error,
            "its deviation over seeds": numbers.spread,
            "with every dropout off": numbers.error_without,
        }
    return Telling(experiment, evidence)


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
