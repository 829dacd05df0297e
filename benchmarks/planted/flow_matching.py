"""A small Matcha-TTS as an architecture of the benchmark: the plants that only its structure can
have, why some faults cannot be planted in it, and sound designs that look like faults.

The range that a severity is drawn from stands beside each plant. Shapes: B batch, N phonemes, T
frames, M mel bins, D width, S speaker vector.
"""

from __future__ import annotations

import functools
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
from benchmarks.planted.faulty_modules import (
    Gain,
    Squashed,
    always_drop,
    drawn_dropout,
    in_fp16,
)
from benchmarks.planted.faulty_transformer import HalfMask, InvertedMask, Unmasked
from benchmarks.planted.flow_matching_twin import FlowMatching, build, fresh_noise, still_noise
from benchmarks.planted.further_faults import further_faults
from benchmarks.planted.ours_modules import ChannelNorm, become
from benchmarks.planted.plants import GENERIC, LAYERS, generic_plants, required_setting
from benchmarks.planted.side_inputs import speaker_table, speaker_vector
from benchmarks.planted.sound_variants import sound_variants
from benchmarks.planted.transformer_blocks import Block
from tts_core.speech.dataset import Clip
from tts_workbook.faults.planting import Build, Setting, with_clips
from tts_workbook.subject.clip_batch import ClipBatch
from tts_workbook.subject.subject import Subject

Finish = Callable[[FlowMatching], FlowMatching]
MAX_SECONDS = 0.7
LOW_RATE = 1e-3  # where a fault asks for 1e-4, with which this model learns too slowly to tell


def blocks(model: FlowMatching) -> list[Block]:
    """The blocks of the encoder, typed."""
    return list(cast(Iterable[Block], model.encoder))


def hooking_encoder(hook: Callable[[Tensor], Tensor]) -> Finish:
    """A finish that changes what the last block of the encoder gives."""

    def finish(model: FlowMatching) -> FlowMatching:
        model.encoder[-1].register_forward_hook(lambda module, inputs, encoded: hook(encoded))
        return model

    return finish


# --- what is read of the text ---------------------------------------------------------------------


def with_attention(kind: type[nn.MultiheadAttention]) -> Finish:
    """A finish that gives every self-attention another class."""

    def finish(model: FlowMatching) -> FlowMatching:
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
    """What the encoder gives is dropped: the prior is the same everywhere."""
    return build(setting, finish=hooking_encoder(torch.zeros_like))


def encoder_detached(setting: Setting) -> Subject:
    """What the encoder gives leaves the graph."""
    return build(setting, finish=hooking_encoder(torch.Tensor.detach))


def memory_scale(setting: Setting) -> Subject:
    """What the encoder gives is 30 to 1,000 times too large, and so is the prior."""
    factor = setting.log_uniform(30, 1_000)
    return build(setting, finish=hooking_encoder(lambda encoded: factor * encoded))


def positions(setting: Setting) -> Subject:
    """Positions of the text are 10 to 100 times too large: symbols drown in them."""
    factor = setting.log_uniform(10, 100)

    def finish(model: FlowMatching) -> FlowMatching:
        model.positions.table = model.positions.table * factor
        return model

    return build(setting, finish=finish)


# --- how it is built ------------------------------------------------------------------------------


def dead_units(setting: Setting) -> Subject:
    """Biases of -10 to -100 keep every rectified unit of the encoder's convolutions at zero."""
    depth = -setting.log_uniform(10, 100)

    @torch.no_grad()
    def finish(model: FlowMatching) -> FlowMatching:
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
    """The velocity passes a tanh of 0.1 to 0.4 standard deviations of the target."""
    limit = setting.log_uniform(0.1, 0.4)

    def finish(model: FlowMatching) -> FlowMatching:
        field = model.velocity
        field.add_module("output", Squashed(field.output, "tanh", limit))
        return model

    return build(setting, finish=finish)


def norm_mode(setting: Setting) -> Subject:
    """The norms behind the encoder's blocks are BatchNorms whose running statistics hardly move:
    momentum 1e-5 to 1e-4; their inputs are 5 to 20 times larger (drawn).
    """
    momentum = setting.log_uniform(1e-5, 1e-4)
    factor = setting.log_uniform(5, 20)

    def finish(model: FlowMatching) -> FlowMatching:
        for block in blocks(model):
            width = block.convolutions_norm.normalized_shape[0]
            norm = nn.Sequential(Gain(factor), ChannelNorm(width, momentum=momentum))
            block.add_module("convolutions_norm", norm)
        return model

    return build(setting, finish=finish)


def norm_runaway(setting: Setting) -> Subject:
    """No norm anywhere in the blocks of the encoder, and the branch of the convolutions amplified
    10 to 30 times.
    """
    gain = setting.log_uniform(10, 30)

    def finish(model: FlowMatching) -> FlowMatching:
        for block in blocks(model):
            block.add_module("attention_norm", nn.Identity())
            block.add_module("convolutions_norm", nn.Identity())
            block.add_module("convolutions", nn.Sequential(block.convolutions, Gain(gain)))
        return model

    return build(setting, finish=finish)


def bad_initialisation(setting: Setting) -> Subject:
    """Drawn: the flow's layers start at zero on both sides and stay there, or they start with
    weights 10 to 30 times too large.
    """
    starved = setting.random.random() < 0.5
    factor = setting.log_uniform(10, 30)

    @torch.no_grad()
    def finish(model: FlowMatching) -> FlowMatching:
        for layer in model.velocity.layers:
            for part in (layer.get_submodule("convolution"), layer.get_submodule("output")):
                for parameter in part.parameters():
                    parameter.mul_(0.0 if starved else factor)
        return model

    return build(setting, finish=finish)


