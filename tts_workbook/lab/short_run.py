"""A short training run: the one factor that may differ in it, what is measured of it, and the plain
step that can stand in.

Shapes: B batch, T frames, M mel bins.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from tts_workbook.bars import Bar
from tts_workbook.subject.subject import Batch
from tts_workbook.subject.tensor_math import tensors_norm
from tts_workbook.subject.training_step import all_parameters

# what a change is known by: its id, and its arguments
ChangeKey = tuple[str, tuple[Hashable, ...]]
Losses = Callable[[nn.Module, Batch], Mapping[str, Tensor]]

LEARNT = Bar(
    0.5,
    absolute="the overfit gate, of the best constant: what a gate asks for is a choice",
)


@dataclass(frozen=True)
class Change:
    """One factor: what differs in a training run from the subject as it is. Unset parts stay the
    subject's own.

    `id` and `arguments` say all of it: two changes of one subject with the same key do the same.
    """

    id: str  # what is changed
    arguments: tuple[Hashable, ...] = ()  # and how
    # the template of its name: it is called with the arguments. None: the id in words
    template: Callable[..., str] | None = None
    # after it is built, before the optimiser is
    model: Callable[[nn.Module], nn.Module | None] | None = None
    optimizer: Callable[[torch.optim.Optimizer], None] | None = None  # after it is made
    # wraps subject.losses; the plain step uses it
    losses: Callable[[Losses], Losses] | None = None
    batch: Callable[[Batch], Batch] | None = None
    # the batch of each step, from 1 on, in place of the subject's one
    batch_at: Callable[[int], Batch] | None = None
    # a schedule, or a gradient's mending
    before_step: Callable[[int, nn.Module, torch.optim.Optimizer], None] | None = None
    # entered for the whole run, judgements included
    around: Callable[[nn.Module], AbstractContextManager] | None = None
    # the workbook's own step (fp32, clip 1.0) instead of the subject's
    plain_step: bool = False

    @property
    def key(self) -> ChangeKey:
        """What it is known by."""
        return self.id, self.arguments

    @property
    def name(self) -> str:
        """What people read; two changes may share it."""
        if self.template is None:
            return self.id.replace("_", " ")
        return self.template(*self.arguments)


@dataclass(frozen=True)
class Course:
    """A short training run."""

    steps: tuple[int, ...]  # when it was judged
    tf: tuple[float, ...]  # teacher-forced L1 over the best constant, eval mode
    broke: str  # why it ended early; empty where it did not
    update_ratio: float  # ‖Δw‖ / ‖w‖ of one step, median over the steps looked at
    moved: float  # share of elements that a step changes, median
    gradient_norm: float  # as the optimiser sees it, median
    seconds: float
    model: nn.Module = field(repr=False, compare=False)
    # learning rate of every group, as each optimiser step used it
    rates: tuple[tuple[float, ...], ...] = field(default=(), repr=False)

    @property
    def outcome(self) -> float:
        """Mean of the judged values, the early ones capped at 3: an area under the curve, always
        finite.
        """
        values = [min(value, 3.0) if math.isfinite(value) else 3.0 for value in self.tf] or [3.0]
        return sum(values) / len(values)

    @property
    def final(self) -> float:
        """The last judged value; infinite where the run broke."""
        return math.inf if self.broke or not self.tf else self.tf[-1]

    @property
    def learnt(self) -> bool:
        """The overfit gate."""
        return self.final < LEARNT


class WatchedSteps:
    """Measures what an optimiser really does, whatever the train step around it looks like."""

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        self.parameters = [parameter for _, parameter in all_parameters(model)]
        self.optimizer, self.looking = optimizer, False
        self.ratios: list[float] = []
        self.shares: list[float] = []
        self.norms: list[float] = []
        self.rates: list[tuple[float, ...]] = []  # of every group, at each step of the optimiser

    def __enter__(self) -> WatchedSteps:
        self.handle = self.optimizer.register_step_pre_hook(lambda *_: self._note())
        return self

    def __exit__(self, *_: Any) -> None:
        self.handle.remove()

    def _note(self) -> None:
        self.rates.append(tuple(float(group["lr"]) for group in self.optimizer.param_groups))
        if self.looking:
            self.norms.append(
                tensors_norm(
                    [parameter.grad for parameter in self.parameters if parameter.grad is not None]
                )
            )

    def look(self, step: Callable[[], Any], closely: bool) -> None:
        """Run `step`; `closely` also measures what it did to the weights."""
        self.looking = closely
        before = [parameter.detach().clone() for parameter in self.parameters] if closely else []
        step()
        if closely:
            pairs = zip(self.parameters, before, strict=True)
            moves = [parameter.detach() - old for parameter, old in pairs]
            self.ratios.append(tensors_norm(moves) / (tensors_norm(before) + 1e-12))
            n_moved = sum(int((move != 0).sum()) for move in moves)
            n_elements = sum(move.numel() for move in moves)
            self.shares.append(n_moved / max(1, n_elements))

    @property
    def update_ratio(self) -> float:
        """‖Δw‖ / ‖w‖ of one step, median."""
        return median(self.ratios)

    @property
    def moved(self) -> float:
        """Share of elements that a step changes, median."""
        return median(self.shares)

    @property
    def gradient_norm(self) -> float:
        """As the optimiser sees it, median."""
        return median(self.norms)


def median(values: Sequence[float]) -> float:
    """Middle value; NaN of nothing."""
    return sorted(values)[len(values) // 2] if values else math.nan
