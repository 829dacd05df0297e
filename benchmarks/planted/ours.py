"""The workbook's own model as an architecture of the benchmark: the plants that only its structure
can have.

The range that a severity is drawn from stands beside each plant; the faulty classes are in
ours_modules.py. Shapes: B batch, N phonemes, T frames, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.planted.architecture import Architecture
from benchmarks.planted.faulty_modules import (
    Gain,
    Squashed,
    always_drop,
    drawn_dropout,
    in_fp16,
)
from benchmarks.planted.ours_modules import (
    Bidirectional,
    ChannelNorm,
    Deaf,
    DetachedEncoder,
    HalfMask,
    InvertedMask,
    ReentrantEncoder,
    Rounding,
    Unmasked,
    Unshifted,
    WordlessMemory,
    become,
    lagging,
    note_valid_frames,
    seed_layout,
)
from benchmarks.planted.ours_twin import build
from benchmarks.planted.plants import LAYERS, generic_plants, outside_plants, required_setting
from benchmarks.planted.public_threads import anywhere
from benchmarks.planted.sound_variants import sound_variants
from tts_core.model.attention import MultiHeadAttention
from tts_core.model.decoder import DecoderLayer
from tts_core.model.encoder import EncoderLayer
from tts_core.model.tts import TTSModel
from tts_core.speech.dataset import Clip
from tts_workbook.faults.planting import Build, Setting, with_clips
from tts_workbook.subject.clip_batch import ClipBatch
from tts_workbook.subject.presets import next_frame, true_targets
from tts_workbook.subject.subject import Subject

Layer = EncoderLayer | DecoderLayer


def encoder_layers(model: TTSModel) -> list[EncoderLayer]:
    """The layers of the encoder, typed."""
    return list(cast(Iterable[EncoderLayer], model.encoder.layers))


def decoder_layers(model: TTSModel) -> list[DecoderLayer]:
    """The layers of the decoder, typed."""
    return list(cast(Iterable[DecoderLayer], model.decoder.layers))


def all_layers(model: TTSModel) -> list[Layer]:
    """The layers of encoder and decoder."""
    return [*encoder_layers(model), *decoder_layers(model)]


# --- what the decoder hears -----------------------------------------------------------------------


def no_causal_mask(setting: Setting) -> Subject:
    """Self-attention of the first decoder layer or of all (drawn) sees future frames."""
    every = setting.random.random() < 0.5

    def finish(model: TTSModel) -> TTSModel:
        layers = decoder_layers(model)
        for layer in layers if every else layers[:1]:
            become(layer.self_attention, Bidirectional)
        model.decoder.register_forward_pre_hook(note_valid_frames)
        return model

    return build(setting, finish=finish)


# --- what it attends to ---------------------------------------------------------------------------


def with_cross_attention(kind: type[MultiHeadAttention]) -> Callable[[TTSModel], TTSModel]:
    """A finish that gives every cross-attention another class."""

    def finish(model: TTSModel) -> TTSModel:
        for layer in decoder_layers(model):
            become(layer.cross_attention, kind)
        return model

    return finish


def padding_mask(setting: Setting) -> Subject:
    """Cross-attention's padding mask is missing or inverted (drawn)."""
    kind = setting.random.choice([Unmasked, InvertedMask])
    return build(setting, finish=with_cross_attention(kind))


def mask_overflow(setting: Setting) -> Subject:
    """fp16 autocast, and a mask value of -1e9 that fp16 cannot hold."""
    return in_fp16(build(replace(setting, bf16=False), finish=with_cross_attention(HalfMask)))


def text_ignored(setting: Setting) -> Subject:
    """Drawn: the memory is built from zeros instead of the encoded text, or cross-attention's
    result is dropped.
    """
    if setting.random.random() < 0.5:
        return build(setting, finish=with_cross_attention(Deaf))
    return build(setting, finish=lambda model: become(model, WordlessMemory))


