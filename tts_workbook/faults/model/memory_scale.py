"""model.memory_scale: the encoder memory is far above unit scale, attention is saturated."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn
from torch.nn import functional as F

from tts_workbook.faults.cause import Cause
from tts_workbook.faults.selection import paired
from tts_workbook.faults.suspect import Suspect
from tts_workbook.lab.lab import Lab
from tts_workbook.lab.short_run import Change
from tts_workbook.measure.anatomy import anatomy
from tts_workbook.subject.module_calls import (
    Call,
    change_output,
    outputs_changed,
    rms,
    with_noise,
)

LOUD_MEMORY = 2.0  # RMS of the memory; a normalised one has 1, one behind tanh gates less
FACTOR_BEHIND = 2.0


def propose(lab: Lab) -> Iterable[Suspect]:
    """The memory's RMS, from its place between encoder and decoder."""
    memory = anatomy(lab).memory
    if not memory:
        return
    size, behind = memory_rms(lab), factor_behind(lab)
    if size * behind <= LOUD_MEMORY:
        return
    evidence: dict[str, float | str] = {"RMS of the memory": size}
    if behind > 1.0:
        evidence["multiplied behind that module by"] = behind
    yield Suspect(CAUSE.id, normalised(memory, behind), evidence, memory)


def memory_rms(lab: Lab) -> float:
    """The largest RMS of what the memory's module gives."""
    parts = anatomy(lab)
    sizes = []
    for index in parts.memory_calls:
        for tensor in parts.calls[index].outputs[:1]:
            if tensor.is_floating_point():
                sizes.append(rms(tensor))
    return max(sizes, default=0.0)


def factor_behind(lab: Lab) -> float:
    """How many times larger the memory is where the next module takes it in than where its own
    module gives it out: code between modules may multiply. 1 below FACTOR_BEHIND, which repetition,
    padding and concatenation make.
    """
    parts, model = anatomy(lab), lab.model
    memory = dict(model.named_modules())[parts.memory]
    with outputs_changed([(memory, lambda tensor: with_noise(tensor, 8))]):
        disturbed = lab.calls(model)
    given = None
    for old, new in zip(parts.calls, disturbed, strict=False):
        if old.name == parts.memory:
            given = rms(new.outputs[0].float() - old.outputs[0].float())
        elif given:
            taken = _largest_move(old, new)
            if taken > 0.0:
                ratio = taken / given
                return ratio if ratio > FACTOR_BEHIND else 1.0
    return 1.0


def _largest_move(old: Call, new: Call) -> float:
    """RMS of the input that differs most between two calls."""
    moved = []
    for a, b in zip(old.inputs, new.inputs, strict=False):
        if a.is_floating_point() and a.shape == b.shape:
            moved.append(rms(b.float() - a.float()))
    return max(moved, default=0.0)


def normalised(memory: str, behind: float) -> Change:
    """What the memory's module gives is normalised, and divided by what multiplies it behind."""

    def normalise(tensor: Tensor) -> Tensor:
        return F.layer_norm(tensor, tensor.shape[-1:]) / behind

    def change(model: nn.Module) -> None:
        change_output(dict(model.named_modules())[memory], normalise)

    return Change(
        "memory_normalised",
        (memory, behind),
        lambda memory, behind: f"memory normalised at {memory}",
        model=change,
    )


CAUSE = Cause(
    id="model.memory_scale",
    title="the encoder memory is far above unit scale, attention is saturated",
    experiment="normalise the memory as the one factor, same seeds",
    fix="end the encoder with a LayerNorm",
    experiments=(paired("model.memory_scale"),),
    propose=propose,
    upstream=4,
)
