"""`diagnose`: every check in the order of its cost, merged into one ranked report."""

from __future__ import annotations

import time
from collections.abc import Callable

from tts_workbook.faults.catalogue import CATALOGUE
from tts_workbook.faults.checks.in_order import CHECKS
from tts_workbook.faults.examine import examine
from tts_workbook.faults.finding import Finding, Report, merged
from tts_workbook.faults.registry import CAUSES
from tts_workbook.lab.lab import Lab
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
    with unchanged_randomness(seed):
        return investigate(
            Lab(
                subject,
                budget,
                seed,
                steps=steps,
                on_course=lambda name, course: on_progress(
                    f"trained {name}: TF L1 {course.final:.3g} of best constant,"
                    f" {course.seconds:.0f} s"
                ),
            ),
            on_progress,
        )


def investigate(lab: Lab, on_progress: Callable[[str], None] = lambda line: None) -> Report:
    """Every check in one laboratory, whose courses stay at hand for whoever made it."""
    started = time.perf_counter()
    with unchanged_randomness(lab.seed):
        check_subject(lab.subject)
        found: list[Finding] = []
        for cause in CAUSES.values():
            on_progress(cause.title)
            if not cause.after_others:
                found.append(examine(cause, lab))
        for check in CHECKS:
            on_progress(check.name.replace("_", " "))
            found += [entry for entry in check.findings(lab) if entry.cause not in CAUSES]
            lab.confirmed = list(
                dict.fromkeys(entry.cause for entry in found if entry.level == "confirmed")
            )
        confirmed = {entry.cause for entry in found if entry.level == "confirmed"}
        found += [examine(cause, lab, confirmed) for cause in CAUSES.values() if cause.after_others]
        entries = merged(
            found
            + [
                Finding(cause, "undecided", f"next: {fault.experiment}")
                for cause, fault in CATALOGUE.items()
                if cause not in {entry.cause for entry in found}
            ]
        )
        numbers = headline(lab, lab.trained)
    courses = {name: list(zip(course.steps, course.tf)) for name, course in lab.courses.items()}
    return Report(entries, numbers, lab.learns, time.perf_counter() - started, courses)
