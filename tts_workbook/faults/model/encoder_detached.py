"""model.encoder_detached: no gradient reaches the encoder."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tts_workbook.faults.cause import Cause, Decision, Experiment, Telling
from tts_workbook.lab.lab import Lab
from tts_workbook.measure.anatomy import anatomy, movement, rounding
from tts_workbook.measure.term_gradients import declared
from tts_workbook.subject.isolation import without_dropout
from tts_workbook.subject.training_step import all_parameters

EXPERIMENT = (
    "gradient of total at the text side's parameters, and the prediction when those without one"
    " are disturbed"
)
NOISE_SEED = 2


@dataclass(frozen=True)
class SilentParameters:
    """Parameters of the modules that the text alone runs through."""

    n_text_side: int
    n_silent: int  # without gradient of total, and not declared frozen
    # of these, the trained ones that move the prediction when they are disturbed
    moving: tuple[str, ...]


def measure(lab: Lab) -> SilentParameters:
    """A text-side parameter that moves the loss when it is disturbed but has no gradient hangs on a
    broken graph.
    """
    model = lab.build()
    gradient = lab.gradient(model)
    side = anatomy(lab).text_side
    # a tied parameter has one gradient, under the first of its names
    names = {id(parameter): name for name, parameter in all_parameters(model)}
    mine: dict[str, nn.Parameter] = {}
    for owner, module in model.named_modules():
        if owner in side:
            for parameter in module.parameters(recurse=False):
                mine[names[id(parameter)]] = parameter
    silent = {
        name: parameter
        for name, parameter in mine.items()
        if not _reached(gradient, name) and not declared(name, lab.subject.frozen)
    }
    moving = []
    with without_dropout(model):
        before = lab.predict(model, field="mel")
        for name, parameter in silent.items():
            if parameter.requires_grad and _moves(lab, model, parameter, before):
                moving.append(name)
    return SilentParameters(len(mine), len(silent), tuple(moving))


def _reached(gradient: dict[str, Tensor], name: str) -> bool:
    return name in gradient and bool((gradient[name] != 0).any())


def _moves(lab: Lab, model: nn.Module, parameter: nn.Parameter, before: Tensor) -> bool:
    """Whether the prediction moves when the parameter is disturbed; it is put back."""
    old = parameter.detach().clone()
    with torch.no_grad():
        noise = torch.randn(old.shape, generator=torch.Generator().manual_seed(NOISE_SEED))
        size = old.float().std(unbiased=False) + 1e-2
        parameter.add_((noise.to(old.device) * size).to(old.dtype))
        after = lab.predict(model, field="mel")
        parameter.copy_(old)
    return float(movement(before, after, lab).max()) > rounding(lab).moved


def decide(numbers: SilentParameters) -> Decision | None:
    """Pure: no parameter that matters is without gradient; a single one may be an oddity."""
    if not numbers.n_text_side:
        return Decision("undecided", reason="no text side")
    n_moving = len(numbers.moving)
    if n_moving >= 2 or (n_moving and n_moving == numbers.n_text_side):
        return Decision("confirmed", numbers.moving[0], n_moving / numbers.n_text_side, "cut off")
    return Decision("excluded", reason="reached")


def tell(numbers: SilentParameters, decision: Decision) -> Telling:
    if decision.reason == "no text side":
        return Telling("next: no parameters were found that the text alone runs through")
    return Telling(
        EXPERIMENT,
        {
            "parameters on the text side": float(numbers.n_text_side),
            "without gradient": float(numbers.n_silent),
            "of these, disturbed ones that move the prediction": float(len(numbers.moving)),
        },
    )


CAUSE = Cause(
    id="model.encoder_detached",
    title="no gradient reaches the encoder",
    experiment="gradient of the loss at the memory against the gradient in the encoder",
    fix="remove detach() or no_grad() between encoder and decoder",
    experiments=(Experiment(measure, decide, tell, finite=True),),
)
