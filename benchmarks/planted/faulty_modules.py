"""Faulty modules that fit into any model in the place of a healthy one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from tts_workbook.faults.planting import Setting
from tts_workbook.subject.clip_data import clipped_step
from tts_workbook.subject.subject import Subject

Module = TypeVar("Module", bound=nn.Module)


class AlwaysDropout(nn.Module):
    """Dropout that knows no eval mode."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.p, training=True)


def always_drop(model: Module, p: float) -> Module:
    """Every nn.Dropout of `model` becomes one that is always on, with probability `p` of dropping.
    Returns the model.
    """
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Dropout):
                setattr(module, name, AlwaysDropout(p))
    return model


def drawn_dropout(setting: Setting) -> float:
    """A probability of dropping, drawn: 20 to 50 %, or what is left by an implementation that takes
    p = 0.1 to 0.2 for the share that is kept.
    """
    generator = setting.random
    if generator.random() < 0.5:
        return generator.uniform(0.2, 0.5)
    return 1 - generator.uniform(0.1, 0.2)


class Squashed(nn.Module):
    """A projection whose output is squeezed: sigmoid into 0 to 1, tanh into -limit to limit."""

    def __init__(self, inner: nn.Module, kind: str, limit: float) -> None:
        super().__init__()
        self.inner, self.kind, self.limit = inner, kind, limit

    def forward(self, x: Tensor) -> Tensor:
        y = self.inner(x)
        if self.kind == "sigmoid":
            return y.sigmoid()
        return self.limit * torch.tanh(y / self.limit)


class Gain(nn.Module):
    """Multiplies by a constant."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return self.factor * x


class Reentrant(nn.Module):
    """A module under re-entrant checkpointing: where no input carries a gradient, its weights get
    none.
    """

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, *inputs: Tensor) -> Tensor:
        if not torch.is_grad_enabled():
            return self.inner(*inputs)
        return checkpoint(self.inner, *inputs, use_reentrant=True)


def in_fp16(subject: Subject) -> Subject:
    """The subject trained under fp16 autocast."""

    def losses(model: nn.Module, batch: Any) -> Mapping[str, Tensor]:
        with torch.autocast("cpu", dtype=torch.float16):
            return subject.losses(model, batch)

    return replace(subject, losses=losses, train_step=clipped_step(losses))
