"""Train steps that are measured against one another on the same clips: ours, what a user would
write with nn.Transformer, Tacotron 2.

Shapes: B batch, N phonemes, T frames, M mel bins.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

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

Step = Callable[[], None]


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
        self.mel_in, self.mel_out = (
            nn.Linear(config.mel_dim, config.hidden_dim),
            nn.Linear(config.hidden_dim, config.mel_dim),
        )

    def forward(self, batch: Batch) -> torch.Tensor:
        """Teacher-forced mel (B, T, M)."""
        encoded = self.encoder(
            self.embedding(batch.phonemes), src_key_padding_mask=~batch.phoneme_mask
        )
        memory = pad_sequence(
            [
                row.repeat_interleave(durations, dim=0)
                for row, durations in zip(encoded, batch.durations)
            ],
            batch_first=True,
        )
        history = self.mel_in(
            torch.cat([torch.zeros_like(batch.mel[:, :1]), batch.mel[:, :-1]], dim=1)
        )
        mask = nn.Transformer.generate_square_subsequent_mask(
            history.shape[1], device=history.device
        )
        return self.mel_out(
            self.decoder(
                history,
                memory,
                tgt_mask=mask,
                tgt_is_causal=True,
                memory_key_padding_mask=~batch.mel_mask,
            )
        )


def our_step(
    experiment: ExperimentConfig,
    model: TTSModel,
    batches: list[Batch],
    precision: str = "fp32",
    compiled: bool = False,
) -> Step:
    """THE train step over `batches`, all of them as one optimiser step; `compiled` as in `fit`."""
    device = str(batches[0].mel.device)
    training, chosen = (
        start_training(experiment, model, device),
        choose_precision(precision, device),
    )
    running = torch.compile(model, mode="reduce-overhead", dynamic=False) if compiled else model
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
    model, chosen = PlainTransformer(config).to(device), choose_precision(precision, device)
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
        parts = [
            masked_l1(predicted.transpose(1, 2), mel, lengths) for predicted in (before, behind)
        ]
        return sum(total / count for total, count in parts)

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
