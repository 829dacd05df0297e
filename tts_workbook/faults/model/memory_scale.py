"""model.memory_scale: the encoder memory is far above unit scale, attention is saturated.

Shapes: B batch, N text positions, T frames, D width.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from tts_workbook.bars import Bar
from tts_workbook.faults.cause import Cause, Decision, Experiment, Telling
from tts_workbook.faults.selection import paired
from tts_workbook.faults.suspect import Suspect
from tts_workbook.lab.lab import Lab
from tts_workbook.lab.short_run import Change
from tts_workbook.measure.anatomy import Anatomy, anatomy
from tts_workbook.subject.module_calls import (
    Call,
    Intervention,
    change_inputs,
    change_output,
    outputs_changed,
    rms,
    with_noise,
)
from tts_workbook.subject.opened import once_per_subject

LOUD_MEMORY = Bar(
    2.0,
    convention="RMS of the memory; a LayerNorm's output has 1 (Ba et al. 2016), and the paired run"
    " decides",
)
FACTOR_BEHIND = Bar(
    2.0,
    control="RMS of the memory where its module gives it; repetition, padding and concatenation"
    " change it by less",
)


@dataclass(frozen=True)
class Loudness:
    """How loud the memory is, and whether it can be made quiet wherever it is taken in."""

    memory: str  # the module that gives it; empty where none was found
    size: float  # the largest RMS of what that module gives, or of what the decoder is given
    behind: float  # what bare code multiplies it by between that module and the decoder
    # where it is normalised: its own module, or every module of the decoder that it enters; empty
    # where neither makes it quiet
    changed_at: tuple[str, ...]
    n_takers: int  # modules of the decoder that take it in
    n_loud: int  # of these, given more than LOUD_MEMORY
    n_still_loud: int  # of these, once it is normalised

    @property
    def loud(self) -> bool:
        return self.size * self.behind > LOUD_MEMORY


@once_per_subject
def measure(lab: Lab) -> Loudness:
    """The memory's size at its module and at everything that takes it in, as it is and
    normalised.
    """
    parts = anatomy(lab)
    if not parts.memory:
        return Loudness("", 0.0, 1.0, (), 0, 0, 0)
    behind = factor_behind(lab)
    given = taken_sizes(parts, parts.calls)
    size = max([memory_rms(lab), *(value / behind for value in given.values())])
    n_loud = sum(value > LOUD_MEMORY for value in given.values())
    places: tuple[str, ...] = ()
    still = n_loud
    if size * behind > LOUD_MEMORY:
        at_entries = tuple(taker.name for taker in parts.entries)
        for candidate in ((parts.memory,), at_entries):
            acted, left = _made_quiet(lab, candidate, behind)
            if acted and left < max(1, still):
                places, still = candidate, left
            if acted and not left:
                break
        if still:
            places = ()
    return Loudness(parts.memory, size, behind, places, len(given), n_loud, still)


def _made_quiet(lab: Lab, places: Sequence[str], behind: float) -> tuple[bool, int]:
    """Whether the normalisation at these places acts on a fresh model, and how many takers of the
    memory are loud all the same.
    """
    if not places:
        return False, 0
    model = lab.build()
    made = normalise_at(model, anatomy(lab), places, behind)
    sizes = taken_sizes(anatomy(lab), lab.calls(model))
    return all(one.acted for one in made), sum(size > LOUD_MEMORY for size in sizes.values())


def memory_rms(lab: Lab) -> float:
    """The largest RMS of what the memory's module gives."""
    parts = anatomy(lab)
    sizes = []
    for index in parts.memory_calls:
        for tensor in parts.calls[index].outputs[:1]:
            if tensor.is_floating_point():
                sizes.append(rms(tensor))
    return max(sizes, default=0.0)


def taken_sizes(parts: Anatomy, calls: Sequence[Call]) -> dict[str, float]:
    """Module of the decoder -> largest RMS of what it is given of the memory, in these calls."""
    inputs = {taker.name: taker.inputs for taker in parts.takers}
    sizes: dict[str, float] = {}
    for call in calls:
        for index in inputs.get(call.name, ()):
            sizes[call.name] = max(sizes.get(call.name, 0.0), rms(call.inputs[index]))
    return sizes


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


