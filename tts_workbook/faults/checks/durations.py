"""Checks of durations: do they add up, and are counts taken for counts and logarithms for
logarithms?

Shapes: B clips, N text positions, T frames, D width.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from tts_core.model.modes import evaluating
from tts_workbook.faults.checks.registry import check
from tts_workbook.faults.finding import Finding
from tts_workbook.lab.lab import Lab
from tts_workbook.measure.seen_clips import SeenClip, clips_of, distinct_clips
from tts_workbook.subject.isolation import unchanged_randomness, without_dropout
from tts_workbook.subject.module_calls import Call, output_changed, recorded_calls

# frames that Σ durations may miss: centred transforms have one more than hops
FRAME_SLACK = 1
EXPANDED = 0.7  # an expanded memory shorter than this share of the frames is no rounding
# values put in the duration head's place: counts give 1 and 2 frames, logarithms 2 to 3 and 3 to 7
PROBES = (1.0, 2.0)
COUNTED = 0.1  # a mean within this of the values themselves is a count
# mean error of a trained head over the mean it should predict: it has learnt that much of a domain
FITS = 0.35
CLEARER = 2.0  # and errs this many times more in the other one


@check("data.duration_sum", needs=("durations",))
def duration_sum(lab: Lab) -> Iterable[Finding]:
    """Σ durations of every clip against its frames."""
    clips = [clip for clip in distinct_clips(lab) if clip.durations is not None]
    sums, frames = (
        np.array([clip.durations.sum() for clip in clips]),
        np.array([len(clip.frames) for clip in clips]),
    )
    worst = int(np.abs(sums - frames).argmax())
    evidence = {
        "Σ durations / frames, median": float(np.median(sums / frames)),
        "largest miss, frames": float(sums[worst] - frames[worst]),
        "of frames": int(frames[worst]),
        "clips that miss": int((np.abs(sums - frames) > FRAME_SLACK).sum()),
        "clips": len(clips),
    }
    experiment = "sum of the durations of every clip against its frames"
    if abs(sums[worst] - frames[worst]) <= FRAME_SLACK:
        return [Finding("data.duration_sum", "excluded", experiment, evidence, "durations")]
    if logs := written_as_logs(clips):
        return [
            Finding(
                "data.duration_sum",
                "excluded",
                f"{experiment}: they are logarithms, {logs} of them adds up",
                evidence,
                "durations",
            )
        ]
    ratio = frames.sum() / sums.sum()
    if round(ratio) > 1 and (np.abs(sums * round(ratio) - frames) <= round(ratio)).all():
        return [
            Finding(
                "data.duration_sum",
                "undecided",
                f"durations count groups of {round(ratio)} frames; right where the "
                "decoder predicts as many at a time, else multiply them",
                evidence,
                "durations",
            )
        ]
    return [
        Finding(
            "data.duration_sum",
            "confirmed",
            experiment,
            evidence,
            "durations",
            min(1.0, float(np.abs(sums / frames - 1).max())),
        )
    ]


def written_as_logs(clips: Sequence) -> str:
    """The function that takes the given durations to frames, where they are logarithms; else an
    empty string.
    """
    frames = np.array([len(clip.frames) for clip in clips])
    if (
        any(clip.durations.max(initial=0) > 8 for clip in clips)
        or max(len(clip.frames) for clip in clips) < 2
    ):
        return ""
    for name, function in (("expm1", np.expm1), ("exp", np.exp), ("exp2", np.exp2)):
        sums = np.array([function(clip.durations).sum() for clip in clips])
        if (np.abs(sums - frames) <= np.maximum(2, 0.03 * frames)).all():
            return name
    return ""


@check("data.duration_domain", needs=("durations",))
def duration_domain(lab: Lab) -> Iterable[Finding]:
    """Length of the expanded memory against the frames; the trained duration head against what
    inference makes of it.
    """
    clips = clips_of(lab, lab.batch)
    yield from _training_domain(lab, clips)
    if lab.subject.infer is not None:
        yield from _inference_domain(lab, clips)


def _training_domain(lab: Lab, clips: Sequence[SeenClip]) -> Iterable[Finding]:
    logs = written_as_logs(clips)
    used = expanded_lengths(lab.calls(lab.model), clips)
    frames = sum(len(clip.frames) for clip in clips)
    evidence = {
        "Σ durations as given / frames": float(sum(clip.durations.sum() for clip in clips)) / frames
    }
    experiment = "length of the expanded memory against the frames"
    if used is not None:
        evidence["expanded memory / frames"] = sum(used) / frames
        as_logs = logs != "" or _looks_logged(used, clips)
        if sum(used) < EXPANDED * frames and as_logs:
            yield Finding(
                "data.duration_domain",
                "confirmed",
                f"{experiment}: log durations are used as counts",
                evidence,
                "durations",
                1 - sum(used) / frames,
            )
        elif sum(used) >= EXPANDED * frames and lab.subject.infer is None:
            yield Finding("data.duration_domain", "excluded", experiment, evidence, "durations")
    elif logs:
        yield Finding(
            "data.duration_domain",
            "suspected",
            f"the durations are logarithms ({logs} of them adds up); Subject.durations are frames",
            evidence,
            "durations",
        )


def _looks_logged(used: Sequence[int], clips: Sequence[SeenClip]) -> bool:
    """Whether each expanded length is about that of the clip's log durations, rounded."""
    sums = [float(np.maximum(np.round(np.log1p(clip.durations)), 1).sum()) for clip in clips]
    return all(abs(length - total) < 0.35 * total for length, total in zip(used, sums))


