"""model.positions: positions are missing or drown what they are added to."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tts_workbook.bars import Bar
from tts_workbook.faults.cause import Cause, Decision, Experiment, Telling
from tts_workbook.faults.selection import paired
from tts_workbook.faults.suspect import Suspect
from tts_workbook.lab.lab import Lab
from tts_workbook.lab.short_run import Change
from tts_workbook.measure.anatomy import anatomy, movement, rounding, with_frames_changed
from tts_workbook.subject.isolation import without_dropout
from tts_workbook.subject.module_calls import (
    Call,
    change_output,
    output_changed,
    outputs_changed,
    rms,
    with_noise,
)

EQUIVARIANT = Bar(
    1e-2,
    control="how far one place's input moves the output of another: outputs that differ from a mere"
    " swap by less do not know the order of what they mix",
)
MIXED = Bar(
    1e-3,
    control="the deviation of the same output: a place that moves another by less is not mixed in",
)
MATTERED = Bar(
    10.0,
    control="what a rounding of the weights does to the prediction: old frames whose making alike"
    " moves it by less do not matter",
)
# frames between the prediction that is watched and the history that is swapped
LAG = 12
LOUD_POSITIONS = Bar(
    4.0,
    control="the size of what the positions are added to; sinusoids on unit-scale embeddings have"
    " 0.7 of it, and the paired run decides",
)
DROWNED = Bar(
    0.15,
    control="the deviation at the first text-side module: of which the text makes less, and the"
    " paired run decides",
)


# --- missing: two places are swapped, and nothing notices -----------------------------------------


@dataclass(frozen=True)
class TextOrder:
    """The text side's last sequence of N places that the prediction hears, when two of its inputs
    change places. Relative to its deviation.
    """

    noticed: float  # how far it is from merely swapping
    mixed: float  # how far another place moves when one place's input is disturbed
    where: str  # the module that gives it


@dataclass(frozen=True)
class HistoryOrder:
    """The last predicted frame, in target deviations, when two frames LAG and more behind it …"""

    noticed: float  # … have changed places
    mattered: float  # … are made alike


@dataclass(frozen=True)
class Order:
    """Whether the order of places is noticed; None where it could not be asked."""

    text: TextOrder | None
    history: HistoryOrder | None
    history_in: str  # the first module that the history enters
    rounding: float  # what a rounding of the weights does to a prediction, times its margin


def measure(lab: Lab) -> Order:
    """Two places are swapped at the text embedding, and two old frames in the history: does
    anything notice?
    """
    first = (anatomy(lab).history_in or ("decoder",))[0]
    return Order(text_order(lab), history_order(lab), first, rounding(lab).moved)


def text_order(lab: Lab) -> TextOrder | None:
    """Of the last sequence of the text side that the prediction hears; a duration predictor's is
    not, where durations are given.
    """
    parts, model = anatomy(lab), lab.model
    if not parts.embeddings:
        return None
    first = parts.embeddings[0]
    modules = dict(model.named_modules())
    before = lab.calls(model)
    start = next(call for call in before if call.name == first)
    n_places = start.outputs[0].shape[1]
    i, j = n_places // 4, n_places // 2
    if i == j or torch.equal(start.outputs[0][:, i], start.outputs[0][:, j]):
        return None
    with outputs_changed([(modules[first], lambda tensor: swap(tensor, i, j))]):
        after = lab.calls(model)
    with outputs_changed([(modules[first], lambda tensor: disturb_place(tensor, i))]):
        disturbed = lab.calls(model)
    with without_dropout(model):
        own = lab.predict(model)
    for old, new, moved in reversed(list(zip(before, after, disturbed, strict=False))):
        is_candidate = old.name in parts.text_side and old.name != first
        if not is_candidate or not _has_places(old, n_places, len(lab.target)):
            continue
        if not _is_heard(lab, model, modules[old.name], own):
            continue
        a, b, c = old.outputs[0].float(), new.outputs[0].float(), moved.outputs[0].float()
        scale = float(a.std()) + 1e-12
        others = [place for place in range(n_places) if place not in (i, j)]
        return TextOrder(
            noticed=float((swap(a, i, j) - b).abs().max()) / scale,
            mixed=float((a - c)[:, others].abs().max()) / scale,
            where=old.name,
        )
    return None


def _is_heard(lab: Lab, model: nn.Module, module: nn.Module, own: Tensor) -> bool:
    """Whether the prediction moves when what `module` gives is disturbed."""
    with without_dropout(model), output_changed(module, lambda tensor: with_noise(tensor, 6)):
        return float(movement(own, lab.predict(model), lab).max()) > rounding(lab).moved


def _has_places(call: Call, n_places: int, n_clips: int) -> bool:
    return (
        bool(call.outputs)
        and call.outputs[0].ndim == 3
        and call.outputs[0].shape[:2] == (n_clips, n_places)
        and call.outputs[0].shape[2] > 1
    )


def swap(tensor: Tensor, i: int, j: int) -> Tensor:
    """(B, N, D) with places i and j exchanged."""
    order = torch.arange(tensor.shape[1], device=tensor.device)
    order[[i, j]] = order[[j, i]]
    return tensor[:, order]


def disturb_place(tensor: Tensor, place: int) -> Tensor:
    """(B, N, D) with noise of the tensor's own size at one place."""
    here = torch.arange(tensor.shape[1], device=tensor.device) == place
    return with_noise(tensor, 3, here[:, None])


