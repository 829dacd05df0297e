"""An LSTM with location-sensitive attention and two frames a step as an architecture of the
benchmark: the plants that only its structure can have, why some faults cannot be planted in it, and
sound designs that look like faults.

The range that a severity is drawn from stands beside each plant. Shapes: B batch, N phonemes, T
frames, R frames a step, S steps, M mel bins, D width.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.planted import public_threads
from benchmarks.planted.architecture import Architecture
from benchmarks.planted.faulty_modules import (
    Gain,
    Reentrant,
    Squashed,
    drawn_dropout,
    in_fp16,
)
from benchmarks.planted.further_faults import further_faults
from benchmarks.planted.lstm_attention_twin import (
    REDUCTION,
    Attention,
    LSTMAttention,
    build,
    last_frames,
    n_steps,
)
from benchmarks.planted.ours_modules import ChannelNorm, become
from benchmarks.planted.plants import GENERIC, LAYERS, generic_plants, required_setting
from benchmarks.planted.sound_variants import decoder_variants, sound_variants
from tts_workbook.faults.planting import Build, Setting
from tts_workbook.subject.clip_batch import ClipBatch
from tts_workbook.subject.clip_data import clipped_step, mean_l1
from tts_workbook.subject.subject import Subject, supplied

Finish = Callable[[LSTMAttention], LSTMAttention]
MAX_SECONDS = 0.7
LOW_RATE = 5e-4  # where a fault asks for 1e-4, with which this model learns too slowly to tell


def hooking(name: str, hook: Callable[[Any], Any]) -> Finish:
    """A finish that changes what the module `name` gives."""

    def finish(model: LSTMAttention) -> LSTMAttention:
        module = model.get_submodule(name)
        module.register_forward_hook(lambda module, inputs, output: hook(output))
        return model

    return finish


# --- what the decoder hears -----------------------------------------------------------------------


def no_right_shift(setting: Setting) -> Subject:
    """Teacher forcing feeds every step the last of the frames that it is to predict."""

    def last_of_its_own(target: Tensor) -> Tensor:
        own = target[:, REDUCTION - 1 :: REDUCTION]
        missing = n_steps(target.shape[1]) - own.shape[1]
        return torch.cat([own, target[:, target.shape[1] - missing :]], dim=1)

    return build(setting, feed=last_of_its_own)


@contextmanager
def fed_through(model: LSTMAttention, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Every frame that the pre-net hears while generating goes through `change`."""

    def hear(prenet: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor]:
        return (change(inputs[0]),)

    handle = model.decoder.prenet.register_forward_pre_hook(hear)
    try:
        yield
    finally:
        handle.remove()


class Delay:
    """Gives back what it was given one call before; zeros at first."""

    def __init__(self) -> None:
        self.kept: Tensor | None = None

    def __call__(self, frame: Tensor) -> Tensor:
        before = torch.zeros_like(frame) if self.kept is None else self.kept
        self.kept = frame
        return before


def layout(setting: Setting) -> Subject:
    """While generating, the pre-net hears frames that lag by one step, or twice as large as in
    training (drawn).
    """
    subject = build(setting)
    lags = setting.random.random() < 0.5
    sound_generate = supplied(subject.generate, "generate")
    sound_continue_from = supplied(subject.continue_from, "continue_from")

    def change() -> Callable[[Tensor], Tensor]:
        return Delay() if lags else lambda frame: 2 * frame

    def generate(model: Any, batch: ClipBatch) -> Tensor:
        with fed_through(model, change()):
            return sound_generate(model, batch)

    def continue_from(model: Any, batch: ClipBatch, history: Tensor) -> Tensor:
        with fed_through(model, change()):
            return sound_continue_from(model, batch, history)

    return replace(subject, generate=generate, continue_from=continue_from)


# --- what it attends to ---------------------------------------------------------------------------


