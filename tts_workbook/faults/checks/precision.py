"""Checks of number formats: 16-bit weights, values beyond a 16-bit range, and the loss scaler."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tts_workbook.faults.checks.registry import check
from tts_workbook.faults.finding import Finding
from tts_workbook.lab.lab import LONGER, Lab
from tts_workbook.lab.run_changes import fp32_weights, to_fp32
from tts_workbook.lab.short_run import Change
from tts_workbook.measure.observed_steps import observe, observe_steps, reference
from tts_workbook.subject.interventions import HALVES, in_fp32, masks_in_range
from tts_workbook.subject.isolation import mapped, tensors_in
from tts_workbook.subject.tensor_math import tensors_norm
from tts_workbook.subject.training_step import all_parameters

BETTER = 0.1  # in best constants, of the mean curve: what the fp32 twin has to gain
AGAIN = 0.05  # what it has to gain in a longer run, where updates are swallowed
SCALE_CHANGE = 256  # the loss scale is made this many times smaller
# gradient norm at unscale_ over that after backward(); 1 without a clip in between
SHRUNK = 0.9
# in what is raised about numbers rather than about their types
OVERFLOW = ("overflow", "finite", "nan", "inf ")
# share of elements that a step changes, over that of the fp32 twin: below, updates are lost
SWALLOWED = 0.7
# share, in logarithms, of the change of scale that the gradient at the optimiser follows
FOLLOWS = 0.5


@check("precision.low_precision_weights")
def weights_keep_updates(lab: Lab) -> Iterable[Finding]:
    """16-bit weights: the share of elements that a step changes, and the fp32 twin at the same
    learning rate.
    """
    model = lab.build()
    trained = {
        name: parameter for name, parameter in all_parameters(model) if parameter.requires_grad
    }
    low = {name: parameter for name, parameter in trained.items() if parameter.dtype in HALVES}
    share = sum(parameter.numel() for parameter in low.values()) / max(
        1, sum(p.numel() for p in trained.values())
    )
    evidence: dict[str, float | str] = {"share of 16-bit weights": share}
    if not low:
        yield Finding(
            "precision.low_precision_weights",
            "excluded",
            "dtype of every trained parameter",
            evidence,
        )
        return
    change, own = fp32_weights(), lab.course()
    if own.broke and not own.tf:
        yield Finding(
            "precision.low_precision_weights",
            "undecided",
            f"it cannot be trained at all: {own.broke}",
            evidence,
        )
        return
    twin = lab.course(change)
    if twin.broke:
        change = fp32_weights(casts=True)
        twin = lab.course(change)
    evidence |= {
        "dtype": str(next(iter(low.values())).dtype),
        "share of elements that a step changes": own.moved,
        "share in fp32": twin.moved,
        "mean TF L1 / best constant": own.outcome,
        "mean in fp32": twin.outcome,
        "last TF L1 / best constant": own.final,
        "last in fp32": twin.final,
    }
    experiment = f"{change.name} as the one factor, same seeds"
    where = next(iter(low)) if share < 1.0 else "build_model"
    if twin.broke:
        yield Finding(
            "precision.low_precision_weights",
            "suspected",
            f"the fp32 twin could not be trained: {twin.broke}",
            evidence,
            where,
            0.5,
        )
    elif own.outcome - twin.outcome > BETTER and own.moved < twin.moved:
        yield Finding(
            "precision.low_precision_weights",
            "confirmed",
            experiment,
            evidence,
            where,
            max(own.outcome - twin.outcome, 1.0 - own.moved / twin.moved),
            mended_by=(change.name,),
        )
    elif own.learnt:
        yield Finding(
            "precision.low_precision_weights",
            "excluded",
            f"{experiment}: it gains nothing",
            evidence,
            where,
        )
    elif own.moved < SWALLOWED * twin.moved:
        yield _in_the_long_run(lab, change, own.moved / twin.moved, experiment, evidence, where)
    else:
        yield Finding(
            "precision.low_precision_weights",
            "undecided",
            f"{experiment}: it gains nothing in so few steps; next: a longer run of both",
            evidence,
            where,
        )


def _in_the_long_run(
    lab: Lab, change: Change, kept: float, experiment: str, evidence: dict, where: str
) -> Finding:
    """Updates that 16-bit weights swallow altogether, while in so few steps even the fp32 twin
    gains little: more steps decide.
    """
    own, twin = lab.course(times=LONGER), lab.course(change, times=LONGER)
    gain = own.outcome - twin.outcome
    evidence = evidence | {
        f"last after {LONGER} times the steps": own.final,
        f"last in fp32 after {LONGER} times the steps": twin.final,
    }
    experiment = (
        f"{experiment}, {LONGER} times the steps: of the updates that fp32 weights take, these"
        " swallow some altogether"
    )
    if gain > AGAIN or own.final - twin.final > BETTER:
        return Finding(
            "precision.low_precision_weights",
            "confirmed",
            experiment,
            evidence,
            where,
            max(gain, 1.0 - kept),
            mended_by=(change.name,),
        )
    return Finding(
        "precision.low_precision_weights",
        "undecided",
        f"{experiment}, but nothing is gained; next: mend what else is found",
        evidence,
        where,
    )


# --- overflow -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Attempt:
    """One evaluation of the losses and one train step at loss scale 1."""

    finite: bool
    where: str  # the first module whose output is not finite, or in which it raises
    said: str  # what was raised


@check("precision.mask_overflow")
def numbers_stay_in_range(lab: Lab) -> Iterable[Finding]:
    """Losses and train step as they are, with mask values brought into the range of the 16-bit
    type, and in fp32.
    """
    seen = observe_steps(lab)
    if seen.steps and seen.finite and not seen.error and _finite_loss(lab):
        yield Finding(
            "precision.mask_overflow",
            "excluded",
            "losses, outputs and gradients of the first step are finite",
        )
        return
    own = attempt(lab)
    if own.finite:
        yield Finding(
            "precision.mask_overflow",
            "excluded",
            "losses, outputs and gradients of the first step are finite",
        )
        return
    in_range, twin = attempt(lab, masks_in_range()), attempt(lab, in_fp32(), fp32=True)
    evidence = {
        "first not finite": own.where or "the loss",
        "raises": own.said or "nothing",
        "finite with masks in range": float(in_range.finite),
        "finite in fp32": float(twin.finite),
    }
    experiment = "the same weights in fp32, and in 16 bits with mask values brought into range"
    if not twin.finite:
        yield Finding(
            "precision.mask_overflow",
            "excluded",
            f"{experiment}: fp32 is not finite either",
            evidence,
            own.where,
        )
    elif (
        own.said and not in_range.finite and not any(word in own.said.lower() for word in OVERFLOW)
    ):
        yield Finding(
            "precision.mask_overflow",
            "undecided",
            f"it raises in 16 bits, and not for a mask: {own.said}",
            evidence,
            own.where,
        )
    else:
        yield Finding(
            "precision.mask_overflow",
            "confirmed" if in_range.finite else "suspected",
            experiment,
            evidence,
            own.where,
            1.0,
        )


def _finite_loss(lab: Lab) -> bool:
    try:
        return all(bool(gradient.isfinite().all()) for gradient in reference(lab).values())
    except Exception:  # the subject's code may raise anything
        return False


def attempt(
    lab: Lab, inside: AbstractContextManager = nullcontext(), fp32: bool = False
) -> Attempt:
    """Whether everything is finite for a fresh model `inside` a context; `fp32` converts weights
    and batch too.
    """

    def build() -> nn.Module:
        return to_fp32(lab.build()) if fp32 else lab.build()

    batch = (
        mapped(lambda tensor: tensor.float() if tensor.dtype in HALVES else tensor, lab.batch)
        if fp32
        else lab.batch
    )
    finite, said, model = True, "", build()
    with inside:
        with first_failure(model) as failure:
            try:
                value = lab.losses(model, batch)["total"]
                value.backward()
                gradients = [p.grad for _, p in all_parameters(model) if p.grad is not None]
                finite = math.isfinite(float(value.detach())) and math.isfinite(
                    tensors_norm(gradients)
                )
            except Exception as error:  # the subject's code may raise anything
                finite, said = False, f"{type(error).__name__}: {error}"
        if finite:
            model = build()
            with first_failure(model) as failure:
                seen = observe(
                    lab, model=model, batch=batch, n_steps=1, max_calls=2, loss_scale=1.0
                )
            finite, said = seen.finite and not seen.error, seen.error
    return Attempt(finite, failure[0] if failure and not finite else "", said)


@contextmanager
def first_failure(model: nn.Module) -> Iterator[list[str]]:
    """Names of modules, in order, whose output is not finite; after an exception, the innermost
    module that did not end.
    """
    found: list[str] = []
    open_modules: list[str] = []

    def begin(name: str):
        return lambda *_: open_modules.append(name)

    def end(name: str):
        def hook(module: nn.Module, args: tuple, output) -> None:
            while open_modules and open_modules.pop() != name:
                pass
            if any(t.is_floating_point() and not torch.isfinite(t).all() for t in _tensors(output)):
                found.append(name or type(module).__name__)

        return hook

    handles = []
    for name, module in model.named_modules():
        handles += [
            module.register_forward_pre_hook(begin(name)),
            module.register_forward_hook(end(name)),
        ]
    try:
        yield found
    finally:
        if open_modules and not found:
            found.append(open_modules[-1] or type(model).__name__)
        for handle in handles:
            handle.remove()


def _tensors(output) -> list[Tensor]:
    return [output] if isinstance(output, Tensor) else tensors_in(output)


# --- loss scaler ----------------------------------------------------------------------------------


@check("precision.scaler_skips")
def scaler_lets_steps_through(lab: Lab) -> Iterable[Finding]:
    """Count the steps that the optimiser really takes behind the loss scaler; then with the scale
    held at 1.
    """
    seen = observe_steps(lab)
    experiment = (
        "optimiser steps over calls of the scaler's step, and with the loss scale held at 1"
    )
    if not seen.n_attempts:
        level = "excluded" if seen.steps or not seen.error else "undecided"
        yield Finding("precision.scaler_skips", level, "no enabled loss scaler was called")
        return
    evidence = {
        "calls of the scaler's step": float(seen.n_attempts),
        "optimiser steps": float(len(seen.steps)),
        "first loss scale": seen.loss_scales[0],
        "last loss scale": seen.loss_scales[-1],
    }
    if seen.steps:
        yield Finding("precision.scaler_skips", "excluded", experiment, evidence)
        return
    unscaled = observe(lab, n_steps=1, loss_scale=1.0)
    evidence["optimiser steps at scale 1"] = float(len(unscaled.steps))
    if unscaled.steps:
        yield Finding(
            "precision.scaler_skips",
            "confirmed",
            experiment,
            evidence,
            "train_step",
            1.0,
            "start from a smaller scale, and call scaler.update() after every step",
        )
    elif not attempt(lab).finite and not attempt(lab, in_fp32(), fp32=True).finite:
        yield Finding(
            "precision.scaler_skips",
            "excluded",
            f"{experiment}: gradients are not finite in fp32 either",
            evidence,
        )
    elif attempt(lab, masks_in_range()).finite:
        yield Finding(
            "precision.scaler_skips",
            "excluded",
            f"{experiment}: a mask value overflows at any scale, see precision.mask_overflow",
            evidence,
        )
    else:
        yield Finding(
            "precision.scaler_skips",
            "confirmed",
            f"{experiment}: it skips at any scale, and fp32 is finite",
            evidence,
            "train_step",
            1.0,
        )


@check("precision.clip_before_unscale")
def clip_sees_true_gradients(lab: Lab) -> Iterable[Finding]:
    """The gradient at the optimiser must not depend on the loss scale."""
    seen, step = observe_steps(lab), observe_steps(lab).step
    if not seen.n_attempts and (step is None or step.loss_scale == 1.0):
        level = "excluded" if step is not None or not seen.error else "undecided"
        yield Finding("precision.clip_before_unscale", level, "no enabled loss scaler was called")
        return
    if step is None:
        yield Finding(
            "precision.clip_before_unscale",
            "undecided",
            "no optimiser step was seen; next: mend that",
        )
        return
    other = observe(lab, n_steps=2, loss_scale=step.loss_scale / SCALE_CHANGE).step
    if other is None:
        yield Finding(
            "precision.clip_before_unscale",
            "undecided",
            "no step at a smaller scale; next: another scale",
        )
        return
    norms = tensors_norm(step.gradient.values()), tensors_norm(other.gradient.values())
    follows = math.log(max(norms[1], 1e-300) / max(norms[0], 1e-300)) / math.log(SCALE_CHANGE)
    evidence = {
        "loss scale": step.loss_scale,
        "norm at unscale_ over that after backward()": step.before_unscale,
        "gradient norm at the optimiser": norms[0],
        f"the same at a loss scale {SCALE_CHANGE} times smaller": norms[1],
    }
    experiment = "gradient at the optimiser under two loss scales"
    # the clip may let go halfway
    expected = min(1.0, math.log(1 / max(step.before_unscale, 1e-300)) / math.log(SCALE_CHANGE))
    if step.before_unscale < SHRUNK and follows > FOLLOWS * expected:
        yield Finding(
            "precision.clip_before_unscale", "confirmed", experiment, evidence, "train_step", 1.0
        )
    elif follows < -FOLLOWS:
        yield Finding(
            "precision.clip_before_unscale",
            "suspected",
            f"{experiment}: it is never unscaled",
            evidence,
            "train_step",
            0.5,
            "step through scaler.step(optimizer), which unscales, not optimizer.step()",
        )
    else:
        yield Finding("precision.clip_before_unscale", "excluded", experiment, evidence)
