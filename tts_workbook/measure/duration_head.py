"""The module that predicts durations: what it has learnt, and what full inference makes of it.

Shapes: B clips, N text positions.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from tts_core.model.modes import evaluating
from tts_workbook.bars import Bar
from tts_workbook.measure.log_durations import written_as_logs
from tts_workbook.measure.seen_clips import SeenClip
from tts_workbook.subject.isolation import unchanged_randomness, without_dropout
from tts_workbook.subject.module_calls import output_changed, recorded_calls
from tts_workbook.subject.opened import OpenSubject
from tts_workbook.subject.subject import supplied

question = "What does the duration head predict, and what does inference take it for?"

# values put in the duration head's place: counts give 1 and 2 frames, logarithms 2 to 3 and 3 to 7
PROBES = (1.0, 2.0)
COUNTED = Bar(
    0.1, control="of the values put in place of the head: a mean this near to them is a count"
)
ABOVE_COUNTS = Bar(
    1.25, control="times the larger value put in place of the head: no count any more"
)
GROWTH = Bar(1.4, control="times the growth between the two values: what an exponential has")
FOLLOWED = (
    0.5  # frames per symbol that the probes have to differ by, if the length follows the head
)
FITS = Bar(0.35, control="mean error of a trained head over the mean that it should predict")
CLEARER = Bar(2.0, control="times its own error in the other domain")

Domain = Literal["frames", "log frames", ""]


@dataclass(frozen=True)
class DurationHead:
    """The module that predicts durations."""

    name: str
    learnt: Domain  # what it predicts once trained; empty where neither fits
    taken_for: Domain  # what inference takes its output for; empty where that cannot be told
    error_as_frames: float  # mean error over the mean that it should predict
    error_as_logs: float
    frames_per_symbol: tuple[float, float]  # of full inference with each of PROBES in its place


def duration_head(
    opened: OpenSubject, trained: nn.Module, clips: Sequence[SeenClip]
) -> DurationHead | None:
    """The last module of a trained model with one number per symbol that full inference depends on;
    None where there is none.
    """
    model = copy.deepcopy(trained)
    durations = [clip.counts for clip in clips]
    if written_as_logs(clips):
        durations = [np.expm1(counts) for counts in durations]
    for name, predicted in reversed(_per_symbol_outputs(opened, model, durations).items()):
        means = _probed(opened, model, name, durations)
        if means is None or abs(means[1] - means[0]) < FOLLOWED:
            # the length does not follow it: a pitch or an energy head, or the stop head ends the
            # clip first
            continue
        as_frames, as_logs = _errors(predicted.cpu().numpy(), durations)
        return DurationHead(
            name, _learnt(as_frames, as_logs), _taken_for(means), as_frames, as_logs, means
        )
    return None


def _per_symbol_outputs(
    opened: OpenSubject, model: nn.Module, durations: Sequence[np.ndarray]
) -> dict[str, Tensor]:
    """What each module with one number per symbol gives, (B, N), in the order of their calls."""
    shape = (len(durations), max(map(len, durations)))
    with (
        recorded_calls(model) as calls,
        without_dropout(model),
        unchanged_randomness(opened.seed),
        evaluating(model),
    ):
        opened.subject.losses(model, opened.batch)
    found = {}
    for call in calls:
        if not call.name or not call.outputs or not call.outputs[0].is_floating_point():
            continue
        numbers = _per_symbol(call.outputs[0].detach().float(), shape)
        if numbers is not None:
            found[call.name] = numbers
    return found


def _per_symbol(output: Tensor, shape: tuple[int, int]) -> Tensor | None:
    """Output (B, N), (B, N, 1) or (B, 1, N) as (B, N); None for other shapes."""
    sizes = [size for size in output.shape if size != 1]
    wanted = [size for size in shape if size != 1]
    if sizes != wanted or output.numel() <= 1:
        return None
    return output.reshape(shape)


def _probed(
    opened: OpenSubject, model: nn.Module, name: str, durations: Sequence[np.ndarray]
) -> tuple[float, float] | None:
    """Frames per symbol of full inference with each of PROBES in place of what the head predicts;
    None where that fails.
    """
    means = [_mean_frames(opened, model, name, value, durations) for value in PROBES]
    small, large = means
    return None if small is None or large is None else (small, large)


def _mean_frames(
    opened: OpenSubject,
    model: nn.Module,
    name: str,
    value: float,
    durations: Sequence[np.ndarray],
) -> float | None:
    infer = supplied(opened.subject.infer, "infer")
    head = dict(model.named_modules())[name]
    try:
        with (
            output_changed(head, lambda output: torch.full_like(output, value)),
            unchanged_randomness(opened.seed),
            evaluating(model),
        ):
            mels = infer(model, opened.batch)
        return sum(len(mel) for mel in mels) / sum(map(len, durations))
    # a model that fails on constant durations says nothing about their domain
    except Exception:
        return None


def _taken_for(means: tuple[float, float]) -> Domain:
    counted = all(abs(mean - value) < COUNTED for mean, value in zip(means, PROBES, strict=True))
    if counted:
        return "frames"
    if means[1] > ABOVE_COUNTS * PROBES[1] and means[1] > GROWTH * means[0]:
        return "log frames"
    return ""


def _errors(predicted: np.ndarray, durations: Sequence[np.ndarray]) -> tuple[float, float]:
    """Mean error of what the head says (B, N), taken as frames and as log frames, over the mean of
    what it should say.
    """
    rows = zip(predicted, durations, strict=True)
    said = np.concatenate([row[: len(counts)] for row, counts in rows])
    frames = np.concatenate(durations)
    logs = np.log1p(frames)
    as_frames = float(np.abs(said - frames).mean() / frames.mean())
    as_logs = float(np.abs(said - logs).mean() / logs.mean())
    return as_frames, as_logs


def _learnt(as_frames: float, as_logs: float) -> Domain:
    best: Domain = "frames" if as_frames <= as_logs else "log frames"
    smaller, larger = sorted((as_frames, as_logs))
    return best if smaller < FITS and larger > CLEARER * smaller else ""
