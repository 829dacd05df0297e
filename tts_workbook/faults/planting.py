"""How a fault is planted: `plant(build, setting)` turns a build and a setting into a faulty
Subject.

`build(setting, **parts)` returns the clean subject of `setting` over `setting.clips`; `parts` are
the keywords of `subject.clip_data.Parts`: the mel term, the statistics, the feature extraction.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from tts_core.speech.dataset import Clip
from tts_workbook.subject.subject import Subject


@dataclass(frozen=True)
class Setting:
    """All that is drawn for one run; a fault's twin has the same setting without the plant."""

    seed: int
    batch_size: int = 2
    optimizer: Literal["adamw", "adam", "sgd"] = "adamw"
    # None: what the architecture trains well with under this optimiser
    lr: float | None = None
    warmup: int = 0  # steps of linear warm-up
    dropout: float = 0.0
    bf16: bool = False  # bf16 autocast
    tied: bool = False  # two modules share their weight, where the architecture can
    frozen: bool = False  # a module is frozen on purpose and declared so
    # `batch_size` for the batch, the others for `batches`
    clips: tuple[Clip, ...] = field(default=(), repr=False)

    @property
    def random(self) -> random.Random:
        """The stream that severities are drawn from: the same for the same seed."""
        return random.Random(self.seed)

    def log_uniform(self, low: float, high: float) -> float:
        """A severity between `low` and `high`, uniform in its logarithm."""
        return math.exp(self.random.uniform(math.log(low), math.log(high)))


Build = Callable[..., Subject]  # (setting, **parts) -> the subject
Plant = Callable[..., Subject]  # (build, setting, **what it cannot know) -> the faulty subject


def with_groups(subject: Subject, change: Callable[[dict[str, Any]], None]) -> Subject:
    """The subject whose optimisers have every parameter group changed."""

    def make_optimizer(model: nn.Module) -> torch.optim.Optimizer:
        optimizer = subject.make_optimizer(model)
        for group in optimizer.param_groups:
            change(group)
        return optimizer

    return replace(subject, make_optimizer=make_optimizer)


def with_clips(setting: Setting, change: Callable[[Clip], Clip]) -> Setting:
    """The setting with every clip changed. A clip keeps what is true beside what is encoded:
    `samples` and `phonemes` stay as recorded and written while `mel`, `phoneme_ids` or `durations`
    go wrong.
    """
    return replace(setting, clips=tuple(change(clip) for clip in setting.clips))


def rescaled(durations: np.ndarray, n_frames: int) -> np.ndarray:
    """Durations (N,) stretched to sum to `n_frames`, rounded at the borders, so that the sum is
    exact.
    """
    ends = np.cumsum(durations)
    borders = np.round(ends * n_frames / ends[-1]).astype(np.int64)
    return np.diff(borders, prepend=0)
