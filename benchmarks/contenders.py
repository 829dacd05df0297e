"""Train steps that are measured against one another on the same clips: ours, what a user would
write with nn.Transformer, Tacotron 2.

Shapes: B batch, N phonemes, T frames, M mel bins.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, cast

import tts_core.torchaudio_import  # noqa: F401  first: it makes torchaudio importable beside any torch

import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from torchaudio.models import Tacotron2

from tts_core.config import ExperimentConfig, ModelConfig
from tts_core.model.tts import TTSModel
from tts_core.speech.batch import Batch
from tts_core.training.losses import loss_sums, masked_l1
from tts_core.training.precision import choose_precision
from tts_core.training.state import start_training
from tts_core.training.step import train_step

Step = Callable[[], object]
N_PARTS = 4  # micro-batches of a step over many clips


@dataclass(frozen=True)
class Contender:
    """Who takes the step, and how. Its label is its key in the records."""

    who: Literal["ours", "nn.Transformer", "Tacotron 2"]
    precision: str = "fp32"
    micro_batches: int = 1  # that one optimiser step is made of
    compiled: bool = False
    keys_by_phoneme: bool = False  # of the memory, instead of by frame

    @property
    def label(self) -> str:
        if self.who == "Tacotron 2":
            return self.who
        parts = [self.who, self.precision]
        if self.micro_batches > 1:
            parts.append(f"{self.micro_batches} micro-batches")
        if self.compiled:
            parts.append("compiled")
        if self.keys_by_phoneme:
            parts.append("keys by phoneme")
        return ", ".join(parts)

    @property
    def counterpart(self) -> Contender:
        """nn.Transformer in the same type on the same batches: what is left is not the batches'
        doing.
        """
        return replace(self, who="nn.Transformer")


class PlainTransformer(nn.Module):
    """What a user would write at the same sizes: nn.Transformer over length-regulated phonemes and
    shifted mels.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.embedding = nn.Embedding(config.vocab_size, config.hidden_dim)
        encoder = nn.TransformerEncoderLayer(
            config.hidden_dim,
            config.n_heads,
            config.encoder_ff_dim,
            config.dropout,
            batch_first=True,
            norm_first=True,
        )
        decoder = nn.TransformerDecoderLayer(
            config.hidden_dim,
            config.n_heads,
            config.decoder_ff_dim,
            config.dropout,
            batch_first=True,
            norm_first=True,
        )
        self.encoder = nn.TransformerEncoder(
            encoder,
            config.n_encoder_layers,
            nn.LayerNorm(config.hidden_dim),
            enable_nested_tensor=False,
        )
        self.decoder = nn.TransformerDecoder(
            decoder, config.n_decoder_layers, nn.LayerNorm(config.hidden_dim)
        )
        self.mel_in = nn.Linear(config.mel_dim, config.hidden_dim)
        self.mel_out = nn.Linear(config.hidden_dim, config.mel_dim)

    def forward(self, batch: Batch) -> torch.Tensor:
        """Teacher-forced mel (B, T, M)."""
        embedded = self.embedding(batch.phonemes)
        encoded = self.encoder(embedded, src_key_padding_mask=~batch.phoneme_mask)
        expanded = [
            row.repeat_interleave(durations, dim=0)
            for row, durations in zip(encoded, batch.durations, strict=True)
        ]
        memory = pad_sequence(expanded, batch_first=True)
        first = torch.zeros_like(batch.mel[:, :1])
        history = self.mel_in(torch.cat([first, batch.mel[:, :-1]], dim=1))
        mask = nn.Transformer.generate_square_subsequent_mask(
            history.shape[1], device=history.device
        )
        decoded = self.decoder(
            history,
            memory,
            tgt_mask=mask,
            tgt_is_causal=True,
            memory_key_padding_mask=~batch.mel_mask,
        )
        return self.mel_out(decoded)


def our_step(
    experiment: ExperimentConfig,
    model: TTSModel,
    batches: list[Batch],
    precision: str = "fp32",
    compiled: bool = False,
) -> Step:
    """THE train step over `batches`, all of them as one optimiser step; `compiled` as in `fit`."""
    device = str(batches[0].mel.device)
    training = start_training(experiment, model, device)
    chosen = choose_precision(precision, device)
    running: nn.Module = model
    if compiled:
        # `torch.compile` of a module is a module; its annotation says any callable
        running = cast(nn.Module, torch.compile(model, mode="reduce-overhead", dynamic=False))
    return lambda: train_step(
        running,
        training.optimizer,
        batches,
        experiment.loss,
        chosen,
        training.scaler,
        experiment.optimizer.clip_norm,
    )


def our_forward(
    experiment: ExperimentConfig, model: TTSModel, batch: Batch
) -> Callable[[], torch.Tensor]:
    """The sum of the mel error, with its graph."""
    return lambda: loss_sums(model(batch), batch, model, experiment.loss).mel[0]


def plain_step(config: ModelConfig, batches: list[Batch], precision: str = "fp32") -> Step:
    """Masked L1 of the plain transformer over `batches`, all of them as one optimiser step; plain
    AdamW and clip.
    """
    device = batches[0].mel.device
    model = PlainTransformer(config).to(device)
    chosen = choose_precision(precision, device)
    n_values = sum(batch.n_frames for batch in batches) * config.mel_dim

    def error(batch: Batch) -> torch.Tensor:
        with chosen.autocast():
            return masked_l1(model(batch), batch.mel, batch.mel_lengths)[0] / n_values

    return _stepping(model, [partial(error, batch) for batch in batches])


def tacotron_step(vocab_size: int, batch: Batch) -> Step:
    """torchaudio's Tacotron 2 at its default size, teacher-forced: masked L1 before and behind the
    post-net.
    """
    model = Tacotron2(n_symbol=vocab_size).to(batch.mel.device)

    def error() -> torch.Tensor:
        # its encoder packs, the longest first
        order = batch.phoneme_lengths.argsort(descending=True, stable=True)
        mel, lengths = batch.mel[order], batch.mel_lengths[order]
        before, behind, _, _ = model(
            batch.phonemes[order], batch.phoneme_lengths[order], mel.transpose(1, 2), lengths
        )
        total_before, count_before = masked_l1(before.transpose(1, 2), mel, lengths)
        total_behind, count_behind = masked_l1(behind.transpose(1, 2), mel, lengths)
        return total_before / count_before + total_behind / count_behind

    return _stepping(model, [error])


def _stepping(model: nn.Module, errors: list[Callable[[], torch.Tensor]]) -> Step:
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)

    def step() -> None:
        for error in errors:
            error().backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step
