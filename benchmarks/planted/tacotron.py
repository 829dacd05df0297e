"""torchaudio's Tacotron 2 as an architecture of the benchmark: the plants that only its structure
can have, and why some faults cannot be planted in it.

Only public modules and attributes are touched: modules are wrapped, hooked, or given other weights
after they are built. The range that a severity is drawn from stands beside each plant. Shapes: B
batch, N phonemes, T frames, M mel bins, D width.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchaudio.models import Tacotron2

from benchmarks.planted.architecture import Architecture
from benchmarks.planted.faulty_modules import Reentrant, Squashed, drawn_dropout
from benchmarks.planted.plants import (
    GENERIC,
    LAYERS,
    generic_plants,
    outside_plants,
    required_setting,
)
from benchmarks.planted.public_threads import anywhere
from benchmarks.planted.sound_variants import decoder_variants, sound_variants
from benchmarks.planted.tacotron_twin import build
from tts_workbook.faults.planting import Build, Setting
from tts_workbook.subject.clip_batch import ClipBatch
from tts_workbook.subject.own_clips import last_frames
from tts_workbook.subject.subject import Subject, supplied

Finish = Callable[[Tacotron2], Tacotron2]
LOW_RATE = 1e-3  # where a fault asks for 1e-4, with which this model learns too slowly to tell


def hooking(name: str, hook: Callable[[nn.Module, tuple, Any], Any]) -> Finish:
    """A finish that puts a forward hook on the module `name`."""

    def finish(model: Tacotron2) -> Tacotron2:
        model.get_submodule(name).register_forward_hook(hook)
        return model

    return finish


def no_right_shift(setting: Setting) -> Subject:
    """Teacher forcing drops the first frame, and the decoder's own go frame stands in for it: frame
    t is fed to frame t.
    """

    def unshifted(target: Tensor) -> Tensor:
        return torch.cat([target[:, 1:], target[:, -1:]], dim=1)

    return build(setting, history=unshifted)


def memory_scale(setting: Setting) -> Subject:
    """The encoder's output times 30 to 1,000: the tanh of the attention and the gates of both
    recurrent cells saturate.
    """
    factor = setting.log_uniform(30, 1_000)
    return build(setting, finish=hooking("encoder", lambda module, inputs, memory: factor * memory))


def padding_mask(setting: Setting) -> Subject:
    """Inverted by its value: energies of padded phonemes are raised to 1e4 instead of removed."""

    def finish(model: Tacotron2) -> Tacotron2:
        model.decoder.attention_layer.score_mask_value = 1e4
        return model

    return build(setting, finish=finish)


def text_ignored(setting: Setting) -> Subject:
    """The attention's context is zero."""

    def without_context(module: nn.Module, inputs: tuple, output: Any) -> tuple[Tensor, Tensor]:
        context, weights = output
        return torch.zeros_like(context), weights

    return build(setting, finish=hooking("decoder.attention_layer", without_context))


def encoder_detached(setting: Setting) -> Subject:
    """The memory leaves the graph."""
    return build(setting, finish=hooking("encoder", lambda module, inputs, memory: memory.detach()))


def dead_units(setting: Setting) -> Subject:
    """The second layer of the pre-net has negative weights only, 1 to 3 times their size: its
    rectified units never fire.
    """
    factor = setting.log_uniform(1, 3)

    @torch.no_grad()
    def finish(model: Tacotron2) -> Tacotron2:
        weight = model.decoder.prenet.layers[1].weight
        weight.copy_(-factor * weight.abs())
        return model

    return build(setting, finish=finish)


def dropout_always_on(setting: Setting) -> Subject:
    """Dropout before the projection to frames in every mode, 20 to 50 %; or one that keeps 10 to 20
    % (drawn).
    """
    share = drawn_dropout(setting)

    def drop(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor]:
        return (F.dropout(inputs[0], share),)

    def finish(model: Tacotron2) -> Tacotron2:
        model.decoder.linear_projection.register_forward_pre_hook(drop)
        return model

    return build(setting, finish=finish)


def output_range(setting: Setting) -> Subject:
    """Decoder and post-net each end in a tanh of 0.05 to 0.3 standard deviations of the target."""
    limit = setting.log_uniform(0.05, 0.3)

    def finish(model: Tacotron2) -> Tacotron2:
        model.decoder.linear_projection = Squashed(model.decoder.linear_projection, "tanh", limit)
        model.postnet = Squashed(model.postnet, "tanh", limit)
        return model

    return build(setting, finish=finish)


