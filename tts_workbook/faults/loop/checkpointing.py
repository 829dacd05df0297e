"""loop.checkpointing: gradient checkpointing kills or changes gradients."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass

import torch

from tts_workbook.bars import Bar
from tts_workbook.faults.cause import Cause, Decision, Experiment, Telling
from tts_workbook.lab.lab import Lab
from tts_workbook.measure.observed_steps import n_checkpointed, observe, observe_steps
from tts_workbook.subject.interventions import without_checkpointing
from tts_workbook.subject.isolation import private_copy, unchanged_randomness, without_dropout
from tts_workbook.subject.module_names import common_path
from tts_workbook.subject.tensor_math import Named, difference
from tts_workbook.subject.training_step import all_parameters

SAME = Bar(
    0.02,
    control="of the gradient without checkpointing: fp32 rounding makes 1e-6 of it, autocast 3e-3,"
    " another dropout mask 0.2",
)
FLOORS = Bar(
    10.0,
    control="times the difference of two gradients without checkpointing, same weights and seed",
)
LOST = Bar(0.5, absolute="a rank and no bar: of a gradient that is killed, at least")


@dataclass(frozen=True)
class Gradients:
    """One gradient with and without activation checkpointing, same weights and seed."""

    n_calls: int  # of checkpointing
    gap: float  # ‖with - without‖ / ‖without‖, the larger of the two
    with_dropout: bool | None  # which of the two it is; None where there is no gap
    lost: tuple[str, ...]  # tensors whose gradient checkpointing kills
    error: str  # what the subject raised with checkpointing
    # the same between two gradients without checkpointing: what the subject's own noise makes
    repeated: float = 0.0

    @property
    def changed(self) -> bool:
        return self.gap > max(SAME, FLOORS * self.repeated)


def measure(lab: Lab) -> Gradients:
    """The gradient with and without activation checkpointing, in training mode, without and with
    dropout, same seed.
    """
    n_calls = n_checkpointed(lab)
    if not n_calls:
        return Gradients(0, 0.0, None, (), "")
    source = step_gradient if observe_steps(lab).n_checkpointed else loss_gradient
    gap, with_dropout = 0.0, None
    repeated = 0.0
    lost: tuple[str, ...] = ()
    message = ""
    for dropout in (False, True):
        with without_checkpointing():
            kept, again = source(lab, dropout), source(lab, dropout)
        repeated = max(repeated, difference(again, kept))
        own: Named = {}
        try:
            own = source(lab, dropout)
        except RuntimeError as error:
            message = str(error).split("\n")[0]
        new_gap = difference(own, kept)
        if new_gap > gap:
            gap, with_dropout = new_gap, dropout
        lost = lost or _killed(own, kept)
    return Gradients(n_calls, gap, with_dropout, lost, message, repeated)


def _killed(own: Named, kept: Named) -> tuple[str, ...]:
    """Tensors that have a gradient without checkpointing alone."""
    nothing = torch.zeros(1)
    return tuple(
        name
        for name, gradient in kept.items()
        if gradient.any() and not own.get(name, nothing).any()
    )


def loss_gradient(lab: Lab, dropout: bool) -> Named:
    """Gradient of `total` by backward(), which every kind of checkpointing allows."""
    model = lab.build()
    with unchanged_randomness(lab.seed), nullcontext() if dropout else without_dropout(model):
        total = lab.subject.losses(model, private_copy(lab.batch))["total"]
        if total.requires_grad:
            total.backward()
    return {
        name: parameter.grad.float()
        for name, parameter in all_parameters(model)
        if parameter.grad is not None
    }


def step_gradient(lab: Lab, dropout: bool) -> Named:
    """Gradient of the train step's first backward pass."""
    seen = observe(lab, n_steps=1, dropout=dropout)
    if seen.step is None and seen.error:
        raise RuntimeError(seen.error)
    return seen.step.parts[0] if seen.step and seen.step.parts else {}


def decide(numbers: Gradients) -> Decision:
    """Pure: which of the ends it is."""
    if not numbers.n_calls:
        return Decision("excluded", reason="not in use")
    if numbers.error or numbers.lost or numbers.changed:
        strength = max(numbers.gap, LOST if numbers.lost else 0.0)
        where = common_path(list(numbers.lost))
        return Decision("confirmed", where, min(1.0, strength), "changes gradients")
    return Decision("excluded", reason="same gradients")


def tell(numbers: Gradients, decision: Decision) -> Telling:
    if decision.reason == "not in use":
        return Telling("no checkpointing in use: torch.utils.checkpoint is never called")
    evidence: dict[str, float | str] = {
        "checkpointed calls": float(numbers.n_calls),
        "‖with - without‖ / ‖without‖": numbers.gap,
        "the same of two without": numbers.repeated,
        "tensors without gradient": float(len(numbers.lost)),
    }
    if numbers.error:
        evidence["raises"] = numbers.error
    when = {None: "", False: "without dropout", True: "with dropout"}[numbers.with_dropout]
    return Telling(
        f"gradient with and without checkpointing, same weights and seed, {when}", evidence
    )


CAUSE = Cause(
    id="loop.checkpointing",
    title="gradient checkpointing kills or changes gradients",
    experiment="gradient with and without checkpointing",
    fix="use_reentrant=False, and keep the random state",
    experiments=(Experiment(measure, decide, tell),),
)
