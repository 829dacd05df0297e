"""What the stop head says: of the last frame and of the others, and whether that is calibrated. One
positive in T frames: a constant predictor at that rate is hard to beat. What the *loss* wants of
the head is another question (stop_pattern.py).

Shapes: B clips, T frames. Losses in nats.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tts_core.errors import WorkbookError
from tts_core.model.modes import evaluating
from tts_core.training.losses import masked_stop_bce
from tts_workbook.subject.isolation import unchanged_randomness, without_dropout
from tts_workbook.subject.opened import OpenSubject
from tts_workbook.subject.subject import supplied

question = "Does the stop head tell the last frame, better than a constant probability would?"


@dataclass(frozen=True)
class LastAndElsewhere:
    """Stop probabilities of one clip."""

    at_last: float  # of its last frame
    largest_elsewhere: float  # of any other frame; 0 where there is none
    mean_elsewhere: float  # of the other frames; of the only frame where there is none


def last_and_elsewhere(probability: Tensor) -> LastAndElsewhere:
    """Of the stop probabilities (T,) of a clip of T frames."""
    others = probability[:-1]
    return LastAndElsewhere(
        at_last=float(probability[-1]),
        largest_elsewhere=float(others.max()) if len(others) else 0.0,
        mean_elsewhere=float((others if len(others) else probability).mean()),
    )


def stop_probability(opened: OpenSubject, model: nn.Module) -> Tensor:
    """(B, T) teacher-forced, eval mode, without dropout. Raises SubjectError where the subject has
    no stop.
    """
    stop = supplied(opened.subject.stop, "stop")
    with unchanged_randomness(opened.seed), evaluating(model), without_dropout(model):
        return stop(model, opened.batch).detach().float()


def stop_of_clips(opened: OpenSubject, model: nn.Module) -> list[LastAndElsewhere]:
    """What the head of any subject says of each clip, teacher-forced."""
    rows = zip(stop_probability(opened, model), opened.lengths.tolist(), strict=True)
    return [last_and_elsewhere(probability[:length]) for probability, length in rows]


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
    said = last_and_elsewhere(probability)
    return StopCalibration(
        at_last=said.at_last,
        largest_elsewhere=said.largest_elsewhere,
        bce=float(total) / int(count),
        constant_bce=constant_stop_bce(len(logits)),
        first_stop=int(above[0, 0]) if len(above) else None,
    )
