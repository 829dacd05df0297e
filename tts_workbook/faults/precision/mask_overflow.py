"""precision.mask_overflow: a mask value beyond the range of half precision."""

from __future__ import annotations

from dataclasses import dataclass

from tts_workbook.faults.cause import Cause, Decision, Experiment, Telling
from tts_workbook.faults.precision._attempts import (
    Attempt,
    all_in_fp32,
    as_it_is,
    with_masks_in_range,
)
from tts_workbook.lab.lab import Lab
from tts_workbook.measure.observed_steps import observe_steps, reference


@dataclass(frozen=True)
class Attempts:
    """Losses and train step as they are; where something is not finite, two other ways too."""

    own: Attempt | None  # None where the observed steps were finite already
    in_range: Attempt | None = None  # mask values brought into the range of the 16-bit type
    fp32: Attempt | None = None


def measure(lab: Lab) -> Attempts:
    """Losses and train step as they are, with mask values brought into the range of the 16-bit
    type, and in fp32.
    """
    seen = observe_steps(lab)
    if seen.steps and seen.finite and not seen.error and _finite_gradient(lab):
        return Attempts(None)
    own = as_it_is(lab)
    if own.finite:
        return Attempts(own)
    return Attempts(own, with_masks_in_range(lab), all_in_fp32(lab))


def _finite_gradient(lab: Lab) -> bool:
    try:
        return all(bool(gradient.isfinite().all()) for gradient in reference(lab).values())
    except Exception:  # the subject's code may raise anything
        return False


def decide(numbers: Attempts) -> Decision | None:
    """Pure: what is not finite in 16 bits is finite once its masks are in range. What is not for
    another reason is precision.half_range.
    """
    own, in_range, fp32 = numbers.own, numbers.in_range, numbers.fp32
    if own is None or in_range is None or fp32 is None:
        return Decision("excluded", reason="finite")
    if not fp32.finite:
        return Decision("excluded", own.where, reason="fp32 is not finite either")
    if in_range.finite:
        return Decision("confirmed", own.where, 1.0, "a mask")
    if own.raises_about_types:
        return Decision("undecided", own.where, reason="raises")
    return Decision("excluded", own.where, reason="not a mask")


def tell(numbers: Attempts, decision: Decision) -> Telling:
    own, in_range, fp32 = numbers.own, numbers.in_range, numbers.fp32
    if own is None or in_range is None or fp32 is None:
        return Telling("losses, outputs and gradients of the first step are finite")
    evidence: dict[str, float | str] = {
        "first not finite": own.where or "the loss",
        "raises": own.said or "nothing",
        "finite with masks in range": float(in_range.finite),
        "finite in fp32": float(fp32.finite),
    }
    experiment = "the same weights in fp32, and in 16 bits with mask values brought into range"
    match decision.reason:
        case "fp32 is not finite either":
            return Telling(f"{experiment}: fp32 is not finite either", evidence)
        case "raises":
            return Telling(f"it raises in 16 bits, and not for a mask: {own.said}", evidence)
        case "not a mask":
            return Telling(f"{experiment}: no mask, see precision.half_range", evidence)
    return Telling(experiment, evidence)


CAUSE = Cause(
    id="precision.mask_overflow",
    title="a mask value beyond the range of half precision",
    experiment="the first module that is not finite; the fp32 twin",
    fix="mask with -inf or torch.finfo(dtype).min, never a literal like -1e9",
    experiments=(Experiment(measure, decide, tell),),
)
