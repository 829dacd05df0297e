"""A corpus folder as clips. Shape letters: L samples, T frames, M mel bins, N phonemes.

A broken clip never stops a corpus: it is listed in `Corpus.rejected` with its reason.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal, Protocol, TypeVar

import numpy as np
from torch import Tensor

from tts_core.config import AudioConfig
from tts_core.errors import CacheError, WorkbookError
from tts_core.speech.alignment import (
    Alignment,
    frames_from_intervals,
    read_textgrid,
    symbols_and_intervals,
    uniform_durations,
)
from tts_core.speech.audio import log_mel, read_wav, resample
from tts_core.speech.folder import Entry, Folder, Rejection, match_id, scan_folder
from tts_core.speech.phonemes import Dictionary, Vocabulary

AlignmentSource = Literal["textgrid", "forced", "uniform"]  # where the durations come from
Helper = TypeVar("Helper")


@dataclass(frozen=True)
class Clip:
    """One utterance. Σ durations = T; pauses are tokens."""

    id: str
    text: str
    language: str
    phonemes: tuple[str, ...]  # N symbols
    phoneme_ids: np.ndarray  # (N,) int64
    durations: np.ndarray  # (N,) int64 frames
    mel: Tensor  # (T, M) float32, ln units
    samples: np.ndarray  # (L,) float32, full scale 1.0
    sample_rate: int  # Hz
    path: Path  # of the wav file
    # 12 hex digits over the recording and its rate: the same under any name, on any machine
    sound: str
    alignment: AlignmentSource


@dataclass(frozen=True)
class Corpus:
    """The clips of a folder, the ones left out, and what they share."""

    name: str
    root: Path
    language: str
    clips: list[Clip]
    rejected: list[Rejection]
    warnings: list[str]
    vocabulary: Vocabulary
    content_hash: str  # sha256 of transcripts, wavs, alignments, language and dictionary
    default_id: str = ""

    def clip(self, clip_id: str) -> Clip:
        """The clip with this id, or the only one whose id ends so. Raises WorkbookError that lists
        the ids.
        """
        found = match_id(clip_id, [clip.id for clip in self.clips], self.rejected, self.root)
        return next(clip for clip in self.clips if clip.id == found)

    @property
    def default_clip(self) -> Clip:
        """The clip that default_clip.txt names, else the first."""
        return next((clip for clip in self.clips if clip.id == self.default_id), self.clips[0])


class Aligner(Protocol):
    """Says when each phoneme of an English recording is spoken, where no TextGrid does."""

    @property
    def packages(self) -> tuple[str, ...]:
        """The distributions whose versions decide what it finds."""

    def align(
        self, samples: np.ndarray, sample_rate: int, text: str, dictionary: Dictionary
    ) -> Alignment:
        """The words and ARPAbet phones of samples (L,); raises WorkbookError where there are none.

        `dictionary` holds the user's own pronunciations.
        """


class Phonemizer(Protocol):
    """Turns a text of another language into phonemes, where no TextGrid gives them."""

    @property
    def packages(self) -> tuple[str, ...]:
        """The distributions whose versions decide what it says."""

    def phonemes(self, text: str, language: str) -> tuple[str, ...]:
        """(N,) symbols with a pause at both ends; raises WorkbookError where there are none."""


def read_clip(
    entry: Entry,
    folder: Folder,
    audio: AudioConfig,
    aligner: Aligner | None = None,
    phonemizer: Phonemizer | None = None,
) -> Clip:
    """The clip without its ids, which need the vocabulary of the corpus. Raises WorkbookError.

    Durations come from the TextGrid, else from the `aligner` (English), else they are uniform over
    what the `phonemizer` gives.
    """
    recorded, rate = read_wav(entry.wav)
    samples = resample(recorded, rate, audio.sample_rate)
    mel = log_mel(samples, audio)
    source: AlignmentSource
    if entry.textgrid.is_file():
        source = "textgrid"
        alignment = read_textgrid(entry.textgrid, len(recorded) / rate)
        symbols, durations = _spoken_frames(alignment, folder.language, len(mel), audio)
    elif folder.language == "en":
        source = "forced"
        aligner = _required(aligner, "an aligner", entry, folder)
        alignment = aligner.align(recorded, rate, entry.text, folder.dictionary)
        symbols, durations = _spoken_frames(alignment, folder.language, len(mel), audio)
    else:
        source = "uniform"
        phonemizer = _required(phonemizer, "a phonemizer", entry, folder)
        symbols = phonemizer.phonemes(entry.text, folder.language)
        durations = uniform_durations(len(symbols), len(mel))
    return Clip(
        id=entry.id,
        text=entry.text,
        language=folder.language,
        phonemes=symbols,
        phoneme_ids=np.empty(0, np.int64),
        durations=durations,
        mel=mel,
        samples=samples,
        sample_rate=audio.sample_rate,
        path=entry.wav,
        sound=sound_digest(recorded, rate),
        alignment=source,
    )


def _spoken_frames(
    alignment: Alignment, language: str, n_frames: int, audio: AudioConfig
) -> tuple[tuple[str, ...], np.ndarray]:
    """(N,) symbols and (N,) frames of an alignment."""
    symbols, intervals = symbols_and_intervals(alignment.phones, language)
    durations = frames_from_intervals(intervals, n_frames, audio.sample_rate, audio.hop_length)
    return symbols, durations


def _required(helper: Helper | None, kind: str, entry: Entry, folder: Folder) -> Helper:
    """`helper`, or a WorkbookError that says why it is needed and how to do without."""
    if helper is not None:
        return helper
    raise WorkbookError(
        f"{entry.textgrid}: there is no such TextGrid, and without one a clip in language"
        f" {folder.language!r} needs {kind}, which nobody handed over;"
        " tts_workbook.corpus.reading.read_corpus has one in place, and so have the commands after"
        " `pip install tts-overfit-workbook`. Or put TextGrids of the Montreal Forced Aligner into"
        f" {folder.root / 'alignments'}"
    )


def sound_digest(recorded: np.ndarray, rate: int) -> str:
    """12 hex digits over a recording (L,) as its file holds it, and its rate in Hz.

    Not over the resampled samples: their last bits are the processor's and its libraries' own.
    """
    return hashlib.sha256(f"{rate} Hz ".encode() + recorded.tobytes()).hexdigest()[:12]


# `read_clip` with its helpers, or the `read` of a feature cache
ClipReader = Callable[[Entry, Folder, AudioConfig], Clip]


def iterate_clips(
    folder: Folder,
    entries: Sequence[Entry],
    audio: AudioConfig,
    rejected: list[Rejection],
    read: ClipReader = read_clip,
) -> Iterator[Clip]:
    """Clips one by one, still without phoneme ids; those that fail are appended to `rejected`."""
    for entry in entries:
        try:
            yield read(entry, folder, audio)
        except CacheError:
            # not the clip's fault: it must not be missing from the corpus
            raise
        except (WorkbookError, OSError) as error:
            rejected.append(rejection_of(entry, folder, error))


def rejection_of(entry: Entry, folder: Folder, error: Exception) -> Rejection:
    """The clip of `entry`, left out for `error`; the reason begins with the file."""
    reason = str(error)
    if not reason.startswith(str(folder.root)):
        reason = f"{entry.wav}: {reason}"
    return Rejection(entry.id, entry.wav, reason)


def _content_hash(folder: Folder, clips: Sequence[Clip]) -> str:
    """sha256 of everything that the clips were made from."""
    used = {clip.id for clip in clips}
    entries = [entry for entry in folder.entries if entry.id in used]
    digest = hashlib.sha256(f"{folder.language} {sorted(folder.dictionary.items())}\n".encode())
    for entry in sorted(entries, key=lambda entry: entry.id):
        digest.update(f"{entry.id}|{entry.text}\n".encode())
        for path in (entry.wav, entry.textgrid):
            content = hashlib.sha256(path.read_bytes()).digest() if path.is_file() else b"absent"
            digest.update(content)
    return digest.hexdigest()


def _select(folder: Folder, ids: Sequence[str], rejected: list[Rejection]) -> list[Entry]:
    """The entries in the order of `ids`; ids that metadata.csv does not have are appended to
    `rejected`.
    """
    by_id = {entry.id: entry for entry in folder.entries}
    rejected += unknown_ids(folder, ids)
    return [by_id[name] for name in ids if name in by_id]


def unknown_ids(folder: Folder, ids: Sequence[str]) -> list[Rejection]:
    """Those of `ids` that metadata.csv does not name, as rejections."""
    known = {entry.id for entry in folder.entries} | {left_out.id for left_out in folder.rejected}
    return [
        Rejection(
            name,
            folder.root,
            f"{folder.root}: the list of ids names {name!r}, metadata.csv does not",
        )
        for name in ids
        if name not in known
    ]


def load_corpus(
    root: Path | str,
    audio: AudioConfig,
    language: str = "auto",
    only: str | None = None,
    ids: Sequence[str] | None = None,
    limit: int | None = None,
    *,
    aligner: Aligner | None = None,
    phonemizer: Phonemizer | None = None,
    read: ClipReader | None = None,
) -> Corpus:
    """Load a corpus folder (layout: folder.py): all clips, `only` one (a unique ending will do),
    `ids`, or `limit`.

    Clips without a TextGrid need an `aligner` (English) or a `phonemizer` (other languages): see
    `read_clip`. `read` reads a clip in its place, for example `FeatureCache.read`, which has its
    own. English has the ARPAbet vocabulary, other languages the symbols of the clips loaded. Broken
    clips go to `.rejected`. Raises WorkbookError if the folder is missing or empty, or when no clip
    is usable.
    """
    folder = scan_folder(root, language)
    rejected = list(folder.rejected)
    if only is not None:
        ids = [match_id(only, [entry.id for entry in folder.entries], rejected, folder.root)]
    entries = folder.entries if ids is None else _select(folder, ids, rejected)
    if read is None:
        read = partial(read_clip, aligner=aligner, phonemizer=phonemizer)
    clips = list(iterate_clips(folder, entries[:limit], audio, rejected, read))
    if not clips:
        raise WorkbookError(
            f"{root}: no usable clip; " + "; ".join(rejection.reason for rejection in rejected[-5:])
        )
    spoken: set[str] = set()
    for clip in clips:
        spoken.update(clip.phonemes)
    vocabulary = vocabulary_of(folder, spoken)
    clips = [replace(clip, phoneme_ids=vocabulary.encode(clip.phonemes)) for clip in clips]
    n_uniform = sum(clip.alignment == "uniform" for clip in clips)
    return Corpus(
        name=folder.root.resolve().name,
        root=folder.root,
        language=folder.language,
        clips=clips,
        rejected=rejected,
        warnings=folder.warnings + corpus_warnings(folder, len(clips), n_uniform, len(rejected)),
        vocabulary=vocabulary,
        content_hash=_content_hash(folder, clips),
        default_id=folder.default_id,
    )


def vocabulary_of(folder: Folder, spoken: Iterable[str]) -> Vocabulary:
    """ARPAbet for English, else the symbols that are `spoken` in the clips."""
    if folder.language == "en":
        return Vocabulary.arpabet()
    return Vocabulary.from_symbols(spoken)


def corpus_warnings(folder: Folder, n_clips: int, n_uniform: int, n_rejected: int) -> list[str]:
    """What must be said about a corpus wherever it is used."""
    warnings = []
    if n_uniform:
        warnings.append(
            f"UNIFORM DURATIONS in {n_uniform} of {n_clips} clips ({folder.language}): without"
            " TextGrids every phoneme gets the same length, so nothing that depends on timing can"
            " be trusted. Put TextGrids of the Montreal Forced Aligner into"
            f" {folder.root / 'alignments'}."
        )
    if n_rejected:
        warnings.append(
            f"{n_rejected} clips were left out; `tts-workbook check {folder.root}` lists the"
            " reasons"
        )
    return warnings


def with_recipe(clip: Clip, audio: AudioConfig) -> Clip:
    """The same clip with its mel in another recipe, which must share rate and hop, so that the
    frames stay.
    """
    mel = log_mel(clip.samples, audio)
    if audio.sample_rate != clip.sample_rate or len(mel) != len(clip.mel):
        raise WorkbookError(
            f"clip {clip.id}: {len(clip.mel)} frames at {clip.sample_rate} Hz, but {len(mel)} at "
            f"{audio.sample_rate} Hz in the other recipe; load the corpus again with that recipe"
        )
    return replace(clip, mel=mel)
