"""Check of which parameters are trained: those that the loss reaches against those that the
optimiser holds and moves.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from torch import nn

from tts_workbook.faults.checks.registry import check
from tts_workbook.faults.finding import Finding
from tts_workbook.lab.lab import Lab
from tts_workbook.lab.short_run import Change
from tts_workbook.measure.observed_steps import observe_steps, reference
from tts_workbook.subject.tensor_math import tensors_norm
from tts_workbook.subject.training_step import all_parameters

GAIN = 0.1  # in best constants, of the mean curve: what a paired run has to gain


@check("optimizer.missing_parameters")
def every_parameter_is_optimised(lab: Lab) -> Iterable[Finding]:
    """Parameters that the loss reaches, minus those in the optimiser's groups, minus those declared
    frozen.
    """
    seen, model = observe_steps(lab), lab.build()
    named = dict(all_parameters(model))
    trained = {name for name, parameter in named.items() if parameter.requires_grad}
    gradients = reference(lab)
    if any(name not in trained and not declared(name, lab.subject.frozen) for name in named):
        for parameter in named.values():
            parameter.requires_grad_(parameter.is_floating_point())
        gradients = lab.gradient(model)
    sizes = {name: tensors_norm([gradient]) for name, gradient in gradients.items()}
    reached = {
        name
        for name, size in sizes.items()
        if size > 0.0 and not declared(name, lab.subject.frozen)
    }
    still = {
        name for name in reached if not any(step.changed.get(name, 0.0) for step in seen.steps)
    }
    idle = {name for name, rate in seen.lr.items() if rate == 0.0 and max(seen.lr.values()) > 0.0}
    missing = sorted((still & trained) - (set(seen.held) - idle), key=list(named).index)
    off = sorted(still - trained, key=list(named).index)
    experiment = (
        "the model's parameters minus the optimiser's; elements that move in observed steps"
    )
    evidence = {
        "tensors that the loss reaches": float(len(reached)),
        "tensors left out": float(len(missing)),
    }
    if missing and not seen.held:
        yield Finding(
            "optimizer.missing_parameters",
            "excluded",
            "the optimiser holds no parameter of the model: see loop.no_step",
            evidence,
        )
    elif missing:
        registered = dict(model.named_parameters())
        share = sum(named[name].numel() for name in missing) / max(
            1, sum(named[name].numel() for name in reached)
        )
        gradient = math.hypot(*(sizes[name] for name in missing)) / math.hypot(
            *(sizes[name] for name in reached)
        )
        evidence |= {
            "share of the elements": share,
            "share of the gradient's norm": gradient,
            "elements that move": 0.0,
            "first": missing[0],
            "of them not registered": float(sum(name not in registered for name in missing)),
            "of them at learning rate 0": float(sum(name in idle for name in missing)),
        }
        yield Finding(
            "optimizer.missing_parameters",
            "confirmed" if seen.steps else "suspected",
            experiment,
            evidence,
            common_path(missing) or missing[0],
            max(share, gradient),
        )
    elif off:
        yield from _switched_off(
            lab,
            off,
            {**evidence, "tensors with requires_grad=False": float(len(off)), "first": off[0]},
        )
    else:
        yield Finding("optimizer.missing_parameters", "excluded", experiment, evidence)


def _switched_off(lab: Lab, names: list[str], evidence: dict) -> Iterable[Finding]:
    """Parameters that require no gradient and are not declared frozen: fixed tables, or forgotten?
    One factor: train them.
    """

    def train(model: nn.Module) -> None:
        for name, parameter in all_parameters(model):
            if name in names:
                parameter.requires_grad_(True)

    change = Change("parameters without requires_grad trained too", model=train)
    before, after = lab.course(), lab.course(change)
    gain = before.outcome - after.outcome
    evidence |= {"mean TF L1 / best constant before": before.outcome, "after": after.outcome}
    if gain > GAIN:
        yield Finding(
            "optimizer.missing_parameters",
            "confirmed",
            "trained too as the one factor, same seeds",
            evidence,
            common_path(names),
            gain,
            mended_by=(change.name,),
        )
    else:
        yield Finding(
            "optimizer.missing_parameters",
            "undecided",
            "trained too as the one factor: it gains nothing on this "
            "batch; next: declare them in Subject.frozen if that is meant",
            evidence,
            common_path(names),
        )


def declared(name: str, modules: Iterable[str]) -> bool:
    """Whether a parameter is one of `modules` (names of modules or parameters), or inside one of
    them.
    """
    return any(name == module or name.startswith(f"{module}.") for module in modules)


def common_path(names: list[str]) -> str:
    """The longest module path that all names share; empty where they share none."""
    split = [name.split(".") for name in names]
    shared = []
    for parts in zip(*split):
        if len(set(parts)) > 1:
            break
        shared.append(parts[0])
    return ".".join(shared)
