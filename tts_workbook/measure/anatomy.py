"""Where text, history, memory and output are in a model that nobody described: found by running it
with one thing changed.

Shapes: B batch, T frames, M mel bins, N text positions, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tts_workbook.bars import Bar
from tts_workbook.measure.optimizer_parity import nudged
from tts_workbook.subject.isolation import private_copy, tensors_in, without_dropout
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

FLOORS = Bar(10.0, control="times what a rounding of the weights moves the same prediction")
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
class Rounding:
    """How far a prediction moves when every weight is off by a rounding: the floor that no
    equivalence can be closer than. In units of the target's spread.
    """

    largest: float  # of any valid frame and bin
    rms: float  # over all of them

    @property
    def moved(self) -> float:
        """The largest move of a prediction that has not moved."""
        return FLOORS * self.largest


@once_per_subject
def rounding(opened: OpenSubject) -> Rounding:
    """Of the fresh model; of what stands before a post-net and behind it the larger. Zero where its
    prediction is not finite: nothing can be compared with it then.
    """
    if not opened.predicts_numbers:
        return Rounding(0.0, 0.0)
    return rounding_of(opened, opened.model)


def rounding_of(opened: OpenSubject, model: nn.Module) -> Rounding:
    """The same of any model of the subject."""
    off = nudged(model)
    largest, rms_moves = [0.0], [0.0]
    with without_dropout(model), without_dropout(off):
        for field in opened.fields:
            a, b = opened.predict(model, field=field), opened.predict(off, field=field)
            largest.append(float(movement(a, b, opened).max()))
            rms_moves.append(rms_movement(a, b, opened))
    return Rounding(max(largest), max(rms_moves))


def rms_movement(a: Tensor, b: Tensor, opened: OpenSubject) -> float:
    """Root mean square change over valid frames and bins, in units of the target's spread."""
    change = (a - b)[opened.mask].square().mean().sqrt()
    return float(change / (opened.frames.std() + 1e-12))


@dataclass(frozen=True)
class Taker:
    """A module of the decoder that is given the memory, or what bare code made of it."""

    name: str
    inputs: tuple[int, ...]  # of Call.inputs: sequences that hang on the text alone


@dataclass(frozen=True)
class Anatomy:
    """Module names by what they carry, from runs of the fresh model."""

    embeddings: tuple[str, ...]  # read the text
    # depend on the text and not on the history: the encoder, in order of execution
    text_side: tuple[str, ...]
    # the last of them, whose output the decoder reads; empty where there is none
    memory: str
    memory_calls: tuple[int, ...]  # the calls of `memory` that matter
    # every module of the decoder that takes the memory in, the outermost first
    takers: tuple[Taker, ...]
    history_in: tuple[str, ...]  # first modules that the history enters
    # depend on the history and not on the text: a pre-net
    history_side: tuple[str, ...]
    # of `OpenSubject.fields`: last module with parameters that moves the prediction; empty if none
    outputs: Mapping[str, str]
    histories: tuple[History, ...]
    calls: tuple[Call, ...]  # of the undisturbed prediction

    @property
    def entries(self) -> tuple[Taker, ...]:
        """The outermost takers: through these all of the memory goes."""
        found: list[Taker] = []
        for taker in self.takers:
            if not any(taker.name.startswith(f"{outer.name}.") for outer in found):
                found.append(taker)
        return tuple(found)

    @property
    def output(self) -> str:
        """The module whose output is the mel, behind a post-net where there is one."""
        return self.outputs["mel"]


@once_per_subject
def anatomy(opened: OpenSubject) -> Anatomy:
    """The anatomy of the subject's model, found once per subject."""
    model = opened.build()
    calls = opened.calls(model)
    embeddings = _text_embeddings(opened, model, calls)
    histories = find_history(opened)
    text_calls = _text_disturbed(opened, model, embeddings)
    by_text = changed_outputs(calls, text_calls)
    by_history: dict[int, float] = {}
    takers: tuple[Taker, ...] = ()
    if histories:
        disturbed = with_frames_changed(opened, histories, slice(None))
        history_calls = opened.calls(model, disturbed)
        # a loss that is computed inside the model reads the target too
        if _prediction_moves(opened, model, disturbed):
            by_history = changed_outputs(calls, history_calls)
        decoders = _decoders(calls, by_history, embeddings)
        takers = _takers(opened, (calls, text_calls, history_calls), decoders)
    # at its first step a recurrent decoder has heard nothing yet
    hears = {calls[index].name for index in by_history}
    text_side = [
        index
        for index, call in enumerate(calls)
        if index in by_text and call.name and call.name not in hears
    ]
    mel_side = [index for index in by_history if calls[index].name]
    memory = opened.subject.memory or ""
    if not memory:
        search = _MemorySearch(opened, model, calls, takers, embeddings)
        inside = {taker.name for taker in takers}
        outside = [index for index in text_side if not _is_inside(calls[index].name, inside)]
        memory = search.name(outside, sorted(mel_side))
    return Anatomy(
        embeddings=tuple(embeddings),
        text_side=tuple(dict.fromkeys(calls[index].name for index in text_side)),
        memory=memory,
        memory_calls=tuple(index for index, call in enumerate(calls) if call.name == memory),
        takers=takers,
        history_in=_history_in(model, calls, mel_side),
        history_side=tuple(sorted(hears - {calls[index].name for index in by_text})),
        outputs={field: find_output(opened, model, calls, field) for field in opened.fields},
        histories=tuple(histories),
        calls=tuple(calls),
    )


