"""model.output_range: the output cannot reach the range of the targets."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tts_workbook.bars import Bar
from tts_workbook.faults.cause import Cause, Decision, Experiment, Telling
from tts_workbook.lab.lab import Lab
from tts_workbook.measure.anatomy import anatomy
from tts_workbook.subject.isolation import without_dropout
from tts_workbook.subject.module_calls import output_changed

UNREACHED = Bar(
    0.02,
    control="the target's own values: more of them lie outside what any output can reach",
)
DRIVES = (-100.0, -10.0, 10.0, 100.0)  # in target ranges
SLACK = Bar(0.01, control="the targets' range: values that miss it by less are reached")
MONOTONE = Bar(
    0.99,
    control="the valid values: so many a drive up must not lower, nor a drive down raise; else it"
    " drives something else than the output",
)
STRENGTH = Bar(5.0, control="the share out of reach: ranks findings of one level, decides nothing")

EXPERIMENT = (
    "the last layer's output driven up and down by up to 100 times the range of the targets"
)


@dataclass(frozen=True)
class Reach:
    """What comes out while the output of one last layer is driven, beside the targets."""

    module: str
    outside: float  # share of target values out of reach
    lowest: float
    highest: float
    lowest_target: float
    highest_target: float
    monotone: float = 1.0  # share of values that follow the drive, the one way or the other


def measure(lab: Lab) -> tuple[Reach, ...]:
    """Drive the last layer before a post-net, and the one behind it; empty where none is found."""
    found = []
    for field, name in anatomy(lab).outputs.items():
        if name:
            found.append(_reach(lab, field, name))
    return tuple(found)


def _reach(lab: Lab, field: str, name: str) -> Reach:
    reached = _driven(lab, field, name)
    # of every bin, over drives and valid frames
    low, high = reached.amin(dim=(0, 1)), reached.amax(dim=(0, 1))
    steps = reached.diff(dim=0)
    tolerance = SLACK * _spread(lab)
    follows = [(sign * steps >= -tolerance).float().mean() for sign in (1, -1)]
    slack = SLACK * _spread(lab)
    outside = (lab.frames < low - slack) | (lab.frames > high + slack)
    return Reach(
        module=name,
        outside=float(outside.float().mean()),
        lowest=float(low.min()),
        highest=float(high.max()),
        monotone=float(max(follows)),
        lowest_target=float(lab.frames.min()),
        highest_target=float(lab.frames.max()),
    )


def _driven(lab: Lab, field: str, name: str) -> Tensor:
    """(drives, valid frames, M) predictions; what is not a number there is the model's own."""
    model = lab.build()
    module = dict(model.named_modules())[name]
    spread = _spread(lab)
    with without_dropout(model):
        own = lab.predict(model, field=field)[lab.mask]
    reached = []
    for drive in DRIVES:

        def shifted(tensor: Tensor, by: float = drive * spread) -> Tensor:
            return tensor + by

        with without_dropout(model), output_changed(module, shifted):
            driven = lab.predict(model, field=field)[lab.mask]
        reached.append(torch.where(driven.isnan(), own, driven))
    return torch.stack(reached)


def _spread(lab: Lab) -> float:
    return float(lab.frames.max() - lab.frames.min())


def worst_of(numbers: tuple[Reach, ...]) -> Reach:
    """The first of those that leave most out of reach."""
    return max(numbers, key=lambda reach: reach.outside)


def decide(numbers: tuple[Reach, ...]) -> Decision | None:
    """Pure: every target value is within what comes out."""
    if not numbers:
        return Decision("undecided", reason="no layer")
    worst = worst_of(numbers)
    strength = min(1.0, STRENGTH * worst.outside)
    if worst.outside > UNREACHED and worst.monotone < MONOTONE:
        return Decision("undecided", worst.module, reason="does not follow")
    if worst.outside > UNREACHED:
        return Decision("confirmed", f"after {worst.module}", strength, "out of reach")
    return Decision("excluded", strength=strength, reason="within reach")


def tell(numbers: tuple[Reach, ...], decision: Decision) -> Telling:
    if decision.reason == "no layer":
        return Telling("next: no layer with mel outputs was found that moves the prediction")
    worst = worst_of(numbers)
    experiment = EXPERIMENT
    if decision.reason == "does not follow":
        experiment += (
            f"; what comes out does not follow {worst.module}: it is no projection to the mel (a"
            " code book, a sampler); next: compare its entries with the target's range"
        )
    return Telling(
        experiment,
        {
            "share of target values out of reach": worst.outside,
            "lowest reachable": worst.lowest,
            "highest reachable": worst.highest,
            "lowest target": worst.lowest_target,
            "highest target": worst.highest_target,
            "share of values that follow the drive": worst.monotone,
        },
    )


CAUSE = Cause(
    id="model.output_range",
    title="the output cannot reach the range of the targets",
    experiment="drive the last layer up and down and watch the prediction",
    fix="no tanh, sigmoid, ReLU or clamp after the mel projection",
    experiments=(Experiment(measure, decide, tell, finite=True),),
)
