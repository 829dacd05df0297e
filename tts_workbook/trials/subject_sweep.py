"""Learning rate times a factor x weight decay as it is or none: a grid of frozen trials of one
Subject, its tables and its best cell.

What the subject's own rates are is seen in its own step; a cell multiplies them, whatever its
groups and its schedule are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tts_core.errors import WorkbookError
from tts_workbook.measure.observed_steps import observe_steps
from tts_workbook.subject.opened import OpenSubject
from tts_workbook.trials.subject_trial import SubjectChanges, SubjectTrial, make_subject_trial
from tts_workbook.trials.trial_result import TrialResult

# of the learning rate, by profile
FACTORS = {
    "smoke": (0.1, 1.0, 10.0),
    "quick": (0.1, 1.0, 10.0),
    "seed": (0.03, 0.1, 0.3, 1.0, 3.0, 10.0),
}
MEASURES = {
    "outcome": "mean TF L1 / best constant",
    "tf_over_constant": "TF L1 / best constant",
    "fr_over_constant": "FR L1 / best constant",
    "text_use": "text use",
}
AS_IT_IS = SubjectChanges()


@dataclass(frozen=True)
class OwnOptimizer:
    """The largest learning rate and weight decay of a subject's groups, as its own step uses
    them.
    """

    lr: float
    weight_decay: float


@dataclass(frozen=True)
class SubjectSweep:
    """The trainings of one subject's grid: changes -> result."""

    own: OwnOptimizer
    steps: int
    results: Mapping[SubjectChanges, TrialResult]

    @property
    def by(self) -> str:
        """The measure that cells are ranked by: free-running where the subject can."""
        as_it_is = self.results[AS_IT_IS].measures
        return "fr_over_constant" if "fr_over_constant" in as_it_is else "tf_over_constant"

    def value(self, changes: SubjectChanges, measure: str) -> float:
        """NaN for what a training that broke has not."""
        found = self.results[changes].measures.get(measure)
        return math.nan if found is None else found

    @property
    def best(self) -> SubjectChanges | None:
        """The cell with the lowest error; None where every training broke."""
        sound = [one for one in self.results if math.isfinite(self.value(one, self.by))]
        return min(sound, key=lambda one: self.value(one, self.by), default=None)

    @property
    def n_broken(self) -> int:
        return sum(bool(result.failed) for result in self.results.values())

    def place(self, changes: SubjectChanges) -> tuple[float, float]:
        """Learning rate and weight decay of a cell."""
        undecayed = changes.weight_decay is not None
        return (
            self.own.lr * changes.learning_rate_times,
            0.0 if undecayed else self.own.weight_decay,
        )

    @property
    def axes(self) -> tuple[list[float], list[float]]:
        """The rising learning rates and weight decays."""
        places = [self.place(changes) for changes in self.results]
        return sorted({lr for lr, _ in places}), sorted({decay for _, decay in places})

    def grids(self) -> dict[str, np.ndarray]:
        """Title of a measure -> (learning rates, weight decays); NaN where a training broke."""
        rates, decays = self.axes
        known = [name for name in MEASURES if name in self.results[AS_IT_IS].measures]
        found = {MEASURES[name]: np.full((len(rates), len(decays)), math.nan) for name in known}
        for changes in self.results:
            lr, decay = self.place(changes)
            row, column = rates.index(lr), decays.index(decay)
            for name in known:
                found[MEASURES[name]][row, column] = self.value(changes, name)
        return found

    def curves(self) -> dict[str, list[tuple[int, float]]]:
        """Label of a cell -> (step, teacher-forced error over the best constant)."""
        found = {}
        for changes, result in self.results.items():
            steps, errors = result.curves["steps"], result.curves["tf_over_constant"]
            found[changes.label] = list(zip(steps, errors, strict=True))
        return found


def own_optimizer(opened: OpenSubject) -> OwnOptimizer:
    """Raises WorkbookError where no step at a learning rate above zero was seen."""
    seen = observe_steps(opened)
    lr = max(seen.lr.values(), default=0.0)
    if not lr > 0:
        raise WorkbookError(
            "no step of its optimiser at a learning rate above zero was seen; see notebook 02"
        )
    return OwnOptimizer(lr, max(seen.weight_decay, default=0.0))


def swept_changes(own: OwnOptimizer, profile: str) -> list[SubjectChanges]:
    """The cells of a profile; without decay only where there is one to take away, and not in
    `smoke`.
    """
    decays = [None, 0.0] if own.weight_decay and profile != "smoke" else [None]
    return [SubjectChanges(factor, decay) for factor in FACTORS[profile] for decay in decays]


def subject_sweep_trials(
    address: str, cells: Sequence[SubjectChanges], steps: int, seed: int
) -> list[SubjectTrial]:
    """One frozen trial per cell."""
    return [make_subject_trial(address, steps, cell, seed=seed, name=cell.label) for cell in cells]


def told(name: str, changes: SubjectChanges, result: TrialResult) -> str:
    """One line about one training: its changes and what it reached, or why it broke."""
    numbers = ", ".join(
        f"{MEASURES[key]} {value:.3f}"
        for key, value in result.measures.items()
        if key in MEASURES and value is not None
    )
    broke = f"; broke: {result.failed}" if result.failed else ""
    return f"{name}: {changes.label:45s} {numbers}{broke}"
