"""loop.mode_not_restored: training goes on in evaluation mode, or judging in training mode."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from tts_workbook.bars import Bar
from tts_workbook.faults.cause import Cause, Decision, Experiment, Telling
from tts_workbook.faults.planting import Build, Setting
from tts_workbook.lab.lab import Lab
from tts_workbook.measure.anatomy import movement
from tts_workbook.measure.optimizer_parity import nudged
from tts_workbook.subject.interventions import kept_scalers, replaced
from tts_workbook.subject.isolation import private_copy, unchanged_randomness
from tts_workbook.subject.module_names import common_path
from tts_workbook.subject.subject import Subject
from tts_workbook.subject.training_step import plain_step

N_CALLS = 8  # of the train step; a validation may come only every few of them
# parts that judge a model; each is handed one in evaluation mode
JUDGING = ("predict_mel", "predict_frames", "generate", "stop")
FLOORS = Bar(
    10.0, control="times what weights that are off by a rounding do to the same loss or prediction"
)
LEAST_STRENGTH = Bar(
    0.1, absolute="a rank and no bar: the loss of one step says little of what dropout is worth"
)


# --- training -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class StepModes:
    """The modes in which the modules of a model run, call by call of the train step; the model is
    handed over in training mode once, before the first.
    """

    n_calls: int
    # modules that want gradients and run in evaluation mode at the first call already
    at_once: tuple[str, ...]
    everything: bool  # whether those are all that ran
    # modules that ran in training mode at the first call, and in evaluation mode at a later one
    later: tuple[str, ...]
    at_call: int  # the first such call
    # modules that evaluate in a step that comes right after a part that judges, and that part
    left: tuple[str, ...]
    left_by: str
    # |loss with these modules in evaluation mode - loss in training mode| / loss, same weights
    apart: float
    rounding: float  # that of weights that are off by a rounding


@kept_scalers()
def measure_steps(lab: Lab) -> StepModes:
    """Watch the mode of every module as it is called first, at N_CALLS steps in a row; then let
    each judging part run between two steps.
    """
    step = lab.subject.train_step or functools.partial(plain_step, losses=lab.subject.losses)
    model = lab.build()
    with unchanged_randomness(lab.seed):
        optimizer = lab.subject.make_optimizer(model)
        model.train()
        handed = _evaluating(model)
        first = _modes(model, lambda: step(model, optimizer, private_copy(lab.batch)))
        free = _trained_modules(model) - handed  # an overridden train() may keep some evaluating
        at_once = tuple(name for name, training in first.items() if not training and name in free)
        later: tuple[str, ...] = ()
        at_call = n_calls = 1
        while not later and not at_once and n_calls < N_CALLS:
            n_calls += 1
            modes = _modes(model, lambda: step(model, optimizer, private_copy(lab.batch)))
            later = _turned(first, modes, free)
            at_call = n_calls
    left: tuple[str, ...] = ()
    left_by = ""
    if not at_once and not later:
        left, left_by = _left(lab, step, first, free)
    apart, rounding = _loss_apart(lab, at_once or later or left)
    return StepModes(
        n_calls, at_once, set(at_once) >= set(first), later, at_call, left, left_by, apart, rounding
    )


def _turned(
    first: dict[str, bool], modes: dict[str, bool], free: Collection[str]
) -> tuple[str, ...]:
    """Modules that ran in training mode, and now run in evaluation mode."""
    return tuple(
        name
        for name, training in modes.items()
        if not training and first.get(name) and name in free
    )


def _left(
    lab: Lab, step: Callable[..., Any], first: dict[str, bool], free: Collection[str]
) -> tuple[tuple[str, ...], str]:
    """Modules that evaluate in a train step which comes after a judging part, and that part."""
    for part in ("predict_mel", "generate"):
        function = getattr(lab.subject, part)
        if function is None:
            continue
        model = lab.build()
        with unchanged_randomness(lab.seed):
            optimizer = lab.subject.make_optimizer(model)
            with torch.no_grad():
                function(model, private_copy(lab.batch))
            run = functools.partial(step, model, optimizer, private_copy(lab.batch))
            left = _turned(first, _modes(model, run), free)
        if left:
            return left, part
    return (), ""


def _evaluating(model: nn.Module) -> set[str]:
    return {name for name, module in model.named_modules() if not module.training}


def _trained_modules(model: nn.Module) -> set[str]:
    """Modules but for those of frozen parts, which may evaluate: a module without parameters
    belongs to the next one around it that has some.
    """
    modules = dict(model.named_modules())
    found = set()
    for name in modules:
        around = name
        while around and not any(True for _ in modules[around].parameters()):
            around = around.rpartition(".")[0]
        if any(parameter.requires_grad for parameter in modules[around].parameters()):
            found.add(name)
    return found


def _modes(model: nn.Module, run: Callable[[], Any]) -> dict[str, bool]:
    """Module -> whether it was in training mode when it was called first."""
    seen: dict[str, bool] = {}
    handles = [
        module.register_forward_pre_hook(functools.partial(_note, seen, name))
        for name, module in model.named_modules()
    ]
    try:
        run()
    finally:
        for handle in handles:
            handle.remove()
    return seen


def _note(seen: dict[str, bool], name: str, module: nn.Module, inputs: object) -> None:
    seen.setdefault(name, module.training)


def _loss_apart(lab: Lab, evaluating: Collection[str]) -> tuple[float, float]:
    """How far the loss of a fresh model is off when these modules evaluate; and for a rounding."""
    if not evaluating:
        return 0.0, 0.0
    own = _loss(lab, lab.build(), ())
    size = abs(own) + 1e-12
    apart = abs(_loss(lab, lab.build(), evaluating) - own) / size
    return apart, abs(_loss(lab, nudged(lab.build()), ()) - own) / size


def _loss(lab: Lab, model: nn.Module, evaluating: Collection[str]) -> float:
    model.train()
    for name, module in model.named_modules():
        if name in evaluating:
            module.training = False
    with unchanged_randomness(lab.seed), torch.no_grad():
        return float(lab.subject.losses(model, private_copy(lab.batch))["total"])


def decide_steps(numbers: StepModes) -> Decision:
    """Pure: modules that are handed over in training mode run in training mode, at every step; or
    nothing depends on it.
    """
    switched = numbers.at_once or numbers.later or numbers.left
    if not switched:
        return Decision("excluded", reason="training mode")
    if not numbers.apart > FLOORS * numbers.rounding:
        return Decision("excluded", reason="nothing depends on it")
    strength = min(1.0, max(LEAST_STRENGTH, numbers.apart))
    if numbers.later:
        return Decision("confirmed", "train_step", strength, "evaluation mode")
    if numbers.left:
        return Decision("question", numbers.left_by, strength, "left by a part")
    if numbers.everything:
        return Decision("confirmed", "train_step", strength, "evaluation mode at once")
    return Decision("question", common_path(list(switched)), strength, "a part evaluates")


ASK = {
    "left by a part": "is this meant? it leaves the model in evaluation mode, and the train step"
    " does not switch back: call model.train() before every step",
    "a part evaluates": "is this meant? declare Subject.frozen for a part that is not trained",
}


def tell_steps(numbers: StepModes, decision: Decision) -> Telling:
    switched = numbers.at_once or numbers.later or numbers.left
    evidence: dict[str, float | str] = {"calls of the train step": float(numbers.n_calls)}
    if switched:
        evidence |= {
            "modules in evaluation mode": float(len(switched)),
            "first": switched[0] or "the model",
            "relative difference of the loss between the modes": numbers.apart,
            "what a rounding does to it": numbers.rounding,
        }
    if numbers.later:
        evidence["at call"] = float(numbers.at_call)
    if numbers.left:
        evidence["after a call of"] = numbers.left_by
    return Telling(
        "mode of every module as each call of the train step finds it, from a model in training"
        " mode; the loss in both modes, same weights and seed",
        evidence,
        ASK.get(decision.reason, ""),
    )


# --- judging --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class JudgedModes:
    """A part that judges, handed a model in evaluation mode."""

    parts: tuple[str, ...]  # that were tried
    part: str  # the first one that runs modules in training mode; empty where none does
    training: tuple[str, ...]  # those modules
    everything: bool  # whether those are all that ran
    # largest move of a valid frame when the part may not switch modes, target deviations
    apart: float
    rounding: float  # that of weights that are off by a rounding


def measure_judging(lab: Lab) -> JudgedModes:
    """Run each judging part on a model in evaluation mode; one that switches to training mode also
    where nothing can switch.
    """
    tried: list[str] = []
    for part in JUDGING:
        if getattr(lab.subject, part) is None:
            continue
        tried.append(part)
        model = lab.build().eval()
        modes = _modes(model, functools.partial(_judged, lab, model, part))
        training = tuple(name for name, mode in modes.items() if mode)
        if training:
            apart, rounding = _frames_apart(lab, part)
            everything = len(training) == len(modes)
            return JudgedModes(tuple(tried), part, training, everything, apart, rounding)
    return JudgedModes(tuple(tried), "", (), False, 0.0, 0.0)


def _judged(lab: Lab, model: nn.Module, part: str) -> torch.Tensor:
    """What the part gives, from the lab's random state: (B, T, M), or (B, T) of a stop head."""
    with unchanged_randomness(lab.seed), torch.no_grad():
        given = getattr(lab.subject, part)(model, private_copy(lab.batch)).float()
    return given if given.ndim == 3 else given[..., None]


