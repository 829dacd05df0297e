"""model.norm_mode: normalisation behaves differently in training and evaluation."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn

from tts_workbook.bars import Bar
from tts_workbook.faults.cause import Cause, Decision, Experiment, Telling
from tts_workbook.lab.lab import Lab
from tts_workbook.subject.isolation import unchanged_randomness, without_dropout

MODE_GAP = Bar(
    0.1,
    control="the best constant of the same clips: by more of it running statistics are worse than"
    " those of the batch",
)
MODE_RATIO = Bar(1.3, control="the error of the same model with the statistics of the batch")
# forwards in training mode after which running statistics have caught up, times their momentum
SETTLING = Bar(
    6.0, control="the norm's own momentum: after so many of its time constants 0.2 % is left"
)
MOST_FORWARDS = 600

BatchNorm = nn.modules.batchnorm._BatchNorm


@dataclass(frozen=True)
class BothModes:
    """Teacher-forced L1 over the best constant of one model, by what it normalises with."""

    running: float  # its running statistics
    batch: float  # those of the batch

    @property
    def apart(self) -> bool:
        return self.running - self.batch > MODE_GAP and self.running > MODE_RATIO * self.batch


@dataclass(frozen=True)
class Modes:
    """The trained model in both modes."""

    first: str  # of the modules that keep running statistics; empty where none does
    trained: BothModes | None = None  # None where none does
    n_forwards: int = 0  # more, in training mode with the weights held
    settled: BothModes | None = None  # after them, where the modes are apart


def measure(lab: Lab) -> Modes:
    """The trained model judged with its running statistics, and with those of the batch."""
    model = lab.course().model
    norms = [name for name, module in model.named_modules() if isinstance(module, BatchNorm)]
    if not norms:
        return Modes(first="")
    trained = _in_both_modes(lab, model, norms)
    if not trained.apart:
        return Modes(norms[0], trained)
    settled = copy.deepcopy(model).train()
    modules = dict(model.named_modules())
    n_forwards = forwards_to_settle(modules[name] for name in norms)
    with unchanged_randomness(lab.seed), torch.no_grad():
        for _ in range(n_forwards):
            lab.subject.losses(settled, lab.batch)
    return Modes(norms[0], trained, n_forwards, _in_both_modes(lab, settled, norms))


def forwards_to_settle(norms: Iterable[nn.Module]) -> int:
    """Forwards in training mode after which the statistics of weights that are held are those of
    the batch: 60 for PyTorch's momentum of 0.1; a cumulative average (momentum None), or statistics
    that take longer still, are given the most.
    """
    slowest = min(float(getattr(norm, "momentum", None) or 0.0) for norm in norms)
    return min(MOST_FORWARDS, math.ceil(SETTLING / max(slowest, 1e-9)))


def _in_both_modes(lab: Lab, model: nn.Module, norms: list[str]) -> BothModes:
    twin = copy.deepcopy(model)
    modules = dict(twin.named_modules())
    with without_dropout(twin):
        running = lab.error(lab.predict(twin, field="mel"))
        for name in norms:
            norm = modules[name]
            assert isinstance(norm, BatchNorm)
            norm.track_running_stats, norm.running_mean, norm.running_var = False, None, None
        return BothModes(running, lab.error(lab.predict(twin, field="mel")))


def decide(numbers: Modes) -> Decision:
    """Pure: which of the ends it is."""
    if numbers.trained is None:
        return Decision("excluded", reason="no running statistics")
    if numbers.settled is None:
        return Decision("excluded", reason="alike")
    strength = min(1.0, numbers.settled.running - numbers.settled.batch)
    if numbers.settled.apart:
        return Decision("confirmed", numbers.first, strength, "stays apart")
    return Decision("excluded", strength=strength, reason="only lagged")


def tell(numbers: Modes, decision: Decision) -> Telling:
    if numbers.trained is None:
        return Telling("no module keeps running statistics")
    experiment = "one trained model, one batch, running against batch statistics"
    evidence: dict[str, float | str] = {
        "TF L1 / best constant with running statistics": numbers.trained.running,
        "with batch statistics": numbers.trained.batch,
    }
    if numbers.settled is None:
        return Telling(experiment, evidence)
    evidence |= {
        f"with running statistics after {numbers.n_forwards} forwards more": (
            numbers.settled.running
        ),
        "with batch statistics then": numbers.settled.batch,
    }
    gap = "stays" if decision.level == "confirmed" else "closes, the statistics only lagged"
    return Telling(
        f"{experiment}; again after {numbers.n_forwards} forwards in training mode with the weights"
        f" held: the gap {gap}",
        evidence,
    )


CAUSE = Cause(
    id="model.norm_mode",
    title="normalisation behaves differently in training and evaluation",
    experiment="one batch with running and with batch statistics",
    fix="a momentum that keeps up, or LayerNorm; never train with frozen default statistics",
    experiments=(Experiment(measure, decide, tell),),
)
