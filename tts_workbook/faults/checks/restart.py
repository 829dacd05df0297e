"""Checks of what a model is restored from: activations behind checkpointing, weights behind a
checkpoint file.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from tts_workbook.faults.checks.registry import check
from tts_workbook.faults.finding import Finding
from tts_workbook.lab.lab import Lab
from tts_workbook.measure.observed_steps import n_checkpointed, observe, observe_steps
from tts_workbook.subject.interventions import without_checkpointing
from tts_workbook.subject.isolation import private_copy, unchanged_randomness, without_dropout
from tts_workbook.subject.module_names import common_path
from tts_workbook.subject.tensor_math import Named, difference
from tts_workbook.subject.training_step import all_parameters

# relative difference of gradients: fp32 rounding makes 1e-6, autocast 3e-3, another dropout mask
# 0.2
SAME = 0.02
LOWER = 0.9  # loss with the names mended over that as loaded
# share of elements that came from the checkpoint, where others that it holds did not
LOADED = 0.25


# --- checkpointing of activations -----------------------------------------------------------------


@check("loop.checkpointing")
def checkpointing_changes_nothing(lab: Lab) -> Iterable[Finding]:
    """The gradient with and without activation checkpointing, in training mode, without and with
    dropout, same seed.
    """
    n_calls = n_checkpointed(lab)
    if not n_calls:
        yield Finding(
            "loop.checkpointing",
            "excluded",
            "no checkpointing in use: torch.utils.checkpoint is never called",
        )
        return
    source = step_gradient if observe_steps(lab).n_checkpointed else loss_gradient
    when, gap, lost, failed = "", 0.0, [], ""
    for dropout in (False, True):
        with without_checkpointing():
            kept = source(lab, dropout)
        try:
            own = source(lab, dropout)
        except RuntimeError as error:
            failed, own = str(error).split("\n")[0], {}
        new_gap = difference(own, kept)
        if new_gap > gap:
            when, gap = f"{'with' if dropout else 'without'} dropout", new_gap
        lost = lost or [
            name
            for name, gradient in kept.items()
            if gradient.any() and not own.get(name, torch.zeros(1)).any()
        ]
    experiment = f"gradient with and without checkpointing, same weights and seed, {when}"
    evidence = {
        "checkpointed calls": float(n_calls),
        "‖with - without‖ / ‖without‖": gap,
        "tensors without gradient": float(len(lost)),
    }
    if failed:
        evidence["raises"] = failed
    if failed or lost or gap > SAME:
        yield Finding(
            "loop.checkpointing",
            "confirmed",
            experiment,
            evidence,
            common_path(lost),
            min(1.0, max(gap, 0.5 if lost else 0.0)),
        )
    else:
        yield Finding("loop.checkpointing", "excluded", experiment, evidence)


def loss_gradient(lab: Lab, dropout: bool) -> Named:
    """Gradient of `total` by backward(), which every kind of checkpointing allows."""
    model = lab.build()
    with unchanged_randomness(lab.seed), nullcontext() if dropout else without_dropout(model):
        total = lab.subject.losses(model, private_copy(lab.batch))["total"]
        if total.requires_grad:
            total.backward()
    return {
        name: parameter.grad.float()
        for name, parameter in all_parameters(model)
        if parameter.grad is not None
    }


def step_gradient(lab: Lab, dropout: bool) -> Named:
    """Gradient of the train step's first backward pass."""
    seen = observe(lab, n_steps=1, dropout=dropout)
    if seen.step is None and seen.error:
        raise RuntimeError(seen.error)
    return seen.step.parts[0] if seen.step and seen.step.parts else {}


# --- checkpoints of weights -----------------------------------------------------------------------


