"""FastSpeech2Conformer of the library transformers as an architecture of the benchmark: the plants
that only its structure can have, and why some faults cannot be planted in it.

Modules are hooked, replaced, or given other weights after they are built. The range that a severity
is drawn from stands beside each plant. Shapes: B batch, N phonemes, T frames, M mel bins, D width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from benchmarks.planted import public_threads
from benchmarks.planted.architecture import Architecture
from benchmarks.planted.fastspeech2_conformer_twin import build
from benchmarks.planted.faulty_modules import Gain, Squashed, always_drop, drawn_dropout
from benchmarks.planted.further_faults import further_faults
from benchmarks.planted.plants import GENERIC, LAYERS, generic_plants, required_setting
from benchmarks.planted.sound_variants import sound_variants
from tts_core.speech.dataset import Clip
from tts_workbook.faults.planting import Build, Setting, with_clips
from tts_workbook.subject.clip_batch import ProsodyClip
from tts_workbook.subject.subject import Subject

Finish = Callable[[Any], nn.Module]


def conformer_layers(model: Any) -> list[Any]:
    """The layers of encoder and decoder."""
    return [*model.encoder.conformer_layers, *model.decoder.conformer_layers]


def with_memory(change: Callable[[Tensor], Tensor]) -> Finish:
    """A finish that changes what the encoder hands on, in training and in inference."""

    def hook(module: nn.Module, inputs: tuple, output: Any) -> Any:
        output["last_hidden_state"] = change(output.last_hidden_state)
        return output

    def finish(model: Any) -> nn.Module:
        model.encoder.register_forward_hook(hook)
        return model

    return finish


def duration_domain(setting: Setting) -> Subject:
    """The batch holds log1p durations, rounded, which the length regulator takes for frames."""

    def in_logarithms(clip: Clip) -> Clip:
        logarithms = np.log1p(clip.durations).round().astype(np.int64)
        return replace(clip, durations=logarithms)

    return build(with_clips(setting, in_logarithms))


def padding_mask(setting: Setting) -> Subject:
    """The attention mask of padded phonemes and of padded frames is inverted. One that is missing
    is lost in what the library's own convolutions hear of the padding.
    """

    def invert(module: nn.Module, inputs: tuple) -> tuple:
        hidden, mask = inputs[:2]
        return inputs if mask is None else (hidden, 1 - mask, *inputs[2:])

    def finish(model: Any) -> nn.Module:
        for part in (model.encoder, model.decoder):
            part.register_forward_pre_hook(invert)
        return model

    return build(setting, finish=finish)


def text_ignored(setting: Setting) -> Subject:
    """The encoder's output is zeros: pitch, energy and durations are all that is said."""
    return build(setting, finish=with_memory(torch.zeros_like))


def encoder_detached(setting: Setting) -> Subject:
    """What the encoder hands on leaves the graph."""
    return build(setting, finish=with_memory(Tensor.detach))


def dead_units(setting: Setting) -> Subject:
    """Biases of -10 to -100 keep every rectified unit of the feed-forward layers at zero."""
    depth = -setting.log_uniform(10, 100)

    @torch.no_grad()
    def finish(model: Any) -> nn.Module:
        for layer in conformer_layers(model):
            layer.feed_forward.conv1.bias.fill_(depth)
            layer.feed_forward_macaron.conv1.bias.fill_(depth)
        return model

    return build(setting, finish=finish)


def dropout_always_on(setting: Setting) -> Subject:
    """Dropout that no mode switches off, 20 to 50 %; or one that keeps 10 to 20 % (drawn)."""
    share = drawn_dropout(setting)
    return build(setting, finish=lambda model: always_drop(model, share))


def output_range(setting: Setting) -> Subject:
    """The projection to frames and the post-net's last layer each end in a tanh of 0.05 to 0.3
    standard deviations of the target.
    """
    limit = setting.log_uniform(0.05, 0.3)

    def finish(model: Any) -> nn.Module:
        postnet = model.speech_decoder_postnet
        postnet.feat_out = Squashed(postnet.feat_out, "tanh", limit)
        postnet.layers[-1] = Squashed(postnet.layers[-1], "tanh", limit)
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

    def finish(model: Any) -> nn.Module:
        for module in model.modules():
            if isinstance(module, nn.BatchNorm1d):
                module.momentum = momentum
                module.register_forward_pre_hook(enlarge)
        return model

    return build(setting, finish=finish)


def norm_runaway(setting: Setting) -> Subject:
    """No norm in the layers of encoder and decoder, and each feed-forward branch amplified 1.5 to 5
    times: every layer's output grows with its input.
    """
    gain = setting.log_uniform(1.5, 5)

    def finish(model: Any) -> nn.Module:
        for layer in conformer_layers(model):
            for name, child in list(layer.named_children()):
                if isinstance(child, nn.LayerNorm):
                    setattr(layer, name, nn.Identity())
            for branch in (layer.feed_forward, layer.feed_forward_macaron):
                branch.conv2 = nn.Sequential(branch.conv2, Gain(gain))
        return model

    return build(setting, finish=finish)


