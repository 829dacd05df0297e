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
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from tts_workbook.bars import Bar
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
MARKED = Bar(
    0.1,
    control="cosine with a marker of the size of the gradient itself; by chance it is under 0.01",
)
# steps with a marker, where markers survive: gradients zeroed every k-th step only are told apart
N_MARKED = 8
# a step may wait for an accumulation, or for a loss scaler to back off from 2^16 to 2^-8
MAX_CALLS = 24
PILED_CALLS = 64  # or longer, while gradients pile up from call to call
PILING = Bar(0.3, control="times n times the gradient of one call, after n calls")
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
    if model is None:
        model = opened.build()
    if batch is None:
        batch = opened.batch
    with unchanged_randomness(opened.seed):
        optimizer = opened.subject.make_optimizer(model)
    step: Callable[..., Any] | None = opened.subject.train_step
    if step is None or plain:
        step = functools.partial(plain_step, losses=opened.subject.losses)
    watch = _Watch(model, optimizer)
    calls = _Calls(watch, n_steps, max_calls)
    with (
        nullcontext() if dropout else without_dropout(model),
        kept_scalers(loss_scale),
        counted_checkpointing() as checkpointed,
        watch,
    ):
        while calls.wants_more():
            calls.begin()
            model.train()
            try:
                with unchanged_randomness(opened.seed):
                    step(model, optimizer, private_copy(batch))
            except Exception as error:  # the subject's code may raise anything
                calls.errors.append(f"{type(error).__name__}: {error}")
                continue
            calls.finished()
    return Observation(
        steps=tuple(calls.steps),
        n_calls=calls.n_calls,
        n_attempts=watch.n_attempts,
        loss_scales=tuple(watch.scales),
        held=tuple(watch.held.values()),
        lr=watch.lr,
        weight_decay=tuple(
            float(group.get("weight_decay", 0.0)) for group in optimizer.param_groups
        ),
        leftover=calls.leftover,
        grad_mode=watch.grad_mode,
        n_checkpointed=len(checkpointed),
        finite=watch.finite,
        error=calls.errors[-1] if calls.errors else "",
    )


@dataclass
class _Calls:
    """The calls of one observation, while they are made."""

    watch: _Watch
    n_steps: int  # optimiser steps that are wanted
    max_calls: int
    steps: list[SeenStep] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)  # of calls that raised
    n_calls: int = 0
    marker: Named = field(default_factory=dict)  # left in .grad before the next call
    leftover: bool = False  # whether .grad was filled after a step
    first_pile: float = 0.0  # norm of what the first calls left in .grad
    nothing_left: bool = False  # that a later step could still contain

    def wants_more(self) -> bool:
        """Whether another call is made."""
        if self.nothing_left or len(self.errors) == 2:
            return False
        if len(self.steps) >= self.n_steps and not self._marker_survives():
            return False
        patient = PILED_CALLS if self.max_calls == MAX_CALLS else 0
        most = max(self.max_calls, patient) if self._piles_up() else self.max_calls
        return self.n_calls < most

    def _marker_survives(self) -> bool:
        """Whether steps are looked at for a while because the last one contained the marker."""
        marked = self.steps[-1].marked or 0.0
        return marked > MARKED and len(self.steps) < self.n_steps + N_MARKED

    def _piles_up(self) -> bool:
        """Whether gradients grow from call to call, while nobody steps."""
        if self.steps or self.watch.n_attempts:
            return False
        expected = PILING * self.n_calls * self.first_pile
        return math.inf > self.watch.pile() > expected > 0.0

    def begin(self) -> None:
        """Before a call: the weights are as they were at first."""
        self.n_calls += 1
        self.watch.restore()

    def finished(self) -> None:
        """After a call: keep its steps, and leave a marker from the second last on."""
        found = self.watch.finished(self.n_calls, self.marker)
        self.first_pile = self.first_pile or self.watch.pile()
        if not found:
            return
        self.steps += found
        self.leftover |= self.watch.pile() > 0.0
        if len(self.steps) >= self.n_steps - 1:
            size = tensors_norm(found[-1].backward.values())
            self.marker = self.watch.leave_marker(size)
            self.nothing_left = not self.marker and len(self.steps) > 1


