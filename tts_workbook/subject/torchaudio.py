"""Tacotron 2 of torchaudio as a Subject, in one line, and as an example of an adapter.

    subject = tacotron2(dict(n_symbol=40), [ids], [mel])

`ids` (N,) and `mel` (T, M) are tensors, one of each for a clip, in the units that the model is
trained with. The library's encoder, decoder, post-net and step-by-step inference are called, not
repeated. The post-net hears each clip's own frames, so that what pads a batch cannot reach them.

Shapes: B batch, N text positions, T frames, M mel bins, D width of the encoder.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import tts_core.torchaudio_import  # noqa: F401

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.nn.utils.rnn import pad_sequence
from torchaudio.models import Tacotron2

from tts_core.model.modes import evaluating
from tts_workbook.subject.clip_batch import ClipBatch
from tts_workbook.subject.clip_data import ClipData, MelLoss, clipped_step, mean_l1
from tts_workbook.subject.own_clips import (
    Audio,
    Optimizer,
    adamw,
    last_frames,
    own_clips,
    own_data,
    supplied_alone,
)
from tts_workbook.subject.subject import Subject

LONGEST = 3  # full inference ends after this many times the longest clip


def tacotron2(
    model: Mapping[str, Any] | Callable[[], Tacotron2],
    ids: Sequence[Tensor],
    mel: Sequence[Tensor],
    *,
    audio: Audio | None = None,
    make_optimizer: Optimizer | None = None,
    device: str = "cpu",
) -> Subject:
    """A Tacotron2 over clips of ids (N,) and mels (T, M): `model` holds the arguments of the class,
    or builds a fresh one; `audio` (samples, Hz) of each clip.
    """
    build = model if callable(model) else lambda: Tacotron2(**model)
    data = own_data(own_clips(ids, mel, audio=audio))
    subject = TorchaudioTacotron2(data).subject(
        lambda: build().to(device).train(), make_optimizer or adamw()
    )
    return supplied_alone(subject, device, None, durations=False, audio=audio is not None)


@dataclass(frozen=True)
class TorchaudioTacotron2:
    """The functions of a Subject around Tacotron2."""

    data: ClipData
    mel_loss: MelLoss = mean_l1
    # what teacher forcing feeds for a target (B, T, M); the decoder sets its own go frame before it
    history: Callable[[Tensor], Tensor] = lambda target: target
    gate_target: Callable[[ClipBatch], Tensor] = last_frames  # (B, T) when to stop
    gate_weight: float = 1.0
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext  # around the forward pass

    def teacher_forced(self, model: Any, batch: ClipBatch) -> tuple[Tensor, Tensor]:
        """Frames before the post-net (B, T, M) and gate logits (B, T)."""
        target, _ = self.data.target(batch)
        return decode(model, batch, self.history(target))

    def losses(self, model: Any, batch: ClipBatch) -> dict[str, Tensor]:
        """Both distances from the target, and the gate."""
        target, lengths = self.data.target(batch)
        with self.autocast():
            raw, gates = decode(model, batch, self.history(target))
            refined = refine(model, raw, lengths)
        valid = batch.mel_mask
        gate = binary_cross_entropy_with_logits(
            gates.float()[valid], self.gate_target(batch)[valid]
        )
        mel = self.mel_loss(refined, target, lengths)
        frames = self.mel_loss(raw, target, lengths)
        total = mel + frames + self.gate_weight * gate
        return {"mel": mel, "frames": frames, "gate": gate, "total": total}

    def predict_frames(self, model: Any, batch: ClipBatch) -> Tensor:
        return self.teacher_forced(model, batch)[0]

    def predict_mel(self, model: Any, batch: ClipBatch) -> Tensor:
        return refine(model, self.predict_frames(model, batch), batch.mel_lengths)

    def stop(self, model: Any, batch: ClipBatch) -> Tensor:
        return self.teacher_forced(model, batch)[1].sigmoid()

    def generate(self, model: Any, batch: ClipBatch) -> Tensor:
        return refine(model, self_fed(model, batch, batch.mel.shape[1]), batch.mel_lengths)

    def subject(self, build_model: Callable[[], nn.Module], make_optimizer: Optimizer) -> Subject:
        """All of it together; the pre-net's dropout never rests, by design."""
        return Subject(
            build_model=build_model,
            losses=self.losses,
            make_optimizer=make_optimizer,
            train_step=clipped_step(self.losses),
            predict_mel=self.predict_mel,
            predict_frames=self.predict_frames,
            generate=self.generate,
            continue_from=next_frame,
            stop=self.stop,
            infer=full_inference,
            stochastic=("decoder.prenet",),
            **self.data.fields(),
        )


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
    with evaluating(model), at_most(model.decoder, LONGEST * batch.mel.shape[1]):
        memory, lengths, back = encode(model, batch)
        frames, n_frames, _, _ = model.decoder.infer(memory, lengths)
        mel = refine(model, frames.transpose(1, 2)[back], n_frames[back])
    return [row[:length] for row, length in zip(mel, n_frames[back].tolist(), strict=True)]