def normalise_at(
    model: nn.Module, parts: Anatomy, places: Sequence[str], behind: float
) -> list[Intervention]:
    """The memory is normalised over its width: where its module gives it, divided by what
    multiplies it behind; or where the modules of the decoder are given it.
    """
    modules = dict(model.named_modules())
    sizes = _lengths(parts)

    def normalise(tensor: Tensor) -> Tensor:
        return normalised(tensor, sizes)

    if list(places) == [parts.memory]:
        return [change_output(modules[parts.memory], lambda tensor: normalise(tensor) / behind)]
    inputs = {taker.name: taker.inputs for taker in parts.takers}
    return [change_inputs(modules[name], inputs[name], normalise) for name in places]


def _lengths(parts: Anatomy) -> frozenset[int]:
    """Numbers of places that text and target have, as the embeddings and the memory's calls show
    them.
    """
    found = set()
    for call in parts.calls:
        if call.name in parts.embeddings and call.outputs[0].ndim == 3:
            found.add(call.outputs[0].shape[1])
    return frozenset(found)


def normalised(tensor: Tensor, lengths: frozenset[int]) -> Tensor:
    """Zero mean and unit variance over the width of (B, N, D), or of (B, D, N) where the last axis
    is as long as the text and the middle one is not.
    """
    channels_first = (
        tensor.ndim == 3 and tensor.shape[2] in lengths and tensor.shape[1] not in lengths
    )
    if channels_first:
        return F.layer_norm(tensor.transpose(1, 2), tensor.shape[1:2]).transpose(1, 2)
    return F.layer_norm(tensor, tensor.shape[-1:])


def propose(lab: Lab) -> Iterable[Suspect]:
    """A loud memory, normalised wherever it is taken in."""
    found = measure(lab)
    if not found.loud or not found.changed_at:
        return
    evidence: dict[str, float | str] = {"RMS of the memory": found.size}
    if found.behind > 1.0:
        evidence["multiplied behind that module by"] = found.behind
    if found.n_takers:
        evidence["modules that take it in"] = float(found.n_takers)
    yield Suspect(CAUSE.id, memory_normalised(lab, found), evidence, found.memory)


def memory_normalised(lab: Lab, found: Loudness) -> Change:
    """The change of a training run."""
    parts = anatomy(lab)

    def change(model: nn.Module) -> None:
        normalise_at(model, parts, found.changed_at, found.behind)

    return Change(
        "memory_normalised", (*found.changed_at, found.behind), _change_name, model=change
    )


def _change_name(*arguments: str | float) -> str:
    places = [str(place) for place in arguments[:-1]]
    more = f" and {len(places) - 1} more" if len(places) > 1 else ""
    return f"memory normalised at {places[0]}{more}"


def decide(numbers: Loudness) -> Decision | None:
    """Pure: only whether the paired run has an instrument; what it says is decided there."""
    if not numbers.memory:
        return Decision("undecided", reason="no memory")
    if numbers.loud and not numbers.changed_at:
        return Decision("undecided", numbers.memory, reason="stays loud")
    return None


def tell(numbers: Loudness, decision: Decision) -> Telling:
    if decision.reason == "no memory":
        return Telling(
            "next: no module was found that gives the memory; supply Subject.memory, its name"
        )
    return Telling(
        f"the memory was normalised at {numbers.memory}, and the decoder is given it as loud as"
        " before; next: supply Subject.memory, the module whose output the decoder reads",
        {
            "RMS of the memory": numbers.size,
            "modules that take it in": float(numbers.n_takers),
            "of these, given it loud once it is normalised": float(numbers.n_still_loud),
        },
    )


CAUSE = Cause(
    id="model.memory_scale",
    title="the encoder memory is far above unit scale, attention is saturated",
    experiment="normalise the memory as the one factor, same seeds",
    fix="end the encoder with a LayerNorm",
    experiments=(Experiment(measure, decide, tell), paired("model.memory_scale")),
    propose=propose,
    upstream=4,
)
