"""The subject's train step seen from outside: what the optimiser is given, what the loss scaler
does, what moves.

Gradients are dictionaries by parameter name, fp32, with the loss scale undone.
"""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from tts_workbook.subject.interventions import (
    counted_checkpointing,
    kept_scalers,
    replaced,
    without_checkpointing,
)
from tts_workbook.subject.isolation import private_copy, unchanged_randomness, without_dropout
from tts_workbook.subject.opened import OpenSubject, once_per_subject
from tts_workbook.subject.subject import Batch
from tts_workbook.subject.tensor_math import Named, cosine, factor, only, tensors_norm
from tts_workbook.subject.training_step import all_parameters, plain_step

question = "What does a subject's train step do, seen from outside?"

# two of which one is not the end of an accumulation begun elsewhere; the third finds a marker
N_STEPS = 3
# cosine with a marker of the gradient's size: 0.7 or more where it survives, under 0.01 by chance
MARKED = 0.1
# steps with a marker, where markers survive: gradients zeroed every k-th step only are told apart
N_MARKED = 8
# a step may wait for an accumulation, or for a loss scaler to back off from 2^16 to 2^-8
MAX_CALLS = 24
PILED_CALLS = 64  # or longer, while gradients pile up from call to call
PILING = 0.3  # they do where n calls leave more than this × n times the gradient of one
N_PARTS = 16  # backward passes of one step whose gradients are kept
MARKER_SEED = 7_919_263  # not one that a train step might draw noise of its own from
Scaler = torch.amp.GradScaler


@dataclass(frozen=True)
class SeenStep:
    """One call of `optimizer.step`, and what led to it since the one before."""

    call: int  # number of the train step's call, from 1
    # as the optimiser is given it; parameters that it does not hold are absent
    gradient: Named
    # as the last backward pass left it; empty where .grad was filled by other means
    backward: Named
    parts: tuple[Named, ...]  # what each backward pass added, at most N_PARTS
    losses: tuple[float, ...]  # the value that each backward pass started from
    loss_scale: float  # 1.0 without a scaler
    # norm when unscale_ begins over that after the last backward pass; 1.0 without
    before_unscale: float
    forwards: Counter[str]  # calls of each module
    lr: tuple[float, ...]  # of each group, as the step uses it
    moved_inside: bool  # whether the optimiser changed a weight of the model
    # share of elements that differ after the call
    changed: dict[str, float] = field(default_factory=dict)
    update_ratio: float = math.nan  # ‖Δw‖ / ‖w‖ after the call
    marked: float | None = None  # cosine with a marker that was left in .grad before the call

    @property
    def n_backward(self) -> int:
        return len(self.losses)

    @property
    def held(self) -> Named:
        """The gradient after the last backward pass, of the optimiser's parameters: nobody need
        zero the others.
        """
        return only(self.backward, self.gradient)


@dataclass(frozen=True)
class Observation:
    """Several calls of a train step on one batch, each from the same weights and the same random
    state.
    """

    steps: tuple[SeenStep, ...]
    n_calls: int
    n_attempts: int  # calls of an enabled scaler's step
    loss_scales: tuple[float, ...]  # at those calls
    held: tuple[str, ...]  # parameters of the model in the optimiser's groups
    lr: dict[str, float]  # largest rate seen of each of those
    weight_decay: tuple[float, ...]  # of each group
    leftover: bool  # whether .grad is still filled after a step
    # whether modules ran with gradients enabled; None where none ran
    grad_mode: bool | None
    n_checkpointed: int  # calls of activation checkpointing
    # whether what backward passes started from, and what they gave, was finite
    finite: bool
    error: str  # what the train step raised, if it did

    @property
    def step(self) -> SeenStep | None:
        """The step to judge: the first, unless an accumulation that began elsewhere ended in it."""
        if len(self.steps) > 1 and self.steps[0].call < self.steps[1].call - self.steps[0].call:
            return self.steps[1]
        return self.steps[0] if self.steps else None

    @property
    def calls_per_step(self) -> int:
        """How many calls an optimiser step takes."""
        return max(1, self.steps[1].call - self.steps[0].call) if len(self.steps) > 1 else 1

    @property
    def marks(self) -> list[float]:
        """Share of the optimiser's gradient that a marker left in .grad makes, by step; near 0
        where gradients are zeroed.
        """
        return [step.marked for step in self.steps if step.marked is not None]

    @property
    def clip_factor(self) -> float:
        """The optimiser's gradient over that of the last backward pass; what is lost before
        unscale_ is not counted. NaN where no step was seen, or no backward pass.
        """
        step = self.step
        if step is None or not step.backward:
            return math.nan
        return factor(step.gradient, only(step.backward, step.gradient)) / max(
            step.before_unscale, 1e-30
        )

    @property
    def update_ratio(self) -> float:
        """‖Δw‖ / ‖w‖ of the judged step."""
        return self.step.update_ratio if self.step else math.nan


