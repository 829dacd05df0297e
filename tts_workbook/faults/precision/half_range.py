"""precision.half_range: a value under- or overflows in half precision, outside of masks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from torch import Tensor, nn

from tts_core.speech.batch import lengths_to_mask
from tts_workbook.faults.cause import Cause, Decision, Experiment, Telling
from tts_workbook.faults.planting import Build, Setting
from tts_workbook.faults.precision._attempts import (
    Attempt,
    as_it_is,
    attempt,
    attempt_in_fp32,
    attempt_with_masks_in_range,
)
from tts_workbook.faults.precision._wide_parts import LOSSES, Noted, WidePart, full_range
from tts_workbook.faults.selection import OneFactor, paired, tell_one_factor
from tts_workbook.faults.suspect import Suspect
from tts_workbook.lab.lab import Lab
from tts_workbook.measure.observed_steps import observe
from tts_workbook.subject.clip_data import mean_l1
from tts_workbook.subject.isolation import private_copy
from tts_workbook.subject.opened import once_per_subject
from tts_workbook.subject.subject import Batch, Subject

MOST_PARTS = 48  # parts that are tried in fp32
MORE_FRAMES = 8  # of padding, where a batch is finite that may have none


# --- numbers that are not finite at the first step ------------------------------------------------


@dataclass(frozen=True)
class WideParts:
    """Losses and train step as they are, and in other precisions where that is not finite."""

    own: Attempt
    in_range: Attempt | None = None  # mask values brought into the range of the 16-bit type
    fp32: Attempt | None = None
    # the smallest part that mends it if that part alone is in fp32; None where no part does
    part: str | None = None
    n_tried: int = 0  # parts
    n_padded: int = 0  # frames that were appended to the batch


def measure(lab: Lab) -> WideParts:
    """Where fp32 alone is finite: the parts in fp32 one by one, from the losses and the model down
    to the smallest module that mends it.
    """
    own = as_it_is(lab)
    if not own.finite:
        return _compared(lab, lab.batch, own)
    if lab.subject.pad is None or not uses_fp16(lab):
        return WideParts(own)
    padded = lab.subject.pad(private_copy(lab.batch), MORE_FRAMES)
    own = attempt(lab, lab.build, padded)
    if own.finite:
        return WideParts(own)
    return replace(_compared(lab, padded, own), n_padded=MORE_FRAMES)


def _compared(lab: Lab, batch: Batch, own: Attempt) -> WideParts:
    """What is not finite as it is, in other precisions."""
    in_range, fp32 = attempt_with_masks_in_range(lab, batch), attempt_in_fp32(lab, batch)
    if in_range.finite or not fp32.finite or own.raises_about_types:
        return WideParts(own, in_range, fp32)
    part, n_tried = _smallest_part(lab, batch)
    return WideParts(own, in_range, fp32, part, n_tried)


def _smallest_part(lab: Lab, batch: Batch) -> tuple[str | None, int]:
    """The losses, or the module deepest down, that mends it by itself; how many were tried."""
    if _mends(lab, batch, LOSSES):
        return LOSSES, 1
    if not _mends(lab, batch, ""):
        return None, 2
    model, found, n_tried = lab.build(), "", 2
    candidates = list(_children(model, found))
    while candidates and n_tried < MOST_PARTS:
        path, candidates = candidates[0], candidates[1:]
        n_tried += 1
        if _mends(lab, batch, path):
            found, candidates = path, list(_children(model, path))
    return found, n_tried


def _children(model: nn.Module, path: str) -> Iterator[str]:
    """Paths of the modules directly below; of lists and dicts, which are never called, theirs."""
    for name, child in model.get_submodule(path).named_children():
        inner = f"{path}.{name}" if path else name
        if isinstance(child, nn.ModuleList | nn.ModuleDict):
            yield from _children(model, inner)
        else:
            yield inner


def _mends(lab: Lab, batch: Batch, part: str) -> bool:
    """Whether everything is finite with this part in fp32; one that did nothing mends nothing."""
    mode = WidePart(part)
    tried = attempt(lab, lambda: mode.watch(lab.build()), batch, mode)
    return tried.finite and mode.n_widened > 0


def decide(numbers: WideParts) -> Decision | None:
    """Pure: what is finite in fp32 is finite with one part of it in fp32."""
    own, in_range, fp32 = numbers.own, numbers.in_range, numbers.fp32
    if own.finite or in_range is None or fp32 is None:
        return None
    if not fp32.finite:
        return Decision("excluded", own.where, reason="fp32 is not finite either")
    if in_range.finite:
        return Decision("excluded", own.where, reason="a mask")
    if own.raises_about_types:
        return Decision("undecided", own.where, reason="raises")
    if numbers.part is not None:
        return Decision("confirmed", numbers.part or "the model", 1.0, "a part")
    return Decision("suspected", own.where or LOSSES, 1.0, "no part alone")


def tell(numbers: WideParts, decision: Decision) -> Telling:
    own, in_range, fp32 = numbers.own, numbers.in_range, numbers.fp32
    assert in_range is not None and fp32 is not None
    evidence: dict[str, float | str] = {
        "first not finite": own.where or "the loss or its gradient",
        "raises": own.said or "nothing",
        "finite with masks in range": float(in_range.finite),
        "finite in fp32": float(fp32.finite),
        "parts tried in fp32": float(numbers.n_tried),
    }
    experiment = "the same step, and with one part after the other in fp32"
    if numbers.n_padded:
        evidence["frames of padding appended"] = float(numbers.n_padded)
        experiment = f"{experiment}, on the batch with more padding"
    match decision.reason:
        case "fp32 is not finite either":
            return Telling(f"{experiment}: fp32 is not finite either", evidence)
        case "a mask":
            return Telling(f"{experiment}: a mask value overflows, see mask_overflow", evidence)
        case "raises":
            return Telling(f"it raises in 16 bits: {own.said}; next: mend that", evidence)
        case "no part alone":
            return Telling(f"{experiment}: only all of it in fp32 is finite", evidence)
    return Telling(f"{experiment}: finite as soon as {decision.where} is", evidence)


# --- a course that stands or breaks later ---------------------------------------------------------

ONE_FACTOR = paired("precision.half_range")


@once_per_subject
def uses_fp16(lab: Lab) -> bool:
    """Whether losses or train step calculate in fp16."""
    with Noted() as noted:
        lab.losses(lab.build())
        observe(lab, n_steps=1, max_calls=1)
    return noted.seen


def propose(lab: Lab) -> Iterable[Suspect]:
    """bf16 in place of fp16, where the first step is finite and the subject does not learn."""
    if uses_fp16(lab) and as_it_is(lab).finite:
        broke = lab.course().broke
        evidence = {"the course in fp16": broke or "ends"}
        yield Suspect(CAUSE.id, full_range(), evidence, "losses", always=False)


@dataclass(frozen=True)
class Exchanged:
    """What the paired run in bf16 said; None of a subject without fp16, or not finite at once."""

    fp16: bool
    bf16: OneFactor | None


def measure_exchanged(lab: Lab) -> Exchanged:
    if not as_it_is(lab).finite:
        return Exchanged(True, None)
    if not uses_fp16(lab):
        return Exchanged(False, None)
    return Exchanged(True, ONE_FACTOR.measure(lab))


def decide_exchanged(numbers: Exchanged) -> Decision | None:
    """Pure: the range of bf16, as the one factor, removes the harm."""
    if not numbers.fp16:
        return Decision("excluded", reason="no fp16")
    if numbers.bf16 is None:
        return None
    if numbers.bf16.accepted is not None:
        return Decision("confirmed", "losses", numbers.bf16.accepted.gain, "bf16 mends it")
    if numbers.bf16.learns or numbers.bf16.tried is not None:
        return Decision("excluded", reason="bf16 gains nothing")
    return Decision("undecided", reason="not tried")


def tell_exchanged(numbers: Exchanged, decision: Decision) -> Telling:
    if decision.reason == "no fp16":
        return Telling("type of every number of losses and train step: none is fp16")
    if decision.reason == "not tried":
        return Telling("bf16 instead of fp16 was not tried; next: mend what is found")
    assert numbers.bf16 is not None
    return tell_one_factor(numbers.bf16, decision)


# --- planted --------------------------------------------------------------------------------------


def plant(build: Build, setting: Setting) -> Subject:
    """A term in fp16, drawn: the norm of each frame with an eps of 1e-9, which is 0 there, so that
    padded frames have no gradient; or squares of thousandths, which are beyond its range.
    """
    underflows = setting.random.random() < 0.5

    def frame_norms(mel: Tensor, mask: Tensor) -> Tensor:
        return (mel * mask[..., None]).half().square().mean(dim=2).add(1e-9).sqrt()

    def mel_loss(prediction: Tensor, target: Tensor, lengths: Tensor) -> Tensor:
        mask = lengths_to_mask(lengths, target.shape[1])
        if underflows:
            errors = (frame_norms(prediction, mask) - frame_norms(target, mask)).abs()
        else:
            errors = ((prediction - target).half() * 1000).square().mean(dim=2) * 1e-6
        return mean_l1(prediction, target, lengths) + errors[mask].float().mean()

    return build(setting, mel_loss=mel_loss)


CAUSE = Cause(
    id="precision.half_range",
    title="a value under- or overflows in half precision",
    experiment="one part after the other in fp32; bf16 instead of fp16 as the one factor",
    fix="compute that part in fp32 (float(), autocast off), with an eps that its type can hold",
    experiments=(
        Experiment(measure, decide, tell),
        Experiment(measure_exchanged, decide_exchanged, tell_exchanged),
    ),
    propose=propose,
    upstream=14,
    plant=plant,
)
