"""Controls: what a training run differs by where nothing is wrong."""

from __future__ import annotations

import torch
from torch import nn

from tts_workbook.lab.lab import Lab
from tts_workbook.lab.short_run import Change
from tts_workbook.subject.opened import once_per_subject

ROUNDING = 2.0**-20  # relative; some rounding errors of fp32


def sham() -> Change:
    """An intervention that intervenes in nothing: every weight is off by its last digits."""

    def change(model: nn.Module) -> None:
        generator = torch.Generator().manual_seed(17)
        with torch.no_grad():
            for parameter in model.parameters():
                if not parameter.is_floating_point():
                    continue
                noise = torch.randn(parameter.shape, generator=generator).to(parameter)
                parameter.mul_(1 + ROUNDING * noise)

    return Change("sham", (ROUNDING,), lambda size: "nothing but rounding", model=change)


@once_per_subject
def sham_gain(lab: Lab) -> float:
    """What the sham gains or loses, of the mean curve in best constants: a change that gains less
    has shown nothing. One training run.
    """
    return abs(lab.course().outcome - lab.course(sham()).outcome)
