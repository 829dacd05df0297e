"""Checks of the train step by watching it: does it step, and from which gradient."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterable
from contextlib import nullcontext

import torch
from torch import nn

from tts_workbook.faults.checks.registry import check
from tts_workbook.faults.finding import Finding
from tts_workbook.lab.lab import Lab
from tts_workbook.lab.short_run import median
from tts_workbook.measure.observed_steps import MARKED, SeenStep, observe, observe_steps, reference
from tts_workbook.subject.interventions import without_batch_statistics
from tts_workbook.subject.opened import once_per_subject
from tts_workbook.subject.subject import Batch
from tts_workbook.subject.tensor_math import (
    Named,
    cosine,
    difference,
    factor,
    inner,
    only,
    tensors_norm,
)

# gradient of the second step over that of the first, same weights; 2 where the first is still there
GROWN = 1.5
# ‖accumulated - right‖ / ‖right‖; bf16 autocast alone makes 0.02 to 0.05 along the passes' span
GAP = 0.1
# share of the batch's gradient that the passes may leave unexplained before they are judged
# unrelated
SPANNED = 0.5
SEVERAL = 1.5  # forward passes per step, over those of one evaluation of the losses
BATCHES = 4  # corpus batches looked through for clips of unequal length


@check("loop.no_step")
def weights_move(lab: Lab) -> Iterable[Finding]:
    """Call the train step until the optimiser steps on a gradient and the weights differ
    afterwards.
    """
    seen, step = observe_steps(lab), observe_steps(lab).step
    wanted = tensors_norm(reference(lab).values())
    evidence = {
        "calls": float(seen.n_calls),
        "optimiser steps": float(len(seen.steps)),
        "norm of the loss's gradient": wanted,
    }
    experiment = "weights before and after each call of the train step"
    if not wanted:
        yield Finding(
            "loop.no_step",
            "undecided",
            "the loss has no gradient at any parameter; next: mend that",
            evidence,
        )
    elif step is None:
        yield _never_stepped(lab, evidence, experiment)
    elif not tensors_norm(step.gradient.values()):
        why = (
            "the optimiser holds none of the model's parameters"
            if not seen.held
            else (
                "the optimiser is given no gradient (zero_grad() between backward() and step(), or"
                " a pass without gradients)"
            )
        )
        if not seen.held or tensors_norm(only(reference(lab), seen.held).values()):
            yield Finding(
                "loop.no_step",
                "confirmed",
                experiment,
                {**evidence, "seen": why, "norm at the optimiser": 0.0},
                "make_optimizer" if not seen.held else "train_step",
                1.0,
                f"{why}: mend that",
            )
    elif not max(seen.lr.values(), default=0.0):
        yield Finding(
            "loop.no_step", "excluded", f"{experiment}: it steps, at learning rate 0", evidence
        )
    elif step.moved_inside and not any(step.changed.values()):
        evidence["seen"] = "the optimiser moves the weights, the train step puts them back"
        yield Finding("loop.no_step", "confirmed", experiment, evidence, "train_step", 1.0)
    else:
        evidence |= {
            "‖Δw‖ / ‖w‖": step.update_ratio,
            "tensors that moved": float(sum(map(bool, step.changed.values()))),
        }
        yield Finding("loop.no_step", "excluded", experiment, evidence)


def _never_stepped(lab: Lab, evidence: dict, experiment: str) -> Finding:
    """No optimiser step in all the calls: by a scaler, by an exception, or by nobody's call."""
    seen = observe_steps(lab)
    if seen.n_attempts:
        return Finding(
            "loop.no_step",
            "excluded",
            f"{experiment}: the step is called, the loss scaler skips it",
            evidence,
        )
    if seen.error and seen.grad_mode is not False:
        return Finding(
            "loop.no_step",
            "undecided",
            f"the train step raises: {seen.error}",
            evidence,
            "train_step",
        )
    plain = observe(lab, plain=True, n_steps=1)
    moved = plain.step is not None and any(plain.step.changed.values())
    evidence = {
        **evidence,
        "‖Δw‖ / ‖w‖ by the workbook's own step": plain.update_ratio,
        **({"seen": "the model runs without gradients"} if seen.grad_mode is False else {}),
        **({"raises": seen.error} if seen.error else {}),
    }
    return Finding(
        "loop.no_step",
        "confirmed" if moved else "suspected",
        f"{experiment}, and of the workbook's own step",
        evidence,
        "train_step",
        1.0,
    )


