"""precision.low_precision_weights: 16-bit weights swallow the updates."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from tts_workbook.bars import Bar
from tts_workbook.faults.cause import Cause, Decision, Experiment, Telling
from tts_workbook.faults.planting import Build, Setting
from tts_workbook.faults.selection import AGAIN, MARGIN, OVER_SHAM
from tts_workbook.lab.controls import sham_gain
from tts_workbook.lab.lab import LONGER, Lab
from tts_workbook.lab.run_changes import fp32_weights
from tts_workbook.lab.short_run import ChangeKey, Course
from tts_workbook.subject.interventions import HALVES
from tts_workbook.subject.subject import Subject
from tts_workbook.subject.training_step import all_parameters

# share of elements that a step changes: below, updates are lost
SWALLOWED = Bar(0.7, control="the share that a step of the fp32 twin changes")
# way from the first prediction: a subject that makes less gets nowhere for its updates are lost
NOWHERE = Bar(0.5, control="the way that the fp32 twin makes in the same steps")


@dataclass(frozen=True)
class Run:
    """A course, in numbers."""

    moved: float  # share of elements that a step changes
    outcome: float  # mean TF L1 / best constant
    final: float  # the last; infinite where it broke
    learnt: bool
    judged: bool  # whether it was judged at least once
    broke: str  # why it ended early


@dataclass(frozen=True)
class Formats:
    """The subject's trained weights by their number format, and its course beside one in fp32."""

    low_share: float  # of the trained elements that are 16-bit
    first: str = ""  # name of the first 16-bit parameter; "" where there is none
    dtype: str = ""  # of that one
    own: Run | None = None  # None where nothing is 16-bit
    twin: Run | None = None  # None where the own one could not be trained at all
    change: str = ""  # what the twin differs in, in words
    mended_by: tuple[ChangeKey, ...] = ()  # the same, by id and arguments
    # of LONGER times the steps; None where the short ones decide
    long_own: Run | None = None
    long_twin: Run | None = None
    start: float = math.nan  # TF L1 / best constant before the first step
    noise: float = 0.0  # what a sham intervention gains or loses of the mean

    @property
    def where(self) -> str:
        return self.first if self.low_share < 1.0 else "build_model"


def measure(lab: Lab) -> Formats:
    """16-bit weights: the share of elements that a step changes, and the fp32 twin at the same
    learning rate.
    """
    low_share, first, dtype = _low_weights(lab)
    if not first:
        return Formats(low_share)
    own = _run(lab.course())
    if own.broke and not own.judged:
        return Formats(low_share, first, dtype, own)
    change = fp32_weights()
    twin = _run(lab.course(change))
    if twin.broke:
        change = fp32_weights(casts=True)
        twin = _run(lab.course(change))
    short = Formats(low_share, first, dtype, own, twin, change.name, (change.key,))
    if decide_short(own, twin).reason != "swallows":
        return short
    long_own = _run(lab.course(times=LONGER))
    long_twin = _run(lab.course(change, times=LONGER))
    return replace(
        short,
        long_own=long_own,
        long_twin=long_twin,
        start=lab.error(lab.predict(lab.build(), field="mel")),
        noise=sham_gain(lab),
    )


def _low_weights(lab: Lab) -> tuple[float, str, str]:
    """Share of the trained elements that are 16-bit, the first such parameter and its dtype."""
    n_low = n_trained = 0
    first = dtype = ""
    for name, parameter in all_parameters(lab.build()):
        if not parameter.requires_grad:
            continue
        n_trained += parameter.numel()
        if parameter.dtype in HALVES:
            n_low += parameter.numel()
            if not first:
                first, dtype = name, str(parameter.dtype)
    return n_low / max(1, n_trained), first, dtype


def _run(course: Course) -> Run:
    return Run(
        course.moved,
        course.outcome,
        course.final,
        course.learnt,
        bool(course.tf),
        course.broke,
    )


def decide_short(own: Run, twin: Run) -> Decision:
    """What the courses of the budget's length say; the reason "swallows" asks for longer ones."""
    if twin.broke:
        return Decision("suspected", strength=0.5, reason="twin breaks")
    gain = own.outcome - twin.outcome
    if gain > MARGIN and own.moved < twin.moved:
        return Decision("confirmed", "", max(gain, 1.0 - own.moved / twin.moved), "gains")
    if own.learnt:
        return Decision("excluded", reason="learns")
    if own.moved < SWALLOWED * twin.moved:
        return Decision("undecided", reason="swallows")
    return Decision("undecided", reason="gains nothing")