class ReentrantEncoder(FlowMatching):
    """The text encoder under re-entrant checkpointing, whose inputs (ids, a mask, a speaker) carry
    no gradient.
    """

    def encode(self, phonemes: Tensor, mask: Tensor, speakers: Tensor) -> Tensor:
        return checkpoint(super().encode, phonemes, mask, speakers, use_reentrant=True)


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

    def as_given(durations: Tensor) -> Tensor:
        return durations

    if setting.random.random() < 0.5:
        return build(setting, log_durations=as_given)
    return build(with_clips(setting, in_logarithms), log_durations=as_given)


@contextmanager
def other_speaker(model: FlowMatching, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """What the projection of the speaker is handed (B, S) goes through `change`."""

    def hand_over(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor]:
        return (change(inputs[0]),)

    handle = model.speaker.register_forward_pre_hook(hand_over)
    try:
        yield
    finally:
        handle.remove()


def next_speaker(speakers: Tensor) -> Tensor:
    """(B, S) -> (B, S): the row behind each in the table."""
    table = speaker_table()
    rows = (speakers @ table.T).argmax(dim=1)
    return table[(rows + 1) % len(table)]


def conditioning(setting: Setting) -> Subject:
    """In generation the table of speakers is in another order, or its vectors are not brought to
    unit length and 10 to 30 times longer (drawn).
    """
    subject = build(setting)
    factor = setting.log_uniform(10, 30)
    other_order = setting.random.random() < 0.5

    def change(speakers: Tensor) -> Tensor:
        return next_speaker(speakers) if other_order else factor * speakers

    def changed(part: Any) -> Any:
        def generating(model: FlowMatching, batch: ClipBatch) -> Any:
            with other_speaker(model, change):
                return part(model, batch)

        return generating

    return replace(subject, generate=changed(subject.generate), infer=changed(subject.infer))


def side_input(setting: Setting) -> Subject:
    """One value of every speaker's vector is not finite, or 1e4 to 1e6 (drawn)."""
    generator = setting.random
    empty = generator.random() < 0.5
    absurd = 10 ** generator.uniform(4, 6)

    def vector(clip: Clip) -> Tensor:
        spoilt = speaker_vector(clip).clone()
        spoilt[3] = torch.nan if empty else absurd
        return spoilt

    return build(setting, vector=vector)


# --- faults that the catalogue does not hold ------------------------------------------------------


def flows_backwards(setting: Setting) -> Subject:
    """The flow is learnt from mel to noise, and integrated as if it led from noise to mel."""
    return build(setting, backwards=True)


def too_hot(setting: Setting) -> Subject:
    """Generation starts from noise 5 to 10 times too large."""
    factor = setting.log_uniform(5, 10)
    return build(setting, noise=lambda prior: factor * still_noise(prior))


class Impatient(FlowMatching):
    """The integration ends after its first step."""

    def integrate(self, prior: Tensor, mask: Tensor, noise: Tensor) -> Tensor:
        start = torch.zeros(len(prior))
        return noise + 0.25 * self.velocity(noise, prior, start, mask)


def stops_early(setting: Setting) -> Subject:
    """The integration ends after a quarter of the way."""
    return build(setting, finish=lambda model: become(model, Impatient))


# --- sound, though it may look otherwise ----------------------------------------------------------


def noise_of_the_padded_shape(setting: Setting) -> Subject:
    """Generation starts from noise that is drawn anew at every call, with the padded shape, as
    published.
    """
    return build(setting, noise=fresh_noise)


def convolutions_past_the_end(setting: Setting) -> Subject:
    """Nothing is zeroed beyond the end of a text before the encoder's convolutions: its last
    phonemes hear the padding.
    """

    def finish(model: FlowMatching) -> FlowMatching:
        for block in blocks(model):
            block.keeps_to_mask = False
        return model

    return build(setting, finish=finish)


def zero_initialised(setting: Setting) -> Subject:
    """The last layer of the flow and of each of its branches starts at zero, and learns."""

    @torch.no_grad()
    def finish(model: FlowMatching) -> FlowMatching:
        layers = [layer.get_submodule("output") for layer in model.velocity.layers]
        for layer in [*layers, model.velocity.output]:
            for parameter in layer.parameters():
                parameter.zero_()
        return model

    return build(setting, finish=finish)


NO_HISTORY = "frames come from text and noise at once; there is no history"

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
    "optimizer.missing_parameters": {"parts": ("velocity",)},
    "loss.imbalance": {"term": "duration"},
    "loss.logged_not_optimised": {"terms": ("flow", "prior")},
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
    name="flow",
    clean=build,
    plants=PLANTS,
    nonsense=NONSENSE,
    outside={
        **further_faults(build, encoder="encoder.1", durations=True),
        "flows_backwards": flows_backwards,
        "too_hot": too_hot,
        "stops_early": stops_early,
    },
    sound={
        **sound_variants(build),
        "noise_of_the_padded_shape": noise_of_the_padded_shape,
        "convolutions_past_the_end": convolutions_past_the_end,
        "zero_initialised": zero_initialised,
    },
    threads={
        **public_threads.anywhere(build),
        **public_threads.with_durations(build),
    },
    layers=LAYERS,
    max_seconds=MAX_SECONDS,
    steps=160,
    required=functools.partial(required_setting, low_rate=LOW_RATE),
)
