"""torchaudio's Tacotron 2 as a clean Subject: random weights, reduced dimensions, through its
public modules only.

Overfit of the clean twin with AdamW, teacher-forced L1 over best constant in eval mode: two clips
of 1.3 s 1.27, 0.73, 0.51 and 0.34 after 50, 100, 150 and 200 steps (free-running 0.84). Clips of
0.7 s after 200 steps: two 0.25 to 0.31, SGD 0.43, Adam with dropout 0.3 and warm-up 0.39, one clip
tied, frozen and in bf16 0.29, four 0.32. The gate of 0.5 is passed between steps 100 and 200. Text
use stays at 1.0: alignments take longer than this, so what needs them cannot be seen here. A step
of two clips takes 0.17 s (1.3 s long) or 0.09 s (0.7 s) on one core, nearly all of it the loop over
frames.

Shapes: B batch, N phonemes, T frames, M mel bins, D width of the encoder. Targets are standardised
per bin. The model knows no durations; its pre-net draws dropout in eval mode by design.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.nn.utils.rnn import pad_sequence
from torchaudio.models import Tacotron2

from benchmarks.planted.twin_training import autocast, make_optimizer
from tts_core.model.modes import evaluating
from tts_core.speech.phonemes import Vocabulary
from tts_workbook.faults.planting import Setting
from tts_workbook.subject.clip_batch import ClipBatch
from tts_workbook.subject.clip_data import ClipData, Parts, clipped_step
from tts_workbook.subject.subject import Subject

SIZE = dict(
    symbol_embedding_dim=64,
    encoder_embedding_dim=64,
    encoder_n_convolution=2,
    encoder_kernel_size=5,
    attention_rnn_dim=96,
    attention_hidden_dim=32,
    attention_location_n_filter=8,
    attention_location_kernel_size=15,
    decoder_rnn_dim=128,
    prenet_dim=128,
    postnet_n_convolution=2,
    postnet_kernel_size=5,
    postnet_embedding_dim=64,
)
LEARNING_RATES = {"adamw": 8e-3, "adam": 8e-3, "sgd": 0.1}
GATE_WEIGHT = 0.1


def encode(model: Tacotron2, batch: ClipBatch) -> tuple[Tensor, Tensor, Tensor]:
    """Memory (B, N, D), text lengths (B,), both from the longest text to the shortest, and the
    order (B,) that undoes it.
    """
    lengths, order = batch.phoneme_lengths.sort(descending=True, stable=True)
    memory = model.encoder(model.embedding(batch.phonemes[order]).transpose(1, 2), lengths)
    return memory, lengths, order.argsort()


def refine(model: Tacotron2, frames: Tensor, lengths: Tensor) -> Tensor:
    """Post-net over each clip's own frames (B, T, M), (B,) -> (B, T, M): what pads the batch cannot
    reach them.
    """
    refined = []
    for row, length in zip(frames, lengths.tolist(), strict=True):
        own = row[None, :length].transpose(1, 2)
        refined.append((own + model.postnet(own))[0].T)
    beyond = frames[:, max(lengths.tolist()) :]
    return torch.cat([pad_sequence(refined, batch_first=True), beyond], dim=1)


def decode(model: Tacotron2, batch: ClipBatch, history: Tensor) -> tuple[Tensor, Tensor]:
    """Teacher-forced frames before the post-net (B, T, M) and stop logits (B, T); `history` (B, T,
    M) is what is fed.
    """
    memory, lengths, back = encode(model, batch)
    fed = history[back.argsort()].transpose(1, 2)
    frames, gates, _ = model.decoder(memory, fed, memory_lengths=lengths)
    return frames.transpose(1, 2)[back], gates[back]


@contextmanager
def forced_length(decoder: Any, n_frames: int) -> Iterator[None]:
    """Let the decoder's own inference run for exactly `n_frames`, whatever its gate says."""
    kept = decoder.decoder_early_stopping
    decoder.decoder_early_stopping = False
    try:
        with at_most(decoder, n_frames):
            yield
    finally:
        decoder.decoder_early_stopping = kept


@contextmanager
def at_most(decoder: Any, n_frames: int) -> Iterator[None]:
    """Let the decoder's own inference end by its gate, or without a warning after `n_frames`."""
    kept = decoder.decoder_max_step
    decoder.decoder_max_step = n_frames
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Reached max decoder steps")
            yield
    finally:
        decoder.decoder_max_step = kept


@torch.no_grad()
def self_fed(model: Tacotron2, batch: ClipBatch, n_frames: int) -> Tensor:
    """The decoder's step-by-step inference for `n_frames` -> (B, n_frames, M), before the
    post-net.
    """
    with evaluating(model), forced_length(model.decoder, n_frames):
        memory, lengths, back = encode(model, batch)
        frames = model.decoder.infer(memory, lengths)[0]
        return frames.transpose(1, 2)[back]


