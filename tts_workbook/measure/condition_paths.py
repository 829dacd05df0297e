"""Conditions on both paths: what enters a module in training from the batch alone (a speaker, a
language, a style, the true pitch), beside what enters it in generation.

In training a condition follows neither the text nor the target nor the random state, and is the
same at every call. In generation it may be predicted from the text (pitch, energy): then only its
mean and scale are compared. Shapes: B clips.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from tts_workbook.bars import Bar
from tts_workbook.measure.anatomy import NOISE_SEED, find_history, with_frames_changed
from tts_workbook.measure.paths import (
    Entered,
    Exchange,
    Path,
    PathErrors,
    entering,
    path_errors,
    paths_of,
    run_path,
    training_rows_for,
)
from tts_workbook.subject.module_calls import (
    Call,
    outputs_changed,
    text_embeddings,
    trace,
    with_noise,
)
from tts_workbook.subject.opened import OpenSubject

question = "Which conditions reach the model in training, and which in generation?"

SAME = Bar(1e-5, control="of the tensor's own scale: what rounding makes of the same numbers")
N_EXCHANGED = 3  # differences whose exchange is tried, those furthest upstream


@dataclass(frozen=True)
class Condition:
    """An input of a module that follows the batch alone, in training."""

    name: str  # of the module
    place: int  # of the tensor among the module's inputs
    tensor: Tensor


@dataclass(frozen=True)
class OtherCondition:
    """A condition that is another one on a path of generation."""

    path: Path
    name: str  # of the module
    predicted: bool  # in generation it follows the text: only mean and scale are compared
    difference: float  # largest, over the tensor's scale in training
    offset: float  # of the means, in deviations of training's values
    scale: float  # deviation in generation over training's
    correlation: float  # of the values in generation with those in training; NaN of a constant
    errors: PathErrors | None  # with training's tensor, or with its mean and scale


@dataclass(frozen=True)
class Conditions:
    """Every condition that was found."""

    n_found: int
    n_matched: int  # of them on paths of generation
    others: tuple[OtherCondition, ...]
    paths: tuple[Path, ...]


def conditions(opened: OpenSubject, model: nn.Module) -> Conditions:
    """The conditions of the subject on every path that it supplies, on a trained model."""
    known = training_conditions(opened, model)
    others: list[OtherCondition] = []
    n_matched = 0
    for path in paths_of(opened):
        entered = _entered(opened, model, path, known)
        by_text = _entered_with_other_text(opened, model, path, known)
        differences = []
        for condition in known:
            seen = _matched(condition, entered.get(condition.name), len(opened.target))
            if seen is None:
                continue
            n_matched += 1
            disturbed = by_text.get(condition.name)
            predicted = disturbed is None or not _same_calls(
                entered[condition.name], disturbed, condition.place
            )
            other = _difference(path, condition, seen, predicted)
            if other is not None:
                differences.append((condition, seen, other))
        for number, (condition, seen, other) in enumerate(differences):
            errors = None
            if number < N_EXCHANGED:
                exchange = _exchange(condition, seen, other.predicted)
                errors = path_errors(opened, model, path, condition.name, exchange)
            others.append(replace(other, errors=errors))
    return Conditions(len(known), n_matched, tuple(others), tuple(paths_of(opened)))


# --- in training ----------------------------------------------------------------------------------


def training_conditions(opened: OpenSubject, model: nn.Module) -> list[Condition]:
    """Inputs of modules that follow neither text, target nor random state, and are one tensor over
    all calls of the module, in the order in which the modules finish.
    """
    calls = opened.calls(model)
    texts = text_embeddings(model, calls)
    other_target = with_frames_changed(opened, find_history(opened), slice(None))
    others = [
        _calls_with_other_text(opened, model, texts),
        opened.calls(model, other_target),
        _calls_with_another_seed(opened, model),
    ]
    if opened.subject.shuffle_text is not None:
        shuffled = opened.subject.shuffle_text(opened.batch, torch.Generator().manual_seed(0))
        others.append(opened.calls(model, shuffled))
    moved = _moved_inputs(calls, others)
    found: dict[tuple[str, int], Condition] = {}
    varying: set[tuple[str, int]] = set()
    for index, call in enumerate(calls):
        for place, tensor in enumerate(call.inputs):
            key = (call.name, place)
            if (
                (index, place) in moved
                or not call.name
                or (key in found and not _close(found[key].tensor, tensor))
            ):
                varying.add(key)
            else:
                found.setdefault(key, Condition(call.name, place, tensor))
    modules = dict(model.named_modules())
    kept = []
    for key, condition in found.items():
        # whole numbers elsewhere are lengths, orders and indices
        looked_up = isinstance(modules.get(condition.name), nn.Embedding)
        is_number = condition.tensor.is_floating_point() or looked_up
        if key not in varying and is_number:
            kept.append(condition)
    return [one for one in kept if _may_be_condition(one.tensor, len(opened.target))]


def _may_be_condition(tensor: Tensor, n_clips: int) -> bool:
    """Whether a tensor has a row for each clip, and is neither a mask nor a count 0, 1, 2 …"""
    if tensor.dtype == torch.bool or tensor.ndim == 0 or len(tensor) != n_clips:
        return False
    if tensor.ndim > 1 and tensor.shape[1] > 1 and not tensor.is_floating_point():
        counted = torch.arange(tensor.shape[1], device=tensor.device)
        if torch.equal(tensor - tensor[:, :1], counted.expand_as(tensor)):
            return False
    values = tensor.float()
    is_mask = bool(((values == 0) | (values == 1) | (values == -math.inf)).all())
    return bool(values.isfinite().all()) and not (is_mask and tensor.is_floating_point())


def _calls_with_other_text(
    opened: OpenSubject, model: nn.Module, texts: Sequence[str]
) -> list[Call]:
    modules = dict(model.named_modules())
    changes = [(modules[name], lambda tensor: with_noise(tensor, NOISE_SEED)) for name in texts]
    with outputs_changed(changes):
        return opened.calls(model)


def _calls_with_another_seed(opened: OpenSubject, model: nn.Module) -> list[Call]:
    return trace(model, lambda: run_path(opened, model, "training", opened.seed + 1))


def _moved_inputs(calls: Sequence[Call], others: Sequence[Sequence[Call]]) -> set[tuple[int, int]]:
    """(call, place) of every input that differs in one of the other traces."""
    moved = set()
    for index, call in enumerate(calls):
        for place, tensor in enumerate(call.inputs):
            for other in others:
                twin = other[index] if index < len(other) else None
                same_call = twin is not None and twin.name == call.name
                if not same_call or not _close(tensor, _input(twin, place)):
                    moved.add((index, place))
    return moved


def _input(call: Call | None, place: int) -> Tensor | None:
    if call is None or place >= len(call.inputs):
        return None
    return call.inputs[place]


def _close(a: Tensor, b: Tensor | None) -> bool:
    return b is not None and a.shape == b.shape and torch.equal(a, b)


# --- in generation --------------------------------------------------------------------------------


def _entered(
    opened: OpenSubject, model: nn.Module, path: Path, known: Sequence[Condition]
) -> Mapping[str, Entered]:
    names = {condition.name for condition in known}
    with entering(model, names) as entered:
        run_path(opened, model, path)
    return entered


def _entered_with_other_text(
    opened: OpenSubject, model: nn.Module, path: Path, known: Sequence[Condition]
) -> Mapping[str, Entered]:
    texts = text_embeddings(model, opened.calls(model))
    conditioned = {condition.name for condition in known}
    modules = dict(model.named_modules())
    changes = [
        (modules[name], lambda tensor: with_noise(tensor, NOISE_SEED))
        for name in texts
        if name not in conditioned
    ]
    with outputs_changed(changes):
        return _entered(opened, model, path, known)


def _matched(condition: Condition, entered: Entered | None, n_clips: int) -> Tensor | None:
    """The tensor (B, …) that enters in the condition's place in generation; None where it cannot be
    laid beside training's.
    """
    if entered is None:
        return None
    if any(len(tensors) <= condition.place for tensors in entered.distinct):
        return None
    own = Entered([], entered.n_calls)
    for tensors in entered.distinct:
        if not own.distinct or not _close(own.distinct[-1][0], tensors[condition.place]):
            own.distinct.append((tensors[condition.place],))
    rows = _condition_rows(own, condition.tensor, n_clips)
    if rows is None or any(row.shape != condition.tensor.shape[1:] for row in rows):
        return None
    return torch.stack(rows).to(condition.tensor.dtype)


def _condition_rows(own: Entered, training: Tensor, n_clips: int) -> list[Tensor] | None:
    first = own.distinct[0][0]
    if len(own.distinct) == 1 and first.shape == training.shape:
        return list(first.unbind())
    each = [tensors[0] for tensors in own.distinct]
    if len(each) == 1 and own.n_calls == n_clips:
        each = each * n_clips
    if len(each) != n_clips:
        return None
    if any(tensor.numel() != training[0].numel() for tensor in each):
        return None
    return [tensor.reshape(training.shape[1:]) for tensor in each]


def _same_calls(a: Entered, b: Entered, place: int) -> bool:
    if len(a.distinct) != len(b.distinct):
        return False
    pairs = zip(a.distinct, b.distinct, strict=True)
    return all(_close(mine[place], theirs[place]) for mine, theirs in pairs)


def _difference(
    path: Path, condition: Condition, seen: Tensor, predicted: bool
) -> OtherCondition | None:
    mine, theirs = condition.tensor.float(), seen.float().to(condition.tensor.device)
    size = float(mine.abs().max()) + 1e-12
    difference = float((mine - theirs).abs().max()) / size
    if not difference > SAME:
        return None
    deviation = float(mine.std()) if mine.numel() > 1 else 0.0
    offset = float(theirs.mean() - mine.mean()) / max(deviation, 1e-12)
    scale = float(theirs.std()) / max(deviation, 1e-12) if mine.numel() > 1 else math.nan
    correlation = _correlation(mine, theirs)
    return OtherCondition(
        path, condition.name, predicted, difference, offset, scale, correlation, None
    )


def _correlation(a: Tensor, b: Tensor) -> float:
    if a.numel() < 3 or float(a.std()) == 0.0 or float(b.std()) == 0.0:
        return math.nan
    return float(torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1])


def _exchange(condition: Condition, seen: Tensor, predicted: bool) -> Exchange:
    if not predicted:
        rows = list(condition.tensor.unbind())
        return training_rows_for(rows, condition.tensor, (), condition.place)
    mine, theirs = condition.tensor.float(), seen.float()
    factor = float(mine.std() / theirs.std().clamp(min=1e-12))
    if _correlation(mine, theirs) < 0:
        factor = -factor
    mean, other = float(mine.mean()), float(theirs.mean())

    def exchange(number: int, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        wanted = list(given)
        wanted[condition.place] = (given[condition.place] - other) * factor + mean
        return tuple(wanted)

    return exchange
