"""optimizer.missing_parameters: parameters that the optimiser does not hold."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from tts_workbook.faults.cause import Cause, Decision, Experiment, Telling
from tts_workbook.faults.planting import Build, Setting
from tts_workbook.faults.selection import MARGIN, OVER_SHAM
from tts_workbook.lab.controls import sham_gain
from tts_workbook.lab.lab import Lab
from tts_workbook.lab.short_run import Change, ChangeKey
from tts_workbook.measure.observed_steps import observe_steps, reference
from tts_workbook.measure.term_gradients import declared
from tts_workbook.subject.module_names import common_path
from tts_workbook.subject.subject import Subject
from tts_workbook.subject.tensor_math import tensors_norm
from tts_workbook.subject.training_step import all_parameters


@dataclass(frozen=True)
class LeftOut:
    """What of the tensors that are missing in the optimiser, all of them trained otherwise."""

    share: float  # of the elements that the loss reaches
    gradient_share: float  # of the gradient's norm
    n_unregistered: int  # tensors of modules that hide in plain lists and dicts
    n_idle: int  # tensors that it holds at a learning rate of 0


@dataclass(frozen=True)
class SwitchedOff:
    """A paired run in which tensors with requires_grad=False are trained too."""

    outcome: float  # mean TF L1 over the best constant, as it is
    outcome_trained: float
    learnt: bool  # whether it passes the overfit gate as it is
    noise: float  # what a sham intervention gains or loses
    mended_by: tuple[ChangeKey, ...] = ()  # what was changed in that run


@dataclass(frozen=True)
class Trained:
    """Parameters that the loss reaches, against those that the optimiser holds and moves."""

    n_reached: int  # tensors, without those that are declared frozen
    # of them never moved: those that require a gradient and are not held, or held at a rate of 0
    missing: tuple[str, ...]
    off: tuple[str, ...]  # and those that require none
    holds_parameters: bool  # whether the optimiser holds any of the model's
    steps_seen: bool
    left_out: LeftOut | None = None  # of `missing`
    switched_off: SwitchedOff | None = None  # of `off`, where nothing is missing


def measure(lab: Lab) -> Trained:
    """Parameters that the loss reaches, minus those in the optimiser's groups, minus those declared
    frozen.
    """
    seen, model = observe_steps(lab), lab.build()
    named = dict(all_parameters(model))
    trained = {name for name, parameter in named.items() if parameter.requires_grad}
    sizes = {name: tensors_norm([gradient]) for name, gradient in _gradients(lab, model).items()}
    reached = set()
    for name, size in sizes.items():
        if size > 0.0 and not declared(name, lab.subject.frozen):
            reached.add(name)
    moved = {name for step in seen.steps for name, share in step.changed.items() if share}
    still = reached - moved
    idle = {name for name, rate in seen.lr.items() if rate == 0.0 and max(seen.lr.values()) > 0.0}
    places = {name: place for place, name in enumerate(named)}
    numbers = Trained(
        n_reached=len(reached),
        missing=tuple(sorted((still & trained) - (set(seen.held) - idle), key=places.__getitem__)),
        off=tuple(sorted(still - trained, key=places.__getitem__)),
        holds_parameters=bool(seen.held),
        steps_seen=bool(seen.steps),
    )
    if numbers.missing and numbers.holds_parameters:
        registered = dict(model.named_parameters())
        missing = numbers.missing
        left_out = LeftOut(
            share=_n_elements(named, missing) / max(1, _n_elements(named, reached)),
            gradient_share=_norm(sizes, missing) / _norm(sizes, reached),
            n_unregistered=sum(name not in registered for name in missing),
            n_idle=sum(name in idle for name in missing),
        )
        return replace(numbers, left_out=left_out)
    if numbers.off and not numbers.missing:
        return replace(numbers, switched_off=_train_too(lab, numbers.off))
    return numbers


def _gradients(lab: Lab, model: nn.Module) -> dict[str, Tensor]:
    """Of the loss, at every parameter: those that require none are asked too, but for declared
    ones.
    """
    frozen = lab.subject.frozen
    asked = [
        name
        for name, parameter in all_parameters(model)
        if not parameter.requires_grad and not declared(name, frozen)
    ]
    if not asked:
        return reference(lab)
    for _, parameter in all_parameters(model):
        parameter.requires_grad_(parameter.is_floating_point())
    return lab.gradient(model)


def _n_elements(named: dict[str, nn.Parameter], names: Sequence[str] | set[str]) -> int:
    return sum(named[name].numel() for name in names)


def _norm(sizes: dict[str, float], names: Sequence[str] | set[str]) -> float:
    return math.hypot(*(sizes[name] for name in names))


def _train_too(lab: Lab, names: tuple[str, ...]) -> SwitchedOff:
    """Parameters that require no gradient and are not declared frozen: fixed tables, or forgotten?
    One factor: train them.
    """

    def train(model: nn.Module) -> None:
        for name, parameter in all_parameters(model):
            if name in names:
                parameter.requires_grad_(True)

    change = Change(
        "trained_too",
        names,
        lambda *names: "parameters without requires_grad trained too",
        model=train,
    )
    before, after = lab.course(), lab.course(change)
    return SwitchedOff(before.outcome, after.outcome, before.learnt, sham_gain(lab), (change.key,))


def decide(numbers: Trained) -> Decision:
    """Pure: which of the ends it is."""
    if numbers.missing and not numbers.holds_parameters:
        return Decision("excluded", reason="holds none")
    if numbers.left_out is not None:
        where = common_path(numbers.missing) or numbers.missing[0]
        strength = max(numbers.left_out.share, numbers.left_out.gradient_share)
        if not numbers.steps_seen:
            return Decision("suspected", where, strength, "left out, no step seen")
        return Decision("confirmed", where, strength, "left out")
    if numbers.switched_off is not None:
        where = common_path(numbers.off)
        switched_off = numbers.switched_off
        gain = switched_off.outcome - switched_off.outcome_trained
        harms = gain > MARGIN and gain > OVER_SHAM * switched_off.noise
        if harms and not switched_off.learnt:
            return Decision("confirmed", where, gain, "switched off")
        return Decision("question", where, max(gain, 0.0), "frozen")
    return Decision("excluded", reason="all trained")


def tell(numbers: Trained, decision: Decision) -> Telling:
    evidence: dict[str, float | str] = {
        "tensors that the loss reaches": float(numbers.n_reached),
        "tensors left out": float(len(numbers.missing)),
    }
    if decision.reason == "holds none":
        return Telling("the optimiser holds no parameter of the model: see loop.no_step", evidence)
    if numbers.left_out is not None:
        evidence |= {
            "share of the elements": numbers.left_out.share,
            "share of the gradient's norm": numbers.left_out.gradient_share,
            "elements that move": 0.0,
            "first": numbers.missing[0],
            "of them not registered": float(numbers.left_out.n_unregistered),
            "of them at learning rate 0": float(numbers.left_out.n_idle),
        }
    if numbers.switched_off is not None:
        evidence |= {
            "tensors with requires_grad=False": float(len(numbers.off)),
            "first": numbers.off[0],
            "mean TF L1 / best constant before": numbers.switched_off.outcome,
            "after": numbers.switched_off.outcome_trained,
        }
        experiment = "trained too as the one factor, same seeds"
        if decision.reason == "frozen":
            fix = f'is this meant? declare Subject.frozen, ("{decision.where or numbers.off[0]}",)'
            return Telling(f"{experiment}: it learns its batch as well without", evidence, fix)
        return Telling(experiment, evidence, mended_by=numbers.switched_off.mended_by)
    return Telling(
        "the model's parameters minus the optimiser's; elements that move in observed steps",
        evidence,
    )


def plant(build: Build, setting: Setting, parts: Sequence[str] = ()) -> Subject:
    """The optimiser never sees one of `parts` (module names), drawn; by default one of the model's
    three largest children.
    """
    subject = build(setting)

    def make_optimizer(model: nn.Module) -> torch.optim.Optimizer:
        children = sorted(
            dict(model.named_children()).items(),
            reverse=True,
            key=lambda item: sum(p.numel() for p in item[1].parameters()),
        )
        chosen = setting.random.choice(list(parts) or [name for name, _ in children[:3]])
        left_out = {id(p) for p in model.get_submodule(chosen).parameters()}
        optimizer = subject.make_optimizer(model)
        for group in optimizer.param_groups:
            group["params"] = [p for p in group["params"] if id(p) not in left_out]
        return optimizer

    return replace(subject, make_optimizer=make_optimizer)


CAUSE = Cause(
    id="optimizer.missing_parameters",
    title="parameters that the optimiser does not hold",
    experiment="set of the model's parameters minus the optimiser's; no element moves",
    fix="register modules (nn.ModuleList) and build the optimiser from model.parameters()",
    experiments=(Experiment(measure, decide, tell),),
    plant=plant,
)
