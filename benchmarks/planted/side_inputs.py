"""What a model is handed beside text and mel: the pitch of every phoneme, or a vector of the
speaker.

A batch of either kind is made from the clips that a `ClipBatch` carries, so that it can be cut,
padded and repeated like one. Shapes: B batch, N phonemes, T frames, L samples, S speaker vector.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from tts_core.speech.dataset import Clip
from tts_workbook.subject.clip_batch import ClipBatch

SPEAKER_WIDTH = 16
N_SPEAKERS = 4
WINDOW = 1_024  # samples that one value of the pitch is taken from
LOWEST, HIGHEST = 60.0, 400.0  # Hz
NOTHING = torch.zeros(0, 0)
VOICED = 0.6  # normalised autocorrelation above which a frame has a pitch


@dataclass(frozen=True)
class PitchedBatch(ClipBatch):
    """A batch with the pitch of every phoneme."""

    pitch: Tensor = NOTHING  # (B, N) standardised over voiced phonemes, unvoiced 0


@dataclass(frozen=True)
class SpeakerBatch(ClipBatch):
    """A batch with a vector for the speaker of every clip."""

    speakers: Tensor = NOTHING  # (B, S) of unit length


# --- pitch ----------------------------------------------------------------------------------------


def fundamental(samples: np.ndarray, rate: int, n_frames: int) -> np.ndarray:
    """(L,) at `rate` Hz -> (T,) Hz, 0 where there is no voice: the strongest period of the
    autocorrelation.
    """
    hop = max(1, len(samples) // max(1, n_frames))
    padded = np.pad(samples, (WINDOW // 2, WINDOW + hop))
    starts = hop * np.arange(n_frames)[:, None]
    frames = padded[starts + np.arange(WINDOW)]
    frames = frames - frames.mean(axis=1, keepdims=True)
    spectrum = np.abs(np.fft.rfft(frames, 2 * WINDOW)) ** 2
    correlation = np.fft.irfft(spectrum)[:, :WINDOW]
    correlation = correlation / (correlation[:, :1] + 1e-6)
    first, last = int(rate / HIGHEST), min(int(rate / LOWEST), WINDOW - 1)
    period = first + correlation[:, first:last].argmax(axis=1)
    voiced = correlation[np.arange(n_frames), period] > VOICED
    return np.where(voiced, rate / period, 0.0)


class PitchOfClips:
    """Hz of every phoneme of a clip (N,), the mean over its voiced frames, 0 where no more than
    half of them are; computed once for each recording.
    """

    def __init__(self) -> None:
        self.known: dict[str, Tensor] = {}

    def __call__(self, clip: Clip) -> Tensor:
        content = hashlib.sha256(clip.samples.tobytes() + clip.durations.tobytes()).hexdigest()
        if content not in self.known:
            self.known[content] = self.measured(clip)
        return self.known[content]

    def measured(self, clip: Clip) -> Tensor:
        hertz = fundamental(clip.samples, clip.sample_rate, len(clip.mel))
        ends = np.cumsum(clip.durations)
        # durations need not sum to the frames: they are believed as they are
        borders = np.round(ends / ends[-1] * len(hertz)).astype(int)
        values = []
        for frames in np.split(hertz, borders[:-1]):
            voiced = frames[frames > 0]
            has_pitch = len(voiced) > len(frames) / 2
            values.append(float(voiced.mean()) if has_pitch else 0.0)
        return torch.tensor(values)


pitch_of_clip = PitchOfClips()


@dataclass(frozen=True)
class PitchScale:
    """What pitch is standardised by."""

    mean: float  # Hz
    std: float  # Hz

    @classmethod
    def of(cls, clips: Sequence[Clip]) -> PitchScale:
        hertz = torch.cat([pitch_of_clip(clip) for clip in clips])
        voiced = hertz[hertz > 0]
        return cls(float(voiced.mean()), float(voiced.std()))

    def __call__(self, clip: Clip) -> Tensor:
        """(N,) standardised; 0 where a phoneme has no voice."""
        hertz = pitch_of_clip(clip)
        return torch.where(hertz > 0, (hertz - self.mean) / self.std, torch.zeros(()))


def with_pitch(batch: ClipBatch, pitch: Callable[[Clip], Tensor]) -> PitchedBatch:
    """The batch with `pitch(clip)` (N,) of every clip; one that has it is left as it is."""
    if isinstance(batch, PitchedBatch):
        return batch
    values = pad_sequence([pitch(clip) for clip in batch.clips], batch_first=True)
    return PitchedBatch(**parts_of(batch), pitch=values.to(batch.mel.device))


# --- speakers -------------------------------------------------------------------------------------


def speaker_vector(clip: Clip) -> Tensor:
    """(S,) of unit length: one of N_SPEAKERS, by the recording."""
    return speaker_table()[int(clip.sound, 16) % N_SPEAKERS]


def speaker_table() -> Tensor:
    """(N_SPEAKERS, S) as a speaker encoder gives them."""
    drawn = torch.randn(N_SPEAKERS, SPEAKER_WIDTH, generator=torch.Generator().manual_seed(11))
    return drawn / drawn.norm(dim=1, keepdim=True)


def with_speakers(batch: ClipBatch, vector: Callable[[Clip], Tensor]) -> SpeakerBatch:
    """The batch with `vector(clip)` (S,) of every clip; one that has it is left as it is."""
    if isinstance(batch, SpeakerBatch):
        return batch
    vectors = torch.stack([vector(clip) for clip in batch.clips])
    return SpeakerBatch(**parts_of(batch), speakers=vectors.to(batch.mel.device))


# --- either ---------------------------------------------------------------------------------------


def parts_of(batch: ClipBatch) -> dict[str, Any]:
    """The fields of a ClipBatch by name."""
    return {field.name: getattr(batch, field.name) for field in fields(ClipBatch)}


def carrying(given: dict[str, Any], add: Callable[[ClipBatch], ClipBatch]) -> dict[str, Any]:
    """The data fields of a Subject (`ClipData.fields`) with `add` done to every batch that they
    hold or give.
    """
    sound_batches = given["batches"]

    def added(make: Callable[..., ClipBatch]) -> Callable[..., ClipBatch]:
        return lambda *arguments: add(make(*arguments))

    makers = {name: added(given[name]) for name in ("duplicate", "pad", "trim", "shuffle_text")}
    return {
        **given,
        **makers,
        "batch": add(given["batch"]),
        "batches": lambda: map(add, sound_batches()),
    }
