"""Learning-rate range test: raise the learning rate exponentially while training; see where the
loss falls and breaks.

Source: Smith, Cyclical Learning Rates for Training Neural Networks, 2017 (exponential ramp as in
fastai's finder).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from tts_core.errors import WorkbookError
from tts_core.metrics.baselines import best_constant_l1
from tts_core.training.loop import fit
from tts_core.training.state import start_training
from tts_core.training.step import StepReport
from tts_workbook.trials.preset_arm import Arm

LOWEST, HIGHEST = 1e-5, 1.0  # learning rates at the ends of the ramp
DIVERGED = 4.0  # times the lowest loss so far: the test ends
RANGE_STEPS = {"smoke": 16, "quick": 80, "seed": 80}
SMOOTHING = 5  # steps of the centred mean before slopes are taken


@dataclass(frozen=True)
class LrRange:
    """One range test. `losses[i]`, mel L1 / best constant, is what the step with `lrs[i]` left
    behind.
    """

    start: float  # the loss before any step
    lrs: tuple[float, ...]  # (S,) rising
    losses: tuple[float, ...]  # (S,)
    # the learning rate whose step left a loss above 4 times the lowest, or none at all
    diverged_at: float | None
    failed: str = ""  # what the train step said where the loss became non-finite

    @property
    def smoothed(self) -> np.ndarray:
        """(S,) centred geometric mean of the losses over up to 5 steps."""
        logs = np.log(np.maximum(self.losses, 1e-12))
        half = SMOOTHING // 2
        windows = [logs[max(0, i - half) : i + half + 1] for i in range(len(logs))]
        return np.exp([window.mean() for window in windows])

    @property
    def steepest(self) -> float | None:
        """Where the smoothed loss falls fastest per factor of learning rate, on its way to its
        lowest; None if it never falls.

        Beyond the lowest the curve jumps up and down by more than it ever fell: a slope there says
        nothing.
        """
        lowest = int(self.smoothed.argmin()) + 1 if self.lrs else 0
        if lowest < 2:
            return None
        slopes = np.gradient(self.smoothed[:lowest], np.log(self.lrs[:lowest]))
        return self.lrs[int(slopes.argmin())] if slopes.min() < 0 else None

    def curve(self) -> dict[str, object]:
        """For `plot_lr_range`."""
        return {
            "lrs": self.lrs,
            "losses": self.losses,
            "start": self.start,
            "steepest": self.steepest,
            "diverged_at": self.diverged_at,
        }


def ramp(n_steps: int, lowest: float = LOWEST, highest: float = HIGHEST) -> list[float]:
    """`n_steps` learning rates from `lowest` to `highest`, each the same factor above the one
    before.
    """
    if n_steps < 2 or not 0 < lowest < highest:
        raise WorkbookError(
            f"ramp of {n_steps} steps from {lowest:g} to {highest:g}: give 2 steps or more, and "
            "rates that rise from above zero"
        )
    return np.geomspace(lowest, highest, n_steps).tolist()


def lr_range_test(
    arm: Arm, n_steps: int, lowest: float = LOWEST, highest: float = HIGHEST
) -> LrRange:
    """Train `arm.model` along the ramp until the loss is above 4 times its lowest, is not finite,
    or the ramp ends.

    One step more than the ramp has is made: a step reports the loss before its update, so each
    learning rate is judged by what the next step finds. The model is spent afterwards: build a
    fresh arm to train. Raises WorkbookError where even the first loss is not finite: that is no
    matter of the learning rate.
    """
    rates = ramp(n_steps, lowest, highest)
    n_frames = int(arm.batch.mel_lengths[0])
    constant = float(best_constant_l1(arm.batch.mel[0, :n_frames].cpu()))
    one_more = dataclasses.replace(arm.experiment.fit, steps=n_steps + 1)
    experiment = dataclasses.replace(arm.experiment, fit=one_more)
    training = start_training(experiment, arm.model, str(arm.batch.mel.device))
    found: list[float] = []  # before the first step, then after each

    def on_step(step: int, report: StepReport) -> bool:
        """Note what the last rate left behind, set the next one, stop on divergence."""
        found.append(report.mel_l1 / constant)
        for group in training.optimizer.param_groups:
            group["lr"] = rates[min(step, n_steps - 1)]
        return found[-1] > DIVERGED * min(found)

    for group in training.optimizer.param_groups:
        group["lr"] = rates[0]
    failed = ""
    try:
        fit(training, arm.batch, on_step=on_step)
    # a loss that is not finite: the curve up to there is the result
    except WorkbookError as error:
        if not found:
            raise
        failed = str(error)
    seen = len(found) - 1  # rates whose effect was seen
    diverged_at = None
    if failed:
        diverged_at = rates[seen]
    elif found[-1] > DIVERGED * min(found):
        diverged_at = rates[seen - 1]
    return LrRange(found[0], tuple(rates[:seen]), tuple(found[1:]), diverged_at, failed)
