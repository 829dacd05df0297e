"""Is the stop head calibrated? One positive in T frames: a constant predictor at that rate is hard
to beat.

T frames. Losses in nats.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from tts_core.errors import WorkbookError
from tts_core.training.losses import masked_stop_bce

question = "Is the stop head better than a constant probability?"


@dataclass(frozen=True)
class StopCalibration:
    at_last: float  # probability given to the true last frame
    largest_elsewhere: float  # largest probability given to any other frame; 0 where there is none
    bce: float  # mean over the frames
    constant_bce: float  # of a predictor that says 1 / T at every frame
    # first frame (from 0) above one half, where generation would end; None: never
    first_stop: int | None


def constant_stop_bce(n_frames: int) -> float:
    """BCE of the best constant stop probability, 1 / T: what a head scores that knows the length
    only on average.
    """
    rate = 1 / n_frames
    return -rate * math.log(rate) - (1 - rate) * math.log1p(-rate) if n_frames > 1 else 0.0


def measure_stop_head(logits: Tensor) -> StopCalibration:
    """Calibration of stop logits (T,) over a clip of T frames, whose last is the one positive.
    Raises WorkbookError.
    """
    if logits.ndim != 1 or len(logits) == 0 or not bool(logits.isfinite().all()):
        raise WorkbookError(
            f"stop head: logits of shape {tuple(logits.shape)}, wanted (T,), finite; cut them to "
            "the clip"
        )
    probability = torch.sigmoid(logits.double())
    total, count = masked_stop_bce(
        logits[None].double(), torch.tensor([len(logits)], device=logits.device)
    )
    above = (probability > 0.5).nonzero()
    return StopCalibration(
        at_last=float(probability[-1]),
        largest_elsewhere=float(probability[:-1].max()) if len(logits) > 1 else 0.0,
        bce=float(total) / int(count),
        constant_bce=constant_stop_bce(len(logits)),
        first_stop=int(above[0, 0]) if len(above) else None,
    )
