"""Planted faults of optimiser, precision, training loop and loss, for any model: (build, setting)
-> faulty Subject.

`build(setting, mel_loss=...)` returns the clean subject (see faults.py); everything else is done to
its fields. The range that a severity is drawn from stands beside each plant.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from tts_workbook.faults.planting import Build, Setting
from tts_workbook.subject.clip_batch import split
from tts_workbook.subject.clip_data import CLIP_NORM, clipped_step, mean_l1
from tts_workbook.subject.subject import Subject

Optimizer = torch.optim.Optimizer


# --- optimiser ------------------------------------------------------------------------------------


def with_groups(subject: Subject, change: Callable[[dict[str, Any]], None]) -> Subject:
    """The subject whose optimisers have every parameter group changed."""

    def make_optimizer(model: nn.Module) -> Optimizer:
        optimizer = subject.make_optimizer(model)
        for group in optimizer.param_groups:
            change(group)
        return optimizer

    return replace(subject, make_optimizer=make_optimizer)


def lr_too_small(build: Build, setting: Setting) -> Subject:
    """Learning rate 30 to 3,000 times too small."""
    factor = setting.log_uniform(30, 3_000)
    return with_groups(build(setting), lambda group: group.update(lr=group["lr"] / factor))


def lr_too_large(build: Build, setting: Setting) -> Subject:
    """Learning rate 30 to 300 times too large."""
    factor = setting.log_uniform(30, 300)
    return with_groups(build(setting), lambda group: group.update(lr=group["lr"] * factor))


def weight_decay(build: Build, setting: Setting) -> Subject:
    """Weights shrink by 5 to 30 % a step (AdamW, SGD); under Adam the decay is 1 to 30 times the
    weight in the gradient.
    """
    shrink, coupled = setting.log_uniform(0.05, 0.3), setting.log_uniform(1, 30)

    def change(group: dict[str, Any]) -> None:
        group["weight_decay"] = coupled if setting.optimizer == "adam" else shrink / group["lr"]

    return with_groups(build(setting), change)


def clip_too_tight(build: Build, setting: Setting) -> Subject:
    """Gradients clipped to a norm of 1e-5 to 1e-3 under SGD; under Adam to 1e-10 to 1e-8, below its
    eps.
    """
    norm = (
        setting.log_uniform(1e-5, 1e-3)
        if setting.optimizer == "sgd"
        else setting.log_uniform(1e-10, 1e-8)
    )
    subject = build(setting)
    return replace(subject, train_step=clipped_step(subject.losses, clip_norm=norm))


def missing_parameters(build: Build, setting: Setting, parts: Sequence[str] = ()) -> Subject:
    """The optimiser never sees one of `parts` (module names), drawn; by default one of the model's
    three largest children.
    """
    subject = build(setting)

    def make_optimizer(model: nn.Module) -> Optimizer:
        children = sorted(
            dict(model.named_children()).items(),
            reverse=True,
            key=lambda item: sum(p.numel() for p in item[1].parameters()),
        )
        chosen = setting.random.choice(list(parts) or [name for name, _ in children[:3]])
        left_out = {id(p) for p in model.get_submodule(chosen).parameters()}
        optimizer = subject.make_optimizer(model)
        for group in optimizer.param_groups:
            group["params"] = [p for p in group["params"] if id(p) not in left_out]
        return optimizer

    return replace(subject, make_optimizer=make_optimizer)


# --- precision ------------------------------------------------------------------------------------


def low_precision_weights(build: Build, setting: Setting) -> Subject:
    """Weights, and statistics beside them, kept in bf16 without an fp32 master copy; inputs are
    cast at every module's door.
    """
    subject = build(setting)

    def cast_inputs(module: nn.Module, inputs: tuple) -> tuple:
        dtype = next(module.parameters(recurse=False)).dtype
        return tuple(cast(x, dtype) for x in inputs)

    def cast(x: Any, dtype: torch.dtype) -> Any:
        if isinstance(x, nn.utils.rnn.PackedSequence) or (
            isinstance(x, Tensor) and x.is_floating_point()
        ):
            return x.to(dtype)
        return tuple(cast(part, dtype) for part in x) if type(x) is tuple else x

    def build_model() -> nn.Module:
        model = subject.build_model()
        for module in model.modules():
            if not any(True for _ in module.parameters(recurse=False)):
                continue
            for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
                if tensor.is_floating_point():
                    tensor.data = tensor.data.bfloat16()
            module.register_forward_pre_hook(cast_inputs)
        return model

    def in_fp32(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        return lambda *arguments: function(*arguments).float()

    outputs = {
        name: in_fp32(getattr(subject, name))
        for name in ("predict_mel", "predict_frames", "generate", "continue_from")
        if getattr(subject, name) is not None
    }
    return replace(subject, build_model=build_model, **outputs)


def scaler_skips(build: Build, setting: Setting) -> Subject:
    """A loss scale of 2^30 to 2^60 over fp16 gradients, which overflow at every step; update() is
    never called.
    """
    scale, subject = 2.0 ** setting.random.randint(30, 60), build(setting)

    def train_step(model: nn.Module, optimizer: Optimizer, batch: Any) -> dict[str, float]:
        scaler = torch.amp.GradScaler("cpu", init_scale=scale)
        optimizer.zero_grad(set_to_none=True)
        terms = subject.losses(model, batch)
        scaler.scale(terms["total"]).backward()
        for parameter in model.parameters():
            if parameter.grad is not None:
                # what fp16 training leaves of a gradient
                parameter.grad = parameter.grad.half().to(parameter.dtype)
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
        scaler.step(optimizer)
        return {name: float(term.detach()) for name, term in terms.items()}

    return replace(subject, train_step=train_step)


def clip_before_unscale(build: Build, setting: Setting) -> Subject:
    """The clip sees gradients still multiplied by the loss scale: 2^12 to 2^20 under SGD, 2^26 to
    2^34 under Adam.
    """
    power = setting.random.randint(0, 8) + (12 if setting.optimizer == "sgd" else 26)
    subject, scaler = (
        build(setting),
        torch.amp.GradScaler("cpu", init_scale=2.0**power, growth_interval=10**9),
    )

    def train_step(model: nn.Module, optimizer: Optimizer, batch: Any) -> dict[str, float]:
        optimizer.zero_grad(set_to_none=True)
        terms = subject.losses(model, batch)
        scaler.scale(terms["total"]).backward()
        nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
        scaler.step(optimizer)
        scaler.update()
        return {name: float(term.detach()) for name, term in terms.items()}

    return replace(subject, train_step=train_step)


# --- training loop --------------------------------------------------------------------------------


def no_zero_grad(build: Build, setting: Setting) -> Subject:
    """Gradients are never zeroed; the clip is off, as it would hide the sum."""
    subject = build(setting)

    def train_step(model: nn.Module, optimizer: Optimizer, batch: Any) -> dict[str, float]:
        terms = subject.losses(model, batch)
        terms["total"].backward()
        optimizer.step()
        return {name: float(term.detach()) for name, term in terms.items()}

    return replace(subject, train_step=train_step)


def accumulation(
    build: Build, setting: Setting, split: Callable[[Any], Sequence[Any]] = split
) -> Subject:
    """Micro-batches of one clip, 2 to 4 passes over them: their losses are added up without
    dividing by how many they are.
    """
    subject, passes = build(setting), setting.random.randint(2, 4)

    def train_step(model: nn.Module, optimizer: Optimizer, batch: Any) -> dict[str, float]:
        optimizer.zero_grad(set_to_none=True)
        for part in list(split(batch)) * passes:
            terms = subject.losses(model, part)
            terms["total"].backward()
        optimizer.step()
        return {name: float(term.detach()) for name, term in terms.items()}

    return replace(subject, train_step=train_step)


# --- loss -----------------------------------------------------------------------------------------


def padding_included(build: Build, setting: Setting) -> Subject:
    """Mean over padding too, in batches padded to 2 to 4 times their length, as for a fixed
    maximum.
    """
    factor = setting.log_uniform(2, 4)
    subject = build(
        setting,
        mel_loss=lambda prediction, target, lengths: (prediction.float() - target).abs().mean(),
    )
    n_frames = round(subject.target_mel(subject.batch)[0].shape[1] * factor)

    def padded(batch: Any) -> Any:
        return subject.pad(batch, max(0, n_frames - subject.target_mel(batch)[0].shape[1]))

    return replace(
        subject, batch=padded(subject.batch), batches=lambda: map(padded, subject.batches())
    )


def imbalance(build: Build, setting: Setting, term: str | None = None) -> Subject:
    """An auxiliary term (`term`, by default the first that is not the mel) weighs 1e4 to 1e6 times
    the rest.
    """
    weight, subject = setting.log_uniform(1e4, 1e6), build(setting)

    def losses(model: nn.Module, batch: Any) -> dict[str, Tensor]:
        terms = dict(subject.losses(model, batch))
        chosen = term or next(name for name in terms if name not in ("mel", "total"))
        return {
            **terms,
            chosen: weight * terms[chosen],
            "total": terms["total"] + (weight - 1) * terms[chosen],
        }

    return replace(subject, losses=losses, train_step=clipped_step(losses))


def wrong_reduction(build: Build, setting: Setting) -> Subject:
    """Drawn: the mean over time taken before the difference, or a broadcast of every frame against
    every frame.
    """

    def averaged_first(prediction: Tensor, target: Tensor, lengths: Tensor) -> Tensor:
        return (prediction.float().mean(dim=1) - target.mean(dim=1)).abs().mean()

    def broadcast(prediction: Tensor, target: Tensor, lengths: Tensor) -> Tensor:
        return (prediction.float()[:, None] - target[:, :, None]).abs().mean()

    return build(setting, mel_loss=setting.random.choice([averaged_first, broadcast]))


def detached(build: Build, setting: Setting) -> Subject:
    """The mel term is computed from a detached prediction."""
    return build(
        setting,
        mel_loss=lambda prediction, target, lengths: mean_l1(prediction.detach(), target, lengths),
    )


def logged_not_optimised(
    build: Build, setting: Setting, terms: Sequence[str] = ("mel",)
) -> Subject:
    """`total` leaves the mel out, while the curve of the mel is still shown; `terms` enter the
    total with weight 1.
    """
    subject = build(setting)

    def losses(model: nn.Module, batch: Any) -> dict[str, Tensor]:
        shown = dict(subject.losses(model, batch))
        return {**shown, "total": shown["total"] - sum(shown[name] for name in terms)}

    return replace(subject, losses=losses, train_step=clipped_step(losses))
