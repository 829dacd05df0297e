"""Everything that one train step can show, for tests that say: this cause and no other."""

from __future__ import annotations

import tts_workbook.faults.checks.in_order  # noqa: F401  registers what has no file of its own yet
from tts_workbook.faults.checks.registry import CHECKS
from tts_workbook.faults.examine import examine
from tts_workbook.faults.finding import Finding
from tts_workbook.faults.registry import CAUSES
from tts_workbook.lab.lab import Lab

OF_A_STEP = (
    "loop.no_step",
    "loop.no_zero_grad",
    "loop.accumulation",
    "loop.checkpointing",
    "loop.weights_not_loaded",
    "optimizer.missing_parameters",
    "precision.low_precision_weights",
    "precision.mask_overflow",
    "precision.scaler_skips",
    "precision.clip_before_unscale",
)
STILL_CHECKS = ("step", "parameters", "precision")


def findings(bench: Lab) -> dict[str, Finding]:
    """Cause -> finding, of all that the step can show."""
    found = {}
    for check in CHECKS:
        if check.run.__module__.rsplit(".", 1)[1] in STILL_CHECKS:
            found |= {finding.cause: finding for finding in check.findings(bench)}
    for cause in OF_A_STEP:
        if cause in CAUSES:
            found[cause] = examine(CAUSES[cause], bench)
    return found


def blamed(bench: Lab) -> set[str]:
    """Confirmed and suspected causes."""
    return {
        cause
        for cause, finding in findings(bench).items()
        if finding.level in ("confirmed", "suspected")
    }


def only(bench: Lab, cause: str) -> Finding:
    """The finding of `cause`, the only one that is blamed, and confirmed."""
    found = findings(bench)
    assert {
        name for name, finding in found.items() if finding.level in ("confirmed", "suspected")
    } == {cause}
    assert found[cause].level == "confirmed" and found[cause].fix and found[cause].strength > 0
    return found[cause]
