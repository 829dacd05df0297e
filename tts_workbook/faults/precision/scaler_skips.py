"""precision.scaler_skips: the loss scaler skips every step."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from tts_workbook.faults.cause import Cause, Decision, Experiment, Level, Telling
from tts_workbook.faults.planting import Build, Setting
from tts_workbook.faults.precision._attempts import all_in_fp32, as_it_is, with_masks_in_range
from tts_workbook.lab.lab import Lab
from tts_workbook.measure.observed_steps import observe, observe_steps
from tts_workbook.subject.clip_data import CLIP_NORM
from tts_workbook.subject.subject import Subject


@dataclass(frozen=True)
class ScalerSteps:
    """The steps that the optimiser really takes behind the loss scaler."""

    n_attempts: int  # calls of an enabled scaler's step
    n_steps: int  # of the optimiser
    error: str  # what the train step raised
    first_scale: float = 1.0  # of the loss, at those calls
    last_scale: float = 1.0
    # with the loss scale held at 1; None where it steps as it is
    n_unscaled_steps: int | None = None
    # whether gradients are finite neither as they are nor in fp32; asked where it does not step
    # at scale 1 either
    broken_in_fp32: bool = False
    mask_overflows: bool = False  # whether they are finite once mask values are in range


def measure(lab: Lab) -> ScalerSteps:
    """Count the steps that the optimiser really takes behind the loss scaler; then with the scale
    held at 1.
    """
    seen = observe_steps(lab)
    if not seen.n_attempts:
        return ScalerSteps(0, len(seen.steps), seen.error)
    counted = ScalerSteps(
        seen.n_attempts, len(seen.steps), seen.error, seen.loss_scales[0], seen.loss_scales[-1]
    )
    if seen.steps:
        return counted
    unscaled = observe(lab, n_steps=1, loss_scale=1.0)
    counted = replace(counted, n_unscaled_steps=len(unscaled.steps))
    if unscaled.steps:
        return counted
    if not as_it_is(lab).finite and not all_in_fp32(lab).finite:
        return replace(counted, broken_in_fp32=True)
    return replace(counted, mask_overflows=with_masks_in_range(lab).finite)


def decide(numbers: ScalerSteps) -> Decision | None:
    """Pure: the scaler lets a step through, or what it skips is broken without it."""
    if not numbers.n_attempts:
        level: Level = "excluded" if numbers.n_steps or not numbers.error else "undecided"
        return Decision(level, reason="no scaler")
    if numbers.n_steps:
        return Decision("excluded", reason="steps")
    if numbers.n_unscaled_steps:
        return Decision("confirmed", "train_step", 1.0, "steps at scale 1")
    if numbers.broken_in_fp32:
        return Decision("excluded", reason="fp32 is not finite either")
    if numbers.mask_overflows:
        return Decision("excluded", reason="a mask overflows")
    return Decision("confirmed", "train_step", 1.0, "skips at any scale")


def tell(numbers: ScalerSteps, decision: Decision) -> Telling:
    if decision.reason == "no scaler":
        return Telling("no enabled loss scaler was called")
    experiment = (
        "optimiser steps over calls of the scaler's step, and with the loss scale held at 1"
    )
    evidence: dict[str, float | str] = {
        "calls of the scaler's step": float(numbers.n_attempts),
        "optimiser steps": float(numbers.n_steps),
        "first loss scale": numbers.first_scale,
        "last loss scale": numbers.last_scale,
    }
    if numbers.n_unscaled_steps is not None:
        evidence["optimiser steps at scale 1"] = float(numbers.n_unscaled_steps)
    match decision.reason:
        case "steps at scale 1":
            fix = "start from a smaller scale, and call scaler.update() after every step"
            return Telling(experiment, evidence, fix)
        case "fp32 is not finite either":
            return Telling(f"{experiment}: gradients are not finite in fp32 either", evidence)
        case "a mask overflows":
            return Telling(
                f"{experiment}: a mask value overflows at any scale, see precision.mask_overflow",
                evidence,
            )
        case "skips at any scale":
            return Telling(f"{experiment}: it skips at any scale, and fp32 is finite", evidence)
    return Telling(experiment, evidence)


def plant(build: Build, setting: Setting) -> Subject:
    """A loss scale of 2^30 to 2^60 over fp16 gradients, which overflow at every step; update() is
    never called.
    """
    scale, subject = 2.0 ** setting.random.randint(30, 60), build(setting)

    def train_step(
        model: nn.Module, optimizer: torch.optim.Optimizer, batch: Any
    ) -> dict[str, float]:
        scaler = torch.amp.GradScaler("cpu", init_scale=scale)
        optimizer.zero_grad(set_to_none=True)
        terms = subject.losses(model, batch)
        scaler.scale(terms["total"]).backward()
        for parameter in model.parameters():
            if parameter.grad is not None:
                # what fp16 training leaves of a gradient
                parameter.grad = parameter.grad.half().to(parameter.dtype)
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
        scaler.step(optimizer)
        return {name: float(term.detach()) for name, term in terms.items()}

    return replace(subject, train_step=train_step)


CAUSE = Cause(
    id="precision.scaler_skips",
    title="the loss scaler skips every step",
    experiment="count the steps that the optimiser really takes",
    fix="find what overflows (a mask value, a loss in half precision); start from a smaller scale",
    experiments=(Experiment(measure, decide, tell),),
    plant=plant,
    plant_layers=True,
)