@check("loop.weights_not_loaded", needs=("checkpoint",))
def checkpoint_arrives(lab: Lab) -> Iterable[Finding]:
    """Names and shapes of the checkpoint against the model's; tensors that stay fresh; the loss
    with the names mended.
    """
    model, saved = lab.build(), flat(lab.checkpoint_state)
    own = model.state_dict()
    common = {name for name in own if name in saved and saved[name].shape == own[name].shape}
    unexpected = [name for name in saved if name not in common]
    trained = dict(model.named_parameters())
    # build_model may have loaded them under other names, which is as good
    lost = [
        name
        for name in own
        if name not in common
        and name in trained
        and not any(arrived(own[name], saved[other]) for other in unexpected)
    ]
    evidence = {
        "tensors of the model": float(len(own)),
        "in the checkpoint under the same name": float(len(common)),
        "parameters that stay fresh": float(len(lost)),
        "tensors of the checkpoint that nobody takes": float(len(unexpected)),
    }
    if not lost:
        yield _overwritten(lab, own, saved, common, evidence)
        return
    renamed = counterparts(
        {name: own[name] for name in lost}, {name: saved[name] for name in unexpected}
    )
    evidence |= {
        "share of the elements": (
            sum(own[name].numel() for name in lost) / sum(p.numel() for p in trained.values())
        ),
        "first": lost[0],
        "its counterpart": renamed.get(lost[0], "none"),
    }
    model.load_state_dict({name: saved[name] for name in common}, strict=False)
    before = float(lab.losses(model)["total"].detach())
    model.load_state_dict({name: saved[other] for name, other in renamed.items()}, strict=False)
    after = float(lab.losses(model)["total"].detach())
    evidence |= {"loss as loaded": before, "loss with the names mended": after}
    level = "confirmed" if renamed and after < LOWER * before else "suspected"
    yield Finding(
        "loop.weights_not_loaded",
        level,
        "the checkpoint's tensors against the model's, and the loss with names mended",
        evidence,
        common_path(lost) or "checkpoint",
        max(0.0, 1.0 - after / before) if level == "confirmed" else 0.5,
    )


def _overwritten(
    lab: Lab,
    own: Mapping[str, Tensor],
    saved: Mapping[str, Tensor],
    common: set[str],
    evidence: dict,
) -> Finding:
    """Every name fits. Did build_model load the file and then draw part of the weights anew?"""
    again = lab.build(lab.seed + 1).state_dict()
    loaded = [
        name
        for name in common
        if arrived(own[name], saved[name]) and torch.equal(own[name], again[name])
    ]
    fresh = [name for name in own if name in common and not torch.equal(own[name], again[name])]
    n_loaded, n_fresh = (sum(own[name].numel() for name in names) for names in (loaded, fresh))
    if fresh and n_loaded > LOADED * (n_loaded + n_fresh):
        share = n_fresh / (n_loaded + n_fresh)
        return Finding(
            "loop.weights_not_loaded",
            "confirmed",
            "tensors of two fresh models against the checkpoint's: some are "
            "the file's, others are drawn anew",
            {**evidence, "share of elements drawn anew": share, "first": fresh[0]},
            common_path(fresh) or "build_model",
            share,
        )
    return Finding(
        "loop.weights_not_loaded",
        "excluded",
        "every parameter of the model has its tensor in the checkpoint",
        evidence,
    )


def flat(state: Mapping[str, Any], prefix: str = "") -> dict[str, Tensor]:
    """The tensors of nested mappings under dotted names."""
    found: dict[str, Tensor] = {}
    for name, value in state.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{name}.")
        elif isinstance(value, Tensor):
            found[f"{prefix}{name}"] = value
    return found


def arrived(own: Tensor, saved: Tensor) -> bool:
    """Whether a tensor is the saved one; a constant proves nothing."""
    return (
        own.shape == saved.shape
        and own.numel() > 1
        and torch.equal(own, saved.to(own))
        and bool((own != own.flatten()[0]).any())
    )


def counterparts(own: Mapping[str, Tensor], saved: Mapping[str, Tensor]) -> dict[str, str]:
    """Each name of the model -> the saved one of its shape that ends most alike, each used once, in
    the order of the files.
    """

    def alike(a: str, b: str) -> int:
        ends = [x == y for x, y in zip(reversed(a.split(".")), reversed(b.split(".")))]
        return ends.index(False) if False in ends else len(ends)

    pairs = [
        (alike(name, other), name, other)
        for name in own
        for other in saved
        if own[name].shape == saved[other].shape
    ]
    found: dict[str, str] = {}
    for score, name, other in sorted(pairs, key=lambda pair: -pair[0]):
        if score and name not in found and other not in found.values():
            found[name] = other
    return found
