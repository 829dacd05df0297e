"""What a training run looked like: its loss against the best constant, its collapse, its plateau, snapshots of its mel.

`plateau` and `collapse` are defined once, here: a plateau is at least 50 consecutive steps within 5 % of the best
constant; a collapse is a share of decoder-output variance across time below 10 % during a plateau. A falling curve
that merely crosses the line is neither.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

from tts_core.model.modes import evaluating
from tts_core.model.tts import TTSModel
from tts_core.probes.activations import time_variance_share
from tts_core.speech.batch import Batch
from tts_core.speech.checks import best_constant_l1
from tts_core.training.step import StepReport

PLATEAU_BAND = 0.05          # relative distance from the best constant
PLATEAU_MIN_STEPS = 50
COLLAPSE_SHARE = 0.10        # of decoder-output variance across time


def longest_plateau(mel_l1_curve: Sequence[float], best_constant: float) -> tuple[int, int]:
    """(steps, first step, 1-based) of the longest stretch within 5 % of the best constant; (0, 0) if it is under 50 steps."""
    longest, first, length = 0, 0, 0
    for step, value in enumerate(mel_l1_curve, start=1):
        length = length + 1 if abs(value / best_constant - 1) <= PLATEAU_BAND else 0
        if length > longest:
            longest, first = length, step - length + 1
    return (longest, first) if longest >= PLATEAU_MIN_STEPS else (0, 0)


@dataclass
class Trajectory:
    """Curves of one run. `shares` were measured in eval mode at `share_steps`; losses are those of the train step."""

    best_constant: float                                   # ln units
    mel_l1: list[float] = field(default_factory=list)      # per step, ln units
    duration: list[float] = field(default_factory=list)    # per step
    gradient_norm: list[float] = field(default_factory=list)
    share_steps: list[int] = field(default_factory=list)
    shares: list[float] = field(default_factory=list)
    snapshots: dict[int, torch.Tensor] = field(default_factory=dict)   # step -> teacher-forced mel (T, M) of the first clip

    @property
    def steps(self) -> list[int]:
        return list(range(1, len(self.mel_l1) + 1))

    @property
    def over_constant(self) -> list[float]:
        """Mel L1 divided by the best constant, per step."""
        return [value / self.best_constant for value in self.mel_l1]

    def curves(self) -> dict[str, list]:
        """The curves by the names that plots and records use."""
        return {"steps": self.steps, "mel_l1": self.mel_l1, "over_constant": self.over_constant,
                "time_variance_share": self.shares, "time_variance_share_steps": self.share_steps,
                "duration_loss": self.duration, "gradient_norm": self.gradient_norm}

    @property
    def plateau(self) -> tuple[int, int]:
        return longest_plateau(self.mel_l1, self.best_constant)

    @property
    def plateau_share(self) -> float | None:
        """Lowest share of variance across time during the plateau; None without a plateau (or a measurement in it)."""
        length, first = self.plateau
        inside = [share for step, share in zip(self.share_steps, self.shares) if first <= step < first + length]
        return min(inside) if inside else None

    @property
    def collapsed(self) -> bool:
        share = self.plateau_share
        return share is not None and share < COLLAPSE_SHARE

    @property
    def share_at_line(self) -> float:
        """Share of variance across time where the loss was nearest to the best constant."""
        distance = [abs(self.mel_l1[step - 1] / self.best_constant - 1) for step in self.share_steps]
        return self.shares[distance.index(min(distance))]


def record_trajectory(model: TTSModel, batch: Batch, *, share_every: int = 10, snapshot_steps: Sequence[int] = (),
                      also: Callable[[int, StepReport], bool | None] | None = None,
                      ) -> tuple[Trajectory, Callable[[int, StepReport], bool | None]]:
    """A trajectory to be filled, and the `on_step` callback for `fit` that fills it.

    Every `share_every` steps (and at each of `snapshot_steps`) the model is run once more, in eval mode. `also` is
    called after the recording and decides whether to stop.
    """
    length = int(batch.mel_lengths[0])
    trajectory = Trajectory(best_constant=float(best_constant_l1(batch.mel[0, :length].cpu())))

    def on_step(step: int, report: StepReport) -> bool | None:
        trajectory.mel_l1.append(report.mel_l1)
        trajectory.duration.append(report.duration)
        trajectory.gradient_norm.append(report.gradient_norm)
        if step == 1 or step % share_every == 0 or step in snapshot_steps:
            with evaluating(model):
                output = model(batch)
            trajectory.share_steps.append(step)
            trajectory.shares.append(time_variance_share(output.decoded, batch.mel_lengths))
            if step in snapshot_steps:
                trajectory.snapshots[step] = output.mel[0, :length].cpu()
        return also(step, report) if also is not None else None

    return trajectory, on_step
