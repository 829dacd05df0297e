"""Faulty twins of torch's attention: a built one is given another class and keeps its weights."""

from __future__ import annotations

import torch
from torch import nn


class Unmasked(nn.MultiheadAttention):
    """Self-attention over padding as well."""

    def forward(self, query, key, value, key_padding_mask=None, **options):  # type: ignore[override]
        return super().forward(query, key, value, **options)


class InvertedMask(nn.MultiheadAttention):
    """Self-attention that is kept from what is valid, by an additive mask, and may read the
    padding.
    """

    def forward(self, query, key, value, key_padding_mask=None, **options):  # type: ignore[override]
        kept_out = -1e4 * (~key_padding_mask).to(query.dtype)
        return super().forward(query, key, value, key_padding_mask=kept_out, **options)


class HalfMask(nn.MultiheadAttention):
    """Additive mask of -1e9 times 0 or 1 in half precision, where it is -inf: 0 * -inf is NaN."""

    def forward(self, query, key, value, key_padding_mask=None, **options):  # type: ignore[override]
        large = torch.tensor(-1e9).half()
        kept_out = (key_padding_mask.half() * large).to(query.dtype)
        if not torch.is_autocast_enabled("cpu"):
            kept_out = -1e9 * key_padding_mask.to(query.dtype)
        return super().forward(query, key, value, key_padding_mask=kept_out, **options)
