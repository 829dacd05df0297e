"""Phoneme encoder: embedding, sinusoidal positions, pre-norm transformer layers, and the memory
norm that was missing.

Shapes: B batch, N phonemes, D width.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from tts_core.config import ModelConfig
from tts_core.model.attention import MultiHeadAttention

# how a layer is called on its inputs: `run_layer(layer, *inputs)` may checkpoint
RunLayer = Callable[..., Tensor]


def sinusoidal_positions(n_positions: int, hidden_dim: int) -> Tensor:
    """(n_positions, hidden_dim) of sines and cosines (Vaswani et al. 2017), standard deviation
    about 0.7.
    """
    rates = torch.exp(torch.arange(0, hidden_dim, 2) * (-math.log(10_000.0) / hidden_dim))
    angles = torch.arange(n_positions)[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)


class Positions(nn.Module):
    """Adds sinusoidal positions; the table grows on demand and is never part of a checkpoint."""

    table: Tensor  # (n_positions, hidden_dim)

    def __init__(self, hidden_dim: int, n_positions: int = 1024) -> None:
        super().__init__()
        table = sinusoidal_positions(n_positions, hidden_dim)
        self.register_buffer("table", table, persistent=False)

    def forward(self, x: Tensor, offset: int = 0) -> Tensor:
        """x (B, S, D), the first of them at position `offset` -> (B, S, D)."""
        end = offset + x.shape[1]
        if end > self.table.shape[0]:
            self.table = sinusoidal_positions(2 * end, self.table.shape[1]).to(self.table)
        return x + self.table[offset:end].to(x.dtype)


def feed_forward(hidden_dim: int, ff_dim: int, dropout: float) -> nn.Sequential:
    """Two linear maps with a ReLU between them: (..., hidden_dim) -> (..., hidden_dim)."""
    widen = nn.Linear(hidden_dim, ff_dim)
    narrow = nn.Linear(ff_dim, hidden_dim)
    nn.init.xavier_uniform_(widen.weight)
    nn.init.xavier_uniform_(narrow.weight)
    return nn.Sequential(widen, nn.ReLU(), nn.Dropout(dropout), narrow)


class EncoderLayer(nn.Module):
    """Pre-norm transformer layer (Xiong et al. 2020): the residual stream itself is never
    normalised.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.self_attention_norm = nn.LayerNorm(config.hidden_dim)
        self.self_attention = MultiHeadAttention(config.hidden_dim, config.n_heads, config.dropout)
        self.feed_forward_norm = nn.LayerNorm(config.hidden_dim)
        self.feed_forward = feed_forward(config.hidden_dim, config.encoder_ff_dim, config.dropout)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """x (B, N, D), mask (B, 1, 1, N) True = phoneme -> (B, N, D)."""
        normed = self.self_attention_norm(x)
        keys, values = self.self_attention.project(normed)
        attended = self.self_attention(normed, keys, values, mask)
        x = x + self.dropout(attended)
        x = x + self.dropout(self.feed_forward(self.feed_forward_norm(x)))
        return x


class Encoder(nn.Module):
    """Positions, transformer layers, and the memory norm as a switch."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.positions = Positions(config.hidden_dim)
        self.dropout = nn.Dropout(config.dropout)
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.n_encoder_layers))
        # The repair of the seed's model: without it the memory keeps the scale of the embedding,
        # sqrt(hidden_dim).
        self.memory_norm: nn.Module = nn.Identity()
        if config.memory_norm:
            self.memory_norm = nn.LayerNorm(config.hidden_dim)

    def forward(self, x: Tensor, mask: Tensor, run_layer: RunLayer) -> Tensor:
        """Embedded phonemes (B, N, D), mask (B, N) True = phoneme -> (B, N, D)."""
        x = self.dropout(self.positions(x))
        for layer in self.layers:
            x = run_layer(layer, x, mask[:, None, None, :])
        x = self.memory_norm(x)
        return x
