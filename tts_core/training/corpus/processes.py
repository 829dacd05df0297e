"""One training process among several: what torchrun says about it, and what they tell each other
outside the train step.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import distributed

from tts_core.errors import WorkbookError
from tts_core.training.precision import training_device


@dataclass(frozen=True)
class Place:
    """This process's number among `world`; by default the only one."""

    rank: int = 0
    world: int = 1
    device: str = "cpu"  # cpu, cuda or cuda:N

    @property
    def leads(self) -> bool:
        """The one process that writes and speaks."""
        return self.rank == 0

    def gather(self, value: Any) -> list[Any]:
        """The value of every process, in the order of their numbers, on every process."""
        if self.world == 1:
            return [value]
        values: list[Any] = [None] * self.world
        distributed.all_gather_object(values, value)
        return values


ALONE = Place()


@contextmanager
def joined_processes(device: str = "auto") -> Iterator[Place]:
    """This process's place, within the group that torchrun started (NCCL on CUDA, else gloo), or
    alone without torchrun.

    `device` auto, cpu or cuda. Raises WorkbookError for cuda where there is none, or fewer devices
    than processes.
    """
    if device == "auto":
        device = training_device()
    if device == "cuda" and not torch.cuda.is_available():
        raise WorkbookError("--device cuda, but torch sees no CUDA device; use --device auto")
    if not distributed.is_torchelastic_launched():
        yield Place(device=device)
        return
    if device == "cuda":
        device = _own_cuda_device(int(os.environ["LOCAL_RANK"]))
    distributed.init_process_group("nccl" if device.startswith("cuda") else "gloo")
    try:
        yield Place(distributed.get_rank(), distributed.get_world_size(), device)
    finally:
        distributed.destroy_process_group()


def _own_cuda_device(local_rank: int) -> str:
    """The device of this process among those of its machine, made the current one."""
    n_devices = torch.cuda.device_count()
    if local_rank >= n_devices:
        raise WorkbookError(
            f"process {local_rank} of this machine, but it has {n_devices} CUDA devices; give"
            f" torchrun --nproc-per-node {n_devices}, or --device cpu"
        )
    device = f"cuda:{local_rank}"
    torch.cuda.set_device(device)
    return device
