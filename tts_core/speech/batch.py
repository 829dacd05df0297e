"""Clips side by side. B clips, N phonemes, T frames, M mel bins. Masks come from lengths, never
from values.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, Self

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad
from torch.nn.utils.rnn import pad_sequence

from tts_core.config import AudioConfig
from tts_core.errors import WorkbookError

SILENCE = AudioConfig().silence  # ln units, of the default recipe


class AlignedClip(Protocol):
    """What a batch needs of a clip. Σ durations = T."""

    @property
    def id(self) -> str: ...
    @property
    def phoneme_ids(self) -> np.ndarray:
        """(N,) int64"""

    @property
    def durations(self) -> np.ndarray:
        """(N,) int64 frames"""

    @property
    def mel(self) -> Tensor:
        """(T, M) float32, ln units"""


def lengths_to_mask(lengths: Tensor, max_length: int | None = None) -> Tensor:
    """(B,) lengths -> (B, L) bool, True where valid. The one place where masks are built."""
    if max_length is None:
        max_length = int(lengths.max())
    positions = torch.arange(max_length, device=lengths.device)
    return positions[None, :] < lengths[:, None]


@dataclass(frozen=True)
class Batch:
    """B clips, padded on the right to the longest of them."""

    phonemes: Tensor  # (B, N) int64, padded with 0
    phoneme_lengths: Tensor  # (B,) int64
    # (B, N) int64 frames, 0 in the padding; each row sums to its mel length
    durations: Tensor
    mel: Tensor  # (B, T, M) float32 ln units, padded with `pad_value`
    mel_lengths: Tensor  # (B,) int64
    ids: tuple[str, ...]  # B clip ids
    pad_value: float  # log-mel of silence, what `mel` is padded with

    def to(self, device: torch.device | str) -> Self:
        """The same batch with its tensors on `device`."""
        return self._with_tensors(lambda tensor: tensor.to(device))

    def _with_tensors(self, change: Callable[[Tensor], Tensor]) -> Self:
        """The same batch with `change` made to each of its tensors."""
        return replace(
            self,
            phonemes=change(self.phonemes),
            phoneme_lengths=change(self.phoneme_lengths),
            durations=change(self.durations),
            mel=change(self.mel),
            mel_lengths=change(self.mel_lengths),
        )

    @property
    def phoneme_mask(self) -> Tensor:
        """(B, N) bool, True where a phoneme is."""
        return lengths_to_mask(self.phoneme_lengths, self.phonemes.shape[1])

    @property
    def mel_mask(self) -> Tensor:
        """(B, T) bool, True where a frame is."""
        return lengths_to_mask(self.mel_lengths, self.mel.shape[1])

    @property
    def n_frames(self) -> int:
        """Valid frames over all clips."""
        return int(self.mel_lengths.sum())


def collate(clips: Sequence[AlignedClip], pad_value: float = SILENCE) -> Batch:
    """Clips -> Batch, padded on the right. Raises WorkbookError for no clips and for durations that
    miss the frames.
    """
    if not clips:
        raise WorkbookError("collate: no clips; a batch needs at least one")
    for clip in clips:
        if clip.durations.sum() != len(clip.mel) or len(clip.durations) != len(clip.phoneme_ids):
            raise WorkbookError(
                f"clip {clip.id}: {len(clip.durations)} durations of {len(clip.phoneme_ids)}"
                f" phonemes sum to {clip.durations.sum()}, not to the {len(clip.mel)} frames; use"
                " load_corpus"
            )
    phonemes = [torch.from_numpy(clip.phoneme_ids) for clip in clips]
    durations = [torch.from_numpy(clip.durations) for clip in clips]
    mels = [clip.mel for clip in clips]
    return Batch(
        phonemes=pad_sequence(phonemes, batch_first=True),
        phoneme_lengths=torch.tensor([len(clip.phoneme_ids) for clip in clips]),
        durations=pad_sequence(durations, batch_first=True),
        mel=pad_sequence(mels, batch_first=True, padding_value=pad_value),
        mel_lengths=torch.tensor([len(clip.mel) for clip in clips]),
        ids=tuple(clip.id for clip in clips),
        pad_value=pad_value,
    )


def duplicate(batch: Batch, k: int) -> Batch:
    """Every clip k times, the whole batch one after another: (B, ...) -> (k * B, ...)."""
    if k < 1:
        raise WorkbookError(f"duplicate: k = {k}, but it must be 1 or more")
    repeated = batch._with_tensors(lambda tensor: torch.cat([tensor] * k))
    return replace(repeated, ids=batch.ids * k)


def pad_frames(batch: Batch, n: int) -> Batch:
    """The same clips with n more padded frames: mel (B, T, M) -> (B, T + n, M); lengths and
    durations stay.
    """
    if n < 0:
        raise WorkbookError(f"pad_frames: n = {n}, but it must be 0 or more")
    return replace(batch, mel=pad(batch.mel, (0, 0, 0, n), value=batch.pad_value))


def permute_phonemes(batch: Batch, pause_id: int, generator: torch.Generator) -> Batch:
    """Wrong text on purpose: each clip's ids permuted among its non-pause positions; durations and
    pauses stay put.
    """
    phonemes = batch.phonemes.clone()
    spoken = batch.phoneme_mask & (phonemes != pause_id)
    for row, positions in zip(phonemes, spoken, strict=True):
        ids = row[positions]
        row[positions] = ids[torch.randperm(len(ids), generator=generator).to(ids.device)]
    return replace(batch, phonemes=phonemes)
