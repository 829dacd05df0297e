"""A batch that carries its clips, so that text, durations and audio can be asked of any batch, cut
or repeated as it may be.

Shapes: B clips, N phonemes, T frames, M mel bins, L samples.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad as pad_tensor
from torch.nn.utils.rnn import pad_sequence

from tts_core.config import AudioConfig
from tts_core.speech.batch import Batch
from tts_core.speech.dataset import Clip
from tts_core.speech.phonemes import PAUSE


@dataclass(frozen=True)
class ProsodyClip(Clip):
    """A clip with what a FastSpeech 2 is told beside its text, in the units it is trained with."""

    pitch: np.ndarray  # (N,) float32, one value for each phoneme
    energy: np.ndarray  # (N,) float32, one value for each phoneme
    TOLD: ClassVar = ("pitch", "energy")


@dataclass(frozen=True)
class ClipBatch(Batch):
    """A batch and the clips it was gathered from: mel in the units of the clips, durations as the
    clips say.
    """

    clips: tuple[Clip, ...] = ()


def nothing_told() -> Tensor:
    """(0,): pitch or energy of a batch that has none."""
    return torch.zeros(0)


@dataclass(frozen=True)
class ProsodyBatch(ClipBatch):
    """A batch of ProsodyClips, with what they are told of each phoneme."""

    pitch: Tensor = field(default_factory=nothing_told)  # (B, N) float32, 0 in the padding
    energy: Tensor = field(default_factory=nothing_told)  # (B, N) float32, 0 in the padding

    def _with_tensors(self, change: Callable[[Tensor], Tensor]) -> Self:
        changed = super()._with_tensors(change)
        return replace(changed, pitch=change(self.pitch), energy=change(self.energy))


def gather(
    clips: Sequence[Clip], pad_value: float = AudioConfig().silence, n_frames: int = 0
) -> ClipBatch:
    """Clips -> batch, padded on the right to `n_frames` or more. Believes the clips: durations need
    not sum to the frames.
    """
    mel = pad_sequence([clip.mel for clip in clips], batch_first=True, padding_value=pad_value)
    mel = pad_tensor(mel, (0, 0, 0, max(0, n_frames - mel.shape[1])), value=pad_value)
    phonemes = [torch.from_numpy(clip.phoneme_ids) for clip in clips]
    durations = [torch.from_numpy(clip.durations) for clip in clips]
    batch = ClipBatch(
        phonemes=pad_sequence(phonemes, batch_first=True),
        phoneme_lengths=torch.tensor([len(clip.phoneme_ids) for clip in clips]),
        durations=pad_sequence(durations, batch_first=True),
        mel=mel,
        mel_lengths=torch.tensor([len(clip.mel) for clip in clips]),
        ids=tuple(clip.id for clip in clips),
        pad_value=pad_value,
        clips=tuple(clips),
    )
    told = [clip for clip in clips if isinstance(clip, ProsodyClip)]
    return with_prosody(batch, told) if told else batch


def with_prosody(batch: ClipBatch, clips: Sequence[ProsodyClip]) -> ProsodyBatch:
    """The batch with pitch and energy of all of its clips."""
    padded: dict[str, Any] = {}
    for name in ProsodyClip.TOLD:
        rows = [torch.from_numpy(getattr(clip, name)) for clip in clips]
        padded[name] = pad_sequence(rows, batch_first=True)
    return ProsodyBatch(**vars(batch), **padded)


def one_by_one(batch: ClipBatch) -> list[ClipBatch]:
    """Each row of the batch as it stands there, whatever was changed in it, without its padding."""
    rows = []
    sizes = zip(batch.phoneme_lengths.tolist(), batch.mel_lengths.tolist(), strict=True)
    for row, (n_phonemes, n_frames) in enumerate(sizes):
        here = slice(row, row + 1)
        alone = replace(
            batch,
            phonemes=batch.phonemes[here, :n_phonemes],
            phoneme_lengths=batch.phoneme_lengths[here],
            durations=batch.durations[here, :n_phonemes],
            mel=batch.mel[here, :n_frames],
            mel_lengths=batch.mel_lengths[here],
            ids=batch.ids[here],
            clips=batch.clips[here],
        )
        if isinstance(alone, ProsodyBatch):
            told = {name: getattr(batch, name)[here, :n_phonemes] for name in ProsodyClip.TOLD}
            alone = replace(alone, **told)
        rows.append(alone)
    return rows


def duplicate_clips(batch: ClipBatch, k: int) -> ClipBatch:
    """Every clip k times, the whole batch one after another."""
    copies = gather(batch.clips * k, batch.pad_value, batch.mel.shape[1])
    return copies.to(batch.mel.device)


def pad(batch: ClipBatch, n: int) -> ClipBatch:
    """The same clips with n more padded frames."""
    padded = gather(batch.clips, batch.pad_value, batch.mel.shape[1] + n)
    return padded.to(batch.mel.device)


def pad_text(batch: ClipBatch, n: int) -> ClipBatch:
    """The same clips with n more padded phonemes, of no frames."""
    return replace(
        batch,
        phonemes=pad_tensor(batch.phonemes, (0, n)),
        durations=pad_tensor(batch.durations, (0, n)),
    )


def trim(batch: ClipBatch, first: int, last: int) -> ClipBatch:
    """The same clips without their first and last frames; phonemes that lose all of their frames go
    too.
    """
    trimmed = [trim_clip(clip, first, last) for clip in batch.clips]
    return gather(trimmed, batch.pad_value).to(batch.mel.device)


def split(batch: ClipBatch) -> list[ClipBatch]:
    """One batch per clip: the micro-batches of an accumulation."""
    return [gather([clip], batch.pad_value) for clip in batch.clips]


def shuffle_text(batch: ClipBatch, generator: torch.Generator) -> ClipBatch:
    """Wrong text: each clip's phonemes permuted among its non-pause positions; durations, pauses
    and mel stay.
    """
    clips = []
    for clip in batch.clips:
        spoken = np.flatnonzero([symbol != PAUSE for symbol in clip.phonemes])
        drawn = torch.randperm(len(spoken), generator=generator).numpy()
        order = np.arange(len(clip.phonemes))
        order[spoken] = spoken[drawn]
        phonemes = tuple(clip.phonemes[index] for index in order)
        clips.append(replace(clip, phonemes=phonemes, phoneme_ids=clip.phoneme_ids[order]))
    return gather(clips, batch.pad_value, batch.mel.shape[1]).to(batch.mel.device)


def durations(batch: ClipBatch) -> list[list[int]]:
    """Frames per phoneme, one list per clip."""
    return [clip.durations.tolist() for clip in batch.clips]


def symbols(batch: ClipBatch) -> list[tuple[str, ...]]:
    """The phonemes of each clip as they were written, before they became ids."""
    return [clip.phonemes for clip in batch.clips]


def audio(batch: ClipBatch) -> list[tuple[np.ndarray, int]]:
    """Samples (L,) and rate in Hz of each clip."""
    return [(clip.samples, clip.sample_rate) for clip in batch.clips]


def trim_clip(clip: Clip, first: int, last: int) -> Clip:
    """A clip without its first and last frames; the durations lose the same frames at both ends."""
    n_frames = len(clip.mel)
    if first < 0 or last < 0 or first + last >= n_frames:
        raise ValueError(f"clip {clip.id}: cannot take {first} + {last} frames from {n_frames}")
    durations = _trimmed_durations(clip, first, last)
    kept = durations > 0
    n_samples = len(clip.samples)
    per_frame = _samples_per_frame(clip)
    start, end = round(first * per_frame), n_samples - round(last * per_frame)
    # strict=False: the durations are believed, not checked
    symbols = zip(clip.phonemes, kept, strict=False)
    told = clip.TOLD if isinstance(clip, ProsodyClip) else ()
    return replace(
        clip,
        mel=clip.mel[first : n_frames - last],
        durations=durations[kept],
        samples=clip.samples[start:end],
        phonemes=tuple(symbol for symbol, keep in symbols if keep),
        phoneme_ids=clip.phoneme_ids[kept],
        **{name: getattr(clip, name)[kept] for name in told},
    )


def _trimmed_durations(clip: Clip, first: int, last: int) -> np.ndarray:
    """Frames of each phoneme (N,) that are left without the first and last frames; 0 for a phoneme
    that lost all.
    """
    ends = clip.durations.cumsum()
    per_frame = ends[-1] / len(clip.mel)  # 1 unless the durations do not count the frames
    start, end = first * per_frame, ends[-1] - last * per_frame
    frames = np.diff(np.clip(ends, start, end), prepend=start)
    if np.issubdtype(clip.durations.dtype, np.integer):
        return frames.round().astype(clip.durations.dtype)
    return frames


def _samples_per_frame(clip: Clip) -> float:
    """The hop of the standard recipe where it fits the clip, else what its numbers of samples and
    frames say of another recipe's.
    """
    n_frames, n_samples = len(clip.mel), len(clip.samples)
    hop = AudioConfig().hop_length
    if n_frames == 1 + n_samples // hop:
        return hop
    return n_samples / (n_frames - 0.5)


def corpus_batches(
    clips: Sequence[Clip], batch_size: int, pad_value: float, seed: int
) -> Callable[[], Iterator[ClipBatch]]:
    """() -> endless batches over all clips, in a new order every epoch; the same batches at every
    call.
    """

    def batches() -> Iterator[ClipBatch]:
        order, generator = list(clips), random.Random(f"batches {seed}")
        size = min(batch_size, len(order))
        while True:
            generator.shuffle(order)
            for start in range(0, len(order) - size + 1, size):
                yield gather(order[start : start + size], pad_value)

    return batches


def bin_statistics(mels: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each bin over all frames of mels (T, M); a bin that never
    moves is not blown up.
    """
    frames = torch.cat(list(mels))
    return frames.mean(dim=0), frames.std(dim=0).clamp(min=0.1)