def _frames_apart(lab: Lab, part: str) -> tuple[float, float]:
    """How far the part's frames move when modes stand still; and for a rounding."""
    own = _judged(lab, lab.build().eval(), part)
    off = _judged(lab, nudged(lab.build()).eval(), part)
    model = lab.build().eval()
    with _fixed_modes():
        still = _judged(lab, model, part)
    if own.shape[:2] != lab.mask.shape or still.shape != own.shape or off.shape != own.shape:
        return 0.0, 0.0
    return float(movement(own, still, lab).max()), float(movement(own, off, lab).max())


@contextmanager
def _fixed_modes() -> Iterator[None]:
    """Nothing switches the mode of a module."""

    def train(module: nn.Module, mode: bool = True) -> nn.Module:
        return module

    with replaced(nn.Module, train=train):
        yield


def decide_judging(numbers: JudgedModes) -> Decision | None:
    """Pure: a model that is handed over in evaluation mode is judged in it."""
    if not numbers.part:
        return None
    if not numbers.apart > FLOORS * numbers.rounding:
        return None
    strength = min(1.0, max(LEAST_STRENGTH, numbers.apart))
    if numbers.everything:
        return Decision("confirmed", numbers.part, strength, "training mode")
    return Decision("question", common_path(list(numbers.training)), strength, "a part trains")


