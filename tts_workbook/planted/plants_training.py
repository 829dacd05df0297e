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


def weights_not_loaded(build: Build, setting: Setting, steps: int = 60) -> Subject:
    """Trained weights saved under `module.`, all or all but one child's (drawn), and loaded with
    strict=False: they stay fresh.

    The training is `steps` of the clean twin.
    """
    subject = build(setting)
    train_step = subject.train_step or clipped_step(subject.losses)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(setting.seed)
        model = subject.build_model()
        optimizer = subject.make_optimizer(model)
        for _ in range(steps):
            train_step(model, optimizer, subject.batch)
    children = [
        name for name, child in model.named_children() if any(True for _ in child.parameters())
    ]
    spared = setting.random.choice([None, *children])
    checkpoint = {
        (key if key.split(".")[0] == spared else f"module.{key}"): value.detach().clone()
        for key, value in model.state_dict().items()
    }

    def build_model() -> nn.Module:
        fresh = subject.build_model()
        fresh.load_state_dict(checkpoint, strict=False)
        return fresh

    return replace(subject, build_model=build_model, checkpoint=checkpoint)


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