@check("loop.no_zero_grad")
def gradients_are_zeroed(lab: Lab) -> Iterable[Finding]:
    """Leave a marker in .grad after a step: whoever zeroes gradients, before or after, wipes it
    out.
    """
    seen = observe_steps(lab)
    experiment = (
        "a marker left in .grad after a step, from the same weights; does the next step contain it?"
    )
    if not seen.steps:
        yield Finding(
            "loop.no_zero_grad", "undecided", "no optimiser step was seen; next: mend that"
        )
    elif seen.leftover and not seen.marks:
        yield Finding(
            "loop.no_zero_grad",
            "undecided",
            f"{len(seen.steps)} steps in {seen.n_calls} calls; next: more calls",
        )
    else:
        growth = [tensors_norm(held(step).values()) for step in seen.steps[:2]]
        # zeroed at some of the steps is another fault
        kept = min(seen.marks, key=abs, default=0.0)
        evidence = {
            "cosine of the gradient with the marker": kept,
            "steps": float(len(seen.steps)),
            "growth of the gradient by the second step": (
                growth[-1] / growth[0] if growth[0] else 0.0
            ),
        }
        if kept > MARKED:
            yield Finding("loop.no_zero_grad", "confirmed", experiment, evidence, "train_step", 1.0)
        else:
            yield Finding("loop.no_zero_grad", "excluded", experiment, evidence)


# --- accumulation ---------------------------------------------------------------------------------


@check("loop.accumulation")
def accumulation_is_one_big_batch(lab: Lab) -> Iterable[Finding]:
    """Write the whole batch's gradient as a sum of the passes' gradients, and compare with how the
    step adds them up.

    The weights say whether a pass counts too much or too little; a loss scale and clipping, which
    come later, do not matter.
    """
    seen = observe_steps(lab)
    if seen.step is None:
        yield Finding(
            "loop.accumulation", "undecided", "no optimiser step was seen; next: mend that"
        )
        return
    stale = _stepped_before_zeroing(seen.steps, seen.marks)
    if stale:
        yield Finding(
            "loop.accumulation",
            "confirmed",
            "the optimiser steps more often than gradients are zeroed",
            {"share of older gradients in a step": stale},
            "train_step",
            1.0,
        )
        return
    n_backward, excluded, longest = 1, None, seen.steps[0].call + 2 * seen.calls_per_step
    for name, batch in _batches(lab):
        step = (
            seen.step
            if batch is lab.batch
            else observe(lab, batch=batch, n_steps=1, max_calls=longest).step
        )
        passes = 0.0 if step is None else max(step.n_backward, _forward_passes(lab, step))
        if step is None or not step.parts or passes < SEVERAL:
            continue
        n_backward = max(n_backward, step.n_backward)
        step, whole = _step_and_whole(lab, batch, step)
        if step is None or not whole:
            continue
        several = 1 < step.n_backward == len(step.parts)
        found = (
            _added_up(name, step, whole) if several else _summed_losses(name, step, whole, passes)
        )
        if found.level != "excluded":
            yield found
            return
        excluded = found
    yield excluded or Finding(
        "loop.accumulation",
        "excluded",
        "one pass over the whole batch per optimiser step, on the batch and on its duplicate",
        {
            "backward passes per step": float(n_backward),
            "calls per step": float(seen.calls_per_step),
        },
    )


def _stepped_before_zeroing(steps: tuple[SeenStep, ...], marks: list[float]) -> float:
    """Share of a step's gradient that is left from an earlier step, where gradients are zeroed only
    now and then.
    """
    if marks and max(marks) > MARKED >= min(marks):
        return max(marks)
    calls = [step.call for step in steps]
    # the marker may have met just the call that zeroes
    if marks and min(marks) <= MARKED and calls[:2] == [1, 2]:
        first, second = (held(step) for step in steps[:2])
        if factor(second, first) > GROWN and cosine(second, first) > 1.0 - MARKED:
            return 1.0 - 1.0 / factor(second, first)
    for step, before in zip(steps[1:], calls):
        if (
            step.call == before
            and step.backward
            and step.parts
            and step.n_backward == len(step.parts)
        ):
            stale = difference(only(_sum(step.parts), step.gradient), held(step))
            if stale > MARKED:
                return stale
    return 0.0


def _batches(lab: Lab) -> Iterable[tuple[str, Batch]]:
    """The batch; its duplicate, which a step may split where the batch is too small; one whose
    clips differ in length.
    """
    yield "batch", lab.batch
    copies = 4 if len(lab.lengths) <= 2 else 2
    if lab.subject.has("duplicate"):
        yield f"batch, {copies} times repeated", lab.subject.duplicate(lab.batch, copies)
    if lab.subject.has("batches") and len(lab.lengths.unique()) == 1:
        for _, batch in zip(range(BATCHES), lab.subject.batches()):
            if len(lab.subject.target_mel(batch)[1].unique()) > 1:
                yield "batch of the corpus", batch
                return


