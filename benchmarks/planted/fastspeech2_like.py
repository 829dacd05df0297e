"""A small FastSpeech 2 as an architecture of the benchmark: the plants that only its structure can
have, why some faults cannot be planted in it, and sound designs that look like faults.

The range that a severity is drawn from stands beside each plant. Shapes: B batch, N phonemes, T
frames, L either, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from benchmarks.planted import public_threads
from benchmarks.planted.architecture import Architecture
from benchmarks.planted.fastspeech2_like_twin import FastSpeech2, build
from benchmarks.planted.faulty_modules import (
    Gain,
    Squashed,
    always_drop,
    drawn_dropout,
    in_fp16,
)
from benchmarks.planted.faulty_transformer import HalfMask, InvertedMask, Unmasked
from benchmarks.planted.further_faults import further_faults
from benchmarks.planted.ours_modules import ChannelNorm, become
from benchmarks.planted.plants import GENERIC, LAYERS, generic_plants, required_setting
from benchmarks.planted.side_inputs import PitchScale, pitch_of_clip
from benchmarks.planted.sound_variants import sound_variants
from benchmarks.planted.transformer_blocks import Block
from tts_core.speech.dataset import Clip
from tts_workbook.faults.planting import Build, Setting, with_clips
from tts_workbook.subject.clip_batch import ClipBatch
from tts_workbook.subject.subject import Subject

Finish = Callable[[FastSpeech2], FastSpeech2]
MAX_SECONDS = 0.9


def blocks(model: FastSpeech2) -> list[Block]:
    """The blocks of encoder and decoder, typed."""
    return list(cast(Iterable[Block], [*model.encoder, *model.decoder]))


def hooking_encoder(hook: Callable[[Tensor], Tensor]) -> Finish:
    """A finish that changes what the last block of the encoder gives."""

    def finish(model: FastSpeech2) -> FastSpeech2:
        model.encoder[-1].register_forward_hook(lambda module, inputs, encoded: hook(encoded))
        return model

    return finish


# --- what it attends to ---------------------------------------------------------------------------


def with_attention(kind: type[nn.MultiheadAttention]) -> Finish:
    """A finish that gives every self-attention another class."""

    def finish(model: FastSpeech2) -> FastSpeech2:
        for block in blocks(model):
            become(block.attention, kind)
        return model

    return finish


def padding_mask(setting: Setting) -> Subject:
    """Self-attention's padding mask is missing or inverted (drawn)."""
    kind = setting.random.choice([Unmasked, InvertedMask])
    return build(setting, finish=with_attention(kind))


def mask_overflow(setting: Setting) -> Subject:
    """fp16 autocast, and a mask value of -1e9 that fp16 cannot hold."""
    return in_fp16(build(replace(setting, bf16=False), finish=with_attention(HalfMask)))


def text_ignored(setting: Setting) -> Subject:
    """What the encoder gives is dropped: frames are made of pitch and positions."""
    return build(setting, finish=hooking_encoder(torch.zeros_like))


def encoder_detached(setting: Setting) -> Subject:
    """What the encoder gives leaves the graph."""
    return build(setting, finish=hooking_encoder(torch.Tensor.detach))


def memory_scale(setting: Setting) -> Subject:
    """What the encoder gives is 30 to 1,000 times too large: pitch and positions drown, and
    attention saturates.
    """
    factor = setting.log_uniform(30, 1_000)
    return build(setting, finish=hooking_encoder(lambda encoded: factor * encoded))


def positions(setting: Setting) -> Subject:
    """Positions of text and frames: left out, or 10 to 100 times too large (drawn)."""
    factor = setting.log_uniform(10, 100)
    scale = 0.0 if setting.random.random() < 0.5 else factor

    def finish(model: FastSpeech2) -> FastSpeech2:
        for part in (model.text_positions, model.frame_positions):
            part.table = part.table * scale
        return model

    return build(setting, finish=finish)


# --- how it is built ------------------------------------------------------------------------------


def dead_units(setting: Setting) -> Subject:
    """Biases of -10 to -100 keep every rectified unit of the convolutions at zero."""
    depth = -setting.log_uniform(10, 100)

    @torch.no_grad()
    def finish(model: FastSpeech2) -> FastSpeech2:
        for block in blocks(model):
            cast(Tensor, block.convolutions.expand.bias).fill_(depth)
        return model

    return build(setting, finish=finish)


def dropout_always_on(setting: Setting) -> Subject:
    """Dropout that no mode switches off, 20 to 50 %; or one that takes p = 0.1 to 0.2 for the share
    that is kept (drawn).
    """
    share = drawn_dropout(setting)
    return build(setting, finish=lambda model: always_drop(model, share))


