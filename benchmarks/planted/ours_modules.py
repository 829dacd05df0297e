"""Faulty twins of the workbook's modules, and of the history that generation feeds.

A built module is given another class and keeps its weights: a copy of the model stays spoilt, and
TTSModel knows nothing of it. Shapes: B batch, N phonemes, T frames, Q queries, K keys, D width, M
mel bins.
"""

from __future__ import annotations

from typing import TypeVar, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tts_core.model.attention import Mask, MultiHeadAttention
from tts_core.model.tts import Output, TTSModel
from tts_core.speech.batch import Batch

Module = TypeVar("Module", bound=nn.Module)


def become(module: Module, kind: type[nn.Module]) -> Module:
    """Give a built module another class; its weights stay."""
    module.__class__ = cast(type[Module], kind)
    return module


class Bidirectional(MultiHeadAttention):
    """Self-attention without its causal mask; it keeps to the valid frames that the decoder was
    told of.
    """

    valid: Tensor  # (B, 1, 1, T) True = frame

    def forward(self, x: Tensor, keys: Tensor, values: Tensor, mask: Mask = None) -> Tensor:
        whole_clip = x.shape[1] > 1 and self.valid.shape[-1] == keys.shape[2]
        return super().forward(x, keys, values, self.valid if whole_clip else None)


def note_valid_frames(decoder: nn.Module, inputs: tuple) -> None:
    """Tell every bidirectional layer of a decoder which frames are valid.

    A forward pre-hook: `inputs` are x, memory, memory_mask (B, T), run_layer.
    """
    valid = inputs[2][:, None, None, :]
    for module in decoder.modules():
        if isinstance(module, Bidirectional):
            module.valid = valid


class Unshifted(TTSModel):
    """Teacher forcing feeds the very frame that is to be predicted."""

    def forward(self, batch: Batch) -> Output:
        encoded = self.encode(batch.phonemes, batch.phoneme_mask)
        memory = self.expand(encoded, batch.durations, batch.mel.shape[1])
        history = self.normaliser.normalise(batch.mel)
        decoded = self.decoder(
            self.decoder_input(history, memory), memory, batch.mel_mask, self._run_layer
        )
        mel = self.mel_projection_out(decoded)
        return Output(
            mel=self.normaliser.denormalise(mel),
            model_mel=mel,
            decoded=decoded,
            memory=memory,
            stop_logits=self.stop_token_predictor(decoded).squeeze(-1),
            log_durations=self.duration_predictor(encoded, batch.phoneme_mask),
        )


class Unmasked(MultiHeadAttention):
    """Cross-attention over padding as well."""

    def forward(self, x: Tensor, keys: Tensor, values: Tensor, mask: Mask = None) -> Tensor:
        return super().forward(x, keys, values, None)


class InvertedMask(MultiHeadAttention):
    """Cross-attention that is kept from the valid frames, by an additive mask, and may read the
    padding.
    """

    def forward(self, x: Tensor, keys: Tensor, values: Tensor, mask: Mask = None) -> Tensor:
        return super().forward(x, keys, values, -1e4 * _given(mask).to(keys.dtype))


class HalfMask(MultiHeadAttention):
    """Additive mask (1 - mask) * -1e9 in the type of the keys: beyond the range of fp16, where 0 *
    -inf is NaN.
    """

    def forward(self, x: Tensor, keys: Tensor, values: Tensor, mask: Mask = None) -> Tensor:
        large = torch.tensor(-1e9).to(keys.dtype)
        kept_out = (~_given(mask)).to(keys.dtype)
        return super().forward(x, keys, values, kept_out * large)


def _given(mask: Mask) -> Tensor:
    """The padding mask that the decoder hands to cross-attention: always a tensor."""
    assert isinstance(mask, Tensor)
    return mask


class Deaf(MultiHeadAttention):
    """Cross-attention that asks and gets nothing: its result is dropped before the residual sum."""

    def forward(self, x: Tensor, keys: Tensor, values: Tensor, mask: Mask = None) -> Tensor:
        return torch.zeros_like(x)


class WordlessMemory(TTSModel):
    """The memory holds frame positions and nothing of the text."""

    def expand(self, encoded: Tensor, durations: Tensor, n_frames: int) -> Tensor:
        return super().expand(torch.zeros_like(encoded), durations, n_frames)


class DetachedEncoder(TTSModel):
    """The encoder runs where no gradient comes back."""

    def encode(self, phonemes: Tensor, mask: Tensor) -> Tensor:
        return super().encode(phonemes, mask).detach()


class ReentrantEncoder(TTSModel):
    """The whole text side under re-entrant checkpointing, whose inputs (ids, a mask) carry no
    gradient.
    """

    def encode(self, phonemes: Tensor, mask: Tensor) -> Tensor:
        return checkpoint(super().encode, phonemes, mask, use_reentrant=True)


class ChannelNorm(nn.BatchNorm1d):
    """BatchNorm over the channels of (B, N, D)."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.transpose(1, 2)).transpose(1, 2)


class Rounding(TTSModel):
    """Takes whatever it is given as durations for frames, rounded."""

    def expand(self, encoded: Tensor, durations: Tensor, n_frames: int) -> Tensor:
        return super().expand(encoded, durations.round().long(), n_frames)


def lagging(history: Tensor, go_frame: Tensor, layout: str) -> Tensor:
    """The newest frame is missing and the go frame comes twice: [go, go, m0 … m(t-2)]."""
    go = go_frame.to(history).expand(len(history), 1, -1)
    return torch.cat([go, go, history[:, :-1]], dim=1) if history.shape[1] else go


def seed_layout(history: Tensor, go_frame: Tensor, layout: str) -> Tensor:
    """The go frame is missing and the newest frame comes twice: [m0 … m(t-1), m(t-1)], the
    findings' own fault.
    """
    if history.shape[1] == 0:
        return go_frame.to(history).expand(len(history), 1, -1)
    return torch.cat([history, history[:, -1:]], dim=1)
