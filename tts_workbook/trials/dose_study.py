"""The doses of the dose study: one factor of the findings' configuration at several levels, and how
long the loss stayed at the best-constant line at each.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tts_core.config import SEED_LR
from tts_workbook.trials.study_arms import ArmSpec
from tts_workbook.trials.trial_result import TrialResult

DOSE_STEPS = 800  # of every training
BASE_ARM = "base"  # has the base level of every factor
# times the memory's own scale, which is the base
MEMORY_SCALE_DOSES = (1 / 32, 1 / 8, 1 / 4, 1 / 2, 2.0, 4.0)
LEARNING_RATE_DOSES = (2e-5, 2e-4, 5e-4, 1e-3, 3e-3)  # beside the base's 7e-5
DROPOUT_DOSES = (0.1, 0.3)  # beside none in the base


@dataclass(frozen=True)
class Dose:
    """One level of one factor."""

    factor: str
    level: float | str  # a number, or the name of a kind
    arm: str  # its arm of the study
    changes: Mapping[str, Any] = field(default_factory=dict)  # against the base, as in `change`

    @property
    def label(self) -> str:
        """The level as a figure writes it."""
        return self.level if isinstance(self.level, str) else f"{self.level:g}"

    @property
    def order(self) -> tuple[float, str]:
        """Numbers by value; kinds after them, by name."""
        if isinstance(self.level, str):
            return math.inf, self.level
        return self.level, ""


def _dose(factor: str, level: float | str, field: str) -> Dose:
    changes = {field: level}
    arm = f"{factor} {level}" if isinstance(level, str) else f"{factor} {level:g}"
    return Dose(factor, level, arm, changes)


DOSES = (
    *(_dose("memory_scale", scale, "model.memory_scale") for scale in MEMORY_SCALE_DOSES),
    *(_dose("lr", lr, "optimizer.lr") for lr in LEARNING_RATE_DOSES),
    *(_dose("dropout", rate, "model.dropout") for rate in DROPOUT_DOSES),
    _dose("precision", "bf16", "fit.precision"),
    _dose("initialisation", "seed_custom", "model.duration_initialisation"),
)
BASE_DOSES = (
    Dose("memory_scale", 1.0, BASE_ARM),
    Dose("lr", SEED_LR, BASE_ARM),
    Dose("dropout", 0.0, BASE_ARM),
    Dose("precision", "fp32", BASE_ARM),
    Dose("initialisation", "default", BASE_ARM),
)


def dose_arms() -> dict[str, ArmSpec]:
    """The arms of the dose study by name, the base first."""
    arms = {BASE_ARM: ArmSpec("findings", steps=DOSE_STEPS)}
    for dose in DOSES:
        arms[dose.arm] = ArmSpec("findings", dose.changes, steps=DOSE_STEPS)
    return arms


def dose_panels(results: Sequence[TrialResult]) -> dict[str, dict[str, dict[str, list]]]:
    """Factor -> dose -> {"leave": step or None, "plateau": steps, "final": over the best constant}
    per run, the base among the doses of every factor.
    """
    by_arm: dict[str, list[TrialResult]] = {}
    for result in results:
        by_arm.setdefault(result.trial.name, []).append(result)
    panels: dict[str, dict[str, dict[str, list]]] = {}
    for base in BASE_DOSES:
        panels[base.factor] = {}
        others = [dose for dose in DOSES if dose.factor == base.factor and dose.arm in by_arm]
        for dose in sorted([base, *others], key=lambda dose: dose.order):
            runs = [result.measures for result in by_arm.get(dose.arm, [])]
            panels[base.factor][dose.label] = {
                "leave": [measures["leave_step"] for measures in runs],
                "plateau": [measures["plateau_steps"] for measures in runs],
                "final": [measures["final_over_constant"] for measures in runs],
            }
    return panels
