"""The workbook's own training step around any subject's losses, and every parameter that a model
holds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from tts_core.errors import WorkbookError
from tts_core.training.step import step_optimizer
from tts_workbook.subject.subject import Batch


def plain_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    losses: Callable,
    clip_norm: float | None = 1.0,
) -> dict[str, float]:
    """The workbook's step around any losses, in fp32: zero -> total -> backward -> clip -> step."""
    optimizer.zero_grad(set_to_none=True)
    terms = losses(model, batch)
    if not torch.isfinite(terms["total"]):
        raise WorkbookError(f"the loss is not finite: {float(terms['total'].detach())}")
    terms["total"].backward()
    no_scaler = torch.amp.GradScaler(terms["total"].device.type, enabled=False)
    step_optimizer(model, optimizer, no_scaler, clip_norm)
    return {name: float(term.detach()) for name, term in terms.items()}


def all_parameters(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """Named parameters, with those of modules that hide in plain lists, dicts and attributes and so
    are not registered.
    """
    named = list(model.named_parameters())
    seen = {id(parameter) for _, parameter in named}
    for path, module in list(model.named_modules()):
        for name, value in vars(module).items():
            if name in ("_parameters", "_buffers", "_modules"):
                continue
            for inner, parameter in _hidden_parameters(name, value):
                if id(parameter) not in seen:
                    seen.add(id(parameter))
                    named.append((f"{path}.{inner}" if path else inner, parameter))
    return named


def _hidden_parameters(name: str, value: Any) -> list[tuple[str, nn.Parameter]]:
    """The parameters that an attribute of a module holds: its own, or those in its list or dict."""
    found: list[tuple[str, nn.Parameter]] = []
    for key, hidden in _hidden(name, value):
        if isinstance(hidden, nn.Parameter):
            found.append((key, hidden))
        else:
            found += [(f"{key}.{inner}", part) for inner, part in hidden.named_parameters()]
    return found


def _hidden(name: str, value: Any) -> list[tuple[str, nn.Module | nn.Parameter]]:
    """The modules and parameters that an attribute is, or holds one level deep."""
    if isinstance(value, nn.Module | nn.Parameter):
        return [(name, value)]
    items: list[tuple[Any, Any]] = []
    if isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, list | tuple):
        items = list(enumerate(value))
    kept = [(key, part) for key, part in items if isinstance(part, nn.Module | nn.Parameter)]
    return [(f"{name}.{key}", part) for key, part in kept]
