"""Features computed once: mel, phonemes and durations of a clip, stored under the hash of
everything they are made from.

T frames, N phonemes, M mel bins. A changed wav, TextGrid, text, recipe or package has another key,
so a stale entry is never found; an entry is complete or absent; one whose checksum fails counts as
absent and is computed again.
"""

from __future__ import annotations

import functools
import hashlib
import json
import zipfile
import zlib
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tts_core.config import AudioConfig
from tts_core.errors import CacheError, WorkbookError
from tts_core.speech.audio import atomic_path, read_wav, resample
from tts_core.speech.dataset import (
    Aligner,
    AlignmentSource,
    Clip,
    Phonemizer,
    read_clip,
    sound_digest,
)
from tts_core.speech.folder import Entry, Folder

# raise it with every change of what speech/ computes: no entry of an older one is used
CACHE_FORMAT = 1


@dataclass(frozen=True)
class Features:
    """What training needs of one clip; Σ durations = T."""

    phonemes: tuple[str, ...]  # N symbols
    durations: np.ndarray  # (N,) int64 frames
    mel: Tensor  # (T, M) float32, ln units
    alignment: AlignmentSource


@functools.cache
def _version(package: str) -> str:
    """The installed version of a distribution; "" where it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def _alignment_source(entry: Entry, folder: Folder) -> Any:
    """What decides phonemes and durations: the TextGrid's bytes, else the text and the user's words
    in it.
    """
    if entry.textgrid.is_file():
        return hashlib.sha256(entry.textgrid.read_bytes()).hexdigest()
    text = entry.text.lower().replace("\u2019", "'")
    words = sorted((word, phones) for word, phones in folder.dictionary.items() if word in text)
    return [entry.text, words]


# What OSError a clip's own files are to blame for; all others (EMFILE, EIO, ENOMEM ...) would meet
# the next clip too.
OF_THE_CLIP = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)


# what numpy and zipfile raise where an entry is not there, or its bytes are damaged
DAMAGE = (
    OSError,
    ValueError,
    KeyError,
    EOFError,
    zipfile.BadZipFile,
    RuntimeError,
    zlib.error,
)
ARRAYS = ("key", "phonemes", "durations", "mel", "alignment")  # arrays of an entry


class FeatureCache:
    """A folder of entries, and what reads the clips that are not there yet.

    `read` can stand in for `speech.dataset.read_clip`: `load_corpus(root, audio, read=cache.read)`.
    Clips without a TextGrid need an `aligner` or a `phonemizer`, as in `read_clip`.
    """

    def __init__(
        self,
        root: Path | str,
        aligner: Aligner | None = None,
        phonemizer: Phonemizer | None = None,
    ) -> None:
        self.root = Path(root)
        self.aligner = aligner
        self.phonemizer = phonemizer

    def key(self, entry: Entry, folder: Folder, audio: AudioConfig) -> str:
        """Hash of the wav's bytes, the alignment, the language, the recipe, the packages and the
        format. Raises OSError.
        """
        made_from = [
            CACHE_FORMAT,
            hashlib.sha256(entry.wav.read_bytes()).hexdigest(),
            _alignment_source(entry, folder),
            folder.language,
            asdict(audio),
            self._versions(),
        ]
        return hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()

    def _versions(self) -> dict[str, str]:
        """Of the packages that decide the numbers."""
        packages = ["torch", "torchaudio"]
        for helper in (self.aligner, self.phonemizer):
            if helper is not None:
                packages += helper.packages
        return {name: _version(name) for name in packages}

    def path(self, key: str) -> Path:
        return self.root / key[:2] / f"{key}.npz"

    def get(self, key: str) -> Features | None:
        """The entry, or None where there is none or what is there is damaged."""
        try:
            # zip: a CRC over every array
            with np.load(self.path(key), allow_pickle=False) as file:
                found = {name: file[name] for name in ARRAYS}
        except DAMAGE:
            return None
        if str(found["key"]) != key or found["durations"].sum() != len(found["mel"]):
            return None
        alignment: Any = str(found["alignment"])
        return Features(
            tuple(str(symbol) for symbol in found["phonemes"]),
            found["durations"],
            torch.from_numpy(found["mel"]),
            alignment,
        )

    def put(self, key: str, features: Features) -> None:
        """Store atomically. Raises CacheError where the folder cannot be written."""
        try:
            with atomic_path(self.path(key)) as temporary, temporary.open("wb") as file:
                np.savez(
                    file,
                    key=np.array(key),
                    phonemes=np.array(features.phonemes),
                    durations=features.durations,
                    mel=features.mel.numpy(),
                    alignment=np.array(features.alignment),
                )
        except OSError as error:
            raise CacheError(
                f"{self.root}: features cannot be stored ({error}); make room, or give another"
                " folder"
            ) from error

    def features(self, entry: Entry, folder: Folder, audio: AudioConfig) -> tuple[str, Features]:
        """Key and features, computed and stored where they are not there yet.

        Raises WorkbookError, or OSError of the kinds OF_THE_CLIP, for a broken clip, CacheError
        where cache or system fail.
        """
        try:
            return self._features(entry, folder, audio)
        except OF_THE_CLIP:
            raise
        except OSError as error:
            raise CacheError(
                f"{entry.wav}: the system cannot read it or what belongs to it ({error}), which"
                " need not be the clip's fault; mend that, or take the clip out of metadata.csv,"
                " and give the same command again"
            ) from error

    def _features(self, entry: Entry, folder: Folder, audio: AudioConfig) -> tuple[str, Features]:
        key = self.key(entry, folder, audio)
        features = self.get(key)
        if features is None:
            clip = read_clip(entry, folder, audio, self.aligner, self.phonemizer)
            features = Features(clip.phonemes, clip.durations, clip.mel, clip.alignment)
            if self.key(entry, folder, audio) != key:
                raise WorkbookError(
                    f"{entry.wav}: it, its TextGrid or its text changed while it was read; try"
                    " again when nothing writes there"
                )
            self.put(key, features)
        return key, features

    def read(self, entry: Entry, folder: Folder, audio: AudioConfig) -> Clip:
        """The whole clip, with its samples from the wav and the rest from here; still without
        phoneme ids.
        """
        _, features = self.features(entry, folder, audio)
        recorded, rate = read_wav(entry.wav)
        return Clip(
            id=entry.id,
            text=entry.text,
            language=folder.language,
            phonemes=features.phonemes,
            phoneme_ids=np.empty(0, np.int64),
            durations=features.durations,
            mel=features.mel,
            samples=resample(recorded, rate, audio.sample_rate),
            sample_rate=audio.sample_rate,
            path=entry.wav,
            sound=sound_digest(recorded, rate),
            alignment=features.alignment,
        )
