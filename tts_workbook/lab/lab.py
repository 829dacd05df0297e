"""The laboratory: a private copy of the subject's batch, fresh models, gradients, and short
training runs with one thing changed.

Everything here is judged against the best constant (the per-bin median over the valid frames).
Shapes: B batch, T frames, M bins.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Hashable
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from tts_core.errors import WorkbookError
from tts_workbook.lab.short_run import Change, ChangeKey, Course, Losses, WatchedSteps
from tts_workbook.subject.interventions import kept_scalers
from tts_workbook.subject.isolation import private_copy, unchanged_randomness
from tts_workbook.subject.opened import OpenSubject
from tts_workbook.subject.subject import Batch, Subject
from tts_workbook.subject.training_step import plain_step

N_JUDGED = 16  # times that a course is judged
SECONDS = {"fast": 8.0, "full": 40.0}  # for one course
# seconds after which no new course is begun; what is left says so
DEADLINE = {"fast": 100.0, "full": 1500.0}
# seconds that a course of several times the steps may be expected to take
LONGEST = {"fast": 60.0, "full": 600.0}
STEPS = {"fast": (60, 200), "full": (200, 600)}  # least and most steps of a course
FALLING = 0.97  # of the value half-way: a curve that ends lower has not come to rest
AS_IT_IS = "as it is"  # the course without any change
LONGER = 3  # times the steps that such a curve is given

# keys of the changes, seed, times the steps
CourseKey = tuple[tuple[Hashable, ...], int, int]


class BudgetSpent(WorkbookError):
    """The time of the budget is over; what would have needed another training run stays
    undecided.
    """


class Lab(OpenSubject):
    """Where the experiments of one diagnosis run. Nothing of the caller's is trained, moved or
    overwritten.
    """

    def __init__(
        self,
        subject: Subject,
        budget: str = "fast",
        seed: int = 0,
        on_course: Callable[[str, Course], None] = lambda name, course: None,
        steps: int | None = None,
    ) -> None:
        if budget not in SECONDS:
            raise WorkbookError(f"budget {budget!r} is unknown; use one of {', '.join(SECONDS)}")
        if steps is not None and steps < N_JUDGED:
            raise WorkbookError(
                f"steps is {steps}; a course is judged {N_JUDGED} times and needs as many steps at"
                " least"
            )
        super().__init__(subject, seed)
        self.budget, self.on_course, self.steps = budget, on_course, steps
        self.started = time.perf_counter()
        self.courses: dict[str, Course] = {}  # by what people read
        self._by_key: dict[CourseKey, Course] = {}
        # of the courses of its own seed and length: what was changed
        self.changes: dict[str, tuple[ChangeKey, ...]] = {}

    @functools.cached_property
    def trained(self) -> nn.Module:
        """The model that generation is judged by: with the checkpoint's weights, else as the
        subject's course left it.
        """
        if self.subject.checkpoint is None:
            return self.course().model
        model = self.build()
        # what is missing is a finding of its own
        model.load_state_dict(self.checkpoint_state, strict=False)
        return model

    # --- training ---------------------------------------------------------------------------------

    def course(self, *changes: Change, seed: int | None = None, times: int = 1) -> Course:
        """Train a fresh model on the batch for the budget's steps (`times` as many) with these
        changes; each is run once.

        Raises BudgetSpent after the deadline of the budget, or where the course would take too
        long; a lab with given `steps` has neither limit.
        """
        seed = self.seed if seed is None else seed
        key = (tuple(change.key for change in changes), seed, times)
        if key not in self._by_key:
            name = self._course_name(changes, seed, times)
            if self.courses and self.steps is None:
                self._afford(name, times)
            course = self._run(changes, seed, times * self.n_steps)
            self._by_key[key] = self.courses[name] = course
            if (seed, times) == (self.seed, 1):
                self.changes[name] = tuple(change.key for change in changes)
            self.on_course(name, course)
        return self._by_key[key]

    def _course_name(self, changes: tuple[Change, ...], seed: int, times: int) -> str:
        """What people read; a name that another course has already is given a number."""
        name = " + ".join(change.name for change in changes) or AS_IT_IS
        if seed != self.seed:
            name = f"{name}, seed {seed}"
        if times != 1:
            name = f"{name}, {times} times the steps"
        number, numbered = 1, name
        while numbered in self.courses:
            number += 1
            numbered = f"{name} ({number})"
        return numbered

    def _afford(self, name: str, times: int) -> None:
        if time.perf_counter() - self.started > DEADLINE[self.budget]:
            raise BudgetSpent(
                f"the {DEADLINE[self.budget]:.0f} s of budget {self.budget!r} are over before"
                f' "{name}" was trained; budget "full" has longer'
            )
        expected = times * next(iter(self.courses.values())).seconds
        if times > 1 and expected > LONGEST[self.budget]:
            raise BudgetSpent(
                f'"{name}" would take {expected:.0f} s, more than the {LONGEST[self.budget]:.0f} s'
                f' that budget {self.budget!r} has for one run; budget "full" has longer'
            )

    @functools.cached_property
    def learns(self) -> bool:
        """The overfit gate, with more steps where the curve still falls: a slow subject is not a
        faulty one.
        """
        course = self.course()
        if (
            course.learnt
            or course.broke
            or len(course.tf) < 4
            or course.tf[-1] > FALLING * course.tf[len(course.tf) // 2]
        ):
            return course.learnt
        try:
            return self.course(times=LONGER).learnt
        except BudgetSpent:
            return False

    @functools.cached_property
    def n_steps(self) -> int:
        """Steps of a course: as given, else as many as the budget's seconds allow at the pace of
        the subject's own steps.
        """
        if self.steps is not None:
            return self.steps
        # the first step pays for what is loaded and allocated only once
        self._run((), self.seed, 1, judged=1)
        seconds = self._run((), self.seed, 4, judged=1).seconds
        least, most = STEPS[self.budget]
        return max(least, min(most, int(4 * SECONDS[self.budget] / seconds)))

    @functools.cached_property
    def steps_as_ours(self) -> bool:
        """Whether the subject's train step does to the weights, to the last bit, what the
        workbook's own does.
        """
        if self.subject.train_step is None:
            return True
        courses = [
            self._run((Change("own_step", (plain,), plain_step=plain),), self.seed, 2, judged=1)
            for plain in (False, True)
        ]
        states = [course.model.state_dict() for course in courses]
        return not any(course.broke for course in courses) and all(
            isinstance(value, Tensor) and torch.equal(value, states[1][name])
            for name, value in states[0].items()
        )

    def _run(
        self, changes: tuple[Change, ...], seed: int, n_steps: int, judged: int = N_JUDGED
    ) -> Course:
        """Train a fresh model; `judged` times on the way its prediction is judged."""
        started = time.perf_counter()
        model = self._changed_model(changes, seed)
        losses, batch = self._changed_losses_and_batch(changes)
        with unchanged_randomness(seed):
            optimizer = self.subject.make_optimizer(model)
            for change in changes:
                if change.optimizer:
                    change.optimizer(optimizer)
            watched = WatchedSteps(model, optimizer)
            marks = {round(n_steps * (index + 1) / judged) for index in range(judged)}
            points: list[tuple[int, float]] = []
            broke = ""
            with watched, kept_scalers(), ExitStack() as stack:
                for change in changes:
                    if change.around:
                        stack.enter_context(change.around(model))
                for number in range(1, n_steps + 1):
                    model.train()
                    batch = _before_step(changes, number, model, optimizer, batch)
                    step = self._step(changes, model, optimizer, batch, losses)
                    try:
                        watched.look(step, number in (1, 2) or number in marks)
                    except (WorkbookError, RuntimeError, ValueError, ArithmeticError) as error:
                        broke = f"step {number}: {error}"
                        break
                    if number in marks:
                        points.append((number, self.error(self.predict(model, field="mel"))))
                        if not math.isfinite(points[-1][1]):
                            broke = f"step {number}: the prediction is not finite"
                            break
        return Course(
            steps=tuple(number for number, _ in points),
            tf=tuple(error for _, error in points),
            broke=broke,
            update_ratio=watched.update_ratio,
            moved=watched.moved,
            gradient_norm=watched.gradient_norm,
            seconds=time.perf_counter() - started,
            model=model,
        )

    def _changed_model(self, changes: tuple[Change, ...], seed: int) -> nn.Module:
        model = self.build(seed)
        for change in changes:
            if change.model is not None:
                model = change.model(model) or model
        return model

    def _changed_losses_and_batch(self, changes: tuple[Change, ...]) -> tuple[Losses, Batch]:
        losses, batch = self.subject.losses, private_copy(self.batch)
        for change in changes:
            if change.losses:
                losses = change.losses(losses)
            if change.batch:
                batch = change.batch(batch)
        return losses, batch

    def _step(
        self,
        changes: tuple[Change, ...],
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        batch: Batch,
        losses: Losses,
    ) -> Callable[[], Any]:
        """One step: the subject's own, or the workbook's where there is none or a change needs
        it.
        """
        own = self.subject.train_step
        asks_plain = any(change.plain_step or change.losses for change in changes)
        if own is None or asks_plain:
            return lambda: plain_step(model, optimizer, batch, losses)
        return lambda: own(model, optimizer, batch)


def _before_step(
    changes: tuple[Change, ...],
    number: int,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
) -> Batch:
    """What the changes do before step `number`; the batch that it is made on."""
    for change in changes:
        if change.before_step:
            change.before_step(number, model, optimizer)
        if change.batch_at:
            batch = change.batch_at(number)
    return batch
