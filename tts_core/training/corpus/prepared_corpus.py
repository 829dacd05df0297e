"""A corpus of any size: looked at once, one clip at a time, and from then on read from the feature
cache, batch by batch.

In memory stay ids, keys and lengths; no mel outlives its batch. T frames, N phonemes, M mel bins.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from tts_core.config import AudioConfig
from tts_core.errors import CacheError, WorkbookError
from tts_core.speech.batch import Batch, collate
from tts_core.speech.dataset import (
    AlignmentSource,
    corpus_warnings,
    rejection_of,
    unknown_ids,
    vocabulary_of,
)
from tts_core.speech.folder import Entry, Folder, Rejection, read_id_list, scan_folder
from tts_core.speech.phonemes import Vocabulary
from tts_core.training.corpus.feature_cache import FeatureCache
from tts_core.training.corpus.processes import ALONE, Place

Loaded = TypeVar("Loaded")


@dataclass(frozen=True)
class CorpusItem:
    """What is kept of a clip between batches."""

    entry: Entry
    key: str  # of its features in the cache
    n_frames: int  # T
    alignment: AlignmentSource


@dataclass(frozen=True)
class LoadedClip:
    """What a batch is made of."""

    id: str
    phonemes: tuple[str, ...]  # N symbols
    phoneme_ids: np.ndarray  # (N,) int64
    durations: np.ndarray  # (N,) int64 frames
    mel: Tensor  # (T, M) float32, ln units
    alignment: AlignmentSource


@dataclass(frozen=True)
class TrainingCorpus:
    """Two lists of clips, what is said of those left out, and what all clips share."""

    folder: Folder
    audio: AudioConfig
    cache: FeatureCache
    train: list[CorpusItem]
    held_out: list[CorpusItem]
    rejected: list[Rejection]
    warnings: list[str]
    vocabulary: Vocabulary
    mel_mean: Tensor  # (M,) over all training frames, ln units
    mel_std: Tensor  # (M,)
    content_hash: str  # of ids and features of both parts, in order

    def load(self, item: CorpusItem) -> LoadedClip:
        """The clip, from the cache or, where its entry is gone or damaged, from its files. Raises
        WorkbookError if those changed.
        """
        features = self.cache.get(item.key)
        if features is None:
            key, features = self.cache.features(item.entry, self.folder, self.audio)
            if key != item.key:
                raise WorkbookError(
                    f"{item.entry.wav}: it, its TextGrid or its text changed during the training;"
                    " put the old one back, or train anew in another --out"
                )
        return LoadedClip(
            item.entry.id,
            features.phonemes,
            self.vocabulary.encode(features.phonemes),
            features.durations,
            features.mel,
            features.alignment,
        )

    def batch(self, items: Iterable[CorpusItem]) -> Batch:
        """The clips side by side, padded with this recipe's silence."""
        return collate([self.load(item) for item in items], self.audio.silence)


# --- looking at every clip once -------------------------------------------------------------------


@dataclass(frozen=True)
class _Seen:
    item: CorpusItem
    symbols: frozenset[str]
    total: np.ndarray  # (M,) fp64 sum of its frames
    squares: np.ndarray  # (M,) fp64 sum of their squares


class _Survey(Dataset[_Seen | Rejection | CacheError]):
    """index -> _Seen, Rejection or CacheError; a Dataset, so that torch's loader workers share the
    work of a cold cache.
    """

    def __init__(
        self, folder: Folder, entries: Sequence[Entry], audio: AudioConfig, cache: FeatureCache
    ) -> None:
        self.folder = folder
        self.entries = entries
        self.audio = audio
        self.cache = cache

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, index: int) -> _Seen | Rejection | CacheError:
        entry = self.entries[index]
        try:
            key, features = self.cache.features(entry, self.folder, self.audio)
        except CacheError as error:
            # raised by _survey, in every process: raised here it would end one, and the rest wait
            # for it
            return error
        except (WorkbookError, OSError) as error:
            return rejection_of(entry, self.folder, error)
        mel = features.mel.numpy().astype(np.float64)
        item = CorpusItem(entry, key, len(mel), features.alignment)
        squares = (mel**2).sum(axis=0)
        return _Seen(item, frozenset(features.phonemes), mel.sum(axis=0), squares)


def _as_it_is(value: Loaded) -> Loaded:
    """In place of a loader's own collation; a function with a name, so that workers can have it."""
    return value


