"""loop.accumulation: accumulated gradients differ from those of one big batch."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from tts_workbook.bars import Bar
from tts_workbook.faults.cause import Cause, Decision, Experiment, Telling
from tts_workbook.faults.planting import Build, Setting
from tts_workbook.lab.lab import Lab
from tts_workbook.lab.short_run import median
from tts_workbook.measure.observed_steps import MARKED, SeenStep, observe, observe_steps
from tts_workbook.subject.clip_batch import split
from tts_workbook.subject.interventions import without_batch_statistics
from tts_workbook.subject.opened import once_per_subject
from tts_workbook.subject.subject import Batch, Subject
from tts_workbook.subject.tensor_math import Named, cosine, difference, factor, inner, only

GROWN = Bar(
    1.5,
    control="of the gradient of the first step, at the same weights: 2 where the first is still"
    " there, 1 where it is not",
)
GAP = Bar(
    0.1,
    control="of the gradient that the passes should add up to; bf16 autocast makes 0.02 to 0.05 of"
    " it along the passes' span",
)
SPANNED = Bar(
    0.5,
    control="of the whole batch's gradient: what the passes may leave unexplained before they are"
    " judged unrelated",
)
SEVERAL = Bar(1.5, control="of the forward passes of one evaluation of the losses")
BATCHES = 4  # corpus batches looked through for clips of unequal length


@dataclass(frozen=True)
class AddedUp:
    """Least squares: whole = Σ w_i pass_i. Where the step's sum is another, it has added the passes
    up with wrong weights.
    """

    n_parts: int  # backward passes
    gap: float  # ‖accumulated - right‖ / ‖right‖
    unexplained: float  # ‖right - whole‖ / ‖whole‖
    least_weight: float  # that a pass should have
    largest_weight: float


@dataclass(frozen=True)
class Passes:
    """A step that takes several passes, on one batch, against the gradient of the whole batch."""

    batch: str  # which one, in words
    n_forward: float  # passes, over one evaluation of the losses
    size: float  # how many times the whole batch's gradient is in the step's
    same: float  # cosine of the two
    # where every pass has a backward pass of its own; None where losses were added up
    added_up: AddedUp | None


@dataclass(frozen=True)
class Accumulation:
    """Steps of the train step on several batches. A loss scale and clipping, which come later, do
    not matter.
    """

    stepped: bool  # whether an optimiser step was seen
    stale: float = 0.0  # share of older gradients in a step
    # batches on which a step takes several passes, up to the first that shows something
    judged: tuple[Passes, ...] = ()
    n_backward: int = 1  # backward passes per step, at most
    calls_per_step: int = 1


# --- measured -------------------------------------------------------------------------------------


def measure(lab: Lab) -> Accumulation:
    """Write the whole batch's gradient as a sum of the passes' gradients, and compare with how the
    step adds them up: the weights say whether a pass counts too much or too little.
    """
    seen = observe_steps(lab)
    if seen.step is None:
        return Accumulation(False)
    stale = _stepped_before_zeroing(seen.steps, seen.marks)
    if stale:
        return Accumulation(True, stale)
    n_backward = 1
    judged: list[Passes] = []
    longest = seen.steps[0].call + 2 * seen.calls_per_step
    for name, batch in _batches(lab):
        step: SeenStep | None = seen.step
        if batch is not lab.batch:
            step = observe(lab, batch=batch, n_steps=1, max_calls=longest).step
        if step is None or not step.parts:
            continue
        n_forward = max(step.n_backward, _forward_passes(lab, step))
        if n_forward < SEVERAL:
            continue
        n_backward = max(n_backward, step.n_backward)
        passes = _passes(lab, name, batch, step, n_forward)
        if passes is None:
            continue
        judged.append(passes)
        if judge(passes).level != "excluded":
            break
    return Accumulation(True, 0.0, tuple(judged), n_backward, seen.calls_per_step)


def _stepped_before_zeroing(steps: Sequence[SeenStep], marks: Sequence[float]) -> float:
    """Share of a step's gradient that is left from an earlier step, where gradients are zeroed only
    now and then.
    """
    if marks and max(marks) > MARKED >= min(marks):
        return max(marks)
    calls = [step.call for step in steps]
    # the marker may have met just the call that zeroes
    if marks and min(marks) <= MARKED and calls[:2] == [1, 2]:
        first, second = steps[0].held, steps[1].held
        grown = factor(second, first)
        if grown > GROWN and cosine(second, first) > 1.0 - MARKED:
            return 1.0 - 1.0 / grown
    for step, before in zip(steps[1:], calls, strict=False):
        all_kept = bool(step.backward and step.parts) and step.n_backward == len(step.parts)
        if step.call == before and all_kept:
            stale = difference(only(_sum(step.parts), step.gradient), step.held)
            if stale > MARKED:
                return stale
    return 0.0


def _sum(parts: Iterable[Named]) -> Named:
    total: Named = {}
    for part in parts:
        for name, gradient in part.items():
            total[name] = total[name] + gradient if name in total else gradient
    return total


def _batches(lab: Lab) -> Iterable[tuple[str, Batch]]:
    """The batch; its duplicate, which a step may split where the batch is too small; one whose
    clips differ in length.
    """
    yield "batch", lab.batch
    copies = 4 if len(lab.lengths) <= 2 else 2
    if lab.subject.duplicate is not None:
        yield f"batch, {copies} times repeated", lab.subject.duplicate(lab.batch, copies)
    if lab.subject.batches is not None and len(lab.lengths.unique()) == 1:
        for _, batch in zip(range(BATCHES), lab.subject.batches(), strict=False):
            if len(lab.subject.target_mel(batch)[1].unique()) > 1:
                yield "batch of the corpus", batch
                return


def _forward_passes(lab: Lab, step: SeenStep) -> float:
    """Calls of a module in the step, over those in one evaluation of the losses; the median
    module.
    """
    return median([step.forwards[name] / n for name, n in _forwards_of_losses(lab).items()])


@once_per_subject
def _forwards_of_losses(lab: Lab) -> Counter[str]:
    """Calls of each module in one evaluation of the losses."""
    calls: Counter[str] = Counter()
    model = lab.build()

    def count(name: str, *_: Any) -> None:
        calls[name] += 1

    for name, module in model.named_modules():
        module.register_forward_pre_hook(functools.partial(count, name))
    lab.losses(model)
    return calls


def _passes(lab: Lab, name: str, batch: Batch, step: SeenStep, n_forward: float) -> Passes | None:
    """A step beside the gradient of the whole batch at once; None where there is none."""
    judged, whole = _step_and_whole(lab, batch, step)
    if judged is None or not whole:
        return None
    several = 1 < judged.n_backward == len(judged.parts)
    return Passes(
        batch=name,
        n_forward=n_forward,
        size=factor(judged.held, whole),
        same=cosine(judged.held, whole),
        added_up=_added_up(judged, whole) if several else None,
    )


def _step_and_whole(lab: Lab, batch: Batch, step: SeenStep) -> tuple[SeenStep | None, Named]:
    """The step on a batch and the gradient of the whole batch at once, over the parameters that the
    optimiser holds.
    """
    model = lab.build()
    mixes = any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules())
    judged: SeenStep | None = step
    # with them even right accumulation is not one big batch
    with without_batch_statistics() if mixes else nullcontext():
        if mixes:
            judged = observe(lab, batch=batch, n_steps=2).step
        whole = {name: gradient.float() for name, gradient in lab.gradient(model, batch).items()}
    return judged, only(whole, judged.gradient) if judged else {}


def _added_up(step: SeenStep, whole: Named) -> AddedUp:
    parts = [only(part, step.gradient) for part in step.parts]
    gram = torch.tensor([[inner(a, b) for b in parts] for a in parts], dtype=torch.float64)
    onto = torch.tensor([inner(part, whole) for part in parts], dtype=torch.float64)
    # passes over the same clip share their weight
    weights = torch.linalg.pinv(gram, rtol=1e-6, hermitian=True) @ onto
    right: Named = {}
    for weight, part in zip(weights.tolist(), parts, strict=True):
        for name, gradient in part.items():
            weighted = weight * gradient
            right[name] = right[name] + weighted if name in right else weighted
    return AddedUp(
        n_parts=len(parts),
        gap=difference(step.held, right),
        unexplained=difference(right, whole),
        least_weight=float(weights.min()),
        largest_weight=float(weights.max()),
    )


# --- decided --------------------------------------------------------------------------------------


def judge(passes: Passes) -> Decision:
    """What one batch says."""
    if passes.added_up is not None:
        return _judge_sum(passes.added_up)
    if abs(passes.size - 1.0) <= GAP:
        return Decision("excluded", reason="as the whole batch")
    undivided = abs(passes.size / passes.n_forward - 1.0) <= GAP
    if undivided and passes.same > 1.0 - GAP:
        return Decision("confirmed", "train_step", 1.0, "losses added up")
    return Decision("undecided", "train_step", 1.0, "another gradient")


def _judge_sum(sums: AddedUp) -> Decision:
    if sums.gap <= GAP:
        return Decision("excluded", reason="right sum")
    if sums.unexplained > SPANNED or sums.unexplained > sums.gap:
        return Decision("undecided", "train_step", reason="unrelated passes")
    return Decision("confirmed", "train_step", min(1.0, sums.gap), "wrong sum")


def decide(numbers: Accumulation) -> Decision | None:
    """Pure: the step's gradient is that of the whole batch, on every batch that was tried."""
    if not numbers.stepped:
        return Decision("undecided", reason="no step")
    if numbers.stale:
        return Decision("confirmed", "train_step", 1.0, "stale")
    if not numbers.judged:
        return Decision("excluded", reason="one pass")
    return judge(numbers.judged[-1])