def _text_embeddings(opened: OpenSubject, model: nn.Module, calls: list[Call]) -> list[str]:
    """Those that read text; of several, where the subject can give another text, the ones that are
    given other numbers then.
    """
    names = text_embeddings(model, calls)
    shuffle = opened.subject.shuffle_text
    if shuffle is None or len(names) < 2:
        return names
    other = shuffle(private_copy(opened.batch), torch.Generator().manual_seed(NOISE_SEED))
    given: set[str] = set()
    for old, new in zip(calls, opened.calls(model, other), strict=False):
        if old.name in names and old.name == new.name and not _same(old.inputs[0], new.inputs[0]):
            given.add(old.name)
    return [name for name in names if name in given] or names


def _prediction_moves(opened: OpenSubject, model: nn.Module, batch: Batch) -> bool:
    """Whether another batch of the same lengths gives another prediction."""
    with without_dropout(model):
        own = opened.predict(model, field="mel")
        moved = movement(own, opened.predict(model, batch, "mel"), opened)
    return float(moved.max()) > rounding(opened).moved


def _decoders(
    calls: list[Call], by_history: Collection[int], embeddings: Sequence[str]
) -> set[str]:
    """Modules that hear the history and do not hold the text embedding, as a whole model does."""
    names = {calls[index].name for index in by_history} - {""}
    return {name for name in names if not any(_is_inside(inner, {name}) for inner in embeddings)}


def _is_inside(name: str, outer: Collection[str]) -> bool:
    """Whether `name` is one of these modules, or inside one of them."""
    return any(name == module or name.startswith(f"{module}.") for module in outer)


def _takers(
    opened: OpenSubject, runs: tuple[list[Call], list[Call], list[Call]], decoders: Collection[str]
) -> tuple[Taker, ...]:
    """Modules of the decoder with an input that moves with the text and never with the history."""
    by_text: set[tuple[str, int]] = set()
    by_history: set[tuple[str, int]] = set()
    for call, under_text, under_history in zip(*runs, strict=False):
        if not (call.name == under_text.name == under_history.name):
            break
        for index, tensor in enumerate(call.inputs):
            if not _is_sequence(tensor, opened) or not _is_inside(call.name, decoders):
                continue
            if not _same(tensor, under_text.inputs[index]):
                by_text.add((call.name, index))
            if not _same(tensor, under_history.inputs[index]):
                by_history.add((call.name, index))
    inputs: dict[str, list[int]] = {}
    for name, index in sorted(by_text - by_history):
        inputs.setdefault(name, []).append(index)
    found = [Taker(name, tuple(indices)) for name, indices in inputs.items()]
    return tuple(sorted(found, key=lambda taker: (taker.name.count("."), taker.name)))


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


def _text_disturbed(opened: OpenSubject, model: nn.Module, embeddings: list[str]) -> list[Call]:
    """The calls of a prediction in which what the text embeddings give is disturbed."""
    modules = dict(model.named_modules())
    with outputs_changed(
        (modules[name], lambda tensor: with_noise(tensor, NOISE_SEED)) for name in embeddings
    ):
        return opened.calls(model)


