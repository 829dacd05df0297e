"""What an experiment of one cause says of a subject, for the tests of that cause."""

from __future__ import annotations

from tts_workbook.faults.examine import examine
from tts_workbook.faults.finding import Finding
from tts_workbook.faults.registry import CAUSES
from tts_workbook.lab.lab import Lab
from tts_workbook.subject.subject import Subject

N_STEPS = 40


def examined(subject: Subject, cause: str, lab: Lab | None = None) -> Finding:
    """The finding of `cause`, as in a report in which nothing else is confirmed; courses are short,
    unless `lab` says otherwise.
    """
    lab = lab or Lab(subject)
    vars(lab).setdefault("n_steps", N_STEPS)
    return examine(CAUSES[cause], lab)


def level(subject: Subject, cause: str) -> str:
    """How sure it is."""
    return examined(subject, cause).level


def fresh(subject: Subject) -> Lab:
    """A lab whose trained model is a fresh one: what is exact needs no training."""
    lab = Lab(subject)
    lab.trained = lab.build()
    return lab