@once_per_subject
def observe_steps(opened: OpenSubject) -> Observation:
    """The subject's train step on its batch, without dropout; run once and remembered."""
    return observe(opened)


@once_per_subject
def reference(opened: OpenSubject) -> Named:
    """Gradient of `total` on the whole batch at the same weights, without dropout and without
    checkpointing.
    """
    return {name: gradient.float() for name, gradient in opened.gradient(opened.build()).items()}


@once_per_subject
def n_checkpointed(opened: OpenSubject) -> int:
    """Calls of activation checkpointing in one evaluation of the losses and in the observed calls
    of the train step.
    """
    with without_checkpointing() as calls:
        opened.losses(opened.build())
    return len(calls) + observe_steps(opened).n_checkpointed


def observe(
    opened: OpenSubject,
    *,
    model: nn.Module | None = None,
    batch: Batch | None = None,
    plain: bool = False,
    n_steps: int = N_STEPS,
    max_calls: int = MAX_CALLS,
    dropout: bool = False,
    loss_scale: float | None = None,
) -> Observation:
    """Call the train step on `batch` until the optimiser has stepped `n_steps` times (one less
    where it zeroes at the end), or `max_calls` times.

    Weights and buffers are put back before each call and the random state is the same, so that
    every call must do the same. From the third step on, what is left in .grad is replaced by a
    marker of the gradient's size: zeroing wipes it out. `plain`: the workbook's step instead of the
    subject's; `loss_scale` is forced upon every scaler. What the step raises is kept as text.
    """
    model = opened.build() if model is None else model
    batch = opened.batch if batch is None else batch
    with unchanged_randomness(opened.seed):
        optimizer = opened.subject.make_optimizer(model)
    step = opened.subject.train_step
    if step is None or plain:
        step = functools.partial(plain_step, losses=opened.subject.losses)
    watch, steps, errors, leftover, first_pile = _Watch(model, optimizer), [], [], False, 0.0
    n_calls, marker, longest = 0, {}, max(max_calls, PILED_CALLS if max_calls == MAX_CALLS else 0)
    with (
        nullcontext() if dropout else without_dropout(model),
        kept_scalers(loss_scale),
        counted_checkpointing() as kept,
        watch,
    ):
        while len(steps) < n_steps or (
            (steps[-1].marked or 0.0) > MARKED and len(steps) < n_steps + N_MARKED
        ):
            piling = math.inf > watch.pile() > PILING * n_calls * first_pile > 0.0 and not (
                steps or watch.n_attempts
            )
            if n_calls >= (longest if piling else max_calls):
                break
            n_calls += 1
            watch.restore()
            model.train()
            try:
                with unchanged_randomness(opened.seed):
                    step(model, optimizer, private_copy(batch))
            except Exception as error:  # the subject's code may raise anything
                errors.append(f"{type(error).__name__}: {error}")
                if len(errors) == 2:
                    break
                continue
            found = watch.finished(n_calls, marker)
            first_pile = first_pile or watch.pile()
            if found:
                steps += found
                leftover |= watch.pile() > 0.0
                if len(steps) >= n_steps - 1:
                    marker = watch.leave_marker(tensors_norm(found[-1].backward.values()))
                    # nothing is left that the next step could still contain
                    if not marker and len(steps) > 1:
                        break
    return Observation(
        tuple(steps),
        n_calls,
        watch.n_attempts,
        tuple(watch.scales),
        tuple(watch.held.values()),
        watch.lr,
        tuple(float(group.get("weight_decay", 0.0)) for group in optimizer.param_groups),
        leftover,
        watch.grad_mode,
        len(kept),
        watch.finite,
        errors[-1] if errors else "",
    )


