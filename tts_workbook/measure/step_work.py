"""How much work a train step is, counted and not timed: the same number on every machine, busy or
idle.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

question = "How much work is one train step, whatever machine it runs on?"

# What the reference machine does: two cores of a server processor of 2024. Seconds there are a
# unit of work here; no clock is read.
FLOPS_PER_SECOND = 6e10  # of fp32 products, in one training step
SECONDS_PER_OPERATION = 3e-6  # of every operator that is called, small or large


@dataclass(frozen=True)
class StepWork:
    """What one step does."""

    flops: int  # floating-point operations of its products and convolutions
    operations: int  # operators that are called

    @property
    def seconds(self) -> float:
        """On the reference machine, whatever machine this is."""
        return self.flops / FLOPS_PER_SECOND + self.operations * SECONDS_PER_OPERATION


class _Operations(TorchDispatchMode):
    """Counts the operators that reach the backend."""

    def __init__(self) -> None:
        super().__init__()
        self.n = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self.n += 1
        return func(*args, **(kwargs or {}))


def measure_step_work(step: Callable[[], Any]) -> StepWork:
    """Run `step` once and count. What a compiled or foreign kernel does inside is not seen."""
    flops, operations = FlopCounterMode(display=False), _Operations()
    with flops, operations:
        step()
    return StepWork(int(flops.get_total_flops()), operations.n)


def estimated_step_work(n_parameters: int, n_frames: int) -> StepWork:
    """Every weight once for every frame: a product of two operations forward and four backward."""
    return StepWork(6 * n_parameters * n_frames, 0)
