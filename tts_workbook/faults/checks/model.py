"""Checks of the model that need no training: causality, the text's way, positions, dropout, output
range.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from tts_workbook.faults.checks.registry import check
from tts_workbook.faults.finding import Finding
from tts_workbook.faults.model._hearing import DEAF, EXPERIMENT, hearing
from tts_workbook.lab.lab import Lab
from tts_workbook.measure.anatomy import MOVED, anatomy, movement, with_frames_changed
from tts_workbook.measure.term_gradients import declared
from tts_workbook.subject.isolation import without_dropout
from tts_workbook.subject.module_calls import (
    output_changed,
)

LOCAL = 48  # frames: a look-ahead no longer than this may be an undeclared post-net
UNREACHED = 0.02  # share of the target's values outside the reachable range that is a fault
DRIVES = (-100.0, -10.0, 10.0, 100.0)  # in target ranges


@check("model.no_causal_mask", "model.no_right_shift", finite=True)
def future_and_own_frame(lab: Lab) -> Iterable[Finding]:
    """Frames after t, and then frame t alone, are disturbed: the prediction of frame t must not
    move.
    """
    parts = anatomy(lab)
    if not parts.histories:
        reason = (
            "nothing in the batch is the target mel, so its frames cannot be disturbed; next: put"
            " the decoder's input, or the target itself, into the batch as a tensor"
        )
        yield Finding("model.no_causal_mask", "undecided", reason)
        yield Finding("model.no_right_shift", "undecided", reason)
        return
    n_frames = int(lab.lengths.min())
    spots = sorted({n_frames // 4, n_frames // 2, 3 * n_frames // 4})
    with without_dropout(lab.model):
        before = lab.predict(lab.model)
        future = {
            t: movement(
                before,
                lab.predict(
                    lab.model, with_frames_changed(lab, list(parts.histories), slice(t + 1, None))
                ),
                lab,
            )
            for t in spots
        }
        own = {
            t: movement(
                before,
                lab.predict(
                    lab.model, with_frames_changed(lab, list(parts.histories), slice(t, t + 1))
                ),
                lab,
            )
            for t in spots
        }
    seen = max(float(moved[:, : t + 1].max()) for t, moved in future.items())
    reach = max(
        (
            t - int((moved[:, : t + 1] > MOVED).any(dim=0).nonzero().min())
            for t, moved in future.items()
            if (moved[:, : t + 1] > MOVED).any()
        ),
        default=0,
    )
    itself = max(float(moved[:, t].max()) for t, moved in own.items())
    evidence = {
        "move of frames up to t when later ones change, target deviations": seen,
        "look-ahead, frames": float(reach),
        "move of frame t when it alone changes": itself,
    }
    experiment = (
        f"noise on frames after t, and on frame t alone, at t = {', '.join(map(str, spots))}"
    )
    if seen > MOVED:
        local = reach < LOCAL and lab.subject.predict_frames is None
        note = experiment + (
            "; the look-ahead is short: supply Subject.predict_frames if a post-net does it"
            if local
            else ""
        )
        yield Finding(
            "model.no_causal_mask",
            "suspected" if local else "confirmed",
            note,
            evidence,
            "predict_frames",
            1.0,
        )
        yield Finding(
            "model.no_right_shift",
            "undecided",
            "next: mend the causal mask first, every frame sees itself through it",
        )
        return
    yield Finding("model.no_causal_mask", "excluded", experiment, evidence)
    yield Finding(
        "model.no_right_shift",
        "confirmed" if itself > MOVED else "excluded",
        experiment,
        evidence,
        "predict_frames" if itself > MOVED else "",
        1.0,
    )


@check("model.text_ignored", finite=True)
def wrong_text_moves_the_prediction(lab: Lab) -> Iterable[Finding]:
    """What the text embeddings give is disturbed, before and after training."""
    parts, heard = anatomy(lab), hearing(lab)
    if heard is None:
        yield Finding(
            "model.text_ignored",
            "undecided",
            "next: no nn.Embedding is given whole numbers; is the text in the batch?",
        )
    elif heard.heard_when_initialised:
        return  # its initialisation is another cause
    elif heard.deaf:
        yield Finding(
            "model.text_ignored",
            "confirmed",
            EXPERIMENT,
            heard.evidence,
            parts.memory or parts.embeddings[0],
            1.0,
        )
    elif heard.trained < DEAF:
        yield Finding(
            "model.text_ignored",
            "undecided",
            EXPERIMENT + "; the text reached the fresh model and was given up in "
            "training; next: what drove it out (memory scale, dead units)",
            heard.evidence,
        )
    else:
        yield Finding("model.text_ignored", "excluded", EXPERIMENT, heard.evidence)


@check("model.encoder_detached", finite=True)
def parameters_that_matter_without_gradient(lab: Lab) -> Iterable[Finding]:
    """A text-side parameter that moves the loss when it is disturbed but has no gradient hangs on a
    broken graph.
    """
    model = lab.build()
    gradient = lab.gradient(model)
    side = anatomy(lab).text_side
    modules = dict(model.named_modules())
    owners = {name: module for name, module in modules.items() if name in side}
    mine = [
        (f"{owner}.{inner}", parameter)
        for owner, module in owners.items()
        for inner, parameter in module.named_parameters(recurse=False)
    ]
    if not mine:
        yield Finding(
            "model.encoder_detached",
            "undecided",
            "next: no parameters were found that the text alone runs through",
        )
        return
    silent = [
        (name, parameter)
        for name, parameter in mine
        if name not in gradient or not bool((gradient[name] != 0).any())
    ]
    silent = [
        (name, parameter) for name, parameter in silent if not declared(name, lab.subject.frozen)
    ]
    experiment = (
        "gradient of total at the text side's parameters, and the prediction when those without one"
        " are disturbed"
    )
    with without_dropout(model):
        before = lab.predict(model, field="mel")
        moving = [
            name
            for name, parameter in silent
            if parameter.requires_grad and _moves(lab, model, parameter, before)
        ]
    evidence = {
        "parameters on the text side": float(len(mine)),
        "without gradient": float(len(silent)),
        "of these, disturbed ones that move the prediction": float(len(moving)),
    }
    if len(moving) >= 2 or (moving and len(moving) == len(mine)):
        yield Finding(
            "model.encoder_detached",
            "confirmed",
            experiment,
            evidence,
            moving[0],
            len(moving) / len(mine),
        )
    else:
        yield Finding("model.encoder_detached", "excluded", experiment, evidence)


def _moves(lab: Lab, model: nn.Module, parameter: nn.Parameter, before: Tensor) -> bool:
    old = parameter.detach().clone()
    with torch.no_grad():
        noise = torch.randn(old.shape, generator=torch.Generator().manual_seed(2)).to(old.device)
        parameter.add_((noise * (old.float().std(unbiased=False) + 1e-2)).to(old.dtype))
        after = lab.predict(model, field="mel")
        parameter.copy_(old)
    return float(movement(before, after, lab).max()) > MOVED


@check("model.output_range", finite=True)
def reachable_range(lab: Lab) -> Iterable[Finding]:
    """The last layer's output is driven far up and down: every target value must be within what
    comes out.
    """
    model = lab.build()
    experiment = (
        "the last layer's output driven up and down by up to 100 times the range of the targets"
    )
    spread = float(lab.frames.max() - lab.frames.min())
    worst: tuple[float, str, dict] | None = None
    for field, name in anatomy(lab).outputs.items():
        if not name:
            continue
        module = dict(model.named_modules())[name]
        with without_dropout(model):
            own = lab.predict(model, field=field)[lab.mask]
        reached = []
        for drive in DRIVES:
            with (
                without_dropout(model),
                output_changed(module, lambda tensor, by=drive * spread: tensor + by),
            ):
                driven = lab.predict(model, field=field)[lab.mask]
                reached.append(torch.where(driven.isnan(), own, driven))
        reached = torch.stack(reached)
        low, high = reached.amin(dim=(0, 1)), reached.amax(dim=(0, 1))
        slack = 0.01 * spread
        outside = float(((lab.frames < low - slack) | (lab.frames > high + slack)).float().mean())
        evidence = {
            "share of target values out of reach": outside,
            "lowest reachable": float(low.min()),
            "highest reachable": float(high.max()),
            "lowest target": float(lab.frames.min()),
            "highest target": float(lab.frames.max()),
        }
        if worst is None or outside > worst[0]:
            worst = outside, name, evidence
    if worst is None:
        yield Finding(
            "model.output_range",
            "undecided",
            "next: no layer with mel outputs was found that moves the prediction",
        )
        return
    outside, name, evidence = worst
    yield Finding(
        "model.output_range",
        "confirmed" if outside > UNREACHED else "excluded",
        experiment,
        evidence,
        f"after {name}" if outside > UNREACHED else "",
        min(1.0, 5 * outside),
    )