class _Watch:
    """Hooks and patches around one model and its optimiser, in place while it is entered."""

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        self.model, self.optimizer = model, optimizer
        self.parameters = dict(all_parameters(model))
        names = {id(parameter): name for name, parameter in self.parameters.items()}
        self.groups = [
            [names[id(parameter)] for parameter in group["params"] if id(parameter) in names]
            for group in optimizer.param_groups
        ]
        self.held = {id(self.parameters[name]): name for group in self.groups for name in group}
        self.state = [
            (tensor, tensor.detach().clone())
            for tensor in (*self.parameters.values(), *model.buffers())
        ]
        self.weights = {
            name: parameter.detach().clone() for name, parameter in self.parameters.items()
        }
        self.n_attempts, self.scales, self.lr, self.grad_mode, self.finite = 0, [], {}, None, True
        self.found: list[SeenStep] = []
        self.inside = False
        self.begin()

    def begin(self) -> None:
        """Nothing seen since the last optimiser step."""
        self.parts, self.losses, self.forwards = [], [], Counter()
        self.left: Named = {}
        self.scale, self.raw_norm, self.shrunk, self.given = 1.0, 0.0, 1.0, {}

    def __enter__(self) -> _Watch:
        self.stack = ExitStack()
        for name, module in self.model.named_modules():
            handle = module.register_forward_pre_hook(functools.partial(self.on_forward, name))
            self.stack.callback(handle.remove)
        for handle in (
            self.optimizer.register_step_pre_hook(self.on_step),
            self.optimizer.register_step_post_hook(self.on_stepped),
        ):
            self.stack.callback(handle.remove)
        self.stack.enter_context(
            replaced(torch.autograd, backward=self.backward(torch.autograd.backward))
        )
        self.stack.enter_context(
            replaced(
                Scaler,
                **{
                    name: self.scaler(name, getattr(Scaler, name))
                    for name in ("scale", "unscale_", "step")
                },
            )
        )
        return self

    def __exit__(self, *_: Any) -> None:
        self.stack.close()

    def restore(self) -> None:
        """Weights and buffers as they were at first; gradients stay."""
        with torch.no_grad():
            for tensor, value in self.state:
                tensor.copy_(value)

    def gradients(self) -> Named:
        return {
            name: parameter.grad.detach().float().clone()
            for name, parameter in self.parameters.items()
            if parameter.grad is not None
        }

    # --- what happens inside a call ---------------------------------------------------------------

    def on_forward(self, name: str, *_: Any) -> None:
        self.forwards[name] += 1
        self.grad_mode = bool(self.grad_mode) or torch.is_grad_enabled()

    def backward(self, original: Callable) -> Callable:
        """`torch.autograd.backward`, which `Tensor.backward` calls too; reentrant calls belong to
        the outer one.
        """

        def watched(tensors: Any, *args: Any, **kwargs: Any) -> Any:
            if self.inside:
                return original(tensors, *args, **kwargs)
            before, self.inside = self.gradients(), True
            try:
                result = original(tensors, *args, **kwargs)
            finally:
                self.inside = False
            roots = [tensors] if isinstance(tensors, Tensor) else list(tensors)
            self.losses.append(sum(float(root.detach().sum()) for root in roots) / self.scale)
            raw = self.gradients()
            self.raw_norm = tensors_norm(raw.values())
            self.left = {name: gradient / self.scale for name, gradient in raw.items()}
            self.finite &= math.isfinite(self.losses[-1]) and math.isfinite(self.raw_norm)
            if len(self.parts) < N_PARTS:
                self.parts.append(
                    {
                        name: (gradient - before[name] if name in before else gradient) / self.scale
                        for name, gradient in raw.items()
                    }
                )
            return result

        return watched

    def scaler(self, name: str, original: Callable) -> Callable:
        def watched(scaler: Any, given: Any, *args: Any, **kwargs: Any) -> Any:
            if not scaler.is_enabled() or (
                isinstance(given, torch.optim.Optimizer) and given is not self.optimizer
            ):
                return original(scaler, given, *args, **kwargs)
            if name == "unscale_":
                self.shrunk = (
                    tensors_norm(self.gradients().values()) / self.raw_norm
                    if self.raw_norm
                    else 1.0
                )
            if name == "step":
                self.n_attempts += 1
                self.scales.append(scaler.get_scale())
            result = original(scaler, given, *args, **kwargs)
            if name == "scale":
                self.scale = scaler.get_scale()
            return result

        return watched

    def on_step(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        # fused optimisers undo the loss scale themselves
        scale = getattr(optimizer, "grad_scale", None)
        self.given = {
            name: gradient / (1.0 if scale is None else float(scale))
            for name, gradient in self.gradients().items()
            if id(self.parameters[name]) in self.held
        }

    def on_stepped(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        skipped = getattr(optimizer, "found_inf", None)
        if skipped is not None and float(skipped):
            return
        rates = tuple(float(group["lr"]) for group in optimizer.param_groups)
        for names, rate in zip(self.groups, rates):
            self.lr.update({name: max(rate, self.lr.get(name, 0.0)) for name in names})
        moved = any(
            not torch.equal(self.parameters[name].detach(), self.weights[name])
            for name in self.held.values()
        )
        self.found.append(
            SeenStep(
                0,
                self.given,
                self.left,
                tuple(self.parts),
                tuple(self.losses),
                self.scale,
                self.shrunk,
                self.forwards,
                rates,
                moved,
            )
        )
        self.begin()

    # --- between calls ----------------------------------------------------------------------------

    def finished(self, call: int, marker: Named) -> list[SeenStep]:
        """The steps of the call that just ended, with what it did to the weights."""
        found, self.found = self.found, []
        if not found:
            return []
        moves = {
            name: parameter.detach().float() - self.weights[name].float()
            for name, parameter in self.parameters.items()
        }
        changed = {
            name: float((move != 0).float().mean()) if move.numel() else 0.0
            for name, move in moves.items()
        }
        ratio = tensors_norm(moves.values()) / (tensors_norm(self.weights.values()) + 1e-12)
        return [
            _completed(
                step,
                call,
                changed,
                ratio,
                cosine(step.gradient, marker) if marker and not index else None,
            )
            for index, step in enumerate(found)
        ]

    def pile(self) -> float:
        """Norm of what is left in .grad of the optimiser's parameters."""
        return tensors_norm(
            [
                self.parameters[name].grad
                for name in self.held.values()
                if self.parameters[name].grad is not None
            ]
        )

    def leave_marker(self, size: float) -> Named:
        """Replace what is left in .grad by noise of norm `size`; empty where nothing is left."""
        if not self.pile():
            return {}
        generator = torch.Generator().manual_seed(MARKER_SEED)
        left = [name for name in self.held.values() if self.parameters[name].grad is not None]
        noise = {
            name: torch.randn(self.parameters[name].shape, generator=generator) for name in left
        }
        scale = (size or 1.0) / max(tensors_norm(noise.values()), 1e-12)
        for name in left:
            self.parameters[name].grad.copy_(noise[name] * scale)
        return {name: tensor * scale for name, tensor in noise.items()}


def _completed(
    step: SeenStep, call: int, changed: dict[str, float], ratio: float, marked: float | None
) -> SeenStep:
    return SeenStep(
        **{**vars(step), "call": call, "changed": changed, "update_ratio": ratio, "marked": marked}
    )
