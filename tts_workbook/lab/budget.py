"""Budgets of a diagnosis, in training steps: the same on a busy and on an idle machine.

How many steps a budget has follows from the work of one step, which is counted. A time limit is the
caller's.
"""

from __future__ import annotations

from dataclasses import dataclass

from tts_core.errors import WorkbookError
from tts_workbook.measure.step_work import StepWork

LARGE = 5_000_000  # parameters; from here on a diagnosis may take minutes, not one
MINUTE = 60.0  # seconds


@dataclass(frozen=True)
class Budget:
    """What a diagnosis may train. Seconds are of the reference machine: a unit of work."""

    name: str
    least: int  # steps of a course, whatever they cost
    most: int  # steps of a course, however little they cost
    course: float  # seconds that a course aims at, between the two
    total: float  # seconds of all courses together

    def steps_of_a_course(self, work: StepWork) -> int:
        """As many as the budget has for one course."""
        return max(self.least, min(self.most, int(self.course / work.seconds)))

    def affords(self, spent: float, wanted: float) -> bool:
        """Whether a course of `wanted` seconds may begin after `spent`; a first one always may."""
        return spent == 0.0 or spent + wanted <= self.total

    @property
    def minutes(self) -> float:
        """That all its courses take on the reference machine, at most."""
        return self.total / MINUTE


# by name: for models below LARGE parameters, and from there on
BUDGETS: dict[str, tuple[Budget, Budget]] = {
    "fast": (
        Budget("fast", least=60, most=200, course=4.0, total=50.0),
        Budget("fast", least=60, most=200, course=60.0, total=900.0),
    ),
    "full": (
        Budget("full", least=400, most=600, course=20.0, total=600.0),
        Budget("full", least=400, most=600, course=300.0, total=5_400.0),
    ),
}


def choose_budget(name: str, n_parameters: int) -> Budget:
    """The budget of that name for a model of that size. Raises WorkbookError for another name."""
    if name not in BUDGETS:
        raise WorkbookError(f"budget {name!r} is unknown; use one of {', '.join(BUDGETS)}")
    small, large = BUDGETS[name]
    return small if n_parameters < LARGE else large
