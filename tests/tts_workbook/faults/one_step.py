"""Everything that one train step can show, for tests that say: this cause and no other."""

from __future__ import annotations

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
    "precision.half_range",
    "precision.scaler_skips",
    "precision.clip_before_unscale",
)


def findings(bench: Lab) -> dict[str, Finding]:
    """Cause -> finding, of all that the step can show."""
    return {cause: examine(CAUSES[cause], bench) for cause in OF_A_STEP if cause in CAUSES}


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
