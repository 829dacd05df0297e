"""Designs that are meant and look like faults: they go on top of any architecture's build, stay
undeclared, and must not be accused. A question is no accusation.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from tts_workbook.faults.planting import Build, Plant, Setting
from tts_workbook.subject.subject import Subject, supplied

CHECKPOINT_STEPS = 30  # that the weights of a checkpoint were trained for
QUICK_AVERAGE = 0.8  # decay of an average that keeps up with a training of 100 steps


def frozen_undeclared(build: Build, setting: Setting) -> Subject:
    """A module is frozen on purpose, and nobody says so."""
    return replace(build(replace(setting, frozen=True)), frozen=())


def tied_weights(build: Build, setting: Setting) -> Subject:
    """Two modules share their weights."""
    return build(replace(setting, tied=True))


def checkpoint_with_buffers(build: Build, setting: Setting) -> Subject:
    """A checkpoint of the whole state: tables and statistics that every fresh model has too, beside
    trained weights that no fresh model has.
    """
    subject = build(setting)
    step = supplied(subject.train_step, "train_step")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(setting.seed)
        model = subject.build_model()
        optimizer = subject.make_optimizer(model)
        for _ in range(CHECKPOINT_STEPS):
            step(model, optimizer, subject.batch)
    state = {name: value.detach().clone() for name, value in model.state_dict().items()}
    return replace(subject, checkpoint=state)


def unlisted_terms(build: Build, setting: Setting) -> Subject:
    """The total holds terms that are not shown: only the first of them is listed."""
    subject = build(setting)

    def losses(model: nn.Module, batch: Any) -> Mapping[str, Tensor]:
        terms = subject.losses(model, batch)
        first = next(iter(terms))
        return {first: terms[first], "total": terms["total"]}

    return replace(subject, losses=losses)


def scheduled(build: Build, setting: Setting) -> Subject:
    """The train step steps a schedule: up for 20 steps, then down with the root of their number."""
    subject = build(setting)
    sound_step = supplied(subject.train_step, "train_step")
    schedules: dict[int, torch.optim.lr_scheduler.LRScheduler] = {}

    def share(step: int) -> float:
        made = step + 1
        return min(made / 20, (20 / made) ** 0.5)

    def make_optimizer(model: nn.Module) -> torch.optim.Optimizer:
        optimizer = subject.make_optimizer(model)
        schedules[id(optimizer)] = torch.optim.lr_scheduler.LambdaLR(optimizer, share)
        return optimizer

    def train_step(model: nn.Module, optimizer: torch.optim.Optimizer, batch: Any) -> Any:
        seen = sound_step(model, optimizer, batch)
        schedules[id(optimizer)].step()
        return seen

    return replace(subject, make_optimizer=make_optimizer, train_step=train_step)


def validating(build: Build, setting: Setting) -> Subject:
    """Every step ends with a validation, and with train() behind it."""
    subject = build(setting)
    sound_step = supplied(subject.train_step, "train_step")

    def train_step(model: nn.Module, optimizer: torch.optim.Optimizer, batch: Any) -> Any:
        seen = sound_step(model, optimizer, batch)
        model.eval()
        with torch.no_grad():
            subject.predict_mel(model, batch)
        model.train()
        return seen

    return replace(subject, train_step=train_step)


def quick_average(build: Build, setting: Setting) -> Subject:
    """What is judged is an average of the weights that keeps up with them."""
    return averaged(build(setting), QUICK_AVERAGE)


def prenet_undeclared(build: Build, setting: Setting) -> Subject:
    """The pre-net drops in every mode, as published, and nobody says so."""
    return replace(build(setting), stochastic=())


def post_net_undeclared(build: Build, setting: Setting) -> Subject:
    """The post-net looks ahead, as published, and the frames before it are not handed over."""
    return replace(build(setting), predict_frames=None)


# --- averaged weights -----------------------------------------------------------------------------


class Averaged(nn.Module):
    """A model and the running average of its weights."""

    def __init__(self, raw: nn.Module, decay: float) -> None:
        super().__init__()
        self.raw = raw
        self.average = copy.deepcopy(raw).requires_grad_(False)
        self.decay = decay

    @torch.no_grad()
    def update(self) -> None:
        """The average moves a little towards the weights."""
        weights = self.raw.state_dict()
        for name, value in self.average.state_dict().items():
            if value.is_floating_point():
                value.lerp_(weights[name], 1 - self.decay)


def averaged(subject: Subject, decay: float) -> Subject:
    """The subject that trains its weights, and is judged by their average. Only the raw weights are
    trained: the average is declared as frozen.
    """
    sound_step = supplied(subject.train_step, "train_step")

    def by_average(part: Any) -> Any:
        """`part(model, …)`, with the average for the model."""
        if part is None:
            return None
        return lambda model, *rest: part(model.average, *rest)

    def build_model() -> nn.Module:
        return Averaged(subject.build_model(), decay)

    def make_optimizer(model: Any) -> torch.optim.Optimizer:
        return subject.make_optimizer(model.raw)

    def losses(model: Any, batch: Any) -> Mapping[str, Tensor]:
        return subject.losses(model.raw, batch)

    def train_step(model: Any, optimizer: torch.optim.Optimizer, batch: Any) -> Any:
        seen = sound_step(model.raw, optimizer, batch)
        model.update()
        return seen

    judged = ("predict_mel", "predict_frames", "generate", "continue_from", "stop", "infer")
    named = ("frozen", "stochastic")
    changes: dict[str, Any] = {field: by_average(getattr(subject, field)) for field in judged}
    for field in named:
        names = getattr(subject, field)
        changes[field] = tuple(f"{copy}.{name}" for name in names for copy in ("raw", "average"))
    changes["frozen"] += ("average",)
    return replace(
        subject,
        build_model=build_model,
        make_optimizer=make_optimizer,
        losses=losses,
        train_step=train_step,
        **changes,
    )


SOUND: Mapping[str, Plant] = {
    "frozen_undeclared": frozen_undeclared,
    "tied_weights": tied_weights,
    "checkpoint_with_buffers": checkpoint_with_buffers,
    "unlisted_terms": unlisted_terms,
    "scheduled": scheduled,
    "validating": validating,
    "quick_average": quick_average,
}


# of a decoder that hears its own frames, as Tacotron 2 was published
OF_A_DECODER: Mapping[str, Plant] = {
    "prenet_undeclared": prenet_undeclared,
    "post_net_undeclared": post_net_undeclared,
}


def decoder_variants(build: Build) -> dict[str, Build]:
    """The designs of such a decoder bound to an architecture."""
    return {name: functools.partial(variant, build) for name, variant in OF_A_DECODER.items()}


def sound_variants(build: Build) -> dict[str, Build]:
    """The designs above bound to an architecture."""
    return {name: functools.partial(variant, build) for name, variant in SOUND.items()}
