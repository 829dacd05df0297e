"""The model under study: encoder, duration predictor, length regulator, autoregressive decoder,
stop head.

Shapes: B batch, N phonemes, T frames, M mel bins, D width. Mels enter and leave in ln units; inside
they are standardised per bin (or not, see `ModelConfig.standardise_targets`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tts_core.config import AudioConfig, ModelConfig
from tts_core.errors import WorkbookError
from tts_core.model.decoder import Decoder, DecoderLayer, shift_right
from tts_core.model.duration import DurationPredictor, regulate_length
from tts_core.model.encoder import Encoder, Positions
from tts_core.speech.batch import Batch


@dataclass(frozen=True)
class Output:
    """Predictions for one batch."""

    mel: Tensor  # (B, T, M) ln units
    model_mel: Tensor  # (B, T, M) the same in the units that the loss sees
    stop_logits: Tensor  # (B, T) logit that the frame is the last
    log_durations: Tensor  # (B, N) log1p frames
    memory: Tensor  # (B, T, D) length-regulated encoder output
    decoded: Tensor  # (B, T, D) decoder output


class Normaliser(nn.Module):
    """Per-bin standardisation with statistics as buffers; the identity until statistics are set."""

    mean: Tensor  # (M,) ln units
    std: Tensor  # (M,) ln units

    def __init__(self, mel_dim: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(mel_dim))
        self.register_buffer("std", torch.ones(mel_dim))

    def normalise(self, mel: Tensor) -> Tensor:
        """(..., M) ln units -> (..., M) model units."""
        return (mel - self.mean) / self.std

    def denormalise(self, model_mel: Tensor) -> Tensor:
        """(..., M) model units -> (..., M) ln units, fp32 at least: 16-bit inputs are promoted by
        the fp32 statistics.
        """
        return model_mel * self.std + self.mean


class TTSModel(nn.Module):
    """The architecture of the findings, with each suspect a named switch of `ModelConfig`."""

    raw_go_frame: Tensor  # (M,) first decoder input, ln units

    def __init__(self, config: ModelConfig, audio: AudioConfig) -> None:
        super().__init__()
        if config.mel_dim != audio.n_mels:
            raise WorkbookError(
                f"ModelConfig.mel_dim = {config.mel_dim}, but AudioConfig.n_mels = {audio.n_mels};"
                " make them equal"
            )
        width = config.hidden_dim
        self.config = config
        self.normaliser = Normaliser(config.mel_dim)
        go_value = audio.silence if config.go_frame == "silence" else 0.0  # ln units
        self.register_buffer("raw_go_frame", torch.full((config.mel_dim,), go_value))
        self.text_embedding = nn.Embedding(config.vocab_size, width)
        self.embedding_gain = math.sqrt(width) if config.embedding_scale == "sqrt_dim" else 1.0
        self.encoder = Encoder(config)
        self.duration_predictor = DurationPredictor(config)
        self.memory_positions = Positions(width)
        self.mel_projection_in = _mel_projection_in(config)
        self.decoder = Decoder(config)
        self.mel_projection_out = nn.Linear(width, config.mel_dim)
        self.stop_token_predictor = nn.Linear(width, 1)

    @property
    def go_frame(self) -> Tensor:
        """(M,) first decoder input, model units."""
        return self.normaliser.normalise(self.raw_go_frame)

    def set_mel_statistics(self, mean: Tensor, std: Tensor) -> None:
        """Per-bin mean and standard deviation (M,) of the training mels, ln units; ignored where
        targets stay raw.
        """
        if self.config.standardise_targets:
            self.normaliser.mean.copy_(mean)
            # a bin that never moves must not be blown up
            self.normaliser.std.copy_(std.clamp(min=0.1))

    def _run_layer(self, layer: nn.Module, *inputs: Tensor) -> Tensor:
        output: Tensor
        if self.config.gradient_checkpointing and self.training and torch.is_grad_enabled():
            output = checkpoint(layer, *inputs, use_reentrant=False)
        else:
            output = layer(*inputs)
        return output

    def encode(self, phonemes: Tensor, mask: Tensor) -> Tensor:
        """Phoneme ids (B, N), mask (B, N) True = phoneme -> (B, N, D)."""
        embedded = self.text_embedding(phonemes) * self.embedding_gain
        encoded: Tensor = self.encoder(embedded, mask, self._run_layer)
        return encoded * self.config.memory_scale

    def expand(self, encoded: Tensor, durations: Tensor, n_frames: int) -> Tensor:
        """Memory (B, n_frames, D): each phoneme repeated for its frames, plus sinusoidal frame
        positions.
        """
        memory = regulate_length(encoded, durations, n_frames)
        if self.config.memory_positions:
            memory = self.memory_positions(memory)
        return memory

    def attended(
        self, encoded: Tensor, memory: Tensor, durations: Tensor, mel_mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """What cross-attention reads, (B, K, D), and its mask (B, K): the memory, or the phonemes
        themselves where that is the same.

        A softmax over a key that is repeated d times is the softmax over it once with log d added
        to its logit: exact where nothing positional was added to the frames and no attention weight
        is dropped.
        """
        dropped = self.training and self.config.dropout > 0.0
        # probes want a weight per frame
        layers = cast(Iterable[DecoderLayer], self.decoder.layers)
        recorded = any(layer.cross_attention.record for layer in layers)
        if self.config.memory_positions or dropped or recorded:
            return memory, mel_mask
        return encoded, durations.to(encoded.dtype).log()

    def decoder_input(self, history: Tensor, memory: Tensor) -> Tensor:
        """Previous frames (B, S, M) in model units and the memory at the frames to predict (B, S,
        D) -> (B, S, D).
        """
        projected: Tensor = self.mel_projection_in(history) * self.config.mel_input_scale
        if self.config.decoder_adds_memory:
            projected = projected + memory
        return projected

    def _hide_frames(self, history: Tensor) -> Tensor:
        """History (B, S, M) with each frame zeroed with probability `history_dropout`; unchanged in
        eval mode.
        """
        if not self.training or self.config.history_dropout == 0.0:
            return history
        kept = torch.rand(history.shape[:2], device=history.device) >= self.config.history_dropout
        return history * kept[:, :, None]

    def forward(self, batch: Batch) -> Output:
        """Teacher-forced predictions for a batch.

        Causality: `mel[:, t]` depends on `batch.mel[:, :t]` only; padding changes no valid number.
        """
        encoded = self.encode(batch.phonemes, batch.phoneme_mask)
        memory = self.expand(encoded, batch.durations, batch.mel.shape[1])
        history = shift_right(self.normaliser.normalise(batch.mel), self.go_frame)
        history = self._hide_frames(history)
        read, mask = self.attended(encoded, memory, batch.durations, batch.mel_mask)
        decoded = self.decoder(self.decoder_input(history, memory), read, mask, self._run_layer)
        model_mel = self.mel_projection_out(decoded)
        return Output(
            mel=self.normaliser.denormalise(model_mel),
            model_mel=model_mel,
            stop_logits=self.stop_token_predictor(decoded).squeeze(-1),
            log_durations=self.duration_predictor(encoded, batch.phoneme_mask),
            memory=memory,
            decoded=decoded,
        )


def _mel_projection_in(config: ModelConfig) -> nn.Module:
    """(B, S, M) -> (B, S, D): linear, or a pre-net as in Tacotron (Wang et al. 2017), with dropout
    in training mode only.
    """
    # drawn in either case: what comes after it starts alike
    linear = nn.Linear(config.mel_dim, config.hidden_dim)
    if config.mel_input == "linear":
        return linear
    with torch.random.fork_rng():
        return nn.Sequential(
            nn.Linear(config.mel_dim, config.hidden_dim),
            nn.ReLU(),
            nn.Dropout(config.dropout),
            nn.Linear(config.hidden_dim, config.hidden_dim),
            nn.ReLU(),
            nn.Dropout(config.dropout),
            nn.Linear(config.hidden_dim, config.hidden_dim),
        )


def build_model(
    config: ModelConfig, audio: AudioConfig, mels: list[Tensor], seed: int = 0
) -> TTSModel:
    """A fresh model in training mode, its mel statistics taken from `mels`, each (T, M) in ln
    units.

    Weights depend on `seed` alone; the caller's random state is left as it was.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = TTSModel(config, audio)
    frames = torch.cat(mels)
    model.set_mel_statistics(frames.mean(dim=0), frames.std(dim=0))
    return model.train()