def norm_mode(setting: Setting) -> Subject:
    """Running statistics of every BatchNorm hardly move: momentum 1e-5 to 1e-4; its inputs are 5 to
    20 times larger (drawn).
    """
    momentum = setting.log_uniform(1e-5, 1e-4)
    factor = setting.log_uniform(5, 20)

    def enlarge(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor]:
        return (factor * inputs[0],)

    def finish(model: Tacotron2) -> Tacotron2:
        for module in model.modules():
            if isinstance(module, nn.BatchNorm1d):
                module.momentum = momentum
                module.register_forward_pre_hook(enlarge)
        return model

    return build(setting, finish=finish)


def bad_initialisation(setting: Setting) -> Subject:
    """Both recurrent cells start with weights 10 to 30 times too large: their gates are shut or
    open for good.
    """
    factor = setting.log_uniform(10, 30)

    @torch.no_grad()
    def finish(model: Tacotron2) -> Tacotron2:
        for cell in (model.decoder.attention_rnn, model.decoder.decoder_rnn):
            cell.weight_ih.mul_(factor)
            cell.weight_hh.mul_(factor)
        return model

    return build(setting, finish=finish)


def checkpointing(setting: Setting) -> Subject:
    """The pre-net under re-entrant checkpointing: its inputs are data and carry no gradient."""

    def finish(model: Tacotron2) -> Tacotron2:
        model.decoder.prenet = Reentrant(model.decoder.prenet)
        return model

    return build(setting, finish=finish)


@contextmanager
def fed_through(model: Tacotron2, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
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
    """While generating, the pre-net hears frames that lag by one, or twice as large as in training
    (drawn).
    """
    subject = build(setting)
    lags = setting.random.random() < 0.5
    sound_generate = supplied(subject.generate, "generate")
    sound_continue_from = supplied(subject.continue_from, "continue_from")

    def change() -> Callable[[Tensor], Tensor]:
        return Delay() if lags else lambda frame: 2 * frame

    def generate(model: Tacotron2, batch: ClipBatch) -> Tensor:
        with fed_through(model, change()):
            return sound_generate(model, batch)

    def continue_from(model: Tacotron2, batch: ClipBatch, history: Tensor) -> Tensor:
        with fed_through(model, change()):
            return sound_continue_from(model, batch, history)

    return replace(subject, generate=generate, continue_from=continue_from)


def stopping(setting: Setting) -> Subject:
    """Drawn: the gate learns 1 everywhere but at the end, or never a 1."""
    inverted = setting.random.random() < 0.5

    def gate_target(batch: ClipBatch) -> Tensor:
        last = last_frames(batch)
        return 1 - last if inverted else torch.zeros_like(last)

    return build(setting, gate_target=gate_target)


# what the plants of the causes cannot know of this model
OWN: dict[str, dict[str, Any]] = {
    "optimizer.missing_parameters": {"parts": ("decoder",)},
    "loss.imbalance": {"term": "gate"},
    "loss.logged_not_optimised": {"terms": ("mel", "frames")},
}
MEANINGFUL = [cause for cause in GENERIC if cause != "data.duration_sum"]

PLANTS: dict[str, Build] = {
    **generic_plants(build, own=OWN, only=MEANINGFUL),
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
    "loop.checkpointing": checkpointing,
    "generation.layout": layout,
    "generation.stopping": stopping,
}

NONSENSE = {
    "data.conditioning": "nothing but the text is handed to the model beside its history",
    "data.side_input": "nothing but the text is handed to the model beside its history",
    "data.duration_sum": "the model knows no durations",
    "data.duration_domain": "the model knows no durations",
    "model.no_causal_mask": "a recurrent decoder is fed one frame after another and has no mask",
    "model.positions": (
        "order comes from recurrence and from location features; there are no positions"
    ),
    "model.norm_runaway": "no residual stream: activations pass tanh and BatchNorm",
    "precision.mask_overflow": "the library masks with -inf, which every precision holds",
    "loss.auxiliary_geometry": "no term of its losses guides the attention",
    "generation.exposure_gap": (
        "at this size the clean twin drifts already after 200 steps, there is nothing to add"
    ),
}

ARCHITECTURE = Architecture(
    name="tacotron2",
    clean=build,
    plants=PLANTS,
    nonsense=NONSENSE,
    outside=outside_plants(build),
    sound={**sound_variants(build), **decoder_variants(build)},
    threads=anywhere(build),
    layers=LAYERS,
    required=functools.partial(required_setting, low_rate=LOW_RATE),
    max_seconds=0.7,
    steps=100,
)