def memory_scale(setting: Setting) -> Subject:
    """No norm behind the encoder, and its output (of scale sqrt(D), about 10) times 3 to 100."""
    scale = setting.log_uniform(3, 100)
    return build(setting, config=dict(memory_norm=False, memory_scale=scale))


def positions(setting: Setting) -> Subject:
    """Sinusoidal positions of encoder, memory and decoder: left out, or 10 to 100 times too large
    (drawn).
    """
    factor = setting.log_uniform(10, 100)
    scale = 0.0 if setting.random.random() < 0.5 else factor

    def finish(model: TTSModel) -> TTSModel:
        for part in (model.encoder.positions, model.memory_positions, model.decoder.positions):
            part.table = part.table * scale
        return model

    return build(setting, finish=finish)


# --- how it is built ------------------------------------------------------------------------------


def dead_units(setting: Setting) -> Subject:
    """Biases of -10 to -100 keep every rectified unit of the feed-forward layers, and of a pre-net,
    at zero.
    """
    depth = -setting.log_uniform(10, 100)

    @torch.no_grad()
    def finish(model: TTSModel) -> TTSModel:
        rectified = [layer.feed_forward for layer in all_layers(model)]
        rectified.append(cast(nn.Sequential, model.mel_projection_in))
        for modules in rectified:
            first = cast(nn.Linear, modules[0])
            first.bias.fill_(depth)
        return model

    return build(setting, finish=finish, config=dict(mel_input="prenet"))


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

    def finish(model: TTSModel) -> TTSModel:
        model.add_module("mel_projection_out", Squashed(model.mel_projection_out, kind, limit))
        return model

    return build(setting, finish=finish)


def norm_mode(setting: Setting) -> Subject:
    """The memory norm is a BatchNorm whose running statistics hardly move: momentum 1e-5 to
    1e-4.
    """
    momentum = setting.log_uniform(1e-5, 1e-4)

    def finish(model: TTSModel) -> TTSModel:
        norm = ChannelNorm(model.config.hidden_dim, momentum=momentum)
        model.encoder.add_module("memory_norm", norm)
        return model

    return build(setting, finish=finish)


def norm_runaway(setting: Setting) -> Subject:
    """No norm before the feed-forward branches nor behind encoder and decoder, and each branch
    amplified 1.5 to 5 times: every layer's output grows with its input.
    """
    gain = setting.log_uniform(1.5, 5)

    def finish(model: TTSModel) -> TTSModel:
        for layer in all_layers(model):
            layer.add_module("feed_forward_norm", nn.Identity())
            layer.feed_forward.append(Gain(gain))
        none = nn.Identity()
        model.encoder.add_module("memory_norm", none)
        model.decoder.add_module("norm", none)
        return model

    return build(setting, finish=finish)


def bad_initialisation(setting: Setting) -> Subject:
    """Drawn: values and outputs of the decoder's attention start at zero and stay there, or its
    projections start 10 to 30 times too large.
    """
    starved = setting.random.random() < 0.5
    factor = setting.log_uniform(10, 30)

    @torch.no_grad()
    def spoil(attention: MultiHeadAttention) -> None:
        if starved:
            attention.value.weight.zero_()
            attention.output.weight.zero_()
            return
        for projection in (attention.query, attention.key, attention.value, attention.output):
            projection.weight.mul_(factor)

    def finish(model: TTSModel) -> TTSModel:
        for layer in decoder_layers(model):
            spoil(layer.self_attention)
            spoil(layer.cross_attention)
        return model

    return build(setting, finish=finish)


# --- durations, stopping, generation --------------------------------------------------------------


def duration_domain(setting: Setting) -> Subject:
    """Drawn: the batch holds log1p durations, which the length regulator takes for frames; or the
    predictor learns frames, of which inference takes exp.
    """

    def learns_frames(batch: ClipBatch) -> tuple[Tensor, Tensor]:
        return batch.durations.float(), true_targets(batch)[1]

    def learns_as_given(batch: ClipBatch) -> tuple[Tensor, Tensor]:
        return batch.durations, true_targets(batch)[1]

    def in_logarithms(clip: Clip) -> Clip:
        return replace(clip, durations=np.log1p(clip.durations).astype(np.float32))

    if setting.random.random() < 0.5:
        return build(setting, targets=learns_frames)
    return build(
        with_clips(setting, in_logarithms),
        finish=lambda model: become(model, Rounding),
        targets=learns_as_given,
    )


