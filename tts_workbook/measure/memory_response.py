"""Cross-attention as the memory grows: do the logits saturate, do the values drown the stream, what
comes back?

Dropout is off and the weights stay: only `ModelConfig.memory_scale` changes.
Shapes: B batch, T frames, D width.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from tts_core.config import ExperimentConfig
from tts_core.metrics.attention_maps import recorded_attention
from tts_core.model.attention import MultiHeadAttention
from tts_core.model.decoder import DecoderLayer
from tts_core.model.modes import evaluating
from tts_core.model.tts import TTSModel
from tts_core.speech.batch import Batch
from tts_core.training.losses import loss_sums
from tts_workbook.measure.activations import attention_entropy

question = "What does cross-attention do as the memory grows?"

FACTORS = (1 / 32, 1 / 8, 1 / 4, 1 / 2, 1.0, 2.0)
PARTS = ("query", "key", "value", "output")


@dataclass(frozen=True)
class CrossAttentionState:
    """Cross-attention of one model on one batch; lists run over decoder layers."""

    factor: float  # ModelConfig.memory_scale
    memory_std: float  # of the length-regulated memory, over valid frames
    logit_std: list[float]
    logit_max: list[float]  # largest absolute logit
    entropy: list[float]  # over ln T: 0 sharp, 1 uniform
    over_stream: list[float]  # std of its output over std of the stream it is added to
    # norm of the mel loss's gradient at the weights of query, key, value, output
    gradient: dict[str, list[float]]
    memory_gradient: float  # at the memory, (B, T, D)
    text_gradient: float  # at the text embedding
    mel: float  # mel loss, model units

    @property
    def memory_sensitivity(self) -> float:
        """Memory gradient times memory scale: what a *relative* change of the memory does to the
        loss.
        """
        return self.memory_gradient * self.memory_std


def cross_attention_state(
    model: TTSModel, batch: Batch, experiment: ExperimentConfig
) -> CrossAttentionState:
    """Measure `model` as it is, in eval mode with gradients; nothing of it changes."""
    attentions = [layer.cross_attention for layer in _decoder_layers(model)]
    with evaluating(model, gradients=True):
        with recorded_attention(model), _streams(model) as streams:
            output = model(batch)
            recorded = [_logits_and_weights(attention) for attention in attentions]
        mel_sum, n_values = loss_sums(output, batch, model, experiment.loss).mel
        mean = mel_sum / n_values
        sources = [output.memory, model.text_embedding.weight]
        for attention in attentions:
            sources += [getattr(attention, part).weight for part in PARTS]
        norms = [float(gradient.double().norm()) for gradient in torch.autograd.grad(mean, sources)]
    mask = batch.mel_mask
    finite = [_valid(logits, mask) for logits, _ in recorded]
    entropy = [attention_entropy(weights, batch.mel_lengths) for _, weights in recorded]
    return CrossAttentionState(
        factor=model.config.memory_scale,
        memory_std=float(output.memory.detach()[mask].std()),
        logit_std=[float(layer.std()) for layer in finite],
        logit_max=[float(layer.abs().max()) for layer in finite],
        entropy=entropy,
        over_stream=[
            float(layer["written"][mask].std() / layer["stream"][mask].std()) for layer in streams
        ],
        gradient={part: norms[2 + index :: len(PARTS)] for index, part in enumerate(PARTS)},
        memory_gradient=norms[0],
        text_gradient=norms[1],
        mel=float(mean.detach()),
    )


def with_memory_scale(model: TTSModel, factor: float) -> TTSModel:
    """A copy of `model`, same weights, whose memory is multiplied by `factor`."""
    model = copy.deepcopy(model)
    model.config = dataclasses.replace(model.config, memory_scale=factor)
    return model


def memory_scale_response(
    model: TTSModel, batch: Batch, experiment: ExperimentConfig, factors: Sequence[float] = FACTORS
) -> list[CrossAttentionState]:
    """`model` with its memory multiplied by each factor, everything else alike.

    The factor multiplies what the encoder (and its norm, where there is one) gives, before frame
    positions are added.
    """
    return [
        cross_attention_state(with_memory_scale(model, factor), batch, experiment)
        for factor in factors
    ]


def layer_curves(states: Sequence[CrossAttentionState], layer: int) -> dict[str, list[float]]:
    """What `states` say about one decoder layer, series by series, for a picture; the text's
    gradient has no layer.
    """
    return {
        "factor": [state.factor for state in states],
        "memory_std": [state.memory_std for state in states],
        "logit_std": [state.logit_std[layer] for state in states],
        "entropy": [state.entropy[layer] for state in states],
        "over_stream": [state.over_stream[layer] for state in states],
        **{
            f"{part}_gradient": [state.gradient[part][layer] for state in states]
            for part in ("query", "key")
        },
        "text_gradient": [state.text_gradient for state in states],
    }


def _decoder_layers(model: TTSModel) -> list[DecoderLayer]:
    """The decoder's layers; a ModuleList forgets what it holds."""
    return list(cast(Iterable[DecoderLayer], model.decoder.layers))


def _logits_and_weights(attention: MultiHeadAttention) -> tuple[Tensor, Tensor]:
    """What a recorded attention kept of its last call, (B, H, Q, K) each."""
    assert attention.logits is not None and attention.weights is not None, "no call was recorded"
    return attention.logits, attention.weights


def _valid(logits: Tensor, mask: Tensor) -> Tensor:
    """Logits (B, H, T, T) of valid queries and keys, flat."""
    rows = logits.transpose(1, 2)[mask]
    return rows[torch.isfinite(rows)]


@contextmanager
def _streams(model: TTSModel) -> Iterator[list[dict[str, Tensor]]]:
    """While open, each decoder layer keeps the `stream` before cross-attention and what that has
    `written` to it.
    """
    layers = _decoder_layers(model)
    kept: list[dict[str, Tensor]] = [{} for _ in layers]
    handles = []
    for layer, place in zip(layers, kept, strict=True):
        entered = layer.cross_attention_norm.register_forward_pre_hook(
            lambda module, inputs, place=place: place.update(stream=inputs[0].detach())
        )
        left = layer.cross_attention.register_forward_hook(
            lambda module, inputs, output, place=place: place.update(written=output.detach())
        )
        handles += [entered, left]
    try:
        yield kept
    finally:
        for handle in handles:
            handle.remove()
