"""The laboratory: a private copy of the subject's batch, fresh models, gradients, and short training runs with one thing changed.

Everything here is judged against the best constant (the per-bin median over the valid frames). Shapes: B batch, T frames, M bins.
"""

from __future__ import annotations

import copy
import functools
import math
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from tts_core.diagnosis.isolation import private_copy, unchanged_randomness, without_dropout
from tts_core.diagnosis.subject import Batch, Subject, SubjectError, check_target
from tts_core.diagnosis.switches import kept_scalers, without_checkpointing
from tts_core.diagnosis.trace import Call, trace
from tts_core.errors import WorkbookError
from tts_core.model.modes import evaluating
from tts_core.probes.baselines import best_constant_l1
from tts_core.probes.gradients import tensors_norm
from tts_core.speech.batch import lengths_to_mask
from tts_core.training.step import step_optimizer

N_JUDGED = 16            # times that a course is judged
SECONDS = {"fast": 8.0, "full": 40.0}      # for one course
DEADLINE = {"fast": 100.0, "full": 1500.0}    # seconds after which no new course is begun; what is left says so
STEPS = {"fast": (60, 200), "full": (200, 600)}   # least and most steps of a course
FALLING = 0.97           # of the value half-way: a curve that ends lower has not come to rest
LONGER = 3               # times the steps that such a curve is given
LEARNT = 0.5             # the overfit gate: teacher-forced L1 below half of the best constant


class BudgetSpent(WorkbookError):
    """The time of the budget is over; what would have needed another training run stays undecided."""


@dataclass(frozen=True)
class Change:
    """One factor: what differs in a training run from the subject as it is. Unset parts stay the subject's own."""

    name: str
    model: Callable[[nn.Module], nn.Module | None] | None = None          # after it is built, before the optimiser is
    optimizer: Callable[[torch.optim.Optimizer], None] | None = None      # after it is made
    losses: Callable[[Callable], Callable] | None = None                  # wraps subject.losses; the plain step uses it
    batch: Callable[[Batch], Batch] | None = None
    batch_at: Callable[[int], Batch] | None = None       # the batch of each step, from 1 on, in place of the subject's one
    before_step: Callable[[int, nn.Module, torch.optim.Optimizer], None] | None = None   # a schedule, or a gradient's mending
    around: Callable[[nn.Module], AbstractContextManager] | None = None  # entered for the whole run, judgements included
    plain_step: bool = False             # the workbook's own step (fp32, clip 1.0) instead of the subject's


@dataclass(frozen=True)
class Course:
    """A short training run."""

    steps: tuple[int, ...]               # when it was judged
    tf: tuple[float, ...]                # teacher-forced L1 over the best constant, eval mode
    broke: str                           # why it ended early; empty where it did not
    update_ratio: float                  # ‖Δw‖ / ‖w‖ of one step, median over the steps looked at
    moved: float                         # share of elements that a step changes, median
    gradient_norm: float                 # as the optimiser sees it, median
    seconds: float
    model: nn.Module = field(repr=False, compare=False)

    @property
    def outcome(self) -> float:
        """Mean of the judged values, the early ones capped at 3: an area under the curve, always finite."""
        values = [min(value, 3.0) if math.isfinite(value) else 3.0 for value in self.tf] or [3.0]
        return sum(values) / len(values)

    @property
    def final(self) -> float:
        """The last judged value; infinite where the run broke."""
        return math.inf if self.broke or not self.tf else self.tf[-1]

    @property
    def learnt(self) -> bool:
        """The overfit gate."""
        return self.final < LEARNT