def tell(numbers: Accumulation, decision: Decision) -> Telling:
    match decision.reason:
        case "no step":
            return Telling("no optimiser step was seen; next: mend that")
        case "stale":
            return Telling(
                "the optimiser steps more often than gradients are zeroed",
                {"share of older gradients in a step": numbers.stale},
            )
        case "one pass":
            return Telling(
                "one pass over the whole batch per optimiser step, on the batch and on its"
                " duplicate",
                {
                    "backward passes per step": float(numbers.n_backward),
                    "calls per step": float(numbers.calls_per_step),
                },
            )
    passes = numbers.judged[-1]
    if passes.added_up is not None:
        return _tell_sum(passes, passes.added_up, decision)
    experiment = "gradient against that of the whole batch"
    if decision.reason == "losses added up":
        experiment += ", and the number of forward passes"
    elif decision.reason == "another gradient":
        experiment = "next: compare the train step's loss with `total`"
    return Telling(
        experiment,
        {
            "subject": passes.batch,
            "forward passes per step": passes.n_forward,
            "gradient over that of the whole batch": passes.size,
            "cosine with it": passes.same,
        },
    )


def _tell_sum(passes: Passes, sums: AddedUp, decision: Decision) -> Telling:
    experiment = "accumulated gradient against that of the whole batch"
    if decision.reason == "unrelated passes":
        experiment = (
            "the passes do not add up to the gradient of `total`: is something "
            "else optimised? next: compare the losses"
        )
    return Telling(
        experiment,
        {
            "subject": passes.batch,
            "passes per step": float(sums.n_parts),
            "‖accumulated - right‖ / ‖right‖": sums.gap,
            "gradient over that of the whole batch": passes.size,
            "cosine with it": passes.same,
            "unexplained share": sums.unexplained,
            "least and largest weight that a pass should have": (
                f"{sums.least_weight:.3g}, {sums.largest_weight:.3g}"
            ),
        },
    )


# --- planted --------------------------------------------------------------------------------------


def plant(build: Build, setting: Setting, split: Callable[[Any], Sequence[Any]] = split) -> Subject:
    """Micro-batches of one clip, 2 to 4 passes over them: their losses are added up without
    dividing by how many they are.
    """
    subject, passes = build(setting), setting.random.randint(2, 4)

    def train_step(
        model: nn.Module, optimizer: torch.optim.Optimizer, batch: Any
    ) -> dict[str, float]:
        optimizer.zero_grad(set_to_none=True)
        for part in list(split(batch)) * passes:
            terms = subject.losses(model, part)
            terms["total"].backward()
        optimizer.step()
        return {name: float(term.detach()) for name, term in terms.items()}

    return replace(subject, train_step=train_step)


CAUSE = Cause(
    id="loop.accumulation",
    title="accumulated gradients differ from those of one big batch",
    experiment="gradient at the optimiser against the gradient of the whole batch at once",
    fix="divide by the number of values of the whole step, not of the micro-batch",
    experiments=(Experiment(measure, decide, tell),),
    plant=plant,
    plant_needs={"batch_size": 2},
)
