"""What attention looked at: every layer's logits and weights, recorded while a context is open.

Shapes: B batch, H heads, T frames, L decoder layers.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from tts_core.model.attention import MultiHeadAttention
from tts_core.model.modes import evaluating
from tts_core.model.tts import TTSModel
from tts_core.speech.batch import Batch


@contextmanager
def recorded_attention(model: nn.Module) -> Iterator[dict[str, MultiHeadAttention]]:
    """While open, every attention keeps the logits and weights of its last call; yields them by
    module path.
    """
    attentions = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, MultiHeadAttention)
    }
    for module in attentions.values():
        module.record = True
    try:
        yield attentions
    finally:
        for module in attentions.values():
            module.record, module.logits, module.weights = False, None, None


def cross_attention_maps(model: TTSModel, batch: Batch) -> Tensor:
    """Teacher-forced cross-attention of the first clip, averaged over heads: (L, T, T), rows are
    decoder frames.
    """
    maps = []
    with evaluating(model), recorded_attention(model) as attentions:
        model(batch)
        for index in range(len(model.decoder.layers)):
            weights = attentions[f"decoder.layers.{index}.cross_attention"].weights
            assert weights is not None  # the forward pass above has just set it
            maps.append(weights[0].mean(dim=0))
    length = int(batch.mel_lengths[0])
    return torch.stack(maps)[:, :length, :length].cpu()