def expanded_lengths(calls: Sequence[Call], clips: Sequence[SeenClip]) -> list[int] | None:
    """Frames that each clip's symbols are repeated for, zeros behind them left out, from the first
    tensor (B, T, D) that consists of about as many runs of equal rows as there are symbols; None
    where no module is given or gives such a tensor.
    """
    counts = [len(clip.durations) for clip in clips]
    for call in calls:
        for tensor in (*call.inputs, *call.outputs):
            if (
                tensor.ndim != 3
                or len(tensor) != len(clips)
                or not tensor.is_floating_point()
                or min(tensor.shape[1:]) < 2
            ):
                continue
            runs = [_runs(row.float()) for row in tensor]
            lengths = [sum(own) for own in runs]
            if all(
                0.5 * n < len(own) <= n and sum(own) > 1.15 * len(own)
                for own, n in zip(runs, counts)
            ):
                return lengths
    return None


def _runs(rows: Tensor) -> list[int]:
    """Lengths of the runs of equal rows (T, D), the zero ones at the end left out."""
    changes = (rows[1:] != rows[:-1]).any(dim=1).nonzero().flatten() + 1
    borders = [0, *changes.tolist(), len(rows)]
    runs = [stop - start for start, stop in zip(borders, borders[1:])]
    return runs[:-1] if not rows[-1].any() else runs


# --- inference ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Head:
    """The module that predicts durations."""

    name: str
    # "frames" or "log frames": what it predicts once trained; empty where neither fits
    learnt: str
    taken_for: str  # what inference takes its output for; empty where that cannot be told
    evidence: dict[str, float | str]


def _inference_domain(lab: Lab, clips: Sequence[SeenClip]) -> Iterable[Finding]:
    head = duration_head(lab, clips)
    experiment = (
        "the trained duration head against the frames; and the frames that inference makes of 1 and"
        " 2 in its place"
    )
    if head is None or not head.learnt or not head.taken_for:
        evidence = {} if head is None else head.evidence
        yield Finding(
            "data.duration_domain",
            "undecided",
            "no trained module predicts one number per symbol that the length of full inference"
            " follows; train longer, or count the frames of the expanded memory yourself",
            evidence,
        )
    elif head.learnt == head.taken_for:
        yield Finding("data.duration_domain", "excluded", experiment, head.evidence, head.name)
    else:
        experiment += f": it learns {head.learnt} and is taken for {head.taken_for}"
        yield Finding(
            "data.duration_domain", "confirmed", experiment, head.evidence, head.name, 1.0
        )


def duration_head(lab: Lab, clips: Sequence[SeenClip]) -> Head | None:
    """The last module with one number per symbol that full inference depends on, judged on the
    trained model.
    """
    model = copy.deepcopy(lab.trained)
    texts = [clip.durations for clip in clips]
    if written_as_logs(clips):
        texts = [np.expm1(durations) for durations in texts]
    shape = (len(texts), max(map(len, texts)))
    with (
        recorded_calls(model) as calls,
        without_dropout(model),
        unchanged_randomness(lab.seed),
        evaluating(model),
    ):
        lab.subject.losses(model, lab.batch)
    found = {
        call.name: _per_symbol(call.outputs[0].detach().float(), shape)
        for call in calls
        if call.name
        and call.outputs
        and call.outputs[0].is_floating_point()
        and _per_symbol(call.outputs[0], shape) is not None
    }
    for name, predicted in reversed(found.items()):
        means = [_mean_frames(lab, model, name, value, texts) for value in PROBES]
        if any(mean is None for mean in means) or abs(means[1] - means[0]) < 0.5:
            # the length does not follow it: a pitch or an energy head, or the stop head ends the
            # clip first
            continue
        counted = all(abs(mean - value) < COUNTED for mean, value in zip(means, PROBES))
        taken_for = (
            "frames"
            if counted
            else "log frames"
            if means[1] > 1.25 * PROBES[1] and means[1] > 1.4 * means[0]
            else ""
        )
        learnt, errors = _learnt(predicted.cpu().numpy(), texts)
        made = {f"frames per symbol for {value:g}": mean for value, mean in zip(PROBES, means)}
        return Head(name, learnt, taken_for, errors | made)
    return None


def _per_symbol(output: Tensor, shape: tuple[int, int]) -> Tensor | None:
    """Output (B, N), (B, N, 1) or (B, 1, N) as (B, N); None for other shapes."""
    return (
        output.reshape(shape)
        if tuple(size for size in output.shape if size != 1)
        == tuple(size for size in shape if size != 1)
        and output.numel() > 1
        else None
    )


def _learnt(
    predicted: np.ndarray, texts: Sequence[np.ndarray]
) -> tuple[str, dict[str, float | str]]:
    said = np.concatenate([row[: len(durations)] for row, durations in zip(predicted, texts)])
    frames = np.concatenate(texts)
    logs = np.log1p(frames)
    errors = {
        "frames": float(np.abs(said - frames).mean() / frames.mean()),
        "log frames": float(np.abs(said - logs).mean() / logs.mean()),
    }
    best, other = sorted(errors, key=errors.get)
    learnt = best if errors[best] < FITS and errors[other] > CLEARER * errors[best] else ""
    return learnt, {
        "error of the head as frames": errors["frames"],
        "error of the head as log frames": errors["log frames"],
    }


def _mean_frames(
    lab: Lab, model: nn.Module, name: str, value: float, texts: Sequence[np.ndarray]
) -> float | None:
    """Frames per symbol of full inference with `value` in place of what the head predicts; None
    where that fails.
    """
    try:
        with (
            output_changed(
                dict(model.named_modules())[name], lambda output: torch.full_like(output, value)
            ),
            unchanged_randomness(lab.seed),
            evaluating(model),
        ):
            clips = lab.subject.infer(model, lab.batch)
        return sum(len(mel) for mel in clips) / sum(map(len, texts))
    # a model that fails on constant durations says nothing about their domain
    except Exception:
        return None