class Lab:
    """Where the experiments of one diagnosis run. Nothing of the caller's is trained, moved or overwritten."""

    def __init__(self, subject: Subject, budget: str = "fast", seed: int = 0,
                 on_course: Callable[[str, Course], None] = lambda name, course: None, steps: int | None = None) -> None:
        if budget not in SECONDS:
            raise WorkbookError(f"budget {budget!r} is unknown; use one of {', '.join(SECONDS)}")
        if steps is not None and steps < N_JUDGED:
            raise WorkbookError(f"steps is {steps}; a course is judged {N_JUDGED} times and needs as many steps at least")
        self.subject = replace(subject, batch=private_copy(subject.batch))
        self.budget, self.seed, self.on_course, self.steps = budget, seed, on_course, steps
        self.started = time.perf_counter()
        self.batch: Batch = self.subject.batch
        target, self.lengths = check_target(self.subject, self.batch)
        self.target = target.float()
        self.mask = lengths_to_mask(self.lengths, target.shape[1])
        self.frames = self.target[self.mask]                                     # (valid frames, M)
        self.best_constant = best_constant_l1(self.frames)
        if not torch.isfinite(self.frames).all() or self.best_constant == 0.0:
            raise SubjectError("target_mel", f"a best-constant error of {self.best_constant}",
                               "finite valid frames that are not all alike")
        self.courses: dict[str, Course] = {}
        self.confirmed: list[str] = []                 # causes that the checks before have confirmed
        self.misled = ""                               # why the loss is not about the target, where a check has found that
        self.remembered: dict[Callable, Any] = {}      # of `once_per_lab`

    # --- models -------------------------------------------------------------------------------------------------------

    def build(self, seed: int | None = None) -> nn.Module:
        """A fresh model of its own, in training mode."""
        with unchanged_randomness(self.seed if seed is None else seed):
            return copy.deepcopy(self.subject.build_model()).train()

    @functools.cached_property
    def model(self) -> nn.Module:
        """A fresh model for audits that do not train; use it and leave it as it was."""
        return self.build()

    @functools.cached_property
    def trained(self) -> nn.Module:
        """The model that generation is judged by: with the checkpoint's weights, else as the subject's course left it."""
        if self.subject.checkpoint is None:
            return self.course().model
        model = self.build()
        model.load_state_dict(self.checkpoint_state, strict=False)     # what is missing is a finding of its own
        return model

    @functools.cached_property
    def checkpoint_state(self) -> Mapping[str, Tensor]:
        """The tensors of `Subject.checkpoint`."""
        source = self.subject.checkpoint
        if isinstance(source, Mapping):
            return source
        from safetensors.torch import load_file
        path = Path(source)
        try:
            return load_file(path)
        except Exception as error:
            raise SubjectError("checkpoint", f"{path}: {error}", "a safetensors file, or a state dict") from error

    @property
    def fields(self) -> tuple[str, ...]:
        """What `predict` can be asked for: "frames" differs from "mel" only where the subject has a post-net."""
        return ("frames", "mel") if self.subject.predict_frames is not None else ("mel",)

    # --- predictions --------------------------------------------------------------------------------------------------

    def predict(self, model: nn.Module, batch: Batch | None = None, field: str = "frames") -> Tensor:
        """(B, T, M) fp32 in eval mode, from the same random state each time. `frames` is before a post-net, `mel` after."""
        function = self.subject.predict_frames if field == "frames" else None
        with unchanged_randomness(self.seed), evaluating(model):
            return (function or self.subject.predict_mel)(model, self.batch if batch is None else batch).detach().float()

    def error(self, mel: Tensor) -> float:
        """L1 over the valid frames that both have, (B, T', M) against the target, over the best constant."""
        n_frames = min(mel.shape[1], self.target.shape[1])
        difference = (mel[:, :n_frames].float() - self.target[:, :n_frames]).abs()[self.mask[:, :n_frames]].mean()
        return float(difference) / self.best_constant

    def calls(self, model: nn.Module, batch: Batch | None = None) -> list[Call]:
        """The module calls of one teacher-forced prediction."""
        with without_dropout(model):
            return trace(model, lambda: self.predict(model, batch, "mel"))

    # --- gradients ----------------------------------------------------------------------------------------------------

    def losses(self, model: nn.Module, batch: Batch | None = None) -> dict[str, Tensor]:
        """The subject's terms in training mode without dropout, with their graph."""
        model.train()
        with unchanged_randomness(self.seed), without_dropout(model), torch.enable_grad():
            return dict(self.subject.losses(model, self.batch if batch is None else batch))

    def gradient(self, model: nn.Module, batch: Batch | None = None, term: str = "total") -> dict[str, Tensor]:
        """Gradient of a term at each parameter that it reaches, without dropout and without activation checkpointing (which
        has a check of its own). The model's own .grad is left alone.
        """
        with without_checkpointing():
            value = self.losses(model, batch)[term]
            trained = {name: parameter for name, parameter in all_parameters(model) if parameter.requires_grad}
            if not value.requires_grad:
                return {}
            gradients = torch.autograd.grad(value, list(trained.values()), allow_unused=True)
        return {name: gradient.detach() for name, gradient in zip(trained, gradients) if gradient is not None}

    # --- training -----------------------------------------------------------------------------------------------------

    def course(self, *changes: Change, seed: int | None = None, times: int = 1) -> Course:
        """Train a fresh model on the batch for the budget's steps (`times` as many) with these changes; each is run once.

        Raises BudgetSpent after the deadline of the budget, which a lab with given `steps` has not.
        """
        seed = self.seed if seed is None else seed
        name = " + ".join(change.name for change in changes) or "as it is"
        key = name if seed == self.seed else f"{name}, seed {seed}"
        key = key if times == 1 else f"{key}, {times} times the steps"
        if key not in self.courses:
            if self.courses and self.steps is None and time.perf_counter() - self.started > DEADLINE[self.budget]:
                raise BudgetSpent(f"the {DEADLINE[self.budget]:.0f} s of budget {self.budget!r} are over before \"{key}\" was trained; "
                                  "budget \"full\" has longer")
            self.courses[key] = self._run(changes, seed, times * self.n_steps)
            self.on_course(key, self.courses[key])
        return self.courses[key]

    @functools.cached_property
    def learns(self) -> bool:
        """The overfit gate, with more steps where the curve still falls: a slow subject is not a faulty one."""
        course = self.course()
        if course.learnt or course.broke or len(course.tf) < 4 or course.tf[-1] > FALLING * course.tf[len(course.tf) // 2]:
            return course.learnt
        try:
            return self.course(times=LONGER).learnt
        except BudgetSpent:
            return False

    @functools.cached_property
    def n_steps(self) -> int:
        """Steps of a course: as given, else as many as the budget's seconds allow at the pace of the subject's own steps."""
        if self.steps is not None:
            return self.steps
        self._run((), self.seed, 1, judged=1)      # the first step pays for what is loaded and allocated only once
        seconds = self._run((), self.seed, 4, judged=1).seconds
        least, most = STEPS[self.budget]
        return max(least, min(most, int(4 * SECONDS[self.budget] / seconds)))

    @functools.cached_property
    def steps_as_ours(self) -> bool:
        """Whether the subject's train step does to the weights, to the last bit, what the workbook's own does."""
        if self.subject.train_step is None:
            return True
        courses = [self._run((Change("own step", plain_step=plain),), self.seed, 2, judged=1) for plain in (False, True)]
        states = [course.model.state_dict() for course in courses]
        return not any(course.broke for course in courses) and all(
            isinstance(value, Tensor) and torch.equal(value, states[1][name]) for name, value in states[0].items())

    def _run(self, changes: tuple[Change, ...], seed: int, n_steps: int, judged: int = N_JUDGED) -> Course:
        started = time.perf_counter()
        model = self.build(seed)
        for change in changes:
            if change.model is not None:
                model = change.model(model) or model
        losses, batch = self.subject.losses, private_copy(self.batch)
        for change in changes:
            losses = change.losses(losses) if change.losses else losses
            batch = change.batch(batch) if change.batch else batch
        with unchanged_randomness(seed):
            optimizer = self.subject.make_optimizer(model)
            for change in changes:
                if change.optimizer:
                    change.optimizer(optimizer)
            plain = self.subject.train_step is None or any(change.plain_step or change.losses for change in changes)
            step = (lambda: plain_step(model, optimizer, batch, losses)) if plain else (
                lambda: self.subject.train_step(model, optimizer, batch))
            watched = WatchedSteps(model, optimizer)
            marks = {round(n_steps * (index + 1) / judged) for index in range(judged)}
            at, tf, broke = [], [], ""
            with watched, kept_scalers(), ExitStack() as stack:
                for change in changes:
                    if change.around:
                        stack.enter_context(change.around(model))
                for number in range(1, n_steps + 1):
                    model.train()
                    for change in changes:
                        if change.before_step:
                            change.before_step(number, model, optimizer)
                        batch = change.batch_at(number) if change.batch_at else batch
                    try:
                        watched.look(step, number in (1, 2) or number in marks)
                    except (WorkbookError, RuntimeError, ValueError, ArithmeticError) as error:
                        broke = f"step {number}: {error}"
                        break
                    if number in marks:
                        at.append(number)
                        tf.append(self.error(self.predict(model, field="mel")))
                        if not math.isfinite(tf[-1]):
                            broke = f"step {number}: the prediction is not finite"
                            break
        return Course(tuple(at), tuple(tf), broke, watched.update_ratio, watched.moved, watched.gradient_norm,
                      time.perf_counter() - started, model)


Measured = TypeVar("Measured")


def once_per_lab(measure: Callable[[Lab], Measured]) -> Callable[[Lab], Measured]:
    """A measurement of a lab that is made when it is first asked for, and remembered in the lab."""
    @functools.wraps(measure)
    def remembered(lab: Lab) -> Measured:
        if measure not in lab.remembered:
            lab.remembered[measure] = measure(lab)
        return lab.remembered[measure]
    return remembered


class WatchedSteps:
    """Measures what an optimiser really does, whatever the train step around it looks like."""

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        self.parameters = [parameter for _, parameter in all_parameters(model)]
        self.optimizer, self.looking = optimizer, False
        self.ratios: list[float] = []
        self.shares: list[float] = []
        self.norms: list[float] = []

    def __enter__(self) -> WatchedSteps:
        self.handle = self.optimizer.register_step_pre_hook(lambda *_: self._note())
        return self

    def __exit__(self, *_: Any) -> None:
        self.handle.remove()

    def _note(self) -> None:
        if self.looking:
            self.norms.append(tensors_norm([parameter.grad for parameter in self.parameters if parameter.grad is not None]))

    def look(self, step: Callable[[], Any], closely: bool) -> None:
        """Run `step`; `closely` also measures what it did to the weights."""
        self.looking = closely
        before = [parameter.detach().clone() for parameter in self.parameters] if closely else []
        step()
        if closely:
            moves = [parameter.detach() - old for parameter, old in zip(self.parameters, before)]
            self.ratios.append(tensors_norm(moves) / (tensors_norm(before) + 1e-12))
            self.shares.append(sum(int((move != 0).sum()) for move in moves) / max(1, sum(move.numel() for move in moves)))

    update_ratio = property(lambda self: median(self.ratios))
    moved = property(lambda self: median(self.shares))
    gradient_norm = property(lambda self: median(self.norms))


def plain_step(model: nn.Module, optimizer: torch.optim.Optimizer, batch: Batch, losses: Callable,
               clip_norm: float | None = 1.0) -> dict[str, float]:
    """The workbook's step around any losses, in fp32: zero -> total -> backward -> clip -> step."""
    optimizer.zero_grad(set_to_none=True)
    terms = losses(model, batch)
    if not torch.isfinite(terms["total"]):
        raise WorkbookError(f"the loss is not finite: {float(terms['total'].detach())}")
    terms["total"].backward()
    step_optimizer(model, optimizer, torch.amp.GradScaler(terms["total"].device.type, enabled=False), clip_norm)
    return {name: float(term.detach()) for name, term in terms.items()}


def all_parameters(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """Named parameters, with those of modules that hide in plain lists, dicts and attributes and so are not registered."""
    named = list(model.named_parameters())
    seen = {id(parameter) for _, parameter in named}
    for path, module in list(model.named_modules()):
        for name, value in vars(module).items():
            if name.startswith("_") and name in ("_parameters", "_buffers", "_modules"):
                continue
            for key, hidden in _hidden(name, value):
                parameters = [("", hidden)] if isinstance(hidden, nn.Parameter) else list(hidden.named_parameters())
                for inner, parameter in parameters:
                    if id(parameter) not in seen:
                        seen.add(id(parameter))
                        named.append((".".join(filter(None, (path, key, inner))), parameter))
    return named


def _hidden(name: str, value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, nn.Module | nn.Parameter):
        return [(name, value)]
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list | tuple) else ()
    return [(f"{name}.{key}", part) for key, part in items if isinstance(part, nn.Module | nn.Parameter)]


def median(values) -> float:
    """Middle value; NaN of nothing."""
    return sorted(values)[len(values) // 2] if values else math.nan