def tell_judging(numbers: JudgedModes, decision: Decision) -> Telling:
    fix = "model.eval() in what judges, and no train() behind it"
    if decision.reason == "a part trains":
        fix = "is this meant? declare Subject.stochastic for a part that draws when it is judged"
    return Telling(
        f"mode of every module that {numbers.part} runs, handed a model in evaluation mode; its"
        " frames where nothing can switch modes",
        {
            "modules in training mode": float(len(numbers.training)),
            "first": numbers.training[0] or "the model",
            "move of a valid frame, target deviations": numbers.apart,
            "what a rounding does to it": numbers.rounding,
        },
        fix,
    )


def plant(build: Build, setting: Setting) -> Subject:
    """Every step ends with a validation that leaves the model in evaluation mode."""
    subject = build(setting)
    step = subject.train_step or functools.partial(plain_step, losses=subject.losses)

    def train_step(model: nn.Module, optimizer: torch.optim.Optimizer, batch: Any) -> Any:
        seen = step(model, optimizer, batch)
        model.eval()
        with torch.no_grad():
            subject.predict_mel(model, batch)
        return seen

    return replace(subject, train_step=train_step)


CAUSE = Cause(
    id="loop.mode_not_restored",
    title="training goes on in evaluation mode, or judging in training mode",
    experiment="mode of every module before and after each part of the subject",
    fix="model.train() before every step, model.eval() before every judgement",
    experiments=(
        Experiment(measure_steps, decide_steps, tell_steps),
        Experiment(measure_judging, decide_judging, tell_judging),
    ),
    plant=plant,
    plant_needs={"dropout": 0.3},
)
