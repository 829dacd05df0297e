"""Autoregressive mel decoder: causal self-attention over past frames, cross-attention over the
memory.

Shapes: B batch, T frames, S frames of one call, M mel bins, D width.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from tts_core.config import ModelConfig
from tts_core.model.attention import KeyValueCache, Mask, MultiHeadAttention, causal_mask
from tts_core.model.encoder import Positions, RunLayer, feed_forward


def shift_right(mel: Tensor, go_frame: Tensor) -> Tensor:
    """Decoder input for teacher forcing: (B, T, M) -> (B, T, M), frame t sees frames < t.

    `go_frame` (M,) is a named choice: in raw log-mels 0.0 is loud speech, silence is log(1e-5).
    """
    first = go_frame.to(mel).expand(len(mel), 1, -1)
    return torch.cat([first, mel[:, :-1]], dim=1)


@dataclass
class LayerCache:
    """What one decoder layer remembers while generating."""

    past: KeyValueCache  # of the frames fed so far
    memory: tuple[Tensor, Tensor]  # keys and values of the memory, computed once


class DecoderLayer(nn.Module):
    """Pre-norm transformer decoder layer: self-attention, cross-attention, feed-forward."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.hidden_dim
        self.self_attention_norm = nn.LayerNorm(width)
        self.self_attention = MultiHeadAttention(width, config.n_heads, config.dropout)
        self.cross_attention_norm = nn.LayerNorm(width)
        self.cross_attention = MultiHeadAttention(width, config.n_heads, config.dropout)
        self.feed_forward_norm = nn.LayerNorm(width)
        self.feed_forward = feed_forward(width, config.decoder_ff_dim, config.dropout)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self, x: Tensor, memory: Tensor | None, memory_mask: Tensor, cache: LayerCache | None = None
    ) -> Tensor:
        """x (B, S, D), memory (B, T, D), memory_mask (B, 1, 1, T) True = frame, or numbers to add
        to the logits -> (B, S, D).

        With a cache, x continues the cached frames and `memory` is not read.
        """
        x = x + self.dropout(self._attend_to_past(self.self_attention_norm(x), cache))
        if cache is not None:
            keys, values = cache.memory
        else:
            assert memory is not None
            keys, values = self.cross_attention.project(memory)
        normed = self.cross_attention_norm(x)
        x = x + self.dropout(self.cross_attention(normed, keys, values, memory_mask))
        x = x + self.dropout(self.feed_forward(self.feed_forward_norm(x)))
        return x

    def _attend_to_past(self, x: Tensor, cache: LayerCache | None) -> Tensor:
        """Self-attention of x (B, S, D) over itself and, with a cache, over what came before."""
        keys, values = self.self_attention.project(x)
        mask: Mask = "causal"
        if cache is not None:
            keys, values = cache.past.append(keys, values)
            mask = None  # a single frame sees all before it
            if x.shape[1] > 1:
                mask = causal_mask(x.shape[1], keys.shape[2], x.device)
        attended: Tensor = self.self_attention(x, keys, values, mask)
        return attended


class Decoder(nn.Module):
    """Positions and decoder layers: over whole clips in training, frame by frame in generation."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.n_heads = config.n_heads
        self.positions = Positions(config.hidden_dim)
        self.dropout = nn.Dropout(config.dropout)
        self.layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.n_decoder_layers))
        self.norm = nn.LayerNorm(config.hidden_dim)

    @property
    def _layers(self) -> Iterable[DecoderLayer]:
        return cast(Iterable[DecoderLayer], self.layers)  # a ModuleList forgets what it holds

    def forward(
        self, x: Tensor, memory: Tensor, memory_mask: Tensor, run_layer: RunLayer
    ) -> Tensor:
        """Projected input frames (B, T, D), memory (B, K, D), memory_mask (B, K) as in a layer ->
        (B, T, D); `run_layer` as in `Encoder`.
        """
        x = self.dropout(self.positions(x))
        for layer in self.layers:
            x = run_layer(layer, x, memory, memory_mask[:, None, None, :])
        x = self.norm(x)
        return x

    def start(self, memory: Tensor, capacity: int) -> list[LayerCache]:
        """Caches for generating at most `capacity` frames over `memory` (B, T, D)."""
        head_dim = memory.shape[2] // self.n_heads
        caches = []
        for layer in self._layers:
            past = KeyValueCache.empty(len(memory), self.n_heads, capacity, head_dim, memory)
            caches.append(LayerCache(past, layer.cross_attention.project(memory)))
        return caches

    def advance(self, x: Tensor, memory_mask: Tensor, caches: list[LayerCache]) -> Tensor:
        """Feed the next S projected frames (B, S, D) -> (B, S, D); equals `forward` on the whole
        history.
        """
        x = self.positions(x, offset=caches[0].past.length)
        for layer, cache in zip(self.layers, caches, strict=True):
            x = layer(x, None, memory_mask[:, None, None, :], cache)
        x = self.norm(x)
        return x
