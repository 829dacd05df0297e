"""Autoregressive mel decoder: causal self-attention over past frames, cross-attention over the
memory.

Shapes: B batch, T frames, S frames of one call, M mel bins, D width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tts_core.config import ModelConfig
from tts_core.model.attention import KeyValueCache, MultiHeadAttention, causal_mask
from tts_core.model.encoder import Positions, feed_forward


def shift_right(mel: Tensor, go_frame: Tensor) -> Tensor:
    """Decoder input for teacher forcing: (B, T, M) -> (B, T, M), frame t sees frames < t.

    `go_frame` (M,) is a named choice: in raw log-mels 0.0 is loud speech, silence is log(1e-5).
    """
    return torch.cat([go_frame.to(mel).expand(len(mel), 1, -1), mel[:, :-1]], dim=1)


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
        normed = self.self_attention_norm(x)
        keys, values = self.self_attention.project(normed)
        mask = "causal"
        if cache is not None:
            keys, values = cache.past.append(keys, values)
            # one frame sees all before it
            mask = causal_mask(x.shape[1], keys.shape[2], x.device) if x.shape[1] > 1 else None
        x = x + self.dropout(self.self_attention(normed, keys, values, mask))
        keys, values = self.cross_attention.project(memory) if cache is None else cache.memory
        x = x + self.dropout(
            self.cross_attention(self.cross_attention_norm(x), keys, values, memory_mask)
        )
        return x + self.dropout(self.feed_forward(self.feed_forward_norm(x)))


class Decoder(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.n_heads = config.n_heads
        self.positions = Positions(config.hidden_dim)
        self.dropout = nn.Dropout(config.dropout)
        self.layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.n_decoder_layers))
        self.norm = nn.LayerNorm(config.hidden_dim)

    def forward(self, x: Tensor, memory: Tensor, memory_mask: Tensor, run_layer) -> Tensor:
        """Projected input frames (B, T, D), memory (B, K, D), memory_mask (B, K) as in a layer ->
        (B, T, D); `run_layer` as in `Encoder`.
        """
        x = self.dropout(self.positions(x))
        for layer in self.layers:
            x = run_layer(layer, x, memory, memory_mask[:, None, None, :])
        return self.norm(x)

    def start(self, memory: Tensor, capacity: int) -> list[LayerCache]:
        """Caches for generating at most `capacity` frames over `memory` (B, T, D)."""
        head_dim = memory.shape[2] // self.n_heads
        return [
            LayerCache(
                KeyValueCache.empty(len(memory), self.n_heads, capacity, head_dim, memory),
                layer.cross_attention.project(memory),
            )
            for layer in self.layers
        ]

    def advance(self, x: Tensor, memory_mask: Tensor, caches: list[LayerCache]) -> Tensor:
        """Feed the next S projected frames (B, S, D) -> (B, S, D); equals `forward` on the whole
        history.
        """
        x = self.positions(x, offset=caches[0].past.length)
        for layer, cache in zip(self.layers, caches):
            x = layer(x, None, memory_mask[:, None, None, :], cache)
        return self.norm(x)
