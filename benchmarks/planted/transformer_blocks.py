"""Parts of the small architectures without a recurrent decoder: a transformer block with a
convolution, a predictor of one number per phoneme, and the length regulator.

Shapes: B batch, L positions (N phonemes or T frames), D width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from tts_core.speech.batch import lengths_to_mask

LONGEST = 2_000  # positions of the table


def sinusoids(n_positions: int, width: int) -> Tensor:
    """(n_positions, width) sines and cosines of the positions (Vaswani et al. 2017)."""
    positions = torch.arange(n_positions)[:, None]
    rates = 10_000 ** (-torch.arange(0, width, 2) / width)
    angles = positions * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1)


class Positions(nn.Module):
    """Adds a table of sinusoids, held as a buffer: (B, L, D) -> (B, L, D)."""

    table: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("table", sinusoids(LONGEST, width))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.table[: x.shape[1]]


class Convolutions(nn.Module):
    """Position-wise feed-forward layer of FastSpeech, whose first layer sees five positions: (B, L,
    D) -> (B, L, D).
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.expand = nn.Conv1d(width, 2 * width, 5, padding=2)
        self.reduce = nn.Conv1d(2 * width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        hidden = F.relu(self.expand(x.transpose(1, 2)))
        return self.reduce(hidden).transpose(1, 2)


class Block(nn.Module):
    """Self-attention and convolutions, each with a residual sum and a norm behind it.

    `keeps_to_mask` is whether what stands beyond a sequence's end is zero before every convolution;
    where it is not, the last positions hear a little of the padding, as in several public models.
    """

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(width, 2, dropout=dropout, batch_first=True)
        self.attention_norm = nn.LayerNorm(width)
        self.convolutions = Convolutions(width)
        self.convolutions_norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)
        self.keeps_to_mask = True

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B, L, D), (B, L) True = valid -> (B, L, D)."""
        heard, _ = self.attention(x, x, x, key_padding_mask=~mask, need_weights=False)
        x = self.masked(self.attention_norm(x + self.dropout(heard)), mask)
        x = x + self.dropout(self.convolutions(x))
        return self.masked(self.convolutions_norm(x), mask)

    def masked(self, x: Tensor, mask: Tensor) -> Tensor:
        return x * mask[..., None] if self.keeps_to_mask else x


class Predictor(nn.Module):
    """One number per phoneme, a duration or a pitch: (B, N, D), (B, N) True = valid -> (B, N)."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.first = nn.Conv1d(width, width, 3, padding=1)
        self.first_norm = nn.LayerNorm(width)
        self.second = nn.Conv1d(width, width, 3, padding=1)
        self.second_norm = nn.LayerNorm(width)
        self.output = nn.Linear(width, 1)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        valid = mask[..., None]
        hidden = F.relu(self.first((x * valid).transpose(1, 2))).transpose(1, 2)
        hidden = self.dropout(self.first_norm(hidden)) * valid
        hidden = F.relu(self.second(hidden.transpose(1, 2))).transpose(1, 2)
        hidden = self.dropout(self.second_norm(hidden))
        return self.output(hidden).squeeze(-1) * mask


def regulate(encoded: Tensor, durations: Tensor, n_frames: int | None = None) -> Tensor:
    """Each phoneme repeated for its frames: (B, N, D), (B, N) frames -> (B, T, D).

    `n_frames` is T: what is missing is zero, what is too much is cut. None: as long as the longest.
    """
    rows = []
    for phonemes, frames in zip(encoded, durations, strict=True):
        rows.append(torch.repeat_interleave(phonemes, frames.round().long(), dim=0)[:n_frames])
    expanded = pad_sequence(rows, batch_first=True)
    missing = 0 if n_frames is None else n_frames - expanded.shape[1]
    return F.pad(expanded, (0, 0, 0, missing))


def whole_frames(log_durations: Tensor, least: int) -> Tensor:
    """What a duration predictor says (1, N), log1p frames -> frames (1, N): `least` or more each,
    in all no more than there are positions; 1 where it says nothing finite.
    """
    longest = LONGEST // log_durations.shape[1]
    frames = log_durations.expm1().nan_to_num(nan=1.0)
    return frames.round().clamp(least, longest)


def one_by_one(lengths: Tensor) -> Sequence[tuple[slice, slice, Tensor]]:
    """For inference clip by clip: (the clip as a batch of one, its own positions, its mask (1, L))
    for each of these lengths (B,).
    """
    found = []
    for row, length in enumerate(lengths.tolist()):
        mask = lengths_to_mask(torch.tensor([length]))
        found.append((slice(row, row + 1), slice(0, length), mask))
    return found