def history_order(lab: Lab) -> HistoryOrder | None:
    """Of two frames a quarter and half of the way, for the last frame of the shortest clip."""
    parts = anatomy(lab)
    n_frames = int(lab.lengths.min())
    t, i, j = n_frames - 1, n_frames // 4, n_frames // 2
    if not parts.histories or t - j < LAG:
        return None
    swapped, doubled = lab.batch, lab.batch
    for history in parts.histories:
        a, b = i + history.shift, j + history.shift

        def exchange(tensor: Tensor, a: int = a, b: int = b) -> None:
            tensor[:, [a, b]] = tensor[:, [b, a]]

        def double(tensor: Tensor, a: int = a, b: int = b) -> None:
            tensor[:, a] = tensor[:, b]

        swapped, doubled = history.changed(swapped, exchange), history.changed(doubled, double)
    with without_dropout(lab.model):
        own = lab.predict(lab.model)
        noticed = movement(own, lab.predict(lab.model, swapped), lab)[:, t]
        mattered = movement(own, lab.predict(lab.model, doubled), lab)[:, t]
    return HistoryOrder(float(noticed.max()), float(mattered.max()))


def decide(numbers: Order) -> Decision | None:
    """Pure: what mixes places, or hears old frames, has to notice their order."""
    text, history = numbers.text, numbers.history
    if text is not None and text.mixed > MIXED and text.noticed < EQUIVARIANT * text.mixed:
        return Decision("confirmed", text.where, 0.7, "text without order")
    bar = numbers.rounding
    if history is not None and history.noticed < bar and history.mattered > MATTERED * bar:
        return Decision("confirmed", numbers.history_in, 0.7, "history without order")
    if text is None and history is None:
        return None
    return Decision("excluded", reason="order is noticed")


def tell(numbers: Order, decision: Decision) -> Telling:
    evidence: dict[str, float | str] = {}
    if numbers.text is not None:
        evidence["text side: order noticed"] = numbers.text.noticed
        evidence["text side: places mixed"] = numbers.text.mixed
    if numbers.history is not None:
        evidence["history: order noticed"] = numbers.history.noticed
        evidence["history: old frames matter"] = numbers.history.mattered
    return Telling(
        "two text positions swapped at the embedding, two old frames swapped in the history",
        evidence,
    )


# --- drowning: a paired run decides ---------------------------------------------------------------


def propose(lab: Lab) -> Iterable[Suspect]:
    """Positions that drown what they are added to: shrunk to its size where a module adds them;
    else the text enlarged.
    """
    loud = {name: ratio for name, ratio in added_constants(lab).items() if ratio > LOUD_POSITIONS}
    if loud:
        worst = max(loud, key=loud.__getitem__)
        yield Suspect(
            CAUSE.id,
            positions_shrunk(loud),
            {f"size of what {worst} adds over its input": loud[worst]},
            worst,
        )
        return
    for name, share in content_share(lab).items():
        if share < DROWNED:
            factor = min(1e3, (1.0 - share**2) ** 0.5 / max(share, 1e-3))
            yield Suspect(
                CAUSE.id,
                text_enlarged(anatomy(lab).embeddings, factor),
                {f"share of the input of {name} that the text makes": share},
                name,
            )


def positions_shrunk(loud: Mapping[str, float]) -> Change:
    """What these modules add is divided by how much larger it is than their input."""

    def shrinking(ratio: float) -> Callable[[nn.Module, tuple, Tensor], Tensor]:
        return lambda _, args, output: args[0] + (output - args[0]) / ratio

    def shrink(model: nn.Module) -> None:
        modules = dict(model.named_modules())
        for name, ratio in loud.items():
            modules[name].register_forward_hook(shrinking(ratio))

    def template(*loud: tuple[str, float]) -> str:
        names = ", ".join(name for name, _ in loud)
        return f"what {names} adds shrunk to the size of its input"

    return Change("positions_shrunk", tuple(loud.items()), template, model=shrink)


