"""Where text, history, memory and output are in a model that nobody described: found by running it
with one thing changed.

Shapes: B batch, T frames, M mel bins, N text positions, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tts_workbook.subject.isolation import private_copy, tensors_in
from tts_workbook.subject.module_calls import (
    Call,
    changed_outputs,
    output_changed,
    outputs_changed,
    text_embeddings,
    with_noise,
)
from tts_workbook.subject.opened import OpenSubject, once_per_subject
from tts_workbook.subject.subject import Batch

question = "Where are text, history, memory and output of a model that nobody described?"

# a prediction that moves by less than this share of the target's spread has not moved
MOVED = 1e-4
NOISE_SEED = 7
LOUD = 3.0  # deviations of the noise that frames are disturbed by


@dataclass(frozen=True)
class History:
    """A tensor of the batch that holds the target's frames and is fed to the decoder (or is the
    target itself).
    """

    index: int  # among tensors_in(batch)
    bins_first: bool  # (B, M, T) instead of (B, T, M)
    shift: int  # its frame j is the target's frame j - shift

    def changed(self, batch: Batch, change: Callable[[Tensor], None]) -> Batch:
        """A copy of the batch with `change` applied in place to the frames (B, L, M)."""
        twin = private_copy(batch)
        tensor = tensors_in(twin)[self.index]
        change(tensor.transpose(1, 2) if self.bins_first else tensor)
        return twin


def find_history(opened: OpenSubject) -> list[History]:
    """Tensors of the batch that are the target up to a per-bin scale and a shift of at most one
    frame.
    """
    found = []
    for index, tensor in enumerate(tensors_in(opened.batch)):
        if tensor.ndim != 3 or not tensor.is_floating_point() or len(tensor) != len(opened.target):
            continue
        for bins_first in (False, True):
            frames = (tensor.transpose(1, 2) if bins_first else tensor).float()
            if frames.shape[2] != opened.target.shape[2]:
                continue
            for shift in (0, 1, -1):
                if _is_target(frames, opened, shift):
                    found.append(History(index, bins_first, shift))
                    break
    return found


def _is_target(frames: Tensor, opened: OpenSubject, shift: int) -> bool:
    """Whether frame j of `frames` is a per-bin affine image of the target's frame j - shift."""
    length = min(
        frames.shape[1] - max(shift, 0),
        opened.target.shape[1] - max(-shift, 0),
        int(opened.lengths.min()) - 1,
    )
    if length < 4:
        return False
    later, earlier = max(shift, 0), max(-shift, 0)
    given = frames[:, later : later + length].reshape(-1, frames.shape[2])
    wanted = opened.target[:, earlier : earlier + length].reshape(-1, frames.shape[2])
    given, wanted = given - given.mean(dim=0), wanted - wanted.mean(dim=0)
    spread = wanted.square().sum(dim=0)
    slope = (given * wanted).sum(dim=0) / spread.clamp(min=1e-9)
    residual = (given - slope * wanted).square().sum() / given.square().sum().clamp(min=1e-12)
    return bool(residual < 1e-3) and bool((slope.abs() > 1e-6).float().mean() > 0.5)


def with_frames_changed(
    opened: OpenSubject, histories: list[History], frames: slice, seed: int = NOISE_SEED
) -> Batch:
    """The batch with noise of three times the target's size on these frames of the target, wherever
    the batch holds them.
    """
    batch = opened.batch
    for history in histories:

        def disturb(tensor: Tensor, shift: int = history.shift) -> None:
            start, stop, _ = frames.indices(opened.target.shape[1])
            start, stop = max(0, start + shift), min(tensor.shape[1], stop + shift)
            generator = torch.Generator().manual_seed(seed)
            noise = torch.randn(tensor[:, start:stop].shape, generator=generator)
            size = LOUD * tensor.float().std()
            tensor[:, start:stop] += (size * noise.to(tensor.device)).to(tensor.dtype)

        batch = history.changed(batch, disturb)
    return batch


def movement(a: Tensor, b: Tensor, opened: OpenSubject) -> Tensor:
    """(B, T) largest change over the bins, in units of the target's spread, zero in the padding;
    NaN counts as 1e9.
    """
    change = (a - b).abs().amax(dim=2) / (opened.frames.std() + 1e-12)
    return torch.nan_to_num(change, nan=1e9, posinf=1e9).masked_fill(~opened.mask, 0.0)


@dataclass(frozen=True)
class Anatomy:
    """Module names by what they carry, from runs of the fresh model."""

    embeddings: tuple[str, ...]  # read the text
    # depend on the text and not on the history: the encoder, in order of execution
    text_side: tuple[str, ...]
    # the last of them, whose output the decoder reads; empty where there is none
    memory: str
    memory_calls: tuple[int, ...]  # the calls of `memory` that matter
    history_in: tuple[str, ...]  # first modules that the history enters
    # of `OpenSubject.fields`: last module with parameters that moves the prediction; empty if none
    outputs: Mapping[str, str]
    histories: tuple[History, ...]
    calls: tuple[Call, ...]  # of the undisturbed prediction

    @property
    def output(self) -> str:
        """The module whose output is the mel, behind a post-net where there is one."""
        return self.outputs["mel"]


