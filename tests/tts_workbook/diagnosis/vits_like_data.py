"""The data code of the two held-out architectures: clips, items, batches, and what is known of them
beside the mel.

Shapes: B batch, N symbols, T frames, M mel bins, L samples.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from tts_core.config import AudioConfig
from tts_core.speech.audio import griffin_lim, log_mel
from tts_core.speech.dataset import Clip
from tts_core.speech.phonemes import ARPABET, PAUSE
from tts_workbook.faults.planting import Setting

AUDIO = AudioConfig()
BINS = AUDIO.n_mels
FILL, UNKNOWN = "<fill>", "<unknown>"
TABLE = (FILL, PAUSE, *ARPABET, UNKNOWN)


@dataclass(frozen=True)
class Item:
    """One clip as training sees it."""

    written: tuple[str, ...]  # N symbols before they became ids
    ids: Tensor  # (N,)
    frames: Tensor  # (N,) frames of each symbol
    mel: Tensor  # (T, M) ln units
    wave: np.ndarray  # (L,)
    conditions: Mapping[str, Tensor] = field(default_factory=dict)  # of the whole clip


@dataclass(frozen=True)
class SpeechBatch:
    """Clips side by side, filled up on the right: ids with 0, frames with 0, mels with 0."""

    ids: Tensor  # (B, N)
    n_ids: Tensor  # (B,)
    frames: Tensor  # (B, N)
    mel: Tensor  # (B, T, M) standardised
    n_frames: Tensor  # (B,)
    conditions: Mapping[str, Tensor]  # (B, ...) each
    written: tuple[tuple[str, ...], ...]
    waves: tuple[np.ndarray, ...]

    @property
    def id_mask(self) -> Tensor:
        """(B, N) True where a symbol is."""
        return mask_of(self.n_ids, self.ids.shape[1])

    @property
    def frame_mask(self) -> Tensor:
        """(B, T) True where a frame is."""
        return mask_of(self.n_frames, self.mel.shape[1])


def mask_of(lengths: Tensor, size: int) -> Tensor:
    """(B,) -> (B, size), True before each length."""
    return torch.arange(size, device=lengths.device) < lengths[:, None]


class SpeechData:
    """Clips -> items -> batches; mels are standardised per bin over all clips."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        items = [self.item(clip) for clip in setting.clips]
        self.fit(torch.cat([item.mel for item in items]))
        self.items = self.conditioned(items)

    def item(self, clip: Clip) -> Item:
        """One clip, before it has conditions."""
        return Item(
            written=tuple(clip.phonemes),
            ids=self.encode(clip.phonemes),
            frames=torch.from_numpy(clip.durations).long(),
            mel=self.extract(clip.samples),
            wave=clip.samples,
        )

    def extract(self, samples: np.ndarray) -> Tensor:
        """(L,) -> (T, M) in ln units."""
        return log_mel(samples, AUDIO)

    def encode(self, symbols: Sequence[str]) -> Tensor:
        """The front end: symbols as they are written -> ids (N,)."""
        known = [symbol if symbol in TABLE else UNKNOWN for symbol in symbols]
        return torch.tensor([TABLE.index(symbol) for symbol in known])

    def encode_at_inference(self, symbols: Sequence[str]) -> Tensor:
        """What turns a text into ids when the model speaks: the same function."""
        return self.encode(symbols)

    def fit(self, frames: Tensor) -> None:
        """Mean and deviation per bin of all frames (F, M)."""
        self.mean, self.std = frames.mean(dim=0), frames.std(dim=0).clamp(min=0.1)

    def scale(self, mel: Tensor) -> Tensor:
        return (mel - self.mean) / self.std

    def unscale(self, mel: Tensor) -> Tensor:
        return mel * self.std + self.mean

    def conditioned(self, items: list[Item]) -> list[Item]:
        """The items with what the model is told beside the text."""
        return items

    def conditions_at_inference(self, conditions: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """What the model is told beside the text when it speaks: the same."""
        return conditions

    def asked(self, batch: SpeechBatch) -> SpeechBatch:
        """The batch as inference sees it: ids from the written text, conditions of inference."""
        rows = [self.encode_at_inference(row) for row in batch.written]
        ids = pad_sequence(rows, batch_first=True)
        missing = batch.ids.shape[1] - ids.shape[1]
        return replace(
            batch,
            ids=F.pad(ids, (0, max(0, missing))).to(batch.ids.device),
            n_ids=torch.tensor([len(row) for row in rows], device=batch.ids.device),
            conditions=self.conditions_at_inference(batch.conditions),
        )

    def collate(self, items: Sequence[Item]) -> SpeechBatch:
        names = items[0].conditions
        return SpeechBatch(
            ids=pad_sequence([item.ids for item in items], batch_first=True),
            n_ids=torch.tensor([len(item.ids) for item in items]),
            frames=pad_sequence([item.frames for item in items], batch_first=True),
            mel=pad_sequence([self.scale(item.mel) for item in items], batch_first=True),
            n_frames=torch.tensor([len(item.mel) for item in items]),
            conditions={
                name: torch.stack([item.conditions[name] for item in items]) for name in names
            },
            written=tuple(item.written for item in items),
            waves=tuple(item.wave for item in items),
        )

    def batch(self) -> SpeechBatch:
        return self.collate(self.items[: self.setting.batch_size])

    def batches(self) -> Iterator[SpeechBatch]:
        """All clips, epoch after epoch, in an order drawn anew."""
        size = self.setting.batch_size
        order, dice = list(self.items), random.Random(f"order {self.setting.seed}")
        while True:
            dice.shuffle(order)
            for start in range(0, len(order) - size + 1, size):
                yield self.collate(order[start : start + size])

    def features(self, samples: np.ndarray, rate: int) -> Tensor:
        """(L,) -> (T, M): what the extraction makes of the audio today."""
        return self.scale(self.extract(samples))

    def vocode(self, mel: Tensor) -> tuple[np.ndarray, int]:
        """(T, M) standardised -> samples, Hz."""
        return griffin_lim(self.unscale(mel), AUDIO), AUDIO.sample_rate

    def fields(self) -> dict[str, Any]:
        """The fields of Subject that hang on the data alone."""
        return dict(
            batch=self.batch(),
            target_mel=lambda batch: (batch.mel, batch.n_frames),
            batches=self.batches,
            duplicate=duplicate,
            pad=pad,
            pad_text=pad_text,
            trim=trim,
            shuffle_text=shuffle_text,
            durations=durations,
            symbols=lambda batch: batch.written,
            audio=lambda batch: [(wave, AUDIO.sample_rate) for wave in batch.waves],
            features=self.features,
            vocode=self.vocode,
        )


def durations(batch: SpeechBatch) -> list[list[int]]:
    """Frames of each symbol, a list per clip."""
    lengths = batch.n_ids.tolist()
    return [row[:n].tolist() for row, n in zip(batch.frames, lengths, strict=True)]


def duplicate(batch: SpeechBatch, k: int) -> SpeechBatch:
    """Every clip k times, the whole batch one after another."""
    return SpeechBatch(
        ids=batch.ids.repeat(k, 1),
        n_ids=batch.n_ids.repeat(k),
        frames=batch.frames.repeat(k, 1),
        mel=batch.mel.repeat(k, 1, 1),
        n_frames=batch.n_frames.repeat(k),
        conditions={name: torch.cat([part] * k) for name, part in batch.conditions.items()},
        written=batch.written * k,
        waves=batch.waves * k,
    )


def pad(batch: SpeechBatch, n: int) -> SpeechBatch:
    """What a longer clip beside them would do: n more empty frames."""
    return replace(batch, mel=F.pad(batch.mel, (0, 0, 0, n)))


def pad_text(batch: SpeechBatch, n: int) -> SpeechBatch:
    """What a longer text beside them would do: n more empty symbols, of no frames."""
    ids, frames = F.pad(batch.ids, (0, n)), F.pad(batch.frames, (0, n))
    return replace(batch, ids=ids, frames=frames)


def split(batch: SpeechBatch) -> list[SpeechBatch]:
    """One batch for each clip, without padding."""
    rows = []
    for row, (n, t) in enumerate(zip(batch.n_ids.tolist(), batch.n_frames.tolist(), strict=True)):
        one = slice(row, row + 1)
        rows.append(
            SpeechBatch(
                ids=batch.ids[one, :n],
                n_ids=batch.n_ids[one],
                frames=batch.frames[one, :n],
                mel=batch.mel[one, :t],
                n_frames=batch.n_frames[one],
                conditions={name: part[one] for name, part in batch.conditions.items()},
                written=batch.written[one],
                waves=batch.waves[one],
            )
        )
    return rows


def trim(batch: SpeechBatch, first: int, last: int) -> SpeechBatch:
    """Without the first and last frames of each clip, nor the symbols that lie in them."""
    ids, frames, mels, written, waves = [], [], [], [], []
    for one in split(batch):
        end = int(one.n_frames) - last
        ends = one.frames[0].cumsum(0)
        left = ends.clamp(first, end) - (ends - one.frames[0]).clamp(first, end)
        kept = left > 0
        symbols = zip(one.written[0], kept.tolist(), strict=False)
        hop = AUDIO.hop_length
        ids.append(one.ids[0][kept])
        frames.append(left[kept])
        mels.append(one.mel[0, first:end])
        written.append(tuple(symbol for symbol, keep in symbols if keep))
        waves.append(one.waves[0][first * hop : max(end - 1, first + 1) * hop])
    return SpeechBatch(
        ids=pad_sequence(ids, batch_first=True),
        n_ids=torch.tensor([len(row) for row in ids]),
        frames=pad_sequence(frames, batch_first=True),
        mel=pad_sequence(mels, batch_first=True),
        n_frames=torch.tensor([len(mel) for mel in mels]),
        conditions=batch.conditions,
        written=tuple(written),
        waves=tuple(waves),
    )


def shuffle_text(batch: SpeechBatch, generator: torch.Generator) -> SpeechBatch:
    """Symbols of each clip in another order; pauses, frames and mels where they were."""
    ids, written = batch.ids.clone(), []
    for row, symbols in enumerate(batch.written):
        spoken = [place for place, symbol in enumerate(symbols) if symbol != PAUSE]
        drawn = torch.randperm(len(spoken), generator=generator).tolist()
        order = list(range(len(symbols)))
        for place, other in zip(spoken, drawn, strict=True):
            order[place] = spoken[other]
        ids[row, : len(order)] = batch.ids[row, order]
        written.append(tuple(symbols[place] for place in order))
    return replace(batch, ids=ids, written=tuple(written))