def decide(numbers: Formats) -> Decision | None:
    """Pure: weights in fp32, as the one factor, gain nothing."""
    if not numbers.first:
        return Decision("excluded", reason="no 16-bit weights")
    if numbers.own is None or numbers.twin is None:
        return Decision("undecided", reason="own breaks")
    own, twin = numbers.own, numbers.twin
    short = replace(decide_short(own, twin), where=numbers.where)
    if short.reason != "swallows" or numbers.long_own is None or numbers.long_twin is None:
        return short
    gain = numbers.long_own.outcome - numbers.long_twin.outcome
    lost = 1.0 - own.moved / twin.moved
    if gain > AGAIN or numbers.long_own.final - numbers.long_twin.final > MARGIN:
        return Decision("confirmed", numbers.where, max(gain, lost), "gains when longer")
    if _gets_nowhere(numbers, numbers.long_own, numbers.long_twin):
        return Decision("confirmed", numbers.where, lost, "gets nowhere")
    return Decision("undecided", numbers.where, reason="swallows, gains nothing")


def _gets_nowhere(numbers: Formats, own: Run, twin: Run) -> bool:
    """Whether the fp32 twin comes further than a sham intervention would, and the subject not half
    as far: the rate is small for both, and lost on one.
    """
    way, twins_way = numbers.start - own.final, numbers.start - twin.final
    is_more_than_noise = twins_way - max(way, 0.0) > OVER_SHAM * numbers.noise
    return is_more_than_noise and way < NOWHERE * twins_way


def tell(numbers: Formats, decision: Decision) -> Telling:
    evidence: dict[str, float | str] = {"share of 16-bit weights": numbers.low_share}
    if decision.reason == "no 16-bit weights":
        return Telling("dtype of every trained parameter", evidence)
    assert numbers.own is not None
    if numbers.twin is None:
        return Telling(f"it cannot be trained at all: {numbers.own.broke}", evidence)
    evidence |= {
        "dtype": numbers.dtype,
        "share of elements that a step changes": numbers.own.moved,
        "share in fp32": numbers.twin.moved,
        "mean TF L1 / best constant": numbers.own.outcome,
        "mean in fp32": numbers.twin.outcome,
        "last TF L1 / best constant": numbers.own.final,
        "last in fp32": numbers.twin.final,
    }
    experiment = f"{numbers.change} as the one factor, same seeds"
    if numbers.long_own is not None and numbers.long_twin is not None:
        evidence |= {
            f"last after {LONGER} times the steps": numbers.long_own.final,
            f"last in fp32 after {LONGER} times the steps": numbers.long_twin.final,
        }
        experiment = (
            f"{experiment}, {LONGER} times the steps: of the updates that fp32 weights take, these"
            " swallow some altogether"
        )
    match decision.reason:
        case "twin breaks":
            return Telling(f"the fp32 twin could not be trained: {numbers.twin.broke}", evidence)
        case "learns":
            return Telling(f"{experiment}: it gains nothing", evidence)
        case "gains nothing":
            return Telling(
                f"{experiment}: it gains nothing in so few steps; next: a longer run of both",
                evidence,
            )
        case "swallows, gains nothing":
            return Telling(
                f"{experiment}, but nothing is gained; next: mend what else is found", evidence
            )
    mending = numbers.mended_by if decision.level == "confirmed" else ()
    return Telling(experiment, evidence, mended_by=mending)


def plant(build: Build, setting: Setting) -> Subject:
    """Weights, and statistics beside them, kept in bf16 without an fp32 master copy; inputs are
    cast at every module's door.
    """
    subject = build(setting)

    def build_model() -> nn.Module:
        model = subject.build_model()
        for module in model.modules():
            if not any(True for _ in module.parameters(recurse=False)):
                continue
            for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
                if tensor.is_floating_point():
                    tensor.data = tensor.data.bfloat16()
            module.register_forward_pre_hook(_cast_inputs)
        return model

    def in_fp32(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        return lambda *arguments: function(*arguments).float()

    outputs: dict[str, Any] = {
        name: in_fp32(getattr(subject, name))
        for name in ("predict_mel", "predict_frames", "generate", "continue_from")
        if getattr(subject, name) is not None
    }
    return replace(subject, build_model=build_model, **outputs)


def _cast_inputs(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """A forward pre-hook: what comes in is given the format of the module's own weights."""
    dtype = next(module.parameters(recurse=False)).dtype

    def cast(x: Any) -> Any:
        if isinstance(x, nn.utils.rnn.PackedSequence):
            return x.to(dtype)
        if isinstance(x, Tensor) and x.is_floating_point():
            return x.to(dtype)
        return tuple(cast(part) for part in x) if type(x) is tuple else x

    return tuple(cast(x) for x in inputs)


CAUSE = Cause(
    id="precision.low_precision_weights",
    title="16-bit weights swallow the updates",
    experiment="the fp32 twin at the same learning rate; share of elements that change",
    fix="keep weights in fp32 and use autocast",
    # a larger rate survives the rounding
    explains=("optimizer.lr_too_small",),
    experiments=(Experiment(measure, decide, tell),),
    plant=plant,
    plant_needs={"lr": 1e-4},  # larger steps survive the rounding
)
