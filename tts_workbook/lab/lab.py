"""The laboratory: a private copy of the subject's batch, fresh models, gradients, and short
training runs with one thing changed.

Everything here is judged against the best constant (the per-bin median over the valid frames).
Shapes: B batch, T frames, M bins.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable
from contextlib import ExitStack

import torch
from torch import Tensor, nn

from tts_core.errors import WorkbookError
from tts_workbook.lab.short_run import Change, Course, WatchedSteps
from tts_workbook.subject.interventions import kept_scalers
from tts_workbook.subject.isolation import private_copy, unchanged_randomness
from tts_workbook.subject.opened import OpenSubject
from tts_workbook.subject.subject import Subject
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
        self.courses: dict[str, Course] = {}
        # of the courses of its own seed and length: the names of what was changed
        self.changes: dict[str, tuple[str, ...]] = {}
        # causes that the checks before have confirmed
        self.confirmed: list[str] = []
        # why the loss is not about the target, where a check has found that
        self.misled = ""

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
        name = " + ".join(change.name for change in changes) or AS_IT_IS
        key = name if seed == self.seed else f"{name}, seed {seed}"
        key = key if times == 1 else f"{key}, {times} times the steps"
        if key not in self.courses:
            if self.courses and self.steps is None:
                self._afford(key, times)
            self.courses[key] = self._run(changes, seed, times * self.n_steps)
            if key == name:
                self.changes[key] = tuple(change.name for change in changes)
            self.on_course(key, self.courses[key])
        return self.courses[key]

    def _afford(self, key: str, times: int) -> None:
        if time.perf_counter() - self.started > DEADLINE[self.budget]:
            raise BudgetSpent(
                f"the {DEADLINE[self.budget]:.0f} s of budget {self.budget!r} are over before"
                f' "{key}" was trained; budget "full" has longer'
            )
        expected = times * next(iter(self.courses.values())).seconds
        if times > 1 and expected > LONGEST[self.budget]:
            raise BudgetSpent(
                f'"{key}" would take {expected:.0f} s, more than the {LONGEST[self.budget]:.0f} s'
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
            self._run((Change("own step", plain_step=plain),), self.seed, 2, judged=1)
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
            plain = self.subject.train_step is None or any(
                change.plain_step or change.losses for change in changes
            )
            step = (
                (lambda: plain_step(model, optimizer, batch, losses))
                if plain
                else (lambda: self.subject.train_step(model, optimizer, batch))
            )
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
        return Course(
            tuple(at),
            tuple(tf),
            broke,
            watched.update_ratio,
            watched.moved,
            watched.gradient_norm,
            time.perf_counter() - started,
            model,
        )