def output_range(setting: Setting) -> Subject:
    """The frame passes a sigmoid, or a tanh of 0.2 to 0.8 (drawn), in standard deviations of the
    target.
    """
    kind, limit = setting.random.choice(["sigmoid", "tanh"]), setting.log_uniform(0.2, 0.8)

    def finish(model: FastSpeech2) -> FastSpeech2:
        model.add_module("output", Squashed(model.output, kind, limit))
        return model

    return build(setting, finish=finish)


def norm_mode(setting: Setting) -> Subject:
    """The norms behind the decoder's blocks are BatchNorms whose running statistics hardly move:
    momentum 1e-5 to 1e-4; their inputs are 5 to 20 times larger (drawn).
    """
    momentum = setting.log_uniform(1e-5, 1e-4)
    factor = setting.log_uniform(5, 20)

    def finish(model: FastSpeech2) -> FastSpeech2:
        for block in cast(Iterable[Block], model.decoder):
            width = block.convolutions_norm.normalized_shape[0]
            norm = nn.Sequential(Gain(factor), ChannelNorm(width, momentum=momentum))
            block.add_module("convolutions_norm", norm)
        return model

    return build(setting, finish=finish)


def norm_runaway(setting: Setting) -> Subject:
    """No norm anywhere in the blocks, and the branch of the convolutions amplified 3 to 10
    times.
    """
    gain = setting.log_uniform(3, 10)

    def finish(model: FastSpeech2) -> FastSpeech2:
        for block in blocks(model):
            block.add_module("attention_norm", nn.Identity())
            block.add_module("convolutions_norm", nn.Identity())
            block.add_module("convolutions", nn.Sequential(block.convolutions, Gain(gain)))
        return model

    return build(setting, finish=finish)


def bad_initialisation(setting: Setting) -> Subject:
    """Drawn: the decoder's convolutions start at zero on both sides and stay there, or its
    attention starts with projections 10 to 30 times too large.
    """
    starved = setting.random.random() < 0.5
    factor = setting.log_uniform(10, 30)

    @torch.no_grad()
    def finish(model: FastSpeech2) -> FastSpeech2:
        for block in cast(Iterable[Block], model.decoder):
            if starved:
                for parameter in block.convolutions.parameters():
                    parameter.zero_()
            else:
                block.attention.in_proj_weight.mul_(factor)
                block.attention.out_proj.weight.mul_(factor)
        return model

    return build(setting, finish=finish)


class ReentrantEncoder(FastSpeech2):
    """The text encoder under re-entrant checkpointing, whose inputs (ids, a mask) carry no
    gradient.
    """

    def encode(self, phonemes: Tensor, mask: Tensor) -> Tensor:
        return checkpoint(super().encode, phonemes, mask, use_reentrant=True)


def checkpointing(setting: Setting) -> Subject:
    """The text encoder under re-entrant checkpointing."""
    return build(setting, finish=lambda model: become(model, ReentrantEncoder))


# --- what it is handed ----------------------------------------------------------------------------


def duration_domain(setting: Setting) -> Subject:
    """Drawn: the batch holds log1p durations, which the length regulator takes for frames; or the
    predictor learns frames, of which inference takes exp.
    """

    def in_logarithms(clip: Clip) -> Clip:
        return replace(clip, durations=np.log1p(clip.durations).astype(np.float32))

    if setting.random.random() < 0.5:
        return build(setting, log_durations=lambda frames: frames)
    spoilt = with_clips(setting, in_logarithms)
    scale = PitchScale.of(setting.clips)
    return build(spoilt, pitch=scale, log_durations=lambda given: given)


