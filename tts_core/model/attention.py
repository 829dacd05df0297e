"""Multi-head attention with an inspectable path and a key/value cache.

Shapes: B batch, H heads, Q query positions, K key positions, D width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Mask = Tensor | Literal["causal"] | None


@dataclass
class KeyValueCache:
    """Keys and values (B, H, capacity, D/H) of positions seen so far; `length` of them are
    valid.
    """

    keys: Tensor
    values: Tensor
    length: int = 0

    @classmethod
    def empty(
        cls, batch: int, n_heads: int, capacity: int, head_dim: int, like: Tensor
    ) -> KeyValueCache:
        shape = (batch, n_heads, capacity, head_dim)
        return cls(like.new_zeros(shape), like.new_zeros(shape))

    def append(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Store (B, H, S, D/H) behind what is there; return all valid keys and values."""
        end = self.length + keys.shape[2]
        self.keys[:, :, self.length : end] = keys
        self.values[:, :, self.length : end] = values
        self.length = end
        return self.keys[:, :, :end], self.values[:, :, :end]


class MultiHeadAttention(nn.Module):
    """Scaled dot-product attention (Vaswani et al. 2017), initialised as in `torch.nn.Transformer`
    (Xavier uniform).

    Normally computed by `scaled_dot_product_attention`. With `record = True` it is computed step by
    step and the last call's `logits` and `weights` (B, H, Q, K) are kept for probes; both paths
    give the same output.
    """

    def __init__(self, hidden_dim: int, n_heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.n_heads, self.dropout = n_heads, dropout
        self.query = nn.Linear(hidden_dim, hidden_dim)
        self.key = nn.Linear(hidden_dim, hidden_dim)
        self.value = nn.Linear(hidden_dim, hidden_dim)
        self.output = nn.Linear(hidden_dim, hidden_dim)
        # keeps the scale of its input
        for projection in (self.query, self.key, self.value, self.output):
            nn.init.xavier_uniform_(projection.weight)
            nn.init.zeros_(projection.bias)
        self.record = False
        self.logits: Tensor | None = None
        self.weights: Tensor | None = None

    def _heads(self, x: Tensor) -> Tensor:
        """(B, S, D) -> (B, H, S, D/H)."""
        batch, length, width = x.shape
        return x.view(batch, length, self.n_heads, width // self.n_heads).transpose(1, 2)

    def project(self, memory: Tensor) -> tuple[Tensor, Tensor]:
        """(B, K, D) -> keys and values (B, H, K, D/H), to be computed once where the memory does
        not change.
        """
        return self._heads(self.key(memory)), self._heads(self.value(memory))

    def forward(self, x: Tensor, keys: Tensor, values: Tensor, mask: Mask = None) -> Tensor:
        """x (B, Q, D), keys and values (B, H, K, D/H) -> (B, Q, D).

        A mask broadcasts to (B, H, Q, K), True = may attend; one of numbers is added to the logits.
        "causal" is the mask of as many queries as keys, each of which sees itself and what came
        before: half the work where it need not be written out.
        """
        query = self._heads(self.query(x))
        dropout = self.dropout if self.training else 0.0
        if isinstance(mask, Tensor) and mask.is_floating_point():
            mask = mask.to(query.dtype)
        if self.record:
            attended = self._attend_recorded(query, keys, values, mask, dropout)
        elif isinstance(mask, str):
            attended = F.scaled_dot_product_attention(
                query, keys, values, None, dropout, is_causal=True
            )
        else:
            attended = F.scaled_dot_product_attention(query, keys, values, mask, dropout)
        output: Tensor = self.output(attended.transpose(1, 2).flatten(2))
        return output

    def _attend_recorded(
        self, query: Tensor, keys: Tensor, values: Tensor, mask: Mask, dropout: float
    ) -> Tensor:
        logits = query @ keys.transpose(-2, -1) / math.sqrt(query.shape[-1])
        if isinstance(mask, str):
            mask = causal_mask(query.shape[2], keys.shape[2], query.device)
        if mask is not None and mask.is_floating_point():
            logits = logits + mask
        elif mask is not None:
            logits = logits.masked_fill(~mask, -math.inf)
        weights = logits.softmax(dim=-1)
        self.logits, self.weights = logits.detach(), weights.detach()
        return F.dropout(weights, dropout) @ values


def causal_mask(n_queries: int, n_keys: int, device: torch.device) -> Tensor:
    """(n_queries, n_keys) bool: the queries are the last positions, and each sees itself and what
    came before.
    """
    return torch.ones(n_queries, n_keys, dtype=torch.bool, device=device).tril(n_keys - n_queries)