class _Watch:
    """Hooks and patches around one model and its optimiser, in place while it is entered."""

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        self.model, self.optimizer = model, optimizer
        self.parameters = dict(all_parameters(model))
        names = {id(parameter): name for name, parameter in self.parameters.items()}
        # names of the parameters in each of the optimiser's groups
        self.groups = [
            [names[id(parameter)] for parameter in group["params"] if id(parameter) in names]
            for group in optimizer.param_groups
        ]
        self.held: dict[int, str] = {}  # id of a parameter that the optimiser holds -> its name
        for group in self.groups:
            self.held |= {id(self.parameters[name]): name for name in group}
        tensors = (*self.parameters.values(), *model.buffers())
        self.state = [(tensor, tensor.detach().clone()) for tensor in tensors]
        self.weights = {
            name: parameter.detach().clone() for name, parameter in self.parameters.items()
        }
        self.n_attempts = 0  # calls of an enabled scaler's step
        self.scales: list[float] = []  # at those calls
        self.lr: dict[str, float] = {}  # largest rate seen of each held parameter
        self.grad_mode: bool | None = None
        self.finite = True
        self.found: list[SeenStep] = []  # steps of the call that is running
        self.inside = False  # a backward pass
        self.stack = ExitStack()
        self.begin()

    def begin(self) -> None:
        """Nothing seen since the last optimiser step."""
        self.parts: list[Named] = []
        self.losses: list[float] = []
        self.forwards: Counter[str] = Counter()
        self.left: Named = {}  # .grad after the last backward pass
        self.scale = 1.0
        self.raw_norm = 0.0  # of .grad after the last backward pass, loss scale included
        self.shrunk = 1.0  # norm when unscale_ begins over that
        self.given: Named = {}  # the gradient as the optimiser is given it

    def __enter__(self) -> _Watch:
        for name, module in self.model.named_modules():
            handle = module.register_forward_pre_hook(functools.partial(self.on_forward, name))
            self.stack.callback(handle.remove)
        for handle in (
            self.optimizer.register_step_pre_hook(self.on_step),
            self.optimizer.register_step_post_hook(self.on_stepped),
        ):
            self.stack.callback(handle.remove)
        backward = self.backward(torch.autograd.backward)
        self.stack.enter_context(replaced(torch.autograd, backward=backward))
        watched = {
            name: self.scaler(name, getattr(Scaler, name)) for name in ("scale", "unscale_", "step")
        }
        self.stack.enter_context(replaced(Scaler, **watched))
        return self

    def __exit__(self, *_: Any) -> None:
        self.stack.close()

    def __deepcopy__(self, _: Any) -> _Watch:
        """A train step may copy the model, hooks and all: its average, for instance."""
        return self

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

    def backward(self, original: Callable[..., Any]) -> Callable[..., Any]:
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
            value = sum(float(root.detach().sum()) for root in roots)
            self.losses.append(value / self.scale)
            raw = self.gradients()
            self.raw_norm = tensors_norm(raw.values())
            self.left = {name: gradient / self.scale for name, gradient in raw.items()}
            self.finite &= math.isfinite(self.losses[-1]) and math.isfinite(self.raw_norm)
            if len(self.parts) < N_PARTS:
                self.parts.append(self._added(before, raw))
            return result

        return watched

    def _added(self, before: Named, after: Named) -> Named:
        """What a backward pass added to .grad, with the loss scale undone."""
        added = {}
        for name, gradient in after.items():
            if name in before:
                gradient = gradient - before[name]
            added[name] = gradient / self.scale
        return added

    def scaler(self, name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        """A method of the loss scaler, watched where it works on this optimiser."""

        def watched(scaler: Any, given: Any, *args: Any, **kwargs: Any) -> Any:
            is_optimizer = isinstance(given, torch.optim.Optimizer)
            if not scaler.is_enabled() or (is_optimizer and given is not self.optimizer):
                return original(scaler, given, *args, **kwargs)
            if name == "unscale_":
                norm = tensors_norm(self.gradients().values())
                self.shrunk = norm / self.raw_norm if self.raw_norm else 1.0
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
        given_scale = getattr(optimizer, "grad_scale", None)
        scale = 1.0 if given_scale is None else float(given_scale)
        self.given = {
            name: gradient / scale
            for name, gradient in self.gradients().items()
            if id(self.parameters[name]) in self.held
        }

    def on_stepped(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        skipped = getattr(optimizer, "found_inf", None)
        if skipped is not None and float(skipped):
            return
        rates = tuple(float(group["lr"]) for group in optimizer.param_groups)
        # a group that was added to the optimiser later is not watched
        for names, rate in zip(self.groups, rates, strict=False):
            for name in names:
                self.lr[name] = max(rate, self.lr.get(name, 0.0))
        moved = any(
            not torch.equal(self.parameters[name].detach(), self.weights[name])
            for name in self.held.values()
        )
        self.found.append(
            SeenStep(
                call=0,  # it is known when the call has ended
                gradient=self.given,
                backward=self.left,
                parts=tuple(self.parts),
                losses=tuple(self.losses),
                loss_scale=self.scale,
                before_unscale=self.shrunk,
                forwards=self.forwards,
                lr=rates,
                moved_inside=moved,
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
        completed = []
        for index, step in enumerate(found):
            # the first step alone can contain what was left before the call
            marked = cosine(step.gradient, marker) if marker and not index else None
            completed.append(
                replace(step, call=call, changed=changed, update_ratio=ratio, marked=marked)
            )
        return completed

    def left_over(self) -> dict[str, Tensor]:
        """Name -> .grad of the optimiser's parameters, where there is one."""
        found = {}
        for name in self.held.values():
            gradient = self.parameters[name].grad
            if gradient is not None:
                found[name] = gradient
        return found

    def pile(self) -> float:
        """Norm of what is left in .grad of the optimiser's parameters."""
        return tensors_norm(self.left_over().values())

    def leave_marker(self, size: float) -> Named:
        """Replace what is left in .grad by noise of norm `size`; empty where nothing is left."""
        left = self.left_over()
        if not tensors_norm(left.values()):
            return {}
        generator = torch.Generator().manual_seed(MARKER_SEED)
        noise = {
            name: torch.randn(gradient.shape, generator=generator).to(gradient.device)
            for name, gradient in left.items()
        }
        scale = (size or 1.0) / max(tensors_norm(noise.values()), 1e-12)
        marker = {name: tensor * scale for name, tensor in noise.items()}
        for name, gradient in left.items():
            gradient.copy_(marker[name])
        return marker
