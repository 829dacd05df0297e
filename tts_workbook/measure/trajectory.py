"""What a training run looked like: its loss against the best constant, its collapse, its plateau,
snapshots of its mel.

`plateau` and `collapse` are defined once, here: a plateau is at least 50 consecutive steps within 5
% of the best constant; a collapse is a share of decoder-output variance across time below 10 %
during a plateau. A falling curve that merely crosses the line is neither: one that enters the band
from above, leaves it below, and falls inside it at least half as fast as before it, however long a
slow learner takes for that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import groupby

import torch

from tts_core.metrics.baselines import best_constant_l1
from tts_core.model.modes import evaluating
from tts_core.model.tts import TTSModel
from tts_core.speech.batch import Batch
from tts_core.training.step import StepReport
from tts_workbook.bars import Bar
from tts_workbook.measure.activations import time_variance_share

question = "Did a training sit on a plateau, and did its decoder collapse there?"

PLATEAU_BAND = Bar(0.05, control="relative distance from the best constant of the clip")
PLATEAU_MIN_STEPS = 50
COLLAPSE_SHARE = Bar(0.10, control="of the variance of the decoder's own output")


def plateaus(over_constant: Sequence[float], steps: Sequence[int] | None = None) -> list[slice]:
    """Where a curve (S,) of mel L1 / best constant lies on a plateau; `steps` (S,) default to 1, 2,
    3 …
    """
    steps = range(1, len(over_constant) + 1) if steps is None else steps
    near = [abs(value - 1) <= PLATEAU_BAND for value in over_constant]
    found = []
    for inside, group in groupby(range(len(near)), key=near.__getitem__):
        first, *_, last = [*group] * 2
        long = steps[last] - steps[first] + 1 >= PLATEAU_MIN_STEPS
        if inside and long and not _merely_crosses(over_constant, first, last + 1):
            found.append(slice(first, last + 1))
    return found


def _merely_crosses(curve: Sequence[float], first: int, after: int) -> bool:
    """Whether curve[first:after] comes from above the band, leaves it below, and falls at least
    half as fast as before.
    """
    if first == 0 or after == len(curve) or curve[first - 1] <= 1 or curve[after] >= 1:
        return False
    # as many entries before the band as in it, or as many as there are
    before = max(0, 2 * first - after)
    pace_before = (curve[before] - curve[first]) / (first - before)
    return (curve[first] - curve[after]) / (after - first) >= 0.5 * pace_before


def longest_plateau(mel_l1_curve: Sequence[float], best_constant: float) -> tuple[int, int]:
    """(steps, first step, 1-based) of the longest plateau, one value per step; (0, 0) without
    one.
    """
    found = plateaus([value / best_constant for value in mel_l1_curve])
    return max(((part.stop - part.start, part.start + 1) for part in found), default=(0, 0))


@dataclass
class Trajectory:
    """Curves of one run. `shares` were measured in eval mode at `share_steps`; losses are those of
    the train step.
    """

    best_constant: float  # ln units
    # 1-based, since the start of the training
    steps: list[int] = field(default_factory=list)
    mel_l1: list[float] = field(default_factory=list)  # per step, ln units
    duration: list[float] = field(default_factory=list)  # per step
    gradient_norm: list[float] = field(default_factory=list)
    share_steps: list[int] = field(default_factory=list)
    shares: list[float] = field(default_factory=list)
    # step -> mel (T, M), teacher-forced
    snapshots: dict[int, torch.Tensor] = field(default_factory=dict)

    @property
    def over_constant(self) -> list[float]:
        """Mel L1 divided by the best constant, per step."""
        return [value / self.best_constant for value in self.mel_l1]

    def curves(self) -> dict[str, list]:
        """The curves by the names that plots and records use."""
        return {
            "steps": self.steps,
            "mel_l1": self.mel_l1,
            "over_constant": self.over_constant,
            "time_variance_share": self.shares,
            "time_variance_share_steps": self.share_steps,
            "duration_loss": self.duration,
            "gradient_norm": self.gradient_norm,
        }

    @property
    def plateau(self) -> tuple[int, int]:
        """(steps, first step) of the longest plateau; (0, 0) without one."""
        length, entry = longest_plateau(self.mel_l1, self.best_constant)
        return (length, self.steps[entry - 1]) if length else (0, 0)

    @property
    def plateau_share(self) -> float | None:
        """Lowest share of variance across time during the plateau; None without a plateau (or a
        measurement in it).
        """
        length, first = self.plateau
        inside = [
            share
            for step, share in zip(self.share_steps, self.shares, strict=True)
            if first <= step < first + length
        ]
        return min(inside) if inside else None

    @property
    def collapsed(self) -> bool:
        share = self.plateau_share
        return share is not None and share < COLLAPSE_SHARE

    @property
    def at_line(self) -> tuple[float, float]:
        """(mel L1 / best constant, share of variance across time) of the measurement nearest to the
        best-constant line.
        """
        ratio = dict(zip(self.steps, self.over_constant, strict=True))
        return min(
            (
                (ratio[step], share)
                for step, share in zip(self.share_steps, self.shares, strict=True)
            ),
            key=lambda pair: abs(pair[0] - 1),
        )

    @property
    def reached_line(self) -> bool:
        """Whether the loss ever came within 5 % of the best constant, or below it."""
        return min(self.over_constant) <= 1 + PLATEAU_BAND


def record_trajectory(
    model: TTSModel,
    batch: Batch,
    *,
    share_every: int = 10,
    snapshot_steps: Sequence[int] = (),
    best_constant: float | None = None,
    also: Callable[[int, StepReport], bool | None] | None = None,
) -> tuple[Trajectory, Callable[[int, StepReport], bool | None]]:
    """A trajectory to be filled, and the `on_step` callback for `fit` that fills it.

    Every `share_every` steps (and at each of `snapshot_steps`) the model is run once more on
    `batch`, in eval mode. `best_constant` (ln units) is that of the first clip unless given: a
    training on more frames than these has its own. `also` is called after the recording and decides
    whether to stop.
    """
    length = int(batch.mel_lengths[0])
    if best_constant is None:
        best_constant = float(best_constant_l1(batch.mel[0, :length].cpu()))
    trajectory = Trajectory(best_constant)

    def on_step(step: int, report: StepReport) -> bool | None:
        """What `fit` calls after every step."""
        trajectory.steps.append(step)
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
