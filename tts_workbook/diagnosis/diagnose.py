"""`diagnose`: every check in the order of its cost, merged into one ranked report."""

from __future__ import annotations

import difflib
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

from tts_core.errors import WorkbookError
from tts_workbook.diagnosis.diagnosis_report import Report, merged
from tts_workbook.diagnosis.subject_state import State, judge_state
from tts_workbook.faults.cause import AREAS, Cause
from tts_workbook.faults.examine import examine
from tts_workbook.faults.finding import Finding
from tts_workbook.faults.registry import CAUSES
from tts_workbook.lab.first_non_finite import first_non_finite
from tts_workbook.lab.lab import BudgetSpent, Lab, TimeIsUp, TrainingAhead
from tts_workbook.lab.short_run import LEARNT, Course
from tts_workbook.measure.headline import Headline, headline, heard
from tts_workbook.measure.non_finite import NonFinite
from tts_workbook.subject.isolation import unchanged_randomness, uncompiled
from tts_workbook.subject.subject import Subject, check_subject

INTERRUPTED = "interrupted"


def diagnose(
    subject: Subject,
    budget: str = "fast",
    seed: int = 0,
    on_progress: Callable[[str], None] = lambda line: None,
    steps: int | None = None,
    minutes: float | None = None,
    only: Sequence[str] = (),
) -> Report:
    """Why `subject` does not learn, or that nothing is wrong with it.

    Every check runs: first all that need no training (data, the train step as it is seen from
    outside, losses, model), then short paired training runs with one thing changed. `budget`:
    "fast" or "full" (longer runs), both counted in steps: the same subject gives the same report on
    a busy and on an idle machine. `steps` gives every run as many instead. After `minutes`, and at
    an interrupt, the report so far is returned, which says what it could not examine. `only` names
    the causes, or areas, that are examined.

    The caller's objects, random states and files stay as they were. Raises SubjectError naming the
    field of the subject that is not what it should be, WorkbookError for an unknown cause.
    """

    def on_course(name: str, course: Course) -> None:
        on_progress(
            f"trained {name}: TF L1 {course.final:.3g} of best constant, {course.seconds:.0f} s"
        )

    chosen = chosen_causes(only)
    with unchanged_randomness(seed):
        lab = Lab(subject, budget, seed, on_course=on_course, steps=steps, minutes=minutes)
        return investigate(lab, on_progress, chosen)


def chosen_causes(only: Sequence[str]) -> list[Cause]:
    """The causes of these ids and areas, all where there are none. Raises WorkbookError for a name
    that is neither.
    """
    if not only:
        return list(CAUSES.values())
    for name in only:
        if name not in CAUSES and name not in AREAS:
            like = difflib.get_close_matches(name, [*CAUSES, *AREAS], n=3, cutoff=0.4)
            hint = f"; did you mean {', '.join(like)}?" if like else ""
            raise WorkbookError(
                f"cause {name!r} is unknown{hint}; wanted the id of a cause, as in a report, or an"
                f" area ({', '.join(AREAS)})"
            )
    return [cause for cause in CAUSES.values() if cause.id in only or cause.area in only]


def investigate(
    lab: Lab,
    on_progress: Callable[[str], None] = lambda line: None,
    causes: Collection[Cause] | None = None,
) -> Report:
    """These causes (all, where none are given) in one laboratory, whose courses stay at hand for
    whoever made it.
    """
    started = time.perf_counter()
    wanted = list(CAUSES.values()) if causes is None else list(causes)
    with unchanged_randomness(lab.seed), uncompiled():
        check_subject(lab.subject)
        examined = examine_all(lab, wanted, on_progress)
        passed, found = _judge(lab, examined.cut)
        non_finite = _first_non_finite(lab, examined.cut)
    courses = {}
    for name, course in lab.courses.items():
        courses[name] = list(zip(course.steps, course.tf, strict=True))
    return Report(
        entries=merged(examined.findings),
        headline={} if found is None else found.named(),
        state=State() if found is None else judge_state(found),
        passed=passed,
        non_finite=non_finite,
        seconds=time.perf_counter() - started,
        courses=courses,
        changes=dict(lab.changes),
        cut=examined.cut,
        not_examined=examined.left,
    )


