"""What one trial gave, as plain JSON: `measures` (flat name -> number or null), `curves`, the
trial, and where it was computed.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from tts_core.errors import WorkbookError
from tts_workbook.trials.subject_trial import KIND, SubjectTrial, subject_trial_from_dict
from tts_workbook.trials.trial import Trial, trial_from_dict

AnyTrial = Trial | SubjectTrial
TrialT = TypeVar("TrialT", bound=AnyTrial)


@dataclass(frozen=True)
class TrialResult(Generic[TrialT]):
    """What one trial gave. Errors in ln units; "over constant" is divided by the best constant of
    the same frames.
    """

    trial: TrialT
    # see `PRESET_MEASURES` and `SUBJECT_MEASURES`; None where it does not exist
    measures: dict[str, float | None]
    curves: dict[str, list]
    # why the training stopped early; its curve then stays where it stood
    failed: str = ""
    provenance: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def digest(self) -> str:
        return self.trial.digest

    def to_dict(self) -> dict[str, Any]:
        return {"digest": self.digest, **dataclasses.asdict(self), "trial": self.trial.to_dict()}


PRESET_MEASURES = {
    "outcome": "mean over the budget of mel L1 / best constant: the primary outcome",
    "best_constant": "ln units",
    "copy_previous": "ln units",
    "final_over_constant": "mean of the last tenth of the steps",
    "tf_l1": "ln units, eval mode",
    "fr_l1": "ln units, layout of training",
    "fr_l1_seed_layout": "ln units",
    "tf_over_constant": "",
    "fr_over_constant": "",
    "fr_seed_layout_over_constant": "",
    "text_use": "wrong text over right text",
    "leave_step": "first of 10 steps in a row below 0.95; None: not within the budget",
    "plateau_steps": "",
    "plateau_first": "",
    "plateau_share": "lowest share of variance across time in it",
    "memory_std": "after training",
    "attention_entropy": "of cross-attention, mean of the layers, 1 = uniform",
    "clipped_share": "share of the steps whose gradient was clipped",
    "seconds": "of training",
}
SUBJECT_MEASURES = {
    "outcome": "mean of the judged TF errors over the best constant, the early ones capped at 3",
    "best_constant": "in the units of the subject's mel",
    "tf_over_constant": "after the last step, eval mode",
    "fr_over_constant": "left out where the subject has no `generate`",
    "text_use": "wrong text over right text; left out where the subject has no `shuffle_text`",
    "seconds": "of training",
}


def any_trial_from_dict(values: dict[str, Any]) -> AnyTrial:
    """A trial of either kind, from JSON."""
    if values.get("kind") == KIND:
        return subject_trial_from_dict(values)
    return trial_from_dict(values)


def result_from_dict(values: dict[str, Any]) -> TrialResult:
    """The inverse of `TrialResult.to_dict`. Raises WorkbookError when the stored digest is not that
    of the stored trial.
    """
    values = dict(values)
    digest = values.pop("digest", None)
    try:
        result = TrialResult(**{**values, "trial": any_trial_from_dict(values["trial"])})
    except (TypeError, KeyError) as error:
        raise WorkbookError(
            f"not a trial's result: {error}; delete it and run the trial again"
        ) from error
    if digest != result.digest:
        raise WorkbookError(
            f"stored under digest {digest}, but its trial has {result.digest}: made by another"
            " version; delete it and run the trial again"
        )
    return result
