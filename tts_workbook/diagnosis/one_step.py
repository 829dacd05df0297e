"""The experiments of the diagnosis that take one step of a subject apart, without the trainings."""

from __future__ import annotations

from tts_workbook.diagnosis.diagnosis_report import merged
from tts_workbook.faults.examine import examine
from tts_workbook.faults.finding import Finding
from tts_workbook.faults.registry import CAUSES
from tts_workbook.lab.lab import Lab

# Causes of the step, its parameters, precision and restart, and of the losses.
ONE_STEP = (
    "loop.no_step",
    "loop.no_zero_grad",
    "loop.accumulation",
    "optimizer.missing_parameters",
    "precision.low_precision_weights",
    "precision.mask_overflow",
    "precision.scaler_skips",
    "precision.clip_before_unscale",
    "loop.checkpointing",
    "loop.weights_not_loaded",
    "loss.wrong_reduction",
    "loss.padding_included",
    "model.padding_mask",
    "loss.detached",
    "loss.logged_not_optimised",
)


def one_step_findings(lab: Lab) -> tuple[Finding, ...]:
    """One entry per cause of `ONE_STEP`, strongest first."""
    return merged(examine(CAUSES[cause], lab) for cause in ONE_STEP)
