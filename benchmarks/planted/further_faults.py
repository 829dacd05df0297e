"""More faults that the catalogue does not hold, for architectures whose encoder is one module."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.planted.plants import outside_plants
from tts_core.speech.dataset import Clip
from tts_workbook.faults.planting import Build, Setting, with_clips
from tts_workbook.subject.clip_data import mean_l1
from tts_workbook.subject.subject import Subject, supplied


def uphill_encoder(build: Build, setting: Setting, encoder: str) -> Subject:
    """The encoder's gradient has the wrong sign: it learns what makes the loss larger."""

    def finish(model: Any) -> Any:
        model.get_submodule(encoder).register_forward_hook(turned)
        return model

    return build(setting, finish=finish)


def turned(module: nn.Module, inputs: tuple, encoded: Tensor) -> Tensor:
    """The same values, with the gradient turned."""
    return 2 * encoded.detach() - encoded


def goes_back(build: Build, setting: Setting) -> Subject:
    """Every 5 to 15 steps the weights are those of the start again, as from a loop that reloads its
    checkpoint.
    """
    subject = build(setting)
    sound_step = supplied(subject.train_step, "train_step")
    every = setting.random.randint(5, 15)
    started: dict[int, dict[str, Tensor]] = {}
    made: dict[int, int] = {}

    def train_step(model: nn.Module, optimizer: torch.optim.Optimizer, batch: Any) -> Any:
        key = id(model)
        if key not in started:
            started[key] = {name: value.clone() for name, value in model.state_dict().items()}
        seen = sound_step(model, optimizer, batch)
        made[key] = made.get(key, 0) + 1
        if made[key] % every == 0:
            model.load_state_dict(started[key])
        return seen

    return replace(subject, train_step=train_step)


def shaken_weights(build: Build, setting: Setting) -> Subject:
    """After every step each weight is off by noise of 3 to 10 % of the size of its tensor."""
    subject = build(setting)
    sound_step = supplied(subject.train_step, "train_step")
    share = setting.log_uniform(0.03, 0.1)

    def train_step(model: nn.Module, optimizer: torch.optim.Optimizer, batch: Any) -> Any:
        seen = sound_step(model, optimizer, batch)
        with torch.no_grad():
            for parameter in model.parameters():
                size = parameter.square().mean().sqrt()
                parameter.add_(share * size * torch.randn_like(parameter))
        return seen

    return replace(subject, train_step=train_step)


def blurred_target(build: Build, setting: Setting) -> Subject:
    """The mel term compares with a mean over 9 to 25 frames."""
    width = 2 * setting.random.randint(4, 12) + 1

    def mel_loss(prediction: Tensor, target: Tensor, lengths: Tensor) -> Tensor:
        blurred = F.avg_pool1d(
            target.transpose(1, 2), width, 1, width // 2, count_include_pad=False
        )
        return mean_l1(prediction, blurred.transpose(1, 2), lengths)

    return build(setting, mel_loss=mel_loss)


def durations_of_the_neighbour(build: Build, setting: Setting) -> Subject:
    """Every phoneme has the duration of the one before it: the sums are right."""

    def moved(clip: Clip) -> Clip:
        return replace(clip, durations=np.roll(clip.durations, 1))

    return build(with_clips(setting, moved))


def further_faults(build: Build, encoder: str, durations: bool) -> dict[str, Build]:
    """The faults above and those of plants.py bound to an architecture: `encoder` is the name of a
    module that gives one tensor, `durations` whether the model reads them.
    """
    found = outside_plants(build)
    found["uphill_encoder"] = functools.partial(uphill_encoder, build, encoder=encoder)
    for plant in (goes_back, shaken_weights, blurred_target):
        found[plant.__name__] = functools.partial(plant, build)
    if durations:
        found["durations_of_the_neighbour"] = functools.partial(durations_of_the_neighbour, build)
    return found
