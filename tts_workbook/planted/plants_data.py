"""Planted faults of the data that are not in the file of their cause yet."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tts_workbook.faults.planting import Build, Setting
from tts_workbook.subject.subject import Subject


def unnormalised_target(build: Build, setting: Setting) -> Subject:
    """Raw log-mels as targets: ln units, 10 log10 or 20 log10 (drawn), far from zero mean and unit
    scale.
    """
    scale = setting.random.choice([1.0, 10 / math.log(10), 20 / math.log(10)])

    def statistics(mels: list[Tensor]) -> tuple[Tensor, Tensor]:
        return torch.zeros(mels[0].shape[1]), torch.full((mels[0].shape[1],), 1 / scale)

    return build(setting, statistics=statistics)