@once_per_subject
def anatomy(opened: OpenSubject) -> Anatomy:
    """The anatomy of the subject's model, found once per subject."""
    model = opened.build()
    calls = opened.calls(model)
    embeddings = text_embeddings(model, calls)
    histories = find_history(opened)
    by_text = _changed_by_text(opened, model, embeddings, calls)
    by_history: dict[int, float] = {}
    if histories:
        disturbed = with_frames_changed(opened, histories, slice(None))
        by_history = changed_outputs(calls, opened.calls(model, disturbed))
    # at its first step a recurrent decoder has heard nothing yet
    hears = {calls[index].name for index in by_history}
    text_side = [
        index
        for index, call in enumerate(calls)
        if index in by_text and call.name and call.name not in hears
    ]
    mel_side = [index for index in by_history if calls[index].name]
    memory = opened.subject.memory or _memory_name(calls, text_side, sorted(mel_side), opened)
    return Anatomy(
        embeddings=tuple(embeddings),
        text_side=tuple(dict.fromkeys(calls[index].name for index in text_side)),
        memory=memory,
        memory_calls=tuple(index for index, call in enumerate(calls) if call.name == memory),
        history_in=_history_in(model, calls, mel_side),
        outputs={field: find_output(opened, model, calls, field) for field in opened.fields},
        histories=tuple(histories),
        calls=tuple(calls),
    )


def _history_in(model: nn.Module, calls: list[Call], mel_side: list[int]) -> tuple[str, ...]:
    """The first module that the history enters: a leaf, where there is one."""
    if not mel_side:
        return ()
    leaves = {name for name, module in model.named_modules() if _is_leaf(module)}
    inside = [index for index in sorted(mel_side) if calls[index].name in leaves]
    first = inside[0] if inside else mel_side[0]
    return (calls[first].name,)


def _is_leaf(module: nn.Module) -> bool:
    return not any(True for _ in module.children())


def _changed_by_text(
    opened: OpenSubject, model: nn.Module, embeddings: list[str], calls: list[Call]
) -> dict[int, float]:
    """Calls that move when what the text embeddings give is disturbed."""
    modules = dict(model.named_modules())
    with outputs_changed(
        (modules[name], lambda tensor: with_noise(tensor, NOISE_SEED)) for name in embeddings
    ):
        return changed_outputs(calls, opened.calls(model))


def _memory_name(
    calls: list[Call], text_side: list[int], mel_side: list[int], opened: OpenSubject
) -> str:
    """The text-only module that gives the (B, length, width) sequence which the outermost
    history-dependent module is handed; the last text-only one where none is handed over as it is.
    """
    # the outermost first
    decoder = sorted((calls[index] for index in mel_side), key=lambda call: call.name.count("."))
    candidates = [
        index
        for index in text_side
        if any(_is_sequence(tensor, opened) for tensor in calls[index].outputs)
    ]
    for call in decoder:
        for index in reversed(candidates):
            given = [tensor for tensor in calls[index].outputs if _is_sequence(tensor, opened)]
            if any(_same(tensor, entered) for entered in call.inputs for tensor in given):
                return calls[index].name
    return calls[candidates[-1]].name if candidates else ""


def _is_sequence(tensor: Tensor, opened: OpenSubject) -> bool:
    return (
        tensor.ndim == 3
        and tensor.is_floating_point()
        and min(tensor.shape[1:]) > 1
        and len(opened.target) in tensor.shape[:2]
    )


def _same(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype and torch.equal(a, b)


def _holds_frames(tensor: Tensor, n_bins: int) -> bool:
    """Whether one of its sizes is the bins, or the last one those of several frames."""
    return n_bins in tensor.shape[1:] or (tensor.ndim > 1 and tensor.shape[-1] % n_bins == 0)


def find_output(opened: OpenSubject, model: nn.Module, calls: list[Call], field: str) -> str:
    """The last leaf module with parameters and M outputs, or r times M, whose output moves the
    prediction.
    """
    modules = dict(model.named_modules())
    n_bins = opened.target.shape[2]
    before = opened.predict(model, field=field)
    for call in reversed(calls):
        module = modules.get(call.name)
        if module is None or not _is_leaf(module) or not any(True for _ in module.parameters()):
            continue
        if not any(_holds_frames(tensor, n_bins) for tensor in call.outputs):
            continue
        with output_changed(module, lambda tensor: tensor + 1.0):
            if float(movement(opened.predict(model, field=field), before, opened).max()) > MOVED:
                return call.name
    return ""