def bad_initialisation(setting: Setting) -> Subject:
    """The feed-forward branches start 10 to 30 times too large, or the projection to frames and the
    decoder's branches start at zero and stay there (drawn).
    """
    starved = setting.random.random() < 0.5
    factor = setting.log_uniform(10, 30)

    @torch.no_grad()
    def finish(model: Any) -> nn.Module:
        for layer in model.decoder.conformer_layers:
            for branch in (layer.feed_forward, layer.feed_forward_macaron):
                for convolution in (branch.conv1, branch.conv2):
                    convolution.weight.mul_(0.0 if starved else factor)
                    convolution.bias.mul_(0.0 if starved else factor)
        return model

    return build(setting, finish=finish)


class ReentrantEncoder(nn.Module):
    """The whole text side under re-entrant checkpointing, whose inputs (ids, a mask) carry no
    gradient.
    """

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, ids: Tensor, mask: Tensor, **keywords: Any) -> Any:
        if not torch.is_grad_enabled():
            return self.inner(ids, mask, **keywords)

        def memory(ids: Tensor, mask: Tensor) -> Tensor:
            return self.inner(ids, mask, **keywords).last_hidden_state

        from transformers.modeling_outputs import BaseModelOutput

        return BaseModelOutput(last_hidden_state=checkpoint(memory, ids, mask, use_reentrant=True))


def checkpointing(setting: Setting) -> Subject:
    """The encoder under re-entrant checkpointing: no input of it carries a gradient."""

    def finish(model: Any) -> nn.Module:
        model.encoder = ReentrantEncoder(model.encoder)
        return model

    # the path to the embedding that is declared frozen would be another
    return build(replace(setting, tied=False, frozen=False), finish=finish)


def side_input(setting: Setting) -> Subject:
    """Pitch of one phoneme of every clip (drawn, which): the logarithm of 0 Hz, which is no number
    any more once it is standardised; or all of it in Hz (drawn).
    """
    in_hertz = setting.random.random() < 0.5
    place = setting.random.random()

    def spoil(clip: ProsodyClip) -> ProsodyClip:
        if in_hertz:
            return replace(clip, pitch=150 + 40 * clip.pitch)
        pitch = clip.pitch.copy()
        pitch[int(place * len(pitch))] = np.nan
        return replace(clip, pitch=pitch)

    return build(setting, told=spoil)


NONSENSE = {
    "data.conditioning": "this model is told neither a voice nor a language nor a style",
    "model.memory_scale": (
        "predictors and decoder norm what they hear: 580 times as loud, one learned as well"
    ),
    "model.no_causal_mask": "frames are made all at once: each may hear all of the memory",
    "model.no_right_shift": "frames are made all at once: none is fed to the decoder",
    "model.positions": "the convolutions of every layer tell the order, with or without positions",
    "loss.auxiliary_geometry": "no term guides an alignment: durations are given",
    "loss.shifted_twice": "frames are made all at once: nothing is shifted, inside or outside",
    "precision.mask_overflow": "the library masks with the least number of the format at hand",
    "generation.layout": "frames are made all at once: there is no history to lay out",
    "generation.stopping": "there is no stop head: the predicted durations say how long it speaks",
    "generation.exposure_gap": "frames are made all at once: none is fed back",
}

# what the plants of the causes cannot know of this model
OWN: dict[str, dict[str, Any]] = {
    "optimizer.missing_parameters": {"parts": ("encoder", "decoder")},
    "loss.imbalance": {"term": "duration"},
    "loss.logged_not_optimised": {"terms": ("mel", "frames")},
}
MEANINGFUL = [cause for cause in GENERIC if cause not in NONSENSE]

STRUCTURAL: dict[str, Build] = {
    "data.duration_domain": duration_domain,
    "data.side_input": side_input,
    "model.padding_mask": padding_mask,
    "model.text_ignored": text_ignored,
    "model.encoder_detached": encoder_detached,
    "model.dead_units": dead_units,
    "model.dropout_always_on": dropout_always_on,
    "model.output_range": output_range,
    "model.norm_mode": norm_mode,
    "model.norm_runaway": norm_runaway,
    "model.bad_initialisation": bad_initialisation,
    "loop.checkpointing": checkpointing,
}

PLANTS: dict[str, Build] = {
    **generic_plants(build, own=OWN, only=MEANINGFUL),
    **STRUCTURAL,
}

ARCHITECTURE = Architecture(
    name="fastspeech2_conformer",
    clean=build,
    plants=PLANTS,
    nonsense=NONSENSE,
    outside=further_faults(build, encoder="encoder.embed", durations=True),
    sound=sound_variants(build),
    threads={**public_threads.anywhere(build), **public_threads.with_durations(build)},
    layers=LAYERS,
    required=required_setting,
    max_seconds=0.7,
    steps=220,
)
