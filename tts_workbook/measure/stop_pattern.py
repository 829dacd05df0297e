"""Which stop pattern the loss asks for: the head's output is replaced by sure answers. What the
head itself says is another question (stop_head.py).

Shapes: B clips, T frames.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from tts_core.model.modes import evaluating
from tts_workbook.bars import Bar
from tts_workbook.measure.stop_head import stop_probability
from tts_workbook.subject.isolation import unchanged_randomness, without_dropout
from tts_workbook.subject.module_calls import output_changed, recorded_calls
from tts_workbook.subject.opened import OpenSubject

question = "Which stop pattern does the loss ask for?"

MATTERS = Bar(1e-4, control="of the total loss of the same batch")
SURE = 8.0  # logit of a sure answer; probability 0.9997
IS_HEAD = Bar(0.02, control="relative difference from the stop itself")

# where the stop fires: at the last frame, nowhere, everywhere but there
Pattern = Literal["right", "never", "inverted"]
Scale = Literal["logit", "probability"]


@dataclass(frozen=True)
class _StopHead:
    name: str
    scale: Scale  # of what it gives
    rows: list[int]  # the clip behind each row: models may sort their clips


def losses_of_stop_patterns(opened: OpenSubject, trained: nn.Module) -> dict[Pattern, float]:
    """Total loss with the stop head's output replaced: firing at the last frame, never, or
    everywhere but there.

    The head is the last module whose outputs are the logits, or the probabilities, that
    `Subject.stop` gives (B, T), at once or frame by frame. Empty where there is none, or where the
    loss does not depend on it.
    """
    model = copy.deepcopy(trained)
    for head in _heads(opened, model):
        found = {
            pattern: _loss_with(opened, model, head, fired)
            for pattern, fired in _patterns(opened).items()
        }
        if all(map(math.isfinite, found.values())) and _spread(found) > MATTERS:
            return found
    return {}


def _spread(losses: Mapping[Pattern, float]) -> float:
    return max(losses.values()) - min(losses.values())


def _heads(opened: OpenSubject, model: nn.Module) -> Iterator[_StopHead]:
    """Modules that may be the head, the last one first."""
    with recorded_calls(model) as calls:
        probability = stop_probability(opened, model)
    outputs: dict[str, list[Tensor]] = {}
    for call in calls:
        if call.name and call.outputs and call.outputs[0].is_floating_point():
            outputs.setdefault(call.name, []).append(call.outputs[0].detach().float())
    wanted: dict[Scale, Tensor] = {
        "logit": probability.logit(eps=1e-7),
        "probability": probability,
    }
    for name in reversed(outputs):
        for scale, values in wanted.items():
            rows = _rows(outputs[name], values, opened.mask)
            if rows is not None:
                yield _StopHead(name, scale, rows)


def _rows(outputs: Sequence[Tensor], wanted: Tensor, mask: Tensor) -> list[int] | None:
    """Order of the clips in which the module's outputs, (B, T) at once or (B,) by frame, are
    `wanted`; else None.
    """
    seen = _laid_out(outputs, tuple(wanted.shape))
    if seen is None:
        return None
    n_clips = len(wanted)
    differences = [
        [_difference(seen[row], wanted[clip], mask[clip]) for clip in range(n_clips)]
        for row in range(n_clips)
    ]
    order = [row.index(min(row)) for row in differences]
    fits = all(row[clip] < IS_HEAD for row, clip in zip(differences, order, strict=True))
    return order if fits and sorted(order) == list(range(n_clips)) else None


def _laid_out(outputs: Sequence[Tensor], shape: tuple[int, ...]) -> Tensor | None:
    """A module's outputs as (B, T); None where they have another shape."""
    n_clips, n_frames = shape
    at_once = len(outputs) == 1 and outputs[0].numel() == n_clips * n_frames
    if at_once and set(outputs[0].shape) >= set(shape) - {1}:
        return outputs[0].reshape(shape)
    by_frame = all(output.numel() == n_clips for output in outputs)
    if len(outputs) == n_frames and by_frame:
        return torch.stack([output.flatten() for output in outputs], dim=1)
    return None


def _difference(seen: Tensor, wanted: Tensor, mask: Tensor) -> float:
    relative = (seen - wanted).abs() / (1 + wanted.abs())
    return float(relative[mask].mean())


def _patterns(opened: OpenSubject) -> dict[Pattern, Tensor]:
    """(B, T) bool: where the stop fires."""
    frames = torch.arange(opened.target.shape[1], device=opened.lengths.device)
    last = frames == (opened.lengths - 1)[:, None]
    return {
        "right": last,
        "never": torch.zeros_like(last),
        "inverted": ~last,
    }


def _loss_with(opened: OpenSubject, model: nn.Module, head: _StopHead, fired: Tensor) -> float:
    """Total loss with the head's output replaced by a sure answer."""
    if head.scale == "logit":
        on, off = SURE, -SURE
    else:
        on, off = 1 / (1 + math.exp(-SURE)), 1 / (1 + math.exp(SURE))
    answer = torch.where(fired[head.rows], on, off)
    position = 0

    def replaced(output: Tensor) -> Tensor:
        nonlocal position
        if output.numel() == answer.numel():
            return answer.to(output).reshape(output.shape)
        frame = position % answer.shape[1]
        position += 1
        return answer[:, frame].to(output).reshape(output.shape)

    with (
        output_changed(dict(model.named_modules())[head.name], replaced),
        without_dropout(model),
        unchanged_randomness(opened.seed),
        evaluating(model),
    ):
        return float(opened.subject.losses(model, opened.batch)["total"])