class Unmasked(Attention):
    """Attention over padding as well."""

    def masked(self, energies: Tensor, mask: Tensor) -> Tensor:
        return energies


class InvertedMask(Attention):
    """Attention that is kept from the phonemes and may read the padding."""

    def masked(self, energies: Tensor, mask: Tensor) -> Tensor:
        return energies - 1e4 * mask.to(energies.dtype)


class HalfMask(Attention):
    """Additive mask of -1e9 times 0 or 1 in half precision, where it is -inf: 0 * -inf is NaN."""

    def masked(self, energies: Tensor, mask: Tensor) -> Tensor:
        large = torch.tensor(-1e9).to(energies.dtype)
        return energies + (~mask).to(energies.dtype) * large


class TooSoft(Attention):
    """Attention whose energies are a hundredth of what they should be: nearly even."""

    def masked(self, energies: Tensor, mask: Tensor) -> Tensor:
        return super().masked(0.01 * energies, mask)


def with_attention(kind: type[Attention]) -> Finish:
    """A finish that gives the attention another class."""

    def finish(model: LSTMAttention) -> LSTMAttention:
        become(model.decoder.attention, kind)
        return model

    return finish


def padding_mask(setting: Setting) -> Subject:
    """The attention's padding mask is missing or inverted (drawn)."""
    kind = setting.random.choice([Unmasked, InvertedMask])
    return build(setting, finish=with_attention(kind))


def mask_overflow(setting: Setting) -> Subject:
    """fp16 autocast, and a mask value of -1e9 that fp16 cannot hold."""
    return in_fp16(build(replace(setting, bf16=False), finish=with_attention(HalfMask)))


def memory_scale(setting: Setting) -> Subject:
    """What the encoder gives is 30 to 1,000 times too large: the tanh of the attention and the
    gates of both cells saturate.
    """
    factor = setting.log_uniform(30, 1_000)
    return build(setting, finish=hooking("encoder", lambda memory: factor * memory))


def text_ignored(setting: Setting) -> Subject:
    """What the encoder gives is dropped."""
    return build(setting, finish=hooking("encoder", torch.zeros_like))


def encoder_detached(setting: Setting) -> Subject:
    """The memory leaves the graph."""
    return build(setting, finish=hooking("encoder", torch.Tensor.detach))


# --- how it is built ------------------------------------------------------------------------------


def dead_units(setting: Setting) -> Subject:
    """The second layer of the pre-net has negative weights only, 1 to 3 times their size: its
    rectified units never fire.
    """
    factor = setting.log_uniform(1, 3)

    @torch.no_grad()
    def finish(model: LSTMAttention) -> LSTMAttention:
        second = cast(nn.Linear, model.decoder.prenet.layers[1])
        second.weight.copy_(-factor * second.weight.abs())
        second.bias.fill_(-1.0)
        return model

    return build(setting, finish=finish)


def dropout_always_on(setting: Setting) -> Subject:
    """Dropout before the projection to frames in every mode, 20 to 50 %; or one that keeps 10 to 20
    % (drawn).
    """
    share = drawn_dropout(setting)

    def drop(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor]:
        return (F.dropout(inputs[0], share),)

    def finish(model: LSTMAttention) -> LSTMAttention:
        model.decoder.frames.register_forward_pre_hook(drop)
        return model

    return build(setting, finish=finish)


def output_range(setting: Setting) -> Subject:
    """Decoder and post-net each end in a tanh of 0.05 to 0.3 standard deviations of the target."""
    limit = setting.log_uniform(0.05, 0.3)

    def finish(model: LSTMAttention) -> LSTMAttention:
        decoder, postnet = model.decoder, model.postnet
        decoder.add_module("frames", Squashed(decoder.frames, "tanh", limit))
        postnet.add_module("second", Squashed(postnet.second, "tanh", limit))
        return model

    return build(setting, finish=finish)


