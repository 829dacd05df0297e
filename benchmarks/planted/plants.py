"""The plants that do not depend on the architecture: those of the causes, and faults that the
catalogue does not hold.

A plant turns a build and a setting into a faulty Subject: `plant(build, setting)`. `build(setting,
**parts)` returns the clean subject of `setting` over `setting.clips`, and takes the keywords of
`subject.clip_data.Parts`:

- `mel_loss(prediction, target, lengths)`: what the mel term is computed with (`loss.*`);
- `statistics(mels)`: mean and standard deviation that targets are standardised by
  (`data.unnormalised_target`);
- `extract(samples, hertz)`: today's feature extraction before standardisation, for
  `Subject.features`.

An architecture that carries its data as `ClipBatch` and builds on `subject.clip_data.ClipData` has
all of them for nothing:

    Architecture(
        name="mine",
        clean=build,
        plants={**generic_plants(build), "model.positions": my_plant},
        nonsense={...},
    )

One that has batches of its own passes `only=` the plants it can serve: those of `optimizer`,
`precision` and `loop` need no more than `build(setting)`, `loop.accumulation` a `split` of a batch
into micro-batches, and most of `data` only the clips of the setting. `own` gives what a plant
cannot know: see the keywords of each plant.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from tts_workbook.faults.planting import Build, Plant, Setting
from tts_workbook.faults.registry import CAUSES
from tts_workbook.subject.clip_data import mean_l1
from tts_workbook.subject.subject import Subject

GENERIC: Mapping[str, Plant] = {
    cause.id: cause.plant for cause in CAUSES.values() if cause.plant is not None
}

# Plants that need no more than `build(setting)`, and so go on top of any other one: the second of a
# pair.
LAYERS: Mapping[str, Plant] = {
    cause: plant for cause, plant in GENERIC.items() if CAUSES[cause].plant_layers
}


def required_setting(cause: str, *, low_rate: float | None = None) -> dict[str, Any]:
    """The fields of Setting that a fault's run and its clean twin need; a larger batch than the one
    named serves too.

    `low_rate` stands for the learning rate that a fault asks for, in an architecture that would
    learn too slowly with it to tell.
    """
    required = dict(CAUSES[cause].plant_needs)
    if "lr" in required and low_rate is not None:
        required["lr"] = low_rate
    return required


def generic_plants(
    build: Build,
    *,
    own: Mapping[str, Mapping[str, Any]] | None = None,
    only: Collection[str] | None = None,
) -> dict[str, Build]:
    """The generic plants bound to an architecture: id -> (setting -> Subject). `own` holds keywords
    by id, `only` selects.
    """
    own = own or {}
    return {
        cause: functools.partial(plant, build, **own.get(cause, {}))
        for cause, plant in GENERIC.items()
        if only is None or cause in only
    }


# --- faults that the catalogue does not hold ------------------------------------------------------


def noisy_gradients(build: Build, setting: Setting) -> Subject:
    """Gradients drown in noise 30 to 300 times their size, as from a broken all-reduce."""
    subject = build(setting)
    factor = setting.log_uniform(30, 300)

    def train_step(
        model: nn.Module, optimizer: torch.optim.Optimizer, batch: Any
    ) -> dict[str, float]:
        optimizer.zero_grad(set_to_none=True)
        terms = subject.losses(model, batch)
        terms["total"].backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for parameter in model.parameters():
            if parameter.grad is not None:
                size = parameter.grad.square().mean().sqrt()
                parameter.grad.add_(factor * size * torch.randn_like(parameter.grad))
        optimizer.step()
        return {name: float(term.detach()) for name, term in terms.items()}

    return replace(subject, train_step=train_step)


def target_lag(build: Build, setting: Setting) -> Subject:
    """The mel term compares with frames 5 to 20 later, wrapped round: an off-by-many in the
    target.
    """
    lag = setting.random.randint(5, 20)

    def mel_loss(prediction: Tensor, target: Tensor, lengths: Tensor) -> Tensor:
        return mean_l1(prediction, target.roll(-lag, dims=1), lengths)

    return build(setting, mel_loss=mel_loss)


def flipped_bins(build: Build, setting: Setting) -> Subject:
    """Today's loss has the mel bins upside down in the target."""

    def mel_loss(prediction: Tensor, target: Tensor, lengths: Tensor) -> Tensor:
        return mean_l1(prediction, target.flip(2), lengths)

    return build(setting, mel_loss=mel_loss)


def ascent(build: Build, setting: Setting) -> Subject:
    """The mel term has the wrong sign, bounded by a tanh."""

    def mel_loss(prediction: Tensor, target: Tensor, lengths: Tensor) -> Tensor:
        return -mean_l1(prediction, target, lengths).tanh()

    return build(setting, mel_loss=mel_loss)


def alternate_signs(build: Build, setting: Setting) -> Subject:
    """Every second step goes uphill."""
    subject = build(setting)
    uphill = itertools.cycle([False, True])

    def train_step(
        model: nn.Module, optimizer: torch.optim.Optimizer, batch: Any
    ) -> dict[str, float]:
        optimizer.zero_grad(set_to_none=True)
        terms = subject.losses(model, batch)
        total = terms["total"]
        objective = -total if next(uphill) else total
        objective.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return {name: float(term.detach()) for name, term in terms.items()}

    return replace(subject, train_step=train_step)


OUTSIDE: Mapping[str, Plant] = {
    "noisy_gradients": noisy_gradients,
    "target_lag": target_lag,
    "flipped_bins": flipped_bins,
    "ascent": ascent,
    "alternate_signs": alternate_signs,
}


def outside_plants(build: Build) -> dict[str, Build]:
    """The faults outside the catalogue bound to an architecture."""
    return {name: functools.partial(plant, build) for name, plant in OUTSIDE.items()}