def stopping(setting: Setting) -> Subject:
    """Drawn: the stop target is 1 everywhere but at the end, or at 30 to 60 % of the clip instead
    of its end.
    """
    generator = setting.random
    inverted = generator.random() < 0.5
    share = generator.uniform(0.3, 0.6)

    def targets(batch: ClipBatch) -> tuple[Tensor, Tensor]:
        log_durations, last = true_targets(batch)
        if inverted:
            return log_durations, 1 - last
        too_early = (share * batch.mel_lengths[:, None]).long()
        return log_durations, (torch.arange(last.shape[1]) == too_early).to(last)

    return build(setting, targets=targets)


def layout(setting: Setting) -> Subject:
    """Generation lays out another history than training: the seed's layout, or one that lags by a
    frame (drawn).
    """
    feed = setting.random.choice([lagging, seed_layout])
    subject = build(setting)

    def continue_from(model: nn.Module, batch: ClipBatch, history: Tensor) -> Tensor:
        return next_frame(cast(TTSModel, model), batch, history, feed)

    def generate(model: nn.Module, batch: ClipBatch) -> Tensor:
        mel = batch.mel.new_zeros(len(batch.mel), 0, batch.mel.shape[2])
        for _ in range(batch.mel.shape[1]):
            mel = torch.cat([mel, continue_from(model, batch, mel)[:, None]], dim=1)
        return mel

    return replace(subject, generate=generate, continue_from=continue_from)


def exposure_gap(setting: Setting) -> Subject:
    """No defect of code: a memory 10 to 30 times too quiet beside a history 5 times too loud, so
    that frames are copied.
    """
    quiet = 1 / setting.log_uniform(10, 30)
    return build(setting, config=dict(memory_scale=quiet, mel_input_scale=5.0))


def finishing(kind: type[TTSModel]) -> Build:
    """A plant that gives the whole model another class."""
    return lambda setting: build(setting, finish=lambda model: become(model, kind))


# what the plants of the causes cannot know of this model
OWN: dict[str, dict[str, Any]] = {
    "optimizer.missing_parameters": {"parts": ("decoder", "mel_projection_out")},
    "loss.imbalance": {"term": "duration"},
}

PLANTS: dict[str, Build] = {
    **generic_plants(build, own=OWN),
    "data.duration_domain": duration_domain,
    "model.memory_scale": memory_scale,
    "model.no_causal_mask": no_causal_mask,
    "model.no_right_shift": finishing(Unshifted),
    "model.padding_mask": padding_mask,
    "model.text_ignored": text_ignored,
    "model.encoder_detached": finishing(DetachedEncoder),
    "model.positions": positions,
    "model.dead_units": dead_units,
    "model.dropout_always_on": dropout_always_on,
    "model.output_range": output_range,
    "model.norm_mode": norm_mode,
    "model.norm_runaway": norm_runaway,
    "model.bad_initialisation": bad_initialisation,
    "precision.mask_overflow": mask_overflow,
    "loop.checkpointing": finishing(ReentrantEncoder),
    "generation.layout": layout,
    "generation.stopping": stopping,
    "generation.exposure_gap": exposure_gap,
}

ARCHITECTURE = Architecture(
    name="ours",
    clean=build,
    plants=PLANTS,
    nonsense={
        "data.conditioning": "text and durations alone are handed to the model beside its history",
        "data.side_input": "phonemes and whole numbers of frames go in: they are always finite",
        "loss.auxiliary_geometry": "no term of its losses guides the attention",
    },
    outside=outside_plants(build),
    sound=sound_variants(build),
    threads=anywhere(build),
    layers=LAYERS,
    required=required_setting,
    steps=160,
)
