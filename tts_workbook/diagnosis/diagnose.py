"""`diagnose`: every check in the order of its cost, merged into one ranked report."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from tts_workbook.diagnosis.diagnosis_report import Report, merged
from tts_workbook.faults.cause import Cause
from tts_workbook.faults.checks.in_order import CHECKS
from tts_workbook.faults.examine import examine
from tts_workbook.faults.finding import Finding
from tts_workbook.faults.registry import CAUSES
from tts_workbook.lab.lab import Lab
from tts_workbook.lab.short_run import Course
from tts_workbook.measure.headline import headline
from tts_workbook.subject.isolation import unchanged_randomness
from tts_workbook.subject.subject import Subject, check_subject


def diagnose(
    subject: Subject,
    budget: str = "fast",
    seed: int = 0,
    on_progress: Callable[[str], None] = lambda line: None,
    steps: int | None = None,
) -> Report:
    """Why `subject` does not learn, or that nothing is wrong with it.

    Every check runs, the cheap ones first: data, the train step as it is seen from outside, losses,
    model, and short paired training runs with one thing changed. `budget`: "fast" (about two
    minutes for a few million parameters on 2 cores) or "full" (longer runs); how many steps a run
    has then depends on the machine's pace, unless `steps` says it. The caller's objects, random
    states and files stay as they were. Raises SubjectError naming the field of the subject that is
    not what it should be.
    """

    def on_course(name: str, course: Course) -> None:
        on_progress(
            f"trained {name}: TF L1 {course.final:.3g} of best constant, {course.seconds:.0f} s"
        )

    with unchanged_randomness(seed):
        lab = Lab(subject, budget, seed, on_course=on_course, steps=steps)
        return investigate(lab, on_progress)


def investigate(lab: Lab, on_progress: Callable[[str], None] = lambda line: None) -> Report:
    """Every cause in one laboratory, whose courses stay at hand for whoever made it."""
    started = time.perf_counter()
    with unchanged_randomness(lab.seed):
        check_subject(lab.subject)
        findings = examine_all(lab, CAUSES.values(), on_progress)
        numbers = headline(lab, lab.trained)
    courses = {}
    for name, course in lab.courses.items():
        courses[name] = list(zip(course.steps, course.tf, strict=True))
    seconds = time.perf_counter() - started
    return Report(merged(findings), numbers, lab.learns, seconds, courses, dict(lab.changes))


def examine_all(
    lab: Lab, causes: Iterable[Cause], on_progress: Callable[[str], None] = lambda line: None
) -> list[Finding]:
    """A finding of every cause: first of those that stand by themselves, in any order, then of
    those that are decided after the others.
    """
    causes = list(causes)
    findings = []
    for cause in causes:
        if not cause.after_others:
            on_progress(cause.title)
            findings.append(examine(cause, lab))
    findings += _still_as_checks(lab, findings, on_progress)
    confirmed = {found.cause for found in findings if found.level == "confirmed"}
    for cause in causes:
        if cause.after_others:
            on_progress(cause.title)
            findings.append(examine(cause, lab, confirmed))
    return findings


def _still_as_checks(
    lab: Lab, known: list[Finding], on_progress: Callable[[str], None]
) -> list[Finding]:
    """What is not a cause with a file of its own yet, in the order that it relies on."""
    found: list[Finding] = []
    for check in CHECKS:
        on_progress(check.name.replace("_", " "))
        found += [entry for entry in check.findings(lab) if entry.cause not in CAUSES]
        confirmed = [entry.cause for entry in [*known, *found] if entry.level == "confirmed"]
        lab.confirmed = list(dict.fromkeys(confirmed))
    return found
