"""What the benchmark's architectures share: the optimiser of a setting, its warm-up and its
precision.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn

from tts_workbook.faults.planting import Setting

MOMENTUM = 0.9


def make_optimizer(
    setting: Setting, default_lr: Mapping[str, float]
) -> Callable[[nn.Module], torch.optim.Optimizer]:
    """The optimiser of a setting over all trained parameters, with its warm-up; `default_lr` by
    optimiser.
    """

    def build(model: nn.Module) -> torch.optim.Optimizer:
        lr = default_lr[setting.optimizer] if setting.lr is None else setting.lr
        parameters = [p for p in model.parameters() if p.requires_grad]
        optimizer: torch.optim.Optimizer
        if setting.optimizer == "sgd":
            optimizer = torch.optim.SGD(parameters, lr=lr, momentum=MOMENTUM)
        elif setting.optimizer == "adam":
            optimizer = torch.optim.Adam(parameters, lr=lr)
        else:
            optimizer = torch.optim.AdamW(parameters, lr=lr, weight_decay=0.01)
        if setting.warmup:
            warm_up(optimizer, setting.warmup)
        return optimizer

    return build


def warm_up(optimizer: torch.optim.Optimizer, steps: int) -> None:
    """Scale each step's learning rate linearly from 1 / steps to 1; `lr` of the groups stays the
    nominal one.
    """

    def before(optimizer, args, kwargs):
        for group in optimizer.param_groups:
            group["nominal_lr"] = group["lr"]
            group["steps_done"] = group.get("steps_done", 0) + 1
            group["lr"] = group["lr"] * min(1.0, group["steps_done"] / steps)

    def after(optimizer, args, kwargs):
        for group in optimizer.param_groups:
            group["lr"] = group["nominal_lr"]

    optimizer.register_step_pre_hook(before)
    optimizer.register_step_post_hook(after)


def autocast(setting: Setting) -> AbstractContextManager:
    """bf16 autocast where the setting asks for it, else a context that leaves the caller's as it
    is.
    """
    return torch.autocast("cpu", dtype=torch.bfloat16) if setting.bf16 else nullcontext()