def _survey(
    folder: Folder,
    entries: Sequence[Entry],
    audio: AudioConfig,
    cache: FeatureCache,
    workers: int,
    place: Place,
) -> list[_Seen | Rejection]:
    """One result per entry, in order; the processes of `place` share the entries out and hand each
    other the results.

    Raises CacheError, on every process, where one of them met it.
    """
    loader = DataLoader(
        _Survey(folder, entries[place.rank :: place.world], audio, cache),
        batch_size=None,
        num_workers=workers,
        collate_fn=_as_it_is,
    )
    mine: list[_Seen | Rejection | CacheError] = []
    for result in loader:
        mine.append(result)
        if isinstance(result, CacheError):
            break
    shares = place.gather(mine)
    for share in shares:
        if share and isinstance(share[-1], CacheError):
            raise share[-1]
    return [shares[index % place.world][index // place.world] for index in range(len(entries))]


def _hold_out(
    folder: Folder, train: Path | None, held_out: Path | None, n_clips: int
) -> tuple[list[str], set[str]]:
    """(ids to use, those of them that are held out): by the lists given, those in the folder, else
    by a hash of the ids.
    """
    train = train or _list_in(folder, "train.txt")
    held_out = held_out or _list_in(folder, "held_out.txt")
    ids = [entry.id for entry in folder.entries] if train is None else read_id_list(train)
    if held_out is not None:
        apart = read_id_list(held_out)
    else:  # by a hash, so that most stay held out when clips are added
        apart = sorted(ids, key=lambda name: hashlib.sha256(name.encode()).digest())[:n_clips]
    every_id_once = list(dict.fromkeys([*ids, *sorted(set(apart))]))
    return every_id_once, set(apart)


def _list_in(folder: Folder, name: str) -> Path | None:
    path = folder.root / name
    return path if path.is_file() else None


def open_corpus(
    root: Path | str,
    audio: AudioConfig,
    cache: FeatureCache,
    *,
    language: str = "auto",
    ids: Path | None = None,
    held_out: Path | None = None,
    held_out_clips: int = 16,
    workers: int = 0,
    place: Place = ALONE,
) -> TrainingCorpus:
    """Look at every clip once, filling the cache, and divide them into training and held-out clips.

    `ids`, `held_out`: files with ids; by default the folder's train.txt and held_out.txt, else all
    clips, of which `held_out_clips` are held out. Broken clips go to `.rejected` with their reason.
    Raises WorkbookError where either part has no usable clip, CacheError where the cache cannot be
    written or the system fails.
    """
    folder = scan_folder(root, language)
    wanted, apart = _hold_out(folder, ids, held_out, held_out_clips)
    by_id = {entry.id: entry for entry in folder.entries}
    entries = [by_id[name] for name in wanted if name in by_id]
    seen = _survey(folder, entries, audio, cache, workers, place)

    rejected = folder.rejected + unknown_ids(folder, wanted)
    rejected += [result for result in seen if isinstance(result, Rejection)]
    usable = [result for result in seen if isinstance(result, _Seen)]
    train = [result for result in usable if result.item.entry.id not in apart]
    test = [result for result in usable if result.item.entry.id in apart]
    if not train or not test:
        reasons = "".join(f"; {rejection.reason}" for rejection in rejected[-3:])
        raise WorkbookError(
            f"{root}: {len(train)} usable clips to train on and {len(test)} to validate on; it"
            f" needs both: look at --ids, --held-out and --held-out-clips{reasons}"
        )

    mel_mean, mel_std = _mel_statistics(train)
    train_items = [result.item for result in train]
    test_items = [result.item for result in test]
    n_uniform = sum(result.item.alignment == "uniform" for result in usable)
    warnings = corpus_warnings(folder, len(usable), n_uniform, len(rejected))
    spoken: set[str] = set()
    for result in usable:
        spoken.update(result.symbols)
    return TrainingCorpus(
        folder,
        audio,
        cache,
        train_items,
        test_items,
        rejected,
        folder.warnings + warnings,
        vocabulary_of(folder, spoken),
        mel_mean,
        mel_std,
        _content_hash(train_items, test_items),
    )


def _mel_statistics(clips: Sequence[_Seen]) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (M,) over all frames of the clips, ln units."""
    n_frames = 0
    total = np.zeros_like(clips[0].total)
    squares = np.zeros_like(clips[0].squares)
    for clip in clips:
        n_frames += clip.item.n_frames
        total += clip.total
        squares += clip.squares
    mean = total / n_frames
    variance = (squares / n_frames - mean**2).clip(min=0)
    return torch.from_numpy(mean).float(), torch.from_numpy(np.sqrt(variance)).float()


def _content_hash(train: Sequence[CorpusItem], held_out: Sequence[CorpusItem]) -> str:
    lines = [f"train {item.entry.id} {item.key}" for item in train]
    lines += [f"held out {item.entry.id} {item.key}" for item in held_out]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


# --- loading ahead --------------------------------------------------------------------------------


class _Batches(Dataset[Batch]):
    """Indices of training clips -> Batch."""

    def __init__(self, corpus: TrainingCorpus) -> None:
        self.corpus = corpus

    def __getitem__(self, indices: list[int]) -> Batch:
        return self.corpus.batch(self.corpus.train[index] for index in indices)


def load_ahead(
    corpus: TrainingCorpus, parts: Iterable[list[int]], workers: int = 2, ahead: int = 4
) -> Iterator[Batch]:
    """A batch for each list of clip indices, in order; `workers` processes hold up to `ahead`
    batches each in readiness.

    One pass over all steps of a run: no pause between epochs. Without workers each batch is made
    when it is asked for.
    """
    loader = DataLoader(
        _Batches(corpus),
        sampler=parts,
        batch_size=None,
        num_workers=workers,
        collate_fn=_as_it_is,
        prefetch_factor=ahead if workers else None,
    )
    return iter(loader)