def text_enlarged(embeddings: Iterable[str], factor: float) -> Change:
    """What these embeddings give is multiplied."""
    names = tuple(embeddings)

    def enlarge(model: nn.Module) -> None:
        modules = dict(model.named_modules())
        for name in names:
            change_output(modules[name], lambda x: x * factor)

    def template(factor: float, *_: str) -> str:
        return f"text embedding {factor:.3g} times as large against the positions"

    return Change("text_enlarged", (factor, *names), template, model=enlarge)


def added_constants(lab: Lab) -> dict[str, float]:
    """Modules that add the same to whatever they are given, as positions are: size of what is added
    over that of the input.
    """
    parts, model = anatomy(lab), lab.model
    modules = dict(model.named_modules())
    other_history = with_frames_changed(lab, list(parts.histories), slice(None))
    runs = [list(parts.calls), lab.calls(model, other_history)]
    with outputs_changed([(modules[name], lambda x: x.flip(1)) for name in parts.embeddings]):
        runs.append(lab.calls(model))
    found = {}
    for same in zip(*runs, strict=False):
        ratio = _added_over_input(same)
        if ratio is not None:
            found[same[0].name] = ratio
    return found


def _added_over_input(same: tuple[Call, ...]) -> float | None:
    """Of one module's calls in several runs: size of what it adds over its input; None where it
    does not add the same to different inputs.
    """
    if not _may_add(same):
        return None
    inputs = [call.inputs[0] for call in same]
    added = [
        call.outputs[0].float() - given.float() for call, given in zip(same, inputs, strict=True)
    ]
    size, changed = rms(added[0]), max(rms(added[0] - other) for other in added[1:])
    moved = max(rms(inputs[0].float() - other.float()) for other in inputs[1:])
    adds_the_same = size > 0 and changed < 1e-3 * size
    hears_others = moved > 1e-3 * rms(inputs[0])
    if adds_the_same and hears_others and float(added[0].std(dim=1).max()) > 1e-3 * size:
        return size / (rms(inputs[0]) + 1e-12)
    return None


def _may_add(same: tuple[Call, ...]) -> bool:
    """Whether it is one module that turns (B, N, D) into (B, N, D) in all the runs."""
    if not same[0].name or len({call.name for call in same}) > 1:
        return False
    shapes = set()
    for call in same:
        for tensor in (*call.inputs[:1], *call.outputs[:1]):
            if tensor.is_floating_point():
                shapes.add(tensor.shape)
    if len(shapes) != 1 or len(next(iter(shapes))) != 3:
        return False
    return all(call.inputs and call.inputs[0].is_floating_point() for call in same)


def content_share(lab: Lab) -> dict[str, float]:
    """Share of the deviation that text makes in what the first module after the embedding is given;
    small: it is drowned.

    The input under the text as it is against the input with the embedding's output shuffled over
    the places.
    """
    parts, model = anatomy(lab), lab.model
    if not parts.embeddings:
        return {}
    first = parts.embeddings[0]
    embedding = dict(model.named_modules())[first]
    before = lab.calls(model)
    n_places = next(call for call in before if call.name == first).outputs[0].shape[1]
    order = torch.randperm(n_places, generator=torch.Generator().manual_seed(4))
    with outputs_changed([(embedding, lambda tensor: tensor[:, order.to(tensor.device)])]):
        after = lab.calls(model)
    for old, new in zip(before, after, strict=False):
        behind_embedding = old.name in parts.text_side and old.name not in parts.embeddings
        if behind_embedding and _takes_a_sequence(old, new):
            a, b = old.inputs[0].float(), new.inputs[0].float()
            return {old.name: float((a - b).std() / (2**0.5 * a.std() + 1e-12))}
    return {}


def _takes_a_sequence(old: Call, new: Call) -> bool:
    return (
        bool(old.inputs)
        and old.inputs[0].ndim == 3
        and old.inputs[0].is_floating_point()
        and old.inputs[0].shape == new.inputs[0].shape
    )


CAUSE = Cause(
    id="model.positions",
    title="positions are missing or drown what they are added to",
    experiment="permute the memory; shrink the positions as the one factor, same seeds",
    fix="add positions at the scale of the embeddings",
    experiments=(
        Experiment(measure, decide, tell, finite=True),
        paired("model.positions", only_accepted=True),
    ),
    propose=propose,
    upstream=3,
)