@torch.no_grad()
def next_frame(model: Tacotron2, batch: ClipBatch, history: Tensor) -> Tensor:
    """The frame after `history` (B, t, M) -> (B, M): the decoder's own inference, its pre-net
    handed the given frames.
    """
    order = batch.phoneme_lengths.sort(descending=True, stable=True).indices
    # the first input is the decoder's own go frame
    steps = iter([None, *history[order].unbind(dim=1)])

    def hear(prenet: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor] | None:
        frame = next(steps)
        return None if frame is None else (frame,)

    handle = model.decoder.prenet.register_forward_pre_hook(hear, prepend=True)
    try:
        return self_fed(model, batch, history.shape[1] + 1)[:, -1]
    finally:
        handle.remove()


def full_inference(model: Tacotron2, batch: ClipBatch) -> list[Tensor]:
    """Text alone in: (T', M) per clip, ended by the gate or after three times the longest clip."""
    with evaluating(model), at_most(model.decoder, 3 * batch.mel.shape[1]):
        memory, lengths, back = encode(model, batch)
        frames, n_frames, _, _ = model.decoder.infer(memory, lengths)
        mel = refine(model, frames.transpose(1, 2)[back], n_frames[back])
    return [row[:length] for row, length in zip(mel, n_frames[back].tolist(), strict=True)]


def last_frames(batch: ClipBatch) -> Tensor:
    """(B, T) 1 at each clip's last frame."""
    return (torch.arange(batch.mel.shape[1]) == batch.mel_lengths[:, None] - 1).float()


def build(
    setting: Setting,
    *,
    finish: Callable[[Tacotron2], Tacotron2] = lambda model: model,
    history: Callable[[Tensor], Tensor] = lambda target: target,
    gate_target: Callable[[ClipBatch], Tensor] = last_frames,
    **parts: Any,
) -> Subject:
    """The clean subject of `setting`. `finish` gets every fresh model (where structural plants are
    made), `history` is what teacher forcing feeds for a target (B, T, M), `gate_target` when to
    stop (B, T); `parts` are the keywords of `Parts`.
    """
    recipe = Parts(**parts)
    data = ClipData.of(setting.clips, setting.batch_size, setting.seed, recipe)

    def build_model() -> Tacotron2:
        model = Tacotron2(
            n_symbol=Vocabulary.arpabet().get_vocab_size(),
            n_mels=recipe.audio.n_mels,
            attention_dropout=setting.dropout,
            decoder_dropout=setting.dropout,
            **SIZE,
        )
        if setting.tied:
            model.encoder.convolutions[1] = model.encoder.convolutions[0]
        if setting.frozen:
            model.embedding.requires_grad_(False)
        return finish(model).train()

    def teacher_forced(model: Tacotron2, batch: ClipBatch) -> tuple[Tensor, Tensor]:
        target, _ = data.target(batch)
        return decode(model, batch, history(target))

    def losses(model: Tacotron2, batch: ClipBatch) -> dict[str, Tensor]:
        target, lengths = data.target(batch)
        with autocast(setting):
            raw, gates = decode(model, batch, history(target))
            refined = refine(model, raw, lengths)
        gate = binary_cross_entropy_with_logits(
            gates.float()[batch.mel_mask], gate_target(batch)[batch.mel_mask]
        )
        mel = recipe.mel_loss(refined, target, lengths)
        frames = recipe.mel_loss(raw, target, lengths)
        total = mel + frames + GATE_WEIGHT * gate
        return {"mel": mel, "frames": frames, "gate": gate, "total": total}

    def predict_frames(model: Tacotron2, batch: ClipBatch) -> Tensor:
        return teacher_forced(model, batch)[0]

    def predict_mel(model: Tacotron2, batch: ClipBatch) -> Tensor:
        return refine(model, predict_frames(model, batch), batch.mel_lengths)

    def stop(model: Tacotron2, batch: ClipBatch) -> Tensor:
        return teacher_forced(model, batch)[1].sigmoid()

    def generate(model: Tacotron2, batch: ClipBatch) -> Tensor:
        return refine(model, self_fed(model, batch, batch.mel.shape[1]), batch.mel_lengths)

    return Subject(
        build_model=build_model,
        losses=losses,
        make_optimizer=make_optimizer(setting, LEARNING_RATES),
        train_step=clipped_step(losses),
        predict_mel=predict_mel,
        predict_frames=predict_frames,
        generate=generate,
        continue_from=next_frame,
        stop=stop,
        infer=full_inference,
        frozen=("embedding",) if setting.frozen else (),
        stochastic=("decoder.prenet",),
        **data.fields(),
    )
