"""data.unnormalised_target: targets are far from zero mean and unit scale."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from tts_workbook.bars import Bar
from tts_workbook.faults.cause import Cause
from tts_workbook.faults.planting import Build, Setting
from tts_workbook.faults.selection import paired
from tts_workbook.faults.suspect import Suspect
from tts_workbook.lab.lab import Lab
from tts_workbook.lab.short_run import Change
from tts_workbook.measure.anatomy import anatomy
from tts_workbook.subject.isolation import without_dropout
from tts_workbook.subject.module_calls import change_output, rms
from tts_workbook.subject.subject import Subject

# proposals alone: a paired run with standardised targets decides
OFFSET = Bar(1.5, control="|mean| of the targets over their own deviation")
SMALLEST = Bar(0.3, convention="unit scale, which initialisations are made for (Glorot 2010)")
LARGEST = Bar(3.0, convention="unit scale, which initialisations are made for (Glorot 2010)")
SLIGHT = Bar(1e-4, control="the spread of the targets: a smaller movement is rounding")


def propose(lab: Lab) -> Iterable[Suspect]:
    """Targets far from zero mean and unit scale, standardised by an affine map behind the output
    and before the history.
    """
    offset, deviation = target_scale(lab)
    if offset <= OFFSET and SMALLEST < deviation < LARGEST:
        return
    if not anatomy(lab).output:
        return
    yield Suspect(
        CAUSE.id,
        Change("targets_standardised", model=_standardising(lab)),
        {"|mean| / deviation of the targets": offset, "deviation of the targets": deviation},
        "target_mel",
    )


def target_scale(lab: Lab) -> tuple[float, float]:
    """|mean| over deviation, and deviation, of the targets; medians over the bins."""
    deviation = lab.frames.std(dim=0)
    offset = lab.frames.mean(dim=0).abs() / deviation.clamp(min=1e-6)
    return float(offset.median()), float(deviation.median())


def _standardising(lab: Lab) -> Callable[[nn.Module], None]:
    """The model that gives, and hears, standardised frames, while its prediction stays in the
    target's units.
    """
    parts = anatomy(lab)
    mean, std = lab.frames.mean(dim=0), lab.frames.std(dim=0).clamp(min=1e-3)
    corrections = {
        name
        for field, name in parts.outputs.items()
        if field == "mel" and _is_correction(lab, name)
    }

    def before_history(_: nn.Module, args: tuple) -> tuple | None:
        first = args[0]
        if isinstance(first, Tensor) and len(mean) in first.shape[-2:]:
            return ((first - _along(first, mean)) / _along(first, std), *args[1:])
        return None

    def standardise(model: nn.Module) -> None:
        modules = dict(model.named_modules())
        for name in dict.fromkeys(filter(None, parts.outputs.values())):
            share = 0.0 if name in corrections else 1.0  # of the mean: a correction has none

            def behind_output(x: Tensor, share: float = share) -> Tensor:
                return x * _along(x, std) + share * _along(x, mean)

            change_output(modules[name], behind_output)
        for name in parts.history_in:
            modules[name].register_forward_pre_hook(before_history)

    return standardise


def _along(tensor: Tensor, statistic: Tensor) -> Tensor:
    """A statistic (M,) as it broadcasts with (…, M) or (…, M, T)."""
    statistic = statistic.to(tensor)
    return statistic if tensor.shape[-1] == len(statistic) else statistic[:, None]


def _is_correction(lab: Lab, name: str) -> bool:
    """Whether a module's output is added to the frames, as a residual post-net's is: silenced, it
    leaves the frames alone.
    """
    if "frames" not in lab.fields:
        return False
    model = lab.build()
    change_output(dict(model.named_modules())[name], torch.zeros_like)
    with without_dropout(model):
        moved = lab.predict(model, field="mel") - lab.predict(model, field="frames")
        return rms(moved[lab.mask]) < SLIGHT * float(lab.frames.std())


def plant(build: Build, setting: Setting) -> Subject:
    """Raw log-mels as targets: ln units, 10 log10 or 20 log10 (drawn), far from zero mean and unit
    scale.
    """
    scale = setting.random.choice([1.0, 10 / math.log(10), 20 / math.log(10)])

    def statistics(mels: list[Tensor]) -> tuple[Tensor, Tensor]:
        return torch.zeros(mels[0].shape[1]), torch.full((mels[0].shape[1],), 1 / scale)

    return build(setting, statistics=statistics)


CAUSE = Cause(
    id="data.unnormalised_target",
    title="targets are far from zero mean and unit scale",
    experiment="train the same model on standardised targets, same seeds",
    fix="standardise the targets per bin, with the statistics as buffers",
    experiments=(paired("data.unnormalised_target"),),
    propose=propose,
    upstream=1,
    plant=plant,
)
