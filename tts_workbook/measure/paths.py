"""What reaches the model on the path of training, and on the paths of generation.

Training is the teacher-forced prediction of the batch. `Subject.generate` is usually given the same
batch; `Subject.infer` often goes clip by clip, unpadded. What enters a module is matched per clip:
a call with every clip, or as many calls as there are clips.

Shapes: B clips, N text positions, T frames, M mel bins.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from tts_core.model.modes import evaluating
from tts_workbook.measure.anatomy import find_history, with_frames_changed
from tts_workbook.subject.isolation import mapped, tensors_in, unchanged_randomness, without_dropout
from tts_workbook.subject.module_calls import text_embeddings
from tts_workbook.subject.opened import OpenSubject
from tts_workbook.subject.subject import Batch, supplied

question = "What reaches the model in training, and what in generation?"

Path = Literal["training", "generate", "infer"]
GENERATING: tuple[Path, ...] = ("generate", "infer")

N_SHUFFLES = 4  # of the text: positions that none of them moves hold no text
NOISE_SEED = 11
MOST_DISTINCT = 64  # inputs of one module that are kept: what differs more often is no condition

# a call's tensors, and what they are exchanged for
Exchange = Callable[[int, tuple[Tensor, ...]], tuple[Tensor, ...]]


# --- running a path -------------------------------------------------------------------------------


def paths_of(opened: OpenSubject) -> list[Path]:
    """The paths of generation that the subject supplies."""
    return [path for path in GENERATING if opened.subject.has(path)]


def run_path(
    opened: OpenSubject, model: nn.Module, path: Path, seed: int | None = None
) -> list[Tensor]:
    """Mels (T', M) of each clip, in eval mode without dropout, always from the same random
    state.
    """
    batch = opened.batch
    with (
        unchanged_randomness(opened.seed if seed is None else seed),
        evaluating(model),
        without_dropout(model),
    ):
        if path == "training":
            mels: Any = opened.subject.predict_mel(model, batch)
        elif path == "generate":
            mels = supplied(opened.subject.generate, "generate")(model, batch)
        else:
            mels = supplied(opened.subject.infer, "infer")(model, batch)
    return [mel.detach().float() for mel in mels]


@dataclass
class Entered:
    """What entered one module on one path, call by call."""

    # the tensors of each call; a call that repeats the one before it is counted, not kept
    distinct: list[tuple[Tensor, ...]]
    n_calls: int = 0

    def note(self, tensors: tuple[Tensor, ...]) -> None:
        self.n_calls += 1
        repeats = bool(self.distinct) and _equal(self.distinct[-1], tensors)
        if not repeats and len(self.distinct) <= MOST_DISTINCT:
            self.distinct.append(tuple(tensor.clone() for tensor in tensors))


def _equal(before: tuple[Tensor, ...], after: tuple[Tensor, ...]) -> bool:
    if len(before) != len(after):
        return False
    pairs = zip(before, after, strict=True)
    return all(a.shape == b.shape and a.dtype == b.dtype and torch.equal(a, b) for a, b in pairs)


@contextmanager
def entering(model: nn.Module, names: Collection[str]) -> Iterator[dict[str, Entered]]:
    """What enters these modules inside the block."""
    found: dict[str, Entered] = {}
    modules = dict(model.named_modules())

    def watch(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, kwargs: Any) -> None:
            found.setdefault(name, Entered([])).note(tuple(tensors_in((args, kwargs))))

        return hook

    with ExitStack() as stack:
        for name in names:
            handle = modules[name].register_forward_pre_hook(watch(name), with_kwargs=True)
            stack.callback(handle.remove)
        yield found


@contextmanager
def exchanged(module: nn.Module, exchange: Exchange) -> Iterator[list[bool]]:
    """Every call of `module` is given other tensors; yields, call by call, whether that changed
    anything.
    """
    acted: list[bool] = []

    def hook(_: nn.Module, args: Any, kwargs: Any) -> tuple[Any, Any]:
        given = tuple(tensors_in((args, kwargs)))
        wanted = exchange(len(acted), given)
        acted.append(not _equal(given, wanted))
        queue = iter(wanted)
        return mapped(lambda tensor: next(queue).to(tensor), (args, kwargs))

    handle = module.register_forward_pre_hook(hook, with_kwargs=True)
    try:
        yield acted
    finally:
        handle.remove()


# --- errors of a path -----------------------------------------------------------------------------


def path_error(opened: OpenSubject, path: Path, mels: Sequence[Tensor]) -> float:
    """Error over the best constant: frame by frame; of full inference, whose timing is its own,
    along the cheapest warp.
    """
    if path == "infer":
        return warped_error(opened, mels)
    rows = zip(mels, opened.target, opened.lengths.tolist(), strict=True)
    errors = []
    for mel, target, length in rows:
        shared = min(length, len(mel))
        errors.append((mel[:shared].to(target) - target[:shared]).abs().mean(dim=1))
    return float(torch.cat(errors).mean()) / opened.best_constant


def warped_error(opened: OpenSubject, mels: Sequence[Tensor]) -> float:
    """L1 along the cheapest pairing of frames, mean over the clips, over the best constant. A warp
    flatters: compare it with other warped errors alone.
    """
    from librosa.sequence import dtw

    found = []
    for mel, target, length in zip(mels, opened.target, opened.lengths.tolist(), strict=True):
        own = mel.to(target)
        if not len(own) or not bool(own.isfinite().all()):
            return math.nan
        cost = torch.cdist(own, target[:length], p=1).cpu().numpy() / target.shape[1]
        _, pairs = dtw(C=cost)
        found.append(float(np.mean([cost[i, j] for i, j in pairs])))
    return float(np.mean(found)) / opened.best_constant


# --- ids of the text ------------------------------------------------------------------------------

# what the ids of a path are beside those of training
Alike = Literal[
    "the same",
    "another order of symbols",
    "symbols merged",
    "blanks",
    "start or end symbols",
    "symbols dropped",
    "symbols added",
    "other ids",
    "not matched",
]


@dataclass(frozen=True)
class TextIds:
    """The ids that enter one text embedding in training, clip by clip."""

    name: str  # of the embedding
    rows: tuple[Tensor, ...]  # (N,) of each clip, padding included
    turned: bool  # the tensor is (N, B)
    padding: frozenset[int]  # ids that may be padding


def training_ids(opened: OpenSubject, model: nn.Module) -> list[TextIds]:
    """Of every embedding that reads the text in training. Embeddings whose ids follow the target
    (audio tokens) are none; where the text can be shuffled, those that do not follow it neither
    (speakers, languages).
    """
    names = text_embeddings(model, opened.calls(model))
    own = _ids(opened, model, names, opened.batch)
    by_target = _moved(own, _ids(opened, model, names, _other_target(opened)))
    shuffled = _shuffled_batches(opened)
    moved = [_moved(own, _ids(opened, model, names, batch)) for batch in shuffled]
    found = []
    for name, ids in own.items():
        follows_text = any(name in changed for changed in moved)
        if name in by_target or (shuffled and not follows_text):
            continue
        rows = _training_rows(opened, name, model, ids)
        if rows is None:
            continue
        ends = [changed[name] for changed in moved if name in changed]
        found.append(_cut_to_text(rows, ends))
    return found


def ids_of(opened: OpenSubject, batch: Batch, training: TextIds) -> list[list[int]]:
    """The ids of each clip of another batch, without padding, by an embedding that is known."""
    found = _ids(opened, opened.model, [training.name], batch).get(training.name)
    if found is None or found.ndim != 2:
        return []
    rows = (found.T if training.turned else found).unbind()
    return [without_padding(row, training.padding) for row in rows]


def _ids(
    opened: OpenSubject, model: nn.Module, names: Sequence[str], batch: Batch
) -> dict[str, Tensor]:
    """The first ids that enter each embedding in a teacher-forced prediction."""
    with entering(model, names) as entered, without_dropout(model):
        opened.predict(model, batch, "mel")
    found = {}
    for name, calls in entered.items():
        if calls.distinct and calls.distinct[0] and not calls.distinct[0][0].is_floating_point():
            found[name] = calls.distinct[0][0]
    return found


def _other_target(opened: OpenSubject) -> Batch:
    return with_frames_changed(opened, find_history(opened), slice(None))


def _shuffled_batches(opened: OpenSubject) -> list[Batch]:
    shuffle = opened.subject.shuffle_text
    if shuffle is None:
        return []
    seeds = range(N_SHUFFLES)
    return [shuffle(opened.batch, torch.Generator().manual_seed(seed)) for seed in seeds]


def _moved(own: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> dict[str, int]:
    """Embeddings whose ids differ -> the last position at which they do."""
    found = {}
    for name, ids in own.items():
        twin = other.get(name)
        if twin is None or twin.shape != ids.shape:
            found[name] = ids.shape[-1]
        elif not torch.equal(twin, ids):
            places = (twin != ids).nonzero()
            found[name] = int(places[:, -1].max()) + 1
    return found


def _training_rows(opened: OpenSubject, name: str, model: nn.Module, ids: Tensor) -> TextIds | None:
    n_clips = len(opened.target)
    if ids.ndim == 1 and n_clips == 1:
        ids = ids[None]
    if ids.ndim != 2 or n_clips not in ids.shape or ids.numel() <= n_clips:
        return None
    turned = len(ids) != n_clips
    rows = tuple((ids.T if turned else ids).unbind())
    return TextIds(name, rows, turned, _padding(dict(model.named_modules())[name], rows))


def _cut_to_text(ids: TextIds, ends: Sequence[int]) -> TextIds:
    """Without what stands behind the text: the audio tokens of a model that reads both in one
    row. Padding stays, so that whole rows can be exchanged, wherever nothing else stands there.
    """
    if not ends or ids.turned:
        return ids
    end = max(ends)
    behind = {int(token) for row in ids.rows for token in row[end:]}
    if len(behind) <= 2:  # padding, and the end of a text
        return ids
    rows = tuple(row[:end] for row in ids.rows)
    return TextIds(ids.name, rows, ids.turned, ids.padding)


def _padding(embedding: nn.Module, rows: Sequence[Tensor]) -> frozenset[int]:
    index = getattr(embedding, "padding_idx", None)
    found = {0 if index is None else int(index)}
    for row in rows:  # an id that is repeated up to the end
        if len(row) > 1 and row[-1] == row[-2]:
            found.add(int(row[-1]))
    return frozenset(found)


def without_padding(row: Tensor, padding: Collection[int]) -> list[int]:
    """Ids (N,) without the padding at their end."""
    ids = row.tolist()
    while ids and ids[-1] in padding:
        ids.pop()
    return ids


def by_clip(
    entered: Entered, n_clips: int, turned: bool = False
) -> list[tuple[Tensor, ...]] | None:
    """The tensors of a module on a path, clip by clip: of one call with every clip, or of as many
    calls as there are clips. None where neither fits.
    """
    calls = [tensors for tensors in entered.distinct if tensors]
    if any(tensors[0].numel() > 1 for tensors in calls):  # one token at a time is no text
        calls = [tensors for tensors in calls if tensors[0].numel() > 1]
    if len(calls) == 1:
        whole = _rows_of(calls[0], n_clips, turned)
        if whole is not None:
            return whole
        if entered.n_calls == n_clips:  # every clip is given the same
            calls = calls * n_clips
    if len(calls) != n_clips:
        return None
    found = []
    for tensors in calls:
        own = _rows_of(tensors, 1, turned)
        if own is None:
            return None
        found.append(own[0])
    return found


def _rows_of(
    tensors: tuple[Tensor, ...], n_clips: int, turned: bool
) -> list[tuple[Tensor, ...]] | None:
    found: list[list[Tensor]] = [[] for _ in range(n_clips)]
    for tensor in tensors:
        if n_clips == 1 and tensor.ndim == 1:
            tensor = tensor[None]
        rows = tensor.transpose(0, 1) if turned and tensor.ndim > 1 else tensor
        if rows.ndim == 0 or len(rows) != n_clips:
            return None
        for own, row in zip(found, rows, strict=True):
            own.append(row)
    return [tuple(own) for own in found]


def compared_ids(training: TextIds, path_rows: Sequence[Tensor] | None) -> Alike:
    """What the ids of a path are beside those of training; clips may come in another order."""
    if path_rows is None:
        return "not matched"
    mine = [without_padding(row, training.padding) for row in training.rows]
    theirs = [without_padding(row, training.padding) for row in path_rows]
    if sorted(mine) == sorted(theirs):
        return "the same"
    pairs = [(a, b) for a, b in zip(mine, theirs, strict=True) if a != b]
    for alike, holds in LOOKS.items():
        if holds(pairs):
            return alike
    return "other ids"


Pair = tuple[list[int], list[int]]  # ids in training, and on the other path


def _longer_first(pair: Pair) -> Pair:
    a, b = pair
    return (a, b) if len(a) > len(b) else (b, a)


def _has_blanks(pair: Pair) -> bool:
    long, short = _longer_first(pair)
    return short in (long[1::2], long[0::2])


def _has_other_ends(pair: Pair) -> bool:
    long, short = _longer_first(pair)
    spare = len(long) - len(short)
    starts = range(spare + 1)
    inside = any(long[start : start + len(short)] == short for start in starts)
    return 0 < spare <= 2 and inside


def _is_part(part: Sequence[int], whole: Sequence[int]) -> bool:
    """Whether `part` is `whole` with some left out."""
    rest = iter(whole)
    return all(any(token == other for other in rest) for token in part)


def _is_mapping(pairs: Sequence[Pair], one_to_one: bool) -> bool:
    """Whether one id always stands for one other id."""
    there: dict[int, int] = {}
    back: dict[int, int] = {}
    for a, b in pairs:
        if len(a) != len(b):
            return False
        for mine, theirs in zip(a, b, strict=True):
            if there.setdefault(mine, theirs) != theirs:
                return False
            if one_to_one and back.setdefault(theirs, mine) != mine:
                return False
    return True


LOOKS: Mapping[Alike, Callable[[Sequence[Pair]], bool]] = {
    "another order of symbols": lambda pairs: _is_mapping(pairs, one_to_one=True),
    "symbols merged": lambda pairs: _is_mapping(pairs, one_to_one=False),
    "blanks": lambda pairs: all(_has_blanks(pair) for pair in pairs),
    "start or end symbols": lambda pairs: all(_has_other_ends(pair) for pair in pairs),
    "symbols dropped": lambda pairs: all(_is_part(b, a) for a, b in pairs),
    "symbols added": lambda pairs: all(_is_part(a, b) for a, b in pairs),
}


# --- one factor: what entered in training ---------------------------------------------------------


@dataclass(frozen=True)
class PathErrors:
    """Errors of one path over the best constant, and what training's tensors make of it."""

    path: Path
    own: float
    control: float  # of the teacher-forced prediction, measured in the same way
    noise: float  # difference between two random states
    swapped: float | None  # with what entered in training; None where that could not be tried

    @property
    def removed(self) -> float:
        """Share of what the path loses against training that the exchange gives back."""
        if self.swapped is None or not math.isfinite(self.swapped):
            return math.nan
        return (self.own - self.swapped) / max(self.own - self.control, 1e-9)

    @property
    def gain(self) -> float:
        """What the exchange gains, as a share of the path's own error."""
        if self.swapped is None or not math.isfinite(self.swapped):
            return math.nan
        return (self.own - self.swapped) / max(self.own, 1e-9)


def path_errors(
    opened: OpenSubject,
    model: nn.Module,
    path: Path,
    name: str,
    exchange: Exchange | None,
) -> PathErrors:
    """A path as it is, under another random state, and with other tensors for one module. Whatever
    the subject's code raises on those tensors, the exchange could not be tried.
    """
    own = path_error(opened, path, run_path(opened, model, path))
    again = path_error(opened, path, run_path(opened, model, path, opened.seed + 1))
    control = path_error(opened, path, run_path(opened, model, "training"))
    swapped = None
    if exchange is not None:
        module = dict(model.named_modules())[name]
        try:
            with exchanged(module, exchange) as acted:
                mels = run_path(opened, model, path)
            swapped = path_error(opened, path, mels) if any(acted) else None
        except Exception:  # tensors of another shape: the path cannot take them
            swapped = None
    return PathErrors(path, own, control, abs(own - again), swapped)


def training_rows_for(
    rows: Sequence[Tensor], whole: Tensor, padding: Collection[int], place: int = 0
) -> Exchange:
    """Exchanges tensor `place` of each call: for training's `whole` tensor where a call has every
    clip, else for the row of the clip whose turn it is, cut to the length that the call had.
    """

    def exchange(number: int, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        wanted = list(given)
        seen = given[place]
        if seen.shape == whole.shape:
            wanted[place] = whole
        elif number < len(rows) and seen.numel() == rows[number][: seen.shape[-1]].numel():
            wanted[place] = rows[number][: seen.shape[-1]].reshape(seen.shape)
        else:
            raise ValueError(f"training has no tensor of shape {tuple(seen.shape)} here")
        return tuple(wanted)

    return exchange
