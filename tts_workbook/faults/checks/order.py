"""Checks of positions: a module that mixes places but cannot tell their order, and positions that
drown what they mark.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from tts_workbook.faults.checks.registry import check
from tts_workbook.faults.finding import Finding
from tts_workbook.lab.lab import Lab
from tts_workbook.measure.anatomy import MOVED, Anatomy, anatomy, movement
from tts_workbook.subject.isolation import without_dropout
from tts_workbook.subject.module_calls import Call, output_changed, outputs_changed, with_noise

EQUIVARIANT = 1e-4  # relative: outputs that are swapped exactly, up to rounding
# relative: one place's input that moves another place's output by more is mixed in
MIXED = 1e-3
# frames between the prediction that is watched and the history that is swapped
LAG = 12


@check("model.positions", finite=True)
def order_of_places(lab: Lab) -> Iterable[Finding]:
    """Two places are swapped at the text embedding, and two old frames in the history: does
    anything notice?
    """
    parts = anatomy(lab)
    text, where = text_order(lab, parts)
    frames = history_order(lab, parts)
    evidence = {**text, **frames}
    experiment = (
        "two text positions swapped at the embedding, two old frames swapped in the history"
    )
    blind = (
        text.get("text side: order noticed", 1.0)
        < EQUIVARIANT
        < MIXED
        < text.get("text side: places mixed", 0.0)
    )
    deaf = (
        frames.get("history: order noticed", 1.0)
        < MOVED
        < 10 * MOVED
        < frames.get("history: old frames matter", 0.0)
    )
    if blind or deaf:
        yield Finding(
            "model.positions",
            "confirmed",
            experiment,
            evidence,
            where if blind else (parts.history_in or ("decoder",))[0],
            0.7,
        )
    elif evidence:
        yield Finding("model.positions", "excluded", experiment, evidence)


def text_order(lab: Lab, parts: Anatomy) -> tuple[dict[str, float], str]:
    """How far the text side's last sequence of N places that the prediction hears (a duration
    predictor's is not, where durations are given) is from merely swapping when two of its inputs
    are swapped.
    """
    if not parts.embeddings:
        return {}, ""
    model = lab.model
    embedding = dict(model.named_modules())[parts.embeddings[0]]
    before = lab.calls(model)
    start = next(call for call in before if call.name == parts.embeddings[0])
    n_places = start.outputs[0].shape[1]
    i, j = n_places // 4, n_places // 2
    if i == j or torch.equal(start.outputs[0][:, i], start.outputs[0][:, j]):
        return {}, ""

    def swapped(tensor: Tensor) -> Tensor:
        return swap(tensor, i, j)

    with outputs_changed([(embedding, swapped)]):
        after = lab.calls(model)
    with outputs_changed([(embedding, lambda tensor: disturb_place(tensor, i))]):
        disturbed = lab.calls(model)
    side = set(parts.text_side)
    with without_dropout(model):
        own = lab.predict(model)
    for old, new, moved in reversed(list(zip(before, after, disturbed))):
        if (
            old.name not in side
            or old.name == parts.embeddings[0]
            or not _has_places(old, n_places, len(lab.target))
        ):
            continue
        with (
            without_dropout(model),
            output_changed(
                dict(model.named_modules())[old.name], lambda tensor: with_noise(tensor, 6)
            ),
        ):
            heard = float(movement(own, lab.predict(model), lab).max()) > MOVED
        if not heard:
            continue
        a, b, c = old.outputs[0].float(), new.outputs[0].float(), moved.outputs[0].float()
        scale = float(a.std()) + 1e-12
        others = [place for place in range(n_places) if place not in (i, j)]
        return {
            "text side: order noticed": float((swap(a, i, j) - b).abs().max()) / scale,
            "text side: places mixed": float((a - c)[:, others].abs().max()) / scale,
        }, old.name
    return {}, ""


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


def history_order(lab: Lab, parts: Anatomy) -> dict[str, float]:
    """Whether the prediction notices that two frames LAG and more behind it have changed places,
    and that they changed at all.
    """
    n_frames = int(lab.lengths.min())
    t, i, j = n_frames - 1, n_frames // 4, n_frames // 2
    if not parts.histories or t - j < LAG:
        return {}
    swapped, doubled = lab.batch, lab.batch
    for history in parts.histories:
        shift = history.shift

        def exchange(tensor: Tensor) -> None:
            tensor[:, [i + shift, j + shift]] = tensor[:, [j + shift, i + shift]]

        def double(tensor: Tensor) -> None:
            tensor[:, i + shift] = tensor[:, j + shift]

        swapped, doubled = history.changed(swapped, exchange), history.changed(doubled, double)
    with without_dropout(lab.model):
        own = lab.predict(lab.model)
        noticed = movement(own, lab.predict(lab.model, swapped), lab)[:, t]
        mattered = movement(own, lab.predict(lab.model, doubled), lab)[:, t]
    return {
        "history: order noticed": float(noticed.max()),
        "history: old frames matter": float(mattered.max()),
    }


def content_share(lab: Lab, parts: Anatomy) -> dict[str, float]:
    """Share of the deviation that text makes in what the first modules after the embedding are
    given; small: it is drowned.

    The input under the text as it is against the input with the embedding's output shuffled over
    the places.
    """
    if not parts.embeddings:
        return {}
    model = lab.model
    modules: dict[str, nn.Module] = dict(model.named_modules())
    before = lab.calls(model)
    n_places = next(call for call in before if call.name == parts.embeddings[0]).outputs[0].shape[1]
    order = torch.randperm(n_places, generator=torch.Generator().manual_seed(4))
    with outputs_changed(
        [(modules[parts.embeddings[0]], lambda tensor: tensor[:, order.to(tensor.device)])]
    ):
        after = lab.calls(model)
    shares = {}
    for old, new in zip(before, after):
        if (
            old.name in parts.text_side
            and old.name not in parts.embeddings
            and old.inputs
            and old.inputs[0].ndim == 3
            and old.inputs[0].is_floating_point()
            and old.inputs[0].shape == new.inputs[0].shape
        ):
            a, b = old.inputs[0].float(), new.inputs[0].float()
            shares[old.name] = float((a - b).std() / (2**0.5 * a.std() + 1e-12))
            break
    return shares
