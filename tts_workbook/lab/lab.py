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
from tts_workbook.bars import Bar
from tts_workbook.lab.budget import MINUTE, Budget, choose_budget
from tts_workbook.lab.short_run import Change, ChangeKey, Course, Losses, WatchedSteps
from tts_workbook.measure.step_work import StepWork, estimated_step_work, measure_step_work
from tts_workbook.subject.interventions import kept_scalers
from tts_workbook.subject.isolation import private_copy, unchanged_randomness
from tts_workbook.subject.opened import OpenSubject
from tts_workbook.subject.subject import Batch, Subject
from tts_workbook.subject.training_step import plain_step

N_JUDGED = 16  # times that a course is judged
FALLING = Bar(0.97, control="of the value of the same curve half-way")
AS_IT_IS = "as it is"  # the course without any change
LONGER = 3  # times the steps that such a curve is given
LONG_STEPS = 400  # and the least that a gap under self-feeding is given to close

# keys of the changes, seed, times the steps
CourseKey = tuple[tuple[Hashable, ...], int, int]


class BudgetSpent(WorkbookError):
    """The steps of the budget are made; what would have needed another training run stays
    undecided.
    """


class TimeIsUp(BudgetSpent):
    """The caller's time limit has passed."""


class TrainingAhead(BaseException):
    """A training run was asked for while only what needs none is measured: ask again later.

    No Exception, so that no experiment takes it for a fault of the subject.
    """


class Lab(OpenSubject):
    """Where the experiments of one diagnosis run. Nothing of the caller's is trained, moved or
    overwritten.

    With `steps` every course has as many, and there may be as many courses as are asked for; else
    both follow from the budget and the work of one step. After `minutes` no step is made any more.
    """

    def __init__(
        self,
        subject: Subject,
        budget: str = "fast",
        seed: int = 0,
        on_course: Callable[[str, Course], None] = lambda name, course: None,
        steps: int | None = None,
        minutes: float | None = None,
    ) -> None:
        choose_budget(budget, 0)
        if steps is not None and steps < N_JUDGED:
            raise WorkbookError(
                f"steps is {steps}; a course is judged {N_JUDGED} times and needs as many steps at"
                " least"
            )
        if minutes is not None and not minutes > 0:
            raise WorkbookError(f"minutes is {minutes:g}; wanted a time above 0")
        super().__init__(subject, seed)
        self.on_course, self.steps, self.minutes = on_course, steps, minutes
        self.budget_name = budget
        self.started = time.monotonic()
        self.may_train = True  # False: a training run raises TrainingAhead
        self.courses: dict[str, Course] = {}  # by what people read
        self._by_key: dict[CourseKey, Course] = {}
        # of the courses of its own seed and length: what was changed
        self.changes: dict[str, tuple[ChangeKey, ...]] = {}
        self.spent = 0.0  # seconds of the reference machine, of all courses

    @functools.cached_property
    def budget(self) -> Budget:
        """What may be trained, by name and size of the model."""
        return choose_budget(self.budget_name, self.n_parameters)

    @functools.cached_property
    def step_work(self) -> StepWork:
        """What one step of the subject does, its judgement included; an estimate from the sizes of
        model and batch where it cannot be counted, as in some compiled graphs.
        """
        self._run((), self.seed, 1, judged=1)  # what is made only once is not counted
        try:
            return measure_step_work(lambda: self._run((), self.seed, 1, judged=1))
        except Exception:  # whatever a compiler or the subject's code raises while it is watched
            return estimated_step_work(self.n_parameters, self.mask.numel())

    @functools.cached_property
    def n_parameters(self) -> int:
        """Of the model."""
        return sum(parameter.numel() for parameter in self.model.parameters())

    @property
    def time_is_up(self) -> bool:
        """Whether the caller's time limit has passed."""
        if self.minutes is None:
            return False
        return time.monotonic() - self.started > MINUTE * self.minutes

    @property
    def time_said(self) -> str:
        """Why nothing is trained any more, once the caller's time limit has passed."""
        return f"the {self.minutes:g} minutes of --minutes are over"

    @property
    def has_trained(self) -> bool:
        """Whether `trained` is at hand without another training run."""
        return self.subject.checkpoint is not None or ((), self.seed, 1) in self._by_key

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

        Raises BudgetSpent where the budget has no steps left for it (a lab with given `steps` has
        no such limit), TimeIsUp where the caller's time has passed.
        """
        seed = self.seed if seed is None else seed
        key = (tuple(change.key for change in changes), seed, times)
        if key not in self._by_key:
            if not self.may_train:
                raise TrainingAhead
            name = self._course_name(changes, seed, times)
            work = self._afford(name, times)
            course = self._run(changes, seed, times * self.n_steps)
            self.spent += work
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

    def _afford(self, name: str, times: int) -> float:
        """The work of a course, in seconds of the reference machine; 0 where steps are given."""
        self._check_time()
        if self.steps is not None:
            return 0.0
        wanted = times * self.n_steps * self.step_work.seconds
        if not self.budget.affords(self.spent, wanted):
            raise BudgetSpent(
                f'the steps of budget "{self.budget.name}" are made before "{name}" was trained;'
                f" {self.more_budget}"
            )
        return wanted

    @property
    def more_budget(self) -> str:
        """What to run next where the budget was too small."""
        if self.budget.name == "full":
            return "--steps says how many steps a training run has, without any limit"
        full = choose_budget("full", self.n_parameters)
        return (
            "next: the same with --budget full, which is given up to about"
            f" {max(1, round(full.minutes))} minutes on 2 cores"
        )

    def _check_time(self) -> None:
        if self.time_is_up:
            raise TimeIsUp(self.time_said)

    @property
    def long_times(self) -> int:
        """How many times the steps a course is given where drift under self-feeding, which comes
        early in any training, is to be told from a defect.
        """
        return max(LONGER, math.ceil(LONG_STEPS / self.n_steps))

    @property
    def longest(self) -> Course:
        """Of the courses as it is, under the lab's own seed, the one with the most steps."""
        own = [
            course
            for (changes, seed, _), course in self._by_key.items()
            if not changes and seed == self.seed and course.steps
        ]
        return max(own, key=lambda course: course.steps[-1], default=self.course())

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
        except TimeIsUp:
            raise
        except BudgetSpent:
            return False

    @functools.cached_property
    def n_steps(self) -> int:
        """Steps of a course: as given, else as many as the budget has for the work of a step."""
        if self.steps is not None:
            return self.steps
        return self.budget.steps_of_a_course(self.step_work)

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
                    self._check_time()
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
            rates=tuple(watched.rates),
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
