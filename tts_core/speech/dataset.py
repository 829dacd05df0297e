"""A corpus folder as clips. Shape letters: L samples, T frames, M mel bins, N phonemes.

A broken clip never stops a corpus: it is listed in `Corpus.rejected` with its reason.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from torch import Tensor

from tts_core.config import AudioConfig
from tts_core.errors import CacheError, WorkbookError
from tts_core.speech.alignment import (
    align_english,
    frames_from_intervals,
    read_textgrid,
    symbols_and_intervals,
    uniform_durations,
)
from tts_core.speech.audio import log_mel, read_wav, resample
from tts_core.speech.folder import Entry, Folder, Rejection, match_id, scan_folder
from tts_core.speech.phonemes import Vocabulary, espeak_phonemes


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
    alignment: Literal["textgrid", "forced", "uniform"]  # where the durations come from


@dataclass(frozen=True)
class Corpus:
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


def read_clip(entry: Entry, folder: Folder, audio: AudioConfig) -> Clip:
    """The clip without its ids, which need the vocabulary of the corpus. Raises WorkbookError.

    Durations come from the TextGrid, else from forced alignment (English), else they are uniform.
    """
    recorded, rate = read_wav(entry.wav)
    samples = resample(recorded, rate, audio.sample_rate)
    mel = log_mel(samples, audio)
    if entry.textgrid.is_file():
        source, alignment = "textgrid", read_textgrid(entry.textgrid, len(recorded) / rate)
    elif folder.language == "en":
        source, alignment = "forced", align_english(recorded, rate, entry.text, folder.dictionary)
    else:
        source, alignment = "uniform", None
    if alignment:
        symbols, intervals = symbols_and_intervals(alignment.phones, folder.language)
        durations = frames_from_intervals(intervals, len(mel), audio.sample_rate, audio.hop_length)
    else:
        symbols = espeak_phonemes(entry.text, folder.language)
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


def sound_digest(recorded: np.ndarray, rate: int) -> str:
    """12 hex digits over a recording (L,) as its file holds it, and its rate in Hz.

    Not over the resampled samples: their last bits are the processor's and its libraries' own.
    """
    return hashlib.sha256(f"{rate} Hz ".encode() + recorded.tobytes()).hexdigest()[:12]


# read_clip, or the `read` of a feature cache
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
            reason = (
                str(error) if str(error).startswith(str(folder.root)) else f"{entry.wav}: {error}"
            )
            rejected.append(Rejection(entry.id, entry.wav, reason))


def _content_hash(folder: Folder, clips: Sequence[Clip]) -> str:
    """sha256 of everything that the clips were made from."""
    used = {clip.id for clip in clips}
    digest = hashlib.sha256(f"{folder.language} {sorted(folder.dictionary.items())}\n".encode())
    for entry in sorted(
        (entry for entry in folder.entries if entry.id in used), key=lambda entry: entry.id
    ):
        digest.update(f"{entry.id}|{entry.text}\n".encode())
        for path in (entry.wav, entry.textgrid):
            digest.update(
                hashlib.sha256(path.read_bytes()).digest() if path.is_file() else b"absent"
            )
    return digest.hexdigest()


def _select(folder: Folder, ids: Sequence[str] | None, rejected: list[Rejection]) -> list[Entry]:
    """The entries in the order of `ids` (None: all); ids that metadata.csv does not have are
    appended to `rejected`.
    """
    by_id = {entry.id: entry for entry in folder.entries}
    known = by_id.keys() | {rejection.id for rejection in rejected}
    rejected += [
        Rejection(
            name,
            folder.root,
            f"{folder.root}: the list of ids names {name!r}, metadata.csv does not",
        )
        for name in ids or ()
        if name not in known
    ]
    return [by_id[name] for name in (by_id if ids is None else ids) if name in by_id]


def load_corpus(
    root: Path | str,
    audio: AudioConfig,
    language: str = "auto",
    only: str | None = None,
    ids: Sequence[str] | None = None,
    limit: int | None = None,
    read: ClipReader = read_clip,
) -> Corpus:
    """Load a corpus folder (layout: folder.py): all clips, `only` one (a unique ending will do),
    `ids`, or `limit`.

    English has the ARPAbet vocabulary, other languages the symbols of the clips loaded. Broken
    clips go to `.rejected`. Raises WorkbookError if the folder is missing or empty, or when no clip
    is usable.
    """
    folder = scan_folder(root, language)
    rejected = list(folder.rejected)
    if only is not None:
        ids = [match_id(only, [entry.id for entry in folder.entries], rejected, folder.root)]
    entries = _select(folder, ids, rejected)[:limit]
    clips = list(iterate_clips(folder, entries, audio, rejected, read))
    if not clips:
        raise WorkbookError(
            f"{root}: no usable clip; " + "; ".join(rejection.reason for rejection in rejected[-5:])
        )
    vocabulary = (
        Vocabulary.arpabet()
        if folder.language == "en"
        else Vocabulary.from_symbols(symbol for clip in clips for symbol in clip.phonemes)
    )
    clips = [replace(clip, phoneme_ids=vocabulary.encode(clip.phonemes)) for clip in clips]
    warnings = corpus_warnings(
        folder, len(clips), sum(clip.alignment == "uniform" for clip in clips), len(rejected)
    )
    return Corpus(
        name=folder.root.resolve().name,
        root=folder.root,
        language=folder.language,
        clips=clips,
        rejected=rejected,
        warnings=folder.warnings + warnings,
        vocabulary=vocabulary,
        content_hash=_content_hash(folder, clips),
        default_id=folder.default_id,
    )


def corpus_warnings(folder: Folder, n_clips: int, n_uniform: int, n_rejected: int) -> list[str]:
    """What must be said about a corpus wherever it is used."""
    uniform = (
        f"UNIFORM DURATIONS in {n_uniform} of {n_clips} clips ({folder.language}): without"
        " TextGrids every phoneme gets the same length, so nothing that depends on timing can be"
        f" trusted. Put TextGrids of the Montreal Forced Aligner into {folder.root / 'alignments'}."
    )
    left_out = (
        f"{n_rejected} clips were left out; `tts-workbook check {folder.root}` lists the reasons"
    )
    return [warning for warning, n in ((uniform, n_uniform), (left_out, n_rejected)) if n]


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