class _MemorySearch:
    """The text-only module whose output the decoder reads."""

    def __init__(
        self,
        opened: OpenSubject,
        model: nn.Module,
        calls: list[Call],
        takers: Sequence[Taker],
        embeddings: Sequence[str],
    ) -> None:
        self.opened, self.model, self.calls = opened, model, calls
        self.takers, self.embeddings = takers, embeddings

    def name(self, text_side: list[int], mel_side: list[int]) -> str:
        """The one that gives the (B, length, width) sequence which the outermost history-dependent
        module is handed. Where bare code stands between them, or no history is heard: the last one
        that what reads the memory hears. Empty where nothing gives a sequence.
        """
        given = self._sequences(text_side)
        if not mel_side:
            given = self._of_text_length(given) or given
        # the outermost first
        decoder = sorted(
            (self.calls[index] for index in mel_side), key=lambda call: call.name.count(".")
        )
        for call in decoder:
            for index in reversed(given):
                sequences = [
                    tensor
                    for tensor in self.calls[index].outputs
                    if _is_sequence(tensor, self.opened)
                ]
                if any(_same(tensor, entered) for entered in call.inputs for tensor in sequences):
                    return self.calls[index].name
        names = dict.fromkeys(self.calls[index].name for index in reversed(given))
        if not self.takers:
            # bare code reads it: the last module that all of the text goes through, packed or not
            packed = dict.fromkeys(self.calls[index].name for index in reversed(text_side))
            for name in packed if mel_side else names:
                if self._is_read(name) and self._is_the_only_way(name):
                    return name
        for name in names:
            if self._is_read(name):
                return name
        # nothing reads any: the last of the outermost, an encoder rather than a part of a predictor
        return min(names, key=lambda name: name.count("."), default="")

    def _is_the_only_way(self, name: str) -> bool:
        """Whether other text moves nothing once what `name` gives is held at zero."""
        modules = dict(self.model.named_modules())
        disturb = [(modules[embedding], _disturb) for embedding in self.embeddings]
        with without_dropout(self.model), output_changed(modules[name], torch.zeros_like):
            own = self.opened.predict(self.model)
            with outputs_changed(disturb):
                moved = movement(own, self.opened.predict(self.model), self.opened)
        return float(moved.max()) <= rounding(self.opened).moved

    def _sequences(self, indices: list[int]) -> list[int]:
        found = []
        for index in indices:
            if any(_is_sequence(tensor, self.opened) for tensor in self.calls[index].outputs):
                found.append(index)
        return found

    def _of_text_length(self, indices: list[int]) -> list[int]:
        """Those that give as many places as the text has: before a length regulator."""
        lengths = {
            call.outputs[0].shape[1]
            for call in self.calls
            if call.name in self.embeddings and call.outputs[0].ndim == 3
        }
        found = []
        for index in indices:
            tensor = next(t for t in self.calls[index].outputs if _is_sequence(t, self.opened))
            if lengths & set(tensor.shape[1:]):
                found.append(index)
        return found

    def _is_read(self, name: str) -> bool:
        """Whether every taker of the memory, or the prediction where there is none, moves when what
        `name` gives is disturbed.
        """
        module = dict(self.model.named_modules())[name]

        if not self.takers:
            with without_dropout(self.model):
                own = self.opened.predict(self.model)
                with output_changed(module, _disturb):
                    moved = movement(own, self.opened.predict(self.model), self.opened)
            return float(moved.max()) > rounding(self.opened).moved
        with output_changed(module, _disturb):
            after = self.opened.calls(self.model)
        heard: set[str] = set()
        inputs = {taker.name: taker.inputs for taker in self.takers}
        for old, new in zip(self.calls, after, strict=False):
            for index in inputs.get(old.name, ()):
                if not _same(old.inputs[index], new.inputs[index]):
                    heard.add(old.name)
        return heard == inputs.keys()


def _disturb(tensor: Tensor) -> Tensor:
    return with_noise(tensor, NOISE_SEED)


def _is_sequence(tensor: Tensor, opened: OpenSubject) -> bool:
    return (
        tensor.ndim == 3
        and tensor.is_floating_point()
        and min(tensor.shape[1:]) > 1
        and len(opened.target) in tensor.shape[:2]
    )


def _same(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype and torch.equal(a, b)


def _holds_bins(tensor: Tensor, n_bins: int) -> bool:
    return any(size > 0 and size % n_bins == 0 for size in tensor.shape[1:])


def find_output(opened: OpenSubject, model: nn.Module, calls: list[Call], field: str) -> str:
    """The last leaf module with parameters and M outputs, or a multiple, that moves the
    prediction.
    """
    modules = dict(model.named_modules())
    n_bins = opened.target.shape[2]
    before = opened.predict(model, field=field)
    for call in reversed(calls):
        module = modules.get(call.name)
        if module is None or not _is_leaf(module) or not any(True for _ in module.parameters()):
            continue
        # several frames at once have several times as many
        if not any(_holds_bins(tensor, n_bins) for tensor in call.outputs):
            continue
        with output_changed(module, lambda tensor: tensor + 1.0):
            moved = float(movement(opened.predict(model, field=field), before, opened).max())
            if moved > rounding(opened).moved:
                return call.name
    return ""
