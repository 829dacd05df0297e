"""Several processes as one optimiser step (torchrun, PyTorch DDP): losses, counts and gradients are
sums over all of them.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import cast

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from tts_core.model.tts import TTSModel


def across_processes(model: nn.Module) -> DistributedDataParallel:
    """`model` with the weights and buffers of process 0, from now on trained by every process of
    the group together.
    """
    # torch 2.13 renames the argument, 2.10 does not know its new name
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        # constants, and tables of positions grow where needed
        return DistributedDataParallel(model, broadcast_buffers=False)


def bare_model(model: nn.Module) -> TTSModel:
    """What DDP is wrapped around; any other model is itself."""
    inner = model.module if isinstance(model, DistributedDataParallel) else model
    return cast(TTSModel, inner)  # a compiled one hands on its attributes


def n_processes(model: nn.Module) -> int:
    """How many processes train `model` together: DDP leaves the *mean* of their gradients, so each
    loss is multiplied by it.
    """
    if not isinstance(model, DistributedDataParallel):
        return 1
    return model.process_group.size()


def summed(values: Sequence[float], model: nn.Module) -> list[float]:
    """Element-wise sum over the processes that train `model`, in fp64 (integers stay exact below
    2**53).
    """
    if not isinstance(model, DistributedDataParallel):
        return list(values)
    device = next(model.parameters()).device
    total = torch.tensor(values, dtype=torch.float64, device=device)
    distributed.all_reduce(total, group=model.process_group)
    return cast(list[float], total.tolist())


def exchanging(model: nn.Module, last: bool) -> AbstractContextManager[None]:
    """Around forward *and* backward of one micro-batch: gradients travel once per step, with the
    last of them.
    """
    if last or not isinstance(model, DistributedDataParallel):
        return nullcontext()
    return cast(AbstractContextManager[None], model.no_sync())
