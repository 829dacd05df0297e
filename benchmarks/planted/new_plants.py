"""Plants that go on top of any build over `ClipBatch`es, of causes that bring none themselves; and
which of a list of plants the catalogue knows the cause of.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from benchmarks.planted.plants import GENERIC, required_setting
from benchmarks.planted.sound_variants import averaged
from tts_core.speech.batch import lengths_to_mask
from tts_core.speech.phonemes import Vocabulary
from tts_workbook.faults.planting import Build, Plant, Setting
from tts_workbook.faults.registry import CAUSES
from tts_workbook.subject.clip_batch import ClipBatch
from tts_workbook.subject.clip_data import clipped_step
from tts_workbook.subject.subject import Subject, supplied

Value = TypeVar("Value")


def known(by_cause: Mapping[str, Value]) -> dict[str, Value]:
    """Those whose cause the catalogue holds."""
    return {cause: value for cause, value in by_cause.items() if cause in CAUSES}


# --- how it is trained ----------------------------------------------------------------------------


def schedule(build: Build, setting: Setting) -> Subject:
    """A schedule meant for epochs is stepped at every iteration: the rate shrinks by 10 to 30 % a
    step.
    """
    subject = build(setting)
    sound_step = supplied(subject.train_step, "train_step")
    left = 1 - setting.random.uniform(0.1, 0.3)
    schedules: dict[int, torch.optim.lr_scheduler.LRScheduler] = {}

    def make_optimizer(model: nn.Module) -> torch.optim.Optimizer:
        optimizer = subject.make_optimizer(model)
        schedules[id(optimizer)] = torch.optim.lr_scheduler.ExponentialLR(optimizer, left)
        return optimizer

    def train_step(model: nn.Module, optimizer: torch.optim.Optimizer, batch: Any) -> Any:
        seen = sound_step(model, optimizer, batch)
        schedules[id(optimizer)].step()
        return seen

    return replace(subject, make_optimizer=make_optimizer, train_step=train_step)


def averaged_weights(build: Build, setting: Setting) -> Subject:
    """What is judged is an average with a decay of 0.999 to 0.9999, which a short training hardly
    moves.
    """
    lag = setting.log_uniform(1e-4, 1e-3)
    return averaged(build(setting), 1 - lag)


def mode_not_restored(build: Build, setting: Setting) -> Subject:
    """Every step ends with a validation, and nobody calls train() again."""
    subject = build(setting)
    sound_step = supplied(subject.train_step, "train_step")

    def train_step(model: nn.Module, optimizer: torch.optim.Optimizer, batch: Any) -> Any:
        seen = sound_step(model, optimizer, batch)
        model.eval()
        with torch.no_grad():
            subject.predict_mel(model, batch)
        return seen

    return replace(subject, train_step=train_step)


def half_range(build: Build, setting: Setting) -> Subject:
    """The loss is a distance per frame with 1e-9 under its root, which half precision rounds to
    zero: at padded frames the root has no gradient.
    """

    def distance(prediction: Tensor, target: Tensor, lengths: Tensor) -> Tensor:
        mask = lengths_to_mask(lengths, prediction.shape[1])
        off = ((prediction - target) * mask[..., None]).half()
        per_frame = (off.square().mean(dim=2) + 1e-9).sqrt()
        return per_frame.float()[mask].mean()

    subject = build(replace(setting, bf16=False), mel_loss=distance)

    def losses(model: nn.Module, batch: Any) -> Mapping[str, Tensor]:
        with torch.autocast("cpu", dtype=torch.float16):
            return subject.losses(model, batch)

    return replace(subject, losses=losses, train_step=clipped_step(losses))


# --- what inference is handed ---------------------------------------------------------------------


def front_end(build: Build, setting: Setting) -> Subject:
    """At inference the ids come from another table: symbols in another order, or one symbol more in
    front (drawn).
    """
    n_symbols = Vocabulary.arpabet().get_vocab_size()
    order = torch.arange(n_symbols)
    if setting.random.random() < 0.5:
        drawn = torch.Generator().manual_seed(setting.seed)
        order[1:] = 1 + torch.randperm(n_symbols - 1, generator=drawn)
    else:
        order[1:] = (order[1:] + 1).clamp(max=n_symbols - 1)
    return inferring_from(build(setting), lambda batch: with_ids(batch, order))


def with_ids(batch: ClipBatch, order: Tensor) -> ClipBatch:
    """The batch with other ids; padding stays padding."""
    return replace(batch, phonemes=order[batch.phonemes] * batch.phoneme_mask)


def inferring_from(subject: Subject, change: Callable[[Any], Any]) -> Subject:
    """The subject whose inference gets `change(batch)`; training and teacher forcing do not."""

    def of_changed(part: Any) -> Any:
        if part is None:
            return None
        return lambda model, batch, *rest: part(model, change(batch), *rest)

    fields = ("generate", "continue_from", "infer")
    return replace(subject, **{field: of_changed(getattr(subject, field)) for field in fields})


ANYWHERE: Mapping[str, Plant] = {
    "optimizer.schedule": schedule,
    "optimizer.averaged_weights": averaged_weights,
    "loop.mode_not_restored": mode_not_restored,
    "precision.half_range": half_range,
    "data.front_end": front_end,
}

# what these need of a setting
NEEDS: Mapping[str, Mapping[str, Any]] = {
    "loop.mode_not_restored": {"dropout": 0.3},
    "precision.half_range": {"batch_size": 2},
}


def new_plants(build: Build) -> dict[str, Build]:
    """The plants above bound to an architecture, of causes that bring none themselves."""
    return {
        cause: functools.partial(plant, build)
        for cause, plant in ANYWHERE.items()
        if cause not in GENERIC
    }


def needed(cause: str, **options: Any) -> dict[str, Any]:
    """The fields of Setting that a cause's run and its twin need: those that the cause asks for
    (`required_setting` with these options), and those of the plant above.
    """
    asked = required_setting(cause, **options) if cause in CAUSES else {}
    return {**NEEDS.get(cause, {}), **asked}