def norm_mode(setting: Setting) -> Subject:
    """The post-net has a BatchNorm before its tanh, whose running statistics hardly move: momentum
    1e-5 to 1e-4; its inputs are 5 to 20 times larger (drawn).
    """
    momentum = setting.log_uniform(1e-5, 1e-4)
    factor = setting.log_uniform(5, 20)

    def finish(model: LSTMAttention) -> LSTMAttention:
        first = model.postnet.first
        norm = nn.BatchNorm1d(first.out_channels, momentum=momentum)
        model.postnet.add_module("first", nn.Sequential(first, Gain(factor), norm))
        return model

    return build(setting, finish=finish)


def bad_initialisation(setting: Setting) -> Subject:
    """Both cells start with weights 10 to 30 times too large: their gates are shut or open for
    good.
    """
    factor = setting.log_uniform(10, 30)

    @torch.no_grad()
    def finish(model: LSTMAttention) -> LSTMAttention:
        for cell in (model.decoder.attention_cell, model.decoder.decoder_cell):
            cell.weight_ih.mul_(factor)
            cell.weight_hh.mul_(factor)
        return model

    return build(setting, finish=finish)


def checkpointing(setting: Setting) -> Subject:
    """The pre-net under re-entrant checkpointing: its inputs are data and carry no gradient."""

    def finish(model: LSTMAttention) -> LSTMAttention:
        model.decoder.add_module("prenet", Reentrant(model.decoder.prenet))
        return model

    return build(setting, finish=finish)


# --- what it is asked for -------------------------------------------------------------------------


def stopping(setting: Setting) -> Subject:
    """Drawn: the gate learns 1 everywhere but at the end, or never a 1."""
    inverted = setting.random.random() < 0.5

    def gate_target(batch: ClipBatch) -> Tensor:
        last = last_frames(batch)
        return 1 - last if inverted else torch.zeros_like(last)

    return build(setting, gate_target=gate_target)


def shifted_twice(setting: Setting) -> Subject:
    """The data shifts the target by 1 to R frames (drawn) and the decoder shifts its inputs: a step
    learns frames that come later than those behind its input.
    """
    lead = setting.random.randint(1, REDUCTION)

    def mel_loss(prediction: Tensor, target: Tensor, lengths: Tensor) -> Tensor:
        return mean_l1(prediction[:, :-lead], target[:, lead:], lengths - lead)

    return build(setting, mel_loss=mel_loss)


def auxiliary_geometry(setting: Setting) -> Subject:
    """The guide is built for as many steps as there are frames: its diagonal ends at the middle of
    the text. It weighs 5 to 20 times as much.
    """
    weight = setting.log_uniform(5, 20)
    subject = build(setting, guide_steps=lambda batch: batch.mel_lengths)

    def losses(model: nn.Module, batch: ClipBatch) -> dict[str, Tensor]:
        terms = dict(subject.losses(model, batch))
        total = terms["total"] + (weight - 1) * terms["guide"]
        return {**terms, "guide": weight * terms["guide"], "total": total}

    return replace(subject, losses=losses, train_step=clipped_step(losses))


# --- faults that the catalogue does not hold ------------------------------------------------------


def attention_too_soft(setting: Setting) -> Subject:
    """Energies are a hundredth of what they should be: every phoneme weighs nearly the same."""
    return build(setting, finish=with_attention(TooSoft))


def history_lost(setting: Setting) -> Subject:
    """Teacher forcing feeds silence for most frames: 80 to 95 % of them, drawn anew at every
    pass.
    """
    lost = setting.random.uniform(0.8, 0.95)

    def finish(model: LSTMAttention) -> LSTMAttention:
        def hear(prenet: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor] | None:
            if not prenet.training:
                return None
            kept = torch.rand(len(inputs[0]), 1) > lost
            return (inputs[0] * kept,)

        model.decoder.prenet.register_forward_pre_hook(hear)
        return model

    return build(setting, finish=finish)