def _judge(lab: Lab, cut: str) -> tuple[bool, Headline | None]:
    """The overfit gate, and the numbers of the trained model; None where there was no time for
    one. A model that learns and is not sound by itself is trained longer, as far as the budget
    goes: in any training self-feeding is learnt last.
    """
    if cut and not lab.has_trained:
        return False, None
    try:
        found = headline(lab, heard(lab, lab.trained))
        passed = lab.learns
        if lab.subject.checkpoint is not None:
            return passed, found
        if passed and judge_state(found).sound.answer == "no":
            _train_longer(lab)
        if passed and lab.longest is not lab.course():
            found = headline(lab, heard(lab, lab.longest.model))
        return passed, found
    except TimeIsUp:
        if not lab.has_trained:
            return False, None
        found = headline(lab, heard(lab, lab.trained))
        return found.teacher_forced < LEARNT, found


def _first_non_finite(lab: Lab, cut: str) -> NonFinite | None:
    """By name; None where all is finite, or there was no time to look."""
    if cut and not lab.has_trained:
        return None
    try:
        return first_non_finite(lab)
    except BudgetSpent:
        return None


def _train_longer(lab: Lab) -> None:
    """The course as it is with more steps, where the budget has them."""
    try:
        lab.course(times=lab.long_times)
    except TimeIsUp:
        raise
    except BudgetSpent:
        return


@dataclass(frozen=True)
class Examined:
    """What was found, and what there was no time for."""

    findings: tuple[Finding, ...]
    cut: str = ""  # why it ended early; empty where it did not
    left: tuple[str, ...] = ()  # ids of the causes that were not examined because of it


def examine_all(
    lab: Lab, causes: Iterable[Cause], on_progress: Callable[[str], None] = lambda line: None
) -> Examined:
    """A finding of every cause. First all that need no training, then the others; of both, the
    causes that are decided after the others come last. The order decides nothing: it is for whoever
    waits.
    """
    queue = _Queue(lab, list(causes), on_progress)
    try:
        queue.run()
    except KeyboardInterrupt:
        queue.cut = INTERRUPTED
    left = tuple(cause.id for cause in queue.causes if cause.id not in queue.found)
    unknown = [
        Finding(cause, "undecided", f"not examined: {queue.cut}; next: diagnose again without that")
        for cause in left
    ]
    return Examined((*queue.found.values(), *unknown), queue.cut, left)


class _Queue:
    """The causes while they are examined."""

    def __init__(self, lab: Lab, causes: list[Cause], on_progress: Callable[[str], None]) -> None:
        self.lab, self.causes, self.on_progress = lab, causes, on_progress
        self.found: dict[str, Finding] = {}
        self.cut = ""

    def run(self) -> None:
        by_themselves = [cause for cause in self.causes if not cause.after_others]
        self._pass(by_themselves, may_train=False)
        self._pass(by_themselves, may_train=True)
        self._pass([cause for cause in self.causes if cause.after_others], may_train=True)

    def _pass(self, causes: list[Cause], may_train: bool) -> None:
        confirmed = {one.cause for one in self.found.values() if one.level == "confirmed"}
        for cause in causes:
            if cause.id in self.found or self.cut:
                continue
            self.lab.may_train = may_train
            try:
                if may_train:
                    self.on_progress(cause.title)
                found = examine(cause, self.lab, confirmed if cause.after_others else ())
            except TrainingAhead:
                continue
            finally:
                self.lab.may_train = True
            if self.lab.time_is_up and found.level == "undecided":
                self.cut = self.lab.time_said
                continue
            self.found[cause.id] = found
