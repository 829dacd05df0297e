"""loop.no_zero_grad: gradients pile up over the steps."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from tts_workbook.faults.cause import Cause, Decision, Experiment, Telling
from tts_workbook.faults.planting import Build, Setting
from tts_workbook.lab.lab import Lab
from tts_workbook.measure.observed_steps import MARKED, observe_steps
from tts_workbook.subject.subject import Subject
from tts_workbook.subject.tensor_math import tensors_norm

EXPERIMENT = (
    "a marker left in .grad after a step, from the same weights; does the next step contain it?"
)


@dataclass(frozen=True)
class Marks:
    """What of a marker left in .grad the following steps contain."""

    n_steps: int
    n_calls: int
    leftover: bool  # whether .grad is still filled after a step
    marks: tuple[float, ...]  # cosine of the gradient with the marker, by step
    growth: float  # of the gradient's norm by the second step; 0 where the first had none

    @property
    def kept(self) -> float:
        """The least of the marks: zeroed at some of the steps is another fault."""
        return min(self.marks, key=abs, default=0.0)


def measure(lab: Lab) -> Marks:
    """Leave a marker in .grad after a step: whoever zeroes gradients, before or after, wipes it
    out.
    """
    seen = observe_steps(lab)
    norms = [tensors_norm(step.held.values()) for step in seen.steps[:2]]
    growth = norms[-1] / norms[0] if norms and norms[0] else 0.0
    return Marks(len(seen.steps), seen.n_calls, seen.leftover, tuple(seen.marks), growth)


def decide(numbers: Marks) -> Decision | None:
    """Pure: no step contains the marker."""
    if not numbers.n_steps:
        return Decision("undecided", reason="no step")
    if numbers.leftover and not numbers.marks:
        return Decision("undecided", reason="too few calls")
    if numbers.kept > MARKED:
        return Decision("confirmed", "train_step", 1.0, "marker kept")
    return Decision("excluded", reason="marker gone")


def tell(numbers: Marks, decision: Decision) -> Telling:
    match decision.reason:
        case "no step":
            return Telling("no optimiser step was seen; next: mend that")
        case "too few calls":
            return Telling(f"{numbers.n_steps} steps in {numbers.n_calls} calls; next: more calls")
    return Telling(
        EXPERIMENT,
        {
            "cosine of the gradient with the marker": numbers.kept,
            "steps": float(numbers.n_steps),
            "growth of the gradient by the second step": numbers.growth,
        },
    )


def plant(build: Build, setting: Setting) -> Subject:
    """Gradients are never zeroed; the clip is off, as it would hide the sum."""
    subject = build(setting)

    def train_step(
        model: nn.Module, optimizer: torch.optim.Optimizer, batch: Any
    ) -> dict[str, float]:
        terms = subject.losses(model, batch)
        terms["total"].backward()
        optimizer.step()
        return {name: float(term.detach()) for name, term in terms.items()}

    return replace(subject, train_step=train_step)


CAUSE = Cause(
    id="loop.no_zero_grad",
    title="gradients pile up over the steps",
    experiment="the same step from the same weights several times: the gradient grows",
    fix="optimizer.zero_grad(set_to_none=True) after every step",
    experiments=(Experiment(measure, decide, tell),),
    plant=plant,
    plant_layers=True,
)
