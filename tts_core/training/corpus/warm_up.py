"""The learning rate: a linear warm-up, then half a cosine (Loshchilov and Hutter 2017)."""

from __future__ import annotations

import math

from tts_core.training.corpus.options import TrainConfig


def learning_rate(config: TrainConfig, peak: float, step: int) -> float:
    """Rate of the 0-based `step`: a function of the step alone, so that it needs no state to
    resume.

    Rises to `peak` in the last of `warmup_steps`, and is `final_lr_share` times that in the last of
    `steps`.
    """
    if step < config.warmup_steps:
        return peak * (step + 1) / config.warmup_steps
    way = (step + 1 - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, way)))  # from 1 down to 0 at the last step
    share = config.final_lr_share
    return peak * (share + (1 - share) * cosine)
