"""Faulty modules that fit into any model in the place of a healthy one."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint


class AlwaysDropout(nn.Module):
    """Dropout that knows no eval mode."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.p, training=True)


def always_drop(model: nn.Module, p: float) -> nn.Module:
    """Every nn.Dropout of `model` becomes one that is always on, with probability `p` of dropping.
    Returns the model.
    """
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Dropout):
                setattr(module, name, AlwaysDropout(p))
    return model


class Squashed(nn.Module):
    """A projection whose output is squeezed: sigmoid into 0 to 1, tanh into -limit to limit."""

    def __init__(self, inner: nn.Module, kind: str, limit: float) -> None:
        super().__init__()
        self.inner, self.kind, self.limit = inner, kind, limit

    def forward(self, x: Tensor) -> Tensor:
        y = self.inner(x)
        return y.sigmoid() if self.kind == "sigmoid" else self.limit * torch.tanh(y / self.limit)


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
        return (
            checkpoint(self.inner, *inputs, use_reentrant=True)
            if torch.is_grad_enabled()
            else self.inner(*inputs)
        )