def _step_and_whole(lab: Lab, batch: Batch, step: SeenStep) -> tuple[SeenStep | None, Named]:
    """The step on a batch and the gradient of the whole batch at once, over the parameters that the
    optimiser holds.
    """
    model = lab.build()
    mixes = any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules())
    # with them even right accumulation is not one big batch
    with without_batch_statistics() if mixes else nullcontext():
        if mixes:
            step = observe(lab, batch=batch, n_steps=2).step
        whole = {name: gradient.float() for name, gradient in lab.gradient(model, batch).items()}
    return step, only(whole, step.gradient) if step else {}


def _added_up(name: str, step: SeenStep, whole: Named) -> Finding | None:
    """Least squares: whole = Σ w_i pass_i. Where the step's sum is another, it has added the passes
    up with wrong weights.
    """
    parts = [only(part, step.gradient) for part in step.parts]
    gram = torch.tensor([[inner(a, b) for b in parts] for a in parts], dtype=torch.float64)
    onto = torch.tensor([inner(part, whole) for part in parts], dtype=torch.float64)
    # passes over the same clip share their weight
    weights = torch.linalg.pinv(gram, rtol=1e-6, hermitian=True) @ onto
    right = {
        key: sum(float(weight) * part[key] for weight, part in zip(weights, parts) if key in part)
        for key in {key for part in parts for key in part}
    }
    gap, unexplained = difference(held(step), right), difference(right, whole)
    evidence = {
        "subject": name,
        "passes per step": float(len(parts)),
        "‖accumulated - right‖ / ‖right‖": gap,
        "gradient over that of the whole batch": factor(held(step), whole),
        "cosine with it": cosine(held(step), whole),
        "unexplained share": unexplained,
        "least and largest weight that a pass should have": (
            f"{float(weights.min()):.3g}, {float(weights.max()):.3g}"
        ),
    }
    if gap <= GAP:
        return Finding(
            "loop.accumulation",
            "excluded",
            "accumulated gradient against that of the whole batch",
            evidence,
        )
    if unexplained > SPANNED or unexplained > gap:
        return Finding(
            "loop.accumulation",
            "undecided",
            "the passes do not add up to the gradient of `total`: is something "
            "else optimised? next: compare the losses",
            evidence,
            "train_step",
        )
    return Finding(
        "loop.accumulation",
        "confirmed",
        "accumulated gradient against that of the whole batch",
        evidence,
        "train_step",
        min(1.0, gap),
    )


def _forward_passes(lab: Lab, step: SeenStep) -> float:
    """Calls of a module in the step, over those in one evaluation of the losses; the median
    module.
    """
    return median([step.forwards[name] / n for name, n in _forwards_of_losses(lab).items()])


@once_per_subject
def _forwards_of_losses(lab: Lab) -> Counter[str]:
    """Calls of each module in one evaluation of the losses."""
    calls, model = Counter(), lab.build()
    for name, module in model.named_modules():
        module.register_forward_pre_hook(functools.partial(_count, calls, name))
    lab.losses(model)
    return calls


def _count(calls: Counter[str], name: str, *_) -> None:
    calls[name] += 1


def _summed_losses(name: str, step: SeenStep, whole: Named, passes: float) -> Finding:
    """One backward pass behind several forward passes: the losses were added up, or some passes
    were for something else.
    """
    size, same = factor(held(step), whole), cosine(held(step), whole)
    evidence = {
        "subject": name,
        "forward passes per step": passes,
        "gradient over that of the whole batch": size,
        "cosine with it": same,
    }
    if abs(size - 1.0) <= GAP:
        return Finding(
            "loop.accumulation", "excluded", "gradient against that of the whole batch", evidence
        )
    undivided = same > 1.0 - GAP and abs(size / passes - 1.0) <= GAP
    return Finding(
        "loop.accumulation",
        "confirmed" if undivided else "undecided",
        (
            "gradient against that of the whole batch, and the number of forward passes"
            if undivided
            else "next: compare the train step's loss with `total`"
        ),
        evidence,
        "train_step",
        1.0,
    )


def held(step: SeenStep) -> Named:
    """The gradient after the last backward pass, of the optimiser's parameters: nobody need zero
    the others.
    """
    return only(step.backward, step.gradient)


def _sum(parts: Iterable[Named]) -> Named:
    total: Named = {}
    for part in parts:
        for name, gradient in part.items():
            total[name] = total[name] + gradient if name in total else gradient
    return total