# --- sound, though it may look otherwise ----------------------------------------------------------


def convolutions_past_the_end(setting: Setting) -> Subject:
    """Nothing is zeroed beyond the end of a text before the encoder's convolutions: its last
    phonemes hear the padding.
    """

    def finish(model: LSTMAttention) -> LSTMAttention:
        model.encoder.keeps_to_mask = False
        return model

    return build(setting, finish=finish)


def zero_initialised(setting: Setting) -> Subject:
    """The last layer of the post-net starts at zero, and learns."""

    @torch.no_grad()
    def finish(model: LSTMAttention) -> LSTMAttention:
        model.postnet.second.weight.zero_()
        cast(Tensor, model.postnet.second.bias).zero_()
        return model

    return build(setting, finish=finish)


def batch_norms(setting: Setting) -> Subject:
    """The encoder's norms are BatchNorms, as published: their statistics are buffers."""

    def finish(model: LSTMAttention) -> LSTMAttention:
        norms = model.encoder.norms
        for index, norm in enumerate(norms):
            norms[index] = ChannelNorm(cast(nn.LayerNorm, norm).normalized_shape[0])
        return model

    return build(setting, finish=finish)


NO_DURATIONS = "the model knows no durations"

NONSENSE = {
    "data.duration_sum": NO_DURATIONS,
    "data.duration_domain": NO_DURATIONS,
    "model.no_causal_mask": "a recurrent decoder is fed one frame after another and has no mask",
    "model.positions": (
        "order comes from recurrence and from location features; there are no positions"
    ),
    "model.norm_runaway": "no residual stream that grows: activations pass tanh and gates",
    "generation.exposure_gap": (
        "the pre-net's dropout keeps the decoder from copying its history, and is meant"
    ),
    "data.conditioning": "nothing but the text is handed to the model beside its history",
    "data.side_input": "nothing but the text is handed to the model beside its history",
}

# what the plants of the causes cannot know of this model
OWN: dict[str, dict[str, Any]] = {
    "optimizer.missing_parameters": {"parts": ("decoder",)},
    "loss.imbalance": {"term": "gate"},
    "loss.logged_not_optimised": {"terms": ("mel", "frames")},
}
MEANINGFUL = [cause for cause in GENERIC if cause not in NONSENSE]

PLANTS: dict[str, Build] = {
    **generic_plants(build, own=OWN, only=MEANINGFUL),
    "loss.shifted_twice": shifted_twice,
    "loss.auxiliary_geometry": auxiliary_geometry,
    "model.no_right_shift": no_right_shift,
    "model.memory_scale": memory_scale,
    "model.padding_mask": padding_mask,
    "model.text_ignored": text_ignored,
    "model.encoder_detached": encoder_detached,
    "model.dead_units": dead_units,
    "model.dropout_always_on": dropout_always_on,
    "model.output_range": output_range,
    "model.norm_mode": norm_mode,
    "model.bad_initialisation": bad_initialisation,
    "precision.mask_overflow": mask_overflow,
    "loop.checkpointing": checkpointing,
    "generation.layout": layout,
    "generation.stopping": stopping,
}

ARCHITECTURE = Architecture(
    name="lstm",
    clean=build,
    plants=PLANTS,
    nonsense=NONSENSE,
    outside={
        **further_faults(build, encoder="encoder", durations=False),
        "attention_too_soft": attention_too_soft,
        "history_lost": history_lost,
    },
    sound={
        **sound_variants(build),
        **decoder_variants(build),
        "convolutions_past_the_end": convolutions_past_the_end,
        "zero_initialised": zero_initialised,
        "batch_norms": batch_norms,
    },
    threads=public_threads.anywhere(build),
    layers=LAYERS,
    max_seconds=MAX_SECONDS,
    steps=160,
    required=functools.partial(required_setting, low_rate=LOW_RATE),
)
