"""precision.clip_before_unscale: clipping sees scaled gradients."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from tts_workbook.bars import Bar
from tts_workbook.faults.cause import Cause, Decision, Experiment, Level, Telling
from tts_workbook.faults.planting import Build, Setting
from tts_workbook.lab.lab import Lab
from tts_workbook.measure.observed_steps import observe, observe_steps
from tts_workbook.subject.clip_data import CLIP_NORM
from tts_workbook.subject.subject import Subject
from tts_workbook.subject.tensor_math import tensors_norm

SCALE_CHANGE = 256  # the loss scale is made this many times smaller
# gradient norm at unscale_; 1 without a clip in between
SHRUNK = Bar(0.9, control="the norm of the same gradient after backward()")
# of the change of scale, in logarithms, that the gradient at the optimiser follows
FOLLOWS = Bar(0.5, control="the change of the loss scale between the two observed steps")
TINY = Bar(1e-300, absolute="the smallest number that a logarithm is taken of; it decides nothing")


@dataclass(frozen=True)
class TwoScales:
    """The gradient at the optimiser under two loss scales."""

    scaled: bool  # whether an enabled loss scaler was called
    stepped: bool  # whether an optimiser step was seen
    error: str  # what the train step raised
    loss_scale: float = 1.0
    before_unscale: float = 1.0  # norm at unscale_ over that after backward()
    norm: float = 0.0  # of the gradient at the optimiser
    other_norm: float | None = None  # the same at a smaller scale; None: it did not step

    @property
    def follows(self) -> float:
        """Share, in logarithms, of the change of scale that the gradient follows."""
        ratio = max(self.other_norm or 0.0, TINY) / max(self.norm, TINY)
        return math.log(ratio) / math.log(SCALE_CHANGE)

    @property
    def expected(self) -> float:
        """The share that it follows where the clip saw it scaled: the clip may let go halfway."""
        return min(1.0, math.log(1 / max(self.before_unscale, TINY)) / math.log(SCALE_CHANGE))


def measure(lab: Lab) -> TwoScales:
    """The gradient at the optimiser must not depend on the loss scale."""
    seen, step = observe_steps(lab), observe_steps(lab).step
    if not seen.n_attempts and (step is None or step.loss_scale == 1.0):
        return TwoScales(False, step is not None, seen.error)
    if step is None:
        return TwoScales(True, False, seen.error)
    other = observe(lab, n_steps=2, loss_scale=step.loss_scale / SCALE_CHANGE).step
    return TwoScales(
        scaled=True,
        stepped=True,
        error=seen.error,
        loss_scale=step.loss_scale,
        before_unscale=step.before_unscale,
        norm=tensors_norm(step.gradient.values()),
        other_norm=None if other is None else tensors_norm(other.gradient.values()),
    )


def decide(numbers: TwoScales) -> Decision | None:
    """Pure: the gradient at the optimiser follows the loss scale where a clip came first."""
    if not numbers.scaled:
        level: Level = "excluded" if numbers.stepped or not numbers.error else "undecided"
        return Decision(level, reason="no scaler")
    if not numbers.stepped:
        return Decision("undecided", reason="no step")
    if numbers.other_norm is None:
        return Decision("undecided", reason="no step at a smaller scale")
    if not math.isfinite(numbers.norm) or not math.isfinite(numbers.other_norm):
        return Decision("undecided", reason="not finite")
    clipped = numbers.before_unscale < SHRUNK
    if clipped and numbers.follows > FOLLOWS * numbers.expected:
        return Decision("confirmed", "train_step", 1.0, "clipped first")
    if numbers.follows < -FOLLOWS:
        return Decision("suspected", "train_step", 0.5, "never unscaled")
    return Decision("excluded", reason="does not follow")


def tell(numbers: TwoScales, decision: Decision) -> Telling:
    match decision.reason:
        case "no scaler":
            return Telling("no enabled loss scaler was called")
        case "no step":
            return Telling("no optimiser step was seen; next: mend that")
        case "no step at a smaller scale":
            return Telling("no step at a smaller scale; next: another scale")
        case "not finite":
            return Telling("the gradient is not finite under two loss scales; next: mend that")
    assert numbers.other_norm is not None
    evidence: dict[str, float | str] = {
        "loss scale": numbers.loss_scale,
        "norm at unscale_ over that after backward()": numbers.before_unscale,
        "gradient norm at the optimiser": numbers.norm,
        f"the same at a loss scale {SCALE_CHANGE} times smaller": numbers.other_norm,
    }
    experiment = "gradient at the optimiser under two loss scales"
    if decision.reason == "never unscaled":
        return Telling(
            f"{experiment}: it is never unscaled",
            evidence,
            "step through scaler.step(optimizer), which unscales, not optimizer.step()",
        )
    return Telling(experiment, evidence)


def plant(build: Build, setting: Setting) -> Subject:
    """The clip sees gradients still multiplied by the loss scale: 2^12 to 2^20 under SGD, 2^26 to
    2^34 under Adam.
    """
    power = setting.random.randint(0, 8) + (12 if setting.optimizer == "sgd" else 26)
    subject = build(setting)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**power, growth_interval=10**9)

    def train_step(
        model: nn.Module, optimizer: torch.optim.Optimizer, batch: Any
    ) -> dict[str, float]:
        optimizer.zero_grad(set_to_none=True)
        terms = subject.losses(model, batch)
        scaler.scale(terms["total"]).backward()
        nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
        scaler.step(optimizer)
        scaler.update()
        return {name: float(term.detach()) for name, term in terms.items()}

    return replace(subject, train_step=train_step)


CAUSE = Cause(
    id="precision.clip_before_unscale",
    title="clipping sees scaled gradients",
    experiment="gradient norm at the scaler's unscale, and update norm against loss scale",
    fix="call scaler.unscale_(optimizer) before clipping",
    experiments=(Experiment(measure, decide, tell),),
    plant=plant,
    plant_needs={"optimizer": "sgd"},
)
