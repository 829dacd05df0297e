"""Scale and collapse: how large the memory is beside the decoder's stream, and whether the decoder
still moves in time.

Shapes: B batch, T frames, D width, H heads.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tts_core.metrics.attention_maps import recorded_attention
from tts_core.model.modes import evaluating
from tts_core.model.tts import TTSModel
from tts_core.speech.batch import Batch, lengths_to_mask

question = "How large is the memory beside the decoder's stream, and does the decoder move in time?"


@contextmanager
def captured_outputs(model: nn.Module, names: list[str]) -> Iterator[dict[str, Tensor]]:
    """While open, the last output of each named module is kept, detached, by module path."""
    captured: dict[str, Tensor] = {}

    def keep(name):
        def hook(module, inputs, output):
            captured[name] = output.detach()

        return hook

    handles = [model.get_submodule(name).register_forward_hook(keep(name)) for name in names]
    try:
        yield captured
    finally:
        for handle in handles:
            handle.remove()


def time_variance_share(decoded: Tensor, lengths: Tensor) -> float:
    """Share of the variance of decoder output (B, T, D) that lies across time, over valid frames;
    in [0, 1].

    Total variance is taken about the one overall mean; the rest of it is the difference between
    channels, which is all that is left when every frame is the same vector. A collapse reads below
    0.1.
    """
    shares = []
    for frames, length in zip(decoded.double(), lengths.tolist(), strict=True):
        frames = frames[:length]
        across_time = frames.var(dim=0, unbiased=False).mean()
        shares.append(across_time / frames.var(unbiased=False).clamp(min=1e-30))
    return float(torch.stack(shares).mean())


def attention_entropy(weights: Tensor, lengths: Tensor) -> float:
    """Mean entropy of attention rows (B, H, Q, K) over valid queries, divided by ln K of each clip:
    0 sharp, 1 uniform.
    """
    entropy = -(weights * weights.clamp(min=1e-30).log()).sum(dim=-1).mean(dim=1)  # (B, Q)
    mask = lengths_to_mask(lengths, entropy.shape[1])
    bound = lengths.double().log().clamp(min=1e-9)[:, None]
    return float((entropy / bound).masked_fill(~mask, 0.0).sum() / mask.sum())


@dataclass(frozen=True)
class Scales:
    """Standard deviations in one forward pass (eval mode), by place, plus entropy and collapse."""

    # memory, decoder input, residual stream and attention outputs per layer
    std: dict[str, float]
    cross_attention_entropy: dict[str, float]  # per decoder layer, 0 sharp, 1 uniform
    cross_attention_logit_std: dict[str, float]
    time_variance_share: float


def measure_scales(model: TTSModel, batch: Batch) -> Scales:
    """Measure `model` on `batch` in eval mode; nothing of the model changes."""
    layers = [f"decoder.layers.{index}" for index in range(len(model.decoder.layers))]
    places = [
        "encoder",
        "mel_projection_in",
        *layers,
        *(f"{layer}.{part}" for layer in layers for part in ("self_attention", "cross_attention")),
    ]
    with (
        evaluating(model),
        recorded_attention(model) as attentions,
        captured_outputs(model, places) as captured,
    ):
        output = model(batch)
        entropy, logit_std = {}, {}
        for layer in layers:
            attention = attentions[f"{layer}.cross_attention"]
            assert attention.weights is not None and attention.logits is not None
            entropy[layer] = attention_entropy(attention.weights, batch.mel_lengths)
            seen = attention.logits[torch.isfinite(attention.logits)]
            logit_std[layer] = float(seen.std())
    std = {"memory": float(output.memory[batch.mel_mask].std())}
    for name in places:
        along_frames = captured[name].shape[1] == batch.mel_mask.shape[1]
        mask = batch.mel_mask if along_frames else batch.phoneme_mask
        std[name] = float(captured[name][mask].std())
    return Scales(std, entropy, logit_std, time_variance_share(output.decoded, batch.mel_lengths))
