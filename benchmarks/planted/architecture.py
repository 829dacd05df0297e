"""What an architecture of the benchmark is, and what is drawn for its runs: short clips of real
speech, and a setting.
"""

from __future__ import annotations

import functools
import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from tts_core.config import AudioConfig
from tts_core.speech.audio import log_mel
from tts_core.speech.bundled import bundled_voice
from tts_core.speech.dataset import Clip
from tts_workbook.corpus.reading import read_corpus
from tts_workbook.faults.planting import Build, Setting
from tts_workbook.subject.subject import Subject

MAX_SECONDS = 1.4  # of a drawn clip
MIN_PHONEMES = 8  # of a drawn clip
STANDARD = AudioConfig()


def cut(clip: Clip, start: int, max_frames: int, audio: AudioConfig) -> Clip:
    """The phonemes of `clip` from number `start` on that fit into `max_frames`, as a clip of its
    own.

    Its mel is computed from its own samples, so that features of the audio equal the stored ones.
    """
    ends = np.cumsum(clip.durations)
    first = int(ends[start - 1]) if start else 0
    last = int(np.searchsorted(ends, first + max_frames, side="right"))
    chosen = slice(start, max(last, start + 1))
    durations = clip.durations[chosen].copy()
    n_frames = int(durations.sum())
    samples = clip.samples[first * audio.hop_length : (first + n_frames) * audio.hop_length]
    mel = log_mel(samples, audio)
    durations[-1] += len(mel) - n_frames  # the centred transform has one frame more than hops
    return replace(
        clip,
        id=f"{clip.id}-{start}",
        phonemes=clip.phonemes[chosen],
        phoneme_ids=clip.phoneme_ids[chosen],
        durations=durations,
        samples=samples,
        mel=mel,
    )


@functools.cache
def short_clips(
    max_seconds: float = MAX_SECONDS, audio: AudioConfig = STANDARD
) -> tuple[Clip, ...]:
    """Every bundled English clip cut into pieces of at most `max_seconds`, at phoneme borders,
    those with MIN_PHONEMES or more.
    """
    frames = math.floor(max_seconds / audio.hop_seconds) - 1
    pieces = []
    for voice in ("librivox", "allison"):
        for clip in read_corpus(bundled_voice(voice), audio).clips:
            start = 0
            while start < len(clip.durations):
                piece = cut(clip, start, frames, audio)
                if len(piece.phonemes) >= MIN_PHONEMES:
                    pieces.append(piece)
                start += len(piece.phonemes)
    return tuple(pieces)


def draw_setting(
    seed: int, n_clips: int = 12, max_seconds: float = MAX_SECONDS, **changes: Any
) -> Setting:
    """A setting with clips of one voice, of at most `max_seconds`, chosen by `seed`; `changes` are
    other fields of Setting.
    """
    pieces = short_clips(max_seconds)
    voices = sorted({piece.path.parent for piece in pieces})
    voice = voices[seed % len(voices)]
    spoken = [piece for piece in pieces if piece.path.parent == voice]
    chosen = random.Random(f"clips {seed}").sample(spoken, n_clips)
    return Setting(seed=seed, clips=tuple(chosen), **changes)


@dataclass(frozen=True)
class Thread:
    """A fault that somebody had and reported in public, planted in small."""

    # any of these names it; the first of them is what the thread came to
    causes: tuple[str, ...]
    # where it was reported: project, number
    source: str
    build: Build
    # fields of Setting that the fault and its twin need
    needs: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Architecture:
    """A kind of model: its clean subject, and a faulty twin for every fault that makes sense for
    it.
    """

    name: str
    # setting -> the sound subject
    clean: Build
    # by catalogue id; each differs from `clean` in the one planted defect
    plants: Mapping[str, Build]
    # catalogue id -> why the fault cannot exist here
    nonsense: Mapping[str, str]
    # by name: faults that the catalogue does not hold
    outside: Mapping[str, Build] = field(default_factory=dict)
    # by name: designs that are meant and look like faults, undeclared; none may be accused
    sound: Mapping[str, Build] = field(default_factory=dict)
    # by name: faults of public threads
    threads: Mapping[str, Thread] = field(default_factory=dict)
    # plants that go on top of any build, a faulty one too: the second of a pair
    layers: Mapping[str, Callable[[Build, Setting], Subject]] = field(default_factory=dict)
    # of its clips: an architecture that is slow gets shorter ones
    max_seconds: float = MAX_SECONDS
    # of its training runs: fixed, so that a result does not hang on the machine's pace
    steps: int = 200
    # catalogue id -> fields of Setting that the fault and its twin need
    required: Callable[[str], Mapping[str, Any]] = lambda cause: {}