@contextmanager
def other_pitch(model: FastSpeech2, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """What the pitch embedding is handed (B, 1, N) goes through `change`."""

    def hand_over(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor]:
        return (change(inputs[0]),)

    handle = model.pitch_embedding.register_forward_pre_hook(hand_over)
    try:
        yield
    finally:
        handle.remove()


def conditioning(setting: Setting) -> Subject:
    """In generation the predicted pitch reaches the model on another scale than in training: in Hz,
    or with its sign turned (drawn).
    """
    subject = build(setting)
    scale = PitchScale.of(setting.clips)
    in_hertz = setting.random.random() < 0.5

    def change(pitch: Tensor) -> Tensor:
        return pitch * scale.std + scale.mean if in_hertz else -pitch

    def changed(part: Any) -> Any:
        def generating(model: FastSpeech2, batch: ClipBatch) -> Any:
            with other_pitch(model, change):
                return part(model, batch)

        return generating

    return replace(subject, generate=changed(subject.generate), infer=changed(subject.infer))


def side_input(setting: Setting) -> Subject:
    """Drawn: the logarithm of the pitch is taken where there is none, so that unvoiced phonemes
    have -inf; or one phoneme of each clip has a pitch of 1e4 to 1e6 deviations.
    """
    generator = setting.random
    logarithm = generator.random() < 0.5
    absurd = 10 ** generator.uniform(4, 6)
    scale = PitchScale.of(setting.clips)

    def of_clip(clip: Clip) -> Tensor:
        if logarithm:
            return pitch_of_clip(clip).log()
        pitch = scale(clip).clone()
        pitch[len(pitch) // 2] = absurd
        return pitch

    return build(setting, pitch=of_clip)


# --- faults that the catalogue does not hold ------------------------------------------------------


def rounded_down(setting: Setting) -> Subject:
    """Inference rounds predicted durations down: half a frame of every phoneme is lost."""

    class Hurried(FastSpeech2):
        """Its durations are one frame shorter before they are rounded."""

        def infer(self, phonemes: Tensor, mask: Tensor) -> Tensor:
            handle = self.duration_predictor.register_forward_hook(
                lambda module, inputs, said: said.expm1().floor().clamp(min=0).log1p()
            )
            try:
                return super().infer(phonemes, mask)
            finally:
                handle.remove()

    return build(setting, finish=lambda model: become(model, Hurried))


def pitch_of_another_clip(setting: Setting) -> Subject:
    """Every clip is trained with the pitch of the next one, as far as it goes."""
    scale = PitchScale.of(setting.clips)
    others = dict(
        zip(
            [clip.id for clip in setting.clips],
            [*setting.clips[1:], setting.clips[0]],
            strict=True,
        )
    )

    def of_clip(clip: Clip) -> Tensor:
        pitch = scale(others.get(clip.id, clip))
        return pitch.repeat(1 + len(clip.phonemes) // len(pitch))[: len(clip.phonemes)]

    return build(setting, pitch=of_clip)


# --- sound, though it may look otherwise ----------------------------------------------------------


def convolutions_past_the_end(setting: Setting) -> Subject:
    """Nothing is zeroed beyond the end of a text before the convolutions of the encoder: its last
    phonemes hear the padding.
    """

    def finish(model: FastSpeech2) -> FastSpeech2:
        for block in cast(Iterable[Block], model.encoder):
            block.keeps_to_mask = False
        return model

    return build(setting, finish=finish)


def zero_initialised(setting: Setting) -> Subject:
    """The last layer of every branch and the pitch embedding start at zero, and learn."""

    @torch.no_grad()
    def finish(model: FastSpeech2) -> FastSpeech2:
        layers = [block.convolutions.reduce for block in blocks(model)]
        for layer in [*layers, model.pitch_embedding]:
            layer.weight.zero_()
            cast(Tensor, layer.bias).zero_()
        return model

    return build(setting, finish=finish)


NO_HISTORY = "frames come from the text at once; there is no history"

NONSENSE = {
    "model.no_causal_mask": NO_HISTORY,
    "model.no_right_shift": NO_HISTORY,
    "generation.exposure_gap": NO_HISTORY,
    "generation.layout": NO_HISTORY,
    "generation.stopping": "there is no stop head: the length is the sum of the durations",
    "loss.shifted_twice": NO_HISTORY,
    "loss.auxiliary_geometry": "durations are given: there is no attention to be guided",
}

# what the plants of the causes cannot know of this model
OWN: dict[str, dict[str, Any]] = {
    "optimizer.missing_parameters": {"parts": ("decoder", "output")},
    "loss.imbalance": {"term": "duration"},
}
MEANINGFUL = [cause for cause in GENERIC if cause not in NONSENSE]

PLANTS: dict[str, Build] = {
    **generic_plants(build, own=OWN, only=MEANINGFUL),
    "data.conditioning": conditioning,
    "data.side_input": side_input,
    "data.duration_domain": duration_domain,
    "model.memory_scale": memory_scale,
    "model.padding_mask": padding_mask,
    "model.text_ignored": text_ignored,
    "model.encoder_detached": encoder_detached,
    "model.positions": positions,
    "model.dead_units": dead_units,
    "model.dropout_always_on": dropout_always_on,
    "model.output_range": output_range,
    "model.norm_mode": norm_mode,
    "model.norm_runaway": norm_runaway,
    "model.bad_initialisation": bad_initialisation,
    "precision.mask_overflow": mask_overflow,
    "loop.checkpointing": checkpointing,
}

ARCHITECTURE = Architecture(
    name="fastspeech2",
    clean=build,
    plants=PLANTS,
    nonsense=NONSENSE,
    outside={
        **further_faults(build, encoder="encoder.0", durations=True),
        "rounded_down": rounded_down,
        "pitch_of_another_clip": pitch_of_another_clip,
    },
    threads={
        **public_threads.anywhere(build),
        **public_threads.with_durations(build),
        **public_threads.with_pitch(build),
    },
    layers=LAYERS,
    max_seconds=MAX_SECONDS,
    steps=100,
    required=required_setting,
    sound={
        **sound_variants(build),
        "convolutions_past_the_end": convolutions_past_the_end,
        "zero_initialised": zero_initialised,
    },
)
