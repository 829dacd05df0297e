"""The learning rate as the subject's own steps use it, whoever sets it: a scheduler in the train
step, a hook, or the step itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tts_workbook.bars import Bar
from tts_workbook.lab.lab import Lab
from tts_workbook.subject.isolation import unchanged_randomness
from tts_workbook.subject.opened import once_per_subject

# a rate that ends below has fallen: asked about where the subject does not learn
FALLEN = Bar(0.5, control="the highest rate of the subject's own course")
# a rate that ends below is as good as none: asked about in any case
DEAD = Bar(0.1, control="the highest rate of the subject's own course")
# a rate that never comes above has not started
STARTED = Bar(0.1, control="the rate that the schedule starts from, as the optimiser holds it")


@dataclass(frozen=True)
class Rates:
    """What the optimiser steps of one course used."""

    used: tuple[float, ...] = ()  # the largest of the groups at each step
    peaks: tuple[float, ...] = ()  # the largest that each group was used with
    # of each group: what its optimiser was made with, before any schedule changed it
    wanted: tuple[float, ...] = ()

    @property
    def peak(self) -> float:
        return max(self.used, default=0.0)

    @property
    def last(self) -> float:
        return self.used[-1] if self.used else 0.0

    @property
    def falls(self) -> bool:
        """It ends far below its highest."""
        return self.last < FALLEN * self.peak

    @property
    def dies(self) -> bool:
        """It ends at hardly anything of its highest."""
        return self.last < DEAD * self.peak

    @property
    def warms_up(self) -> bool:
        """It still rises when the course ends."""
        return self.last == self.peak > self.used[len(self.used) // 2] if self.used else False

    @property
    def never_starts(self) -> bool:
        """It stays far below what the optimiser was made with, and does not rise."""
        starts = self.peak >= STARTED * max(self.wanted, default=0.0)
        return bool(self.used) and not starts and not self.warms_up


def rates_from(rates: Sequence[Sequence[float]], wanted: Sequence[float]) -> Rates:
    """From the rate of every group at each step, and what each group was made with."""
    used = tuple(max(groups, default=0.0) for groups in rates)
    # a group that was added later is not held at a rate of its own
    peaks = tuple(max(group) for group in zip(*rates, strict=False))
    return Rates(used, peaks, tuple(wanted))


@once_per_subject
def rates(lab: Lab) -> Rates:
    """Of the subject's course as it is."""
    with unchanged_randomness(lab.seed):
        optimizer = lab.subject.make_optimizer(lab.build())
    # a scheduler leaves what it starts from beside what it set
    wanted = [
        max(float(group["lr"]), float(group.get("initial_lr", 0.0)))
        for group in optimizer.param_groups
    ]
    return rates_from(lab.course().rates, wanted)
