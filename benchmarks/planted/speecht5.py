"""SpeechT5 of the library transformers as an architecture of the benchmark: the plants that only
its structure can have, and why some faults cannot be planted in it.

Modules are hooked, replaced, or given other weights after they are built. Its encoder and its
decoder return dataclasses, and most of its modules are called by keyword. The range that a severity
is drawn from stands beside each plant. Shapes: B batch, N phonemes, T frames, M mel bins, K decoder
steps, D width.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

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
from benchmarks.planted.further_faults import further_faults
from benchmarks.planted.plants import GENERIC, LAYERS, generic_plants, required_setting
from benchmarks.planted.sound_variants import decoder_variants, sound_variants
from benchmarks.planted.speecht5_twin import build, config
from tts_workbook.faults.planting import Build, Setting
from tts_workbook.subject.clip_batch import ClipBatch
from tts_workbook.subject.clip_data import mean_l1
from tts_workbook.subject.own_clips import last_frames
from tts_workbook.subject.subject import Subject
from tts_workbook.subject.transformers import IGNORED, SpeechT5

Finish = Callable[[Any], nn.Module]
Change = Callable[[dict[str, Any]], None]
LOW_RATE = 2e-4  # where a fault asks for 1e-4, with which this model learns too slowly to tell


def encoder_layers(model: Any) -> Any:
    return model.speecht5.encoder.wrapped_encoder.layers


def decoder_layers(model: Any) -> Any:
    return model.speecht5.decoder.wrapped_decoder.layers


def with_memory(change: Callable[[Tensor], Tensor]) -> Finish:
    """A finish that changes what the encoder hands to the decoder, in training and in inference."""

    def hook(module: nn.Module, inputs: tuple, output: Any) -> Any:
        output["last_hidden_state"] = change(output.last_hidden_state)
        return output

    def finish(model: Any) -> nn.Module:
        model.speecht5.encoder.register_forward_hook(hook)
        return model

    return finish


def change_keywords(module: nn.Module, change: Change) -> None:
    """`change` gets the keywords of every call of `module`, and may set them."""

    def hook(module: nn.Module, inputs: tuple, keywords: dict[str, Any]) -> tuple:
        changed = dict(keywords)
        change(changed)
        return inputs, changed

    module.register_forward_pre_hook(hook, with_kwargs=True)


# --- what the decoder hears -----------------------------------------------------------------------


def no_causal_mask(setting: Setting) -> Subject:
    """Self-attention of the first decoder layer or of all (drawn) sees all steps of its clip, later
    ones too.
    """
    every = setting.random.random() < 0.5

    def finish(model: Any) -> nn.Module:
        valid: list[Tensor] = []

        def note(module: Any, inputs: tuple, keywords: dict[str, Any]) -> None:
            r = module.config.reduction_factor
            valid[:] = [keywords["labels"][:, r - 1 :: r, 0] != IGNORED]

        def see_all(keywords: dict[str, Any]) -> None:
            n_steps = keywords["hidden_states"].shape[1]
            if n_steps == 1:  # generation: one step after another
                return
            hidden = torch.finfo(keywords["hidden_states"].dtype).min
            mask = (~valid[0]).to(keywords["hidden_states"]) * hidden
            keywords["attention_mask"] = mask[:, None, None].expand(-1, 1, n_steps, -1)

        model.register_forward_pre_hook(note, with_kwargs=True)
        layers = list(decoder_layers(model))
        for layer in layers if every else layers[:1]:
            change_keywords(layer.self_attn, see_all)
        return model

    return build(setting, finish=finish)


class Unshifted(SpeechT5):
    """Teacher forcing feeds each step the last of the very frames that it is to predict."""

    def forward(self, model: Any, batch: ClipBatch) -> tuple[Any, Any]:
        def unshift(module: Any, inputs: tuple, keywords: dict[str, Any]) -> tuple:
            r = module.config.reduction_factor
            fed = keywords["labels"][:, r - 1 :: r]
            return inputs, {**keywords, "decoder_input_values": fed.masked_fill(fed == IGNORED, 0)}

        handle = model.register_forward_pre_hook(unshift, with_kwargs=True)
        try:
            return super().forward(model, batch)
        finally:
            handle.remove()


def no_right_shift(setting: Setting) -> Subject:
    """The decoder is fed the frames that it is to predict."""
    return build(setting, adapter=Unshifted)


def padding_mask(setting: Setting) -> Subject:
    """The mask of padded phonemes is missing or inverted (drawn), in the encoder and in
    cross-attention.
    """
    inverted = setting.random.random() < 0.5

    def spoil(name: str) -> Change:
        def change(keywords: dict[str, Any]) -> None:
            mask = keywords[name]
            keywords[name] = 1 - mask if inverted else torch.ones_like(mask)

        return change

    def finish(model: Any) -> nn.Module:
        change_keywords(model.speecht5.encoder, spoil("attention_mask"))
        change_keywords(model.speecht5.decoder.wrapped_decoder, spoil("encoder_attention_mask"))
        return model

    return build(setting, finish=finish)


def mask_overflow(setting: Setting) -> Subject:
    """fp16 autocast, and a cross-attention mask of (1 - mask) * -1e9, which fp16 cannot hold."""

    def finish(model: Any) -> nn.Module:
        texts: list[Tensor] = []

        def note(keywords: dict[str, Any]) -> None:
            texts[:] = [keywords["encoder_attention_mask"]]

        def in_half(keywords: dict[str, Any]) -> None:
            kept_out = (1 - texts[0])[:, None, None].half() * torch.tensor(-1e9).half()
            n_steps = keywords["hidden_states"].shape[1]
            keywords["attention_mask"] = kept_out.expand(-1, 1, n_steps, -1)

        change_keywords(model.speecht5.decoder.wrapped_decoder, note)
        for layer in decoder_layers(model):
            change_keywords(layer.encoder_attn, in_half)
        return model

    return in_fp16(build(replace(setting, bf16=False), finish=finish))


# --- what it attends to ---------------------------------------------------------------------------


def memory_scale(setting: Setting) -> Subject:
    """The encoder's output times 30 to 1,000: cross-attention saturates."""
    factor = setting.log_uniform(30, 1_000)
    return build(setting, finish=with_memory(lambda memory: factor * memory))


def text_ignored(setting: Setting) -> Subject:
    """Drawn: the memory is zeros, or what cross-attention found is dropped."""
    if setting.random.random() < 0.5:
        return build(setting, finish=with_memory(torch.zeros_like))

    def deaf(module: nn.Module, inputs: tuple, output: tuple) -> tuple:
        return (torch.zeros_like(output[0]), *output[1:])

    def finish(model: Any) -> nn.Module:
        for layer in decoder_layers(model):
            layer.encoder_attn.register_forward_hook(deaf)
        return model

    return build(setting, finish=finish)


def encoder_detached(setting: Setting) -> Subject:
    """The memory leaves the graph."""
    return build(setting, finish=with_memory(Tensor.detach))


def positions(setting: Setting) -> Subject:
    """Positions of text and frames, absolute and relative: left out, or 10 to 100 times too large
    (drawn).
    """
    factor = setting.log_uniform(10, 100)
    scale = 0.0 if setting.random.random() < 0.5 else factor

    def finish(model: Any) -> nn.Module:
        model.speecht5.encoder.prenet.encode_positions.pe *= scale
        model.speecht5.decoder.prenet.encode_positions.pe *= scale
        relative = model.speecht5.encoder.wrapped_encoder.embed_positions
        relative.register_forward_hook(lambda module, inputs, output: scale * output)
        return model

    return build(setting, finish=finish)


# --- how it is built ------------------------------------------------------------------------------


def dead_units(setting: Setting) -> Subject:
    """Biases of -10 to -100 keep every unit of the pre-net and of the feed-forward layers at
    zero.
    """
    depth = -setting.log_uniform(10, 100)

    @torch.no_grad()
    def finish(model: Any) -> nn.Module:
        for layer in model.speecht5.decoder.prenet.layers:
            layer.bias.fill_(depth)
        for layer in (*encoder_layers(model), *decoder_layers(model)):
            layer.feed_forward.intermediate_dense.bias.fill_(depth)
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
    """No norm behind the feed-forward branches, and each branch amplified 1.5 to 5 times: every
    layer's output grows with its input.
    """
    gain = setting.log_uniform(1.5, 5)

    def finish(model: Any) -> nn.Module:
        for layer in (*encoder_layers(model), *decoder_layers(model)):
            layer.final_layer_norm = nn.Identity()
            layer.feed_forward.output_dense = nn.Sequential(
                layer.feed_forward.output_dense, Gain(gain)
            )
        return model

    return build(setting, finish=finish)


def bad_initialisation(setting: Setting) -> Subject:
    """Drawn: values and outputs of the decoder's attention start at zero and stay there, or its
    projections start 10 to 30 times too large.
    """
    starved = setting.random.random() < 0.5
    factor = setting.log_uniform(10, 30)

    @torch.no_grad()
    def spoil(attention: Any) -> None:
        if starved:
            for projection in (attention.v_proj, attention.out_proj):
                projection.weight.zero_()
                projection.bias.zero_()
            return
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            attention.get_submodule(name).weight.mul_(factor)

    def finish(model: Any) -> nn.Module:
        for layer in decoder_layers(model):
            spoil(layer.self_attn)
            spoil(layer.encoder_attn)
        return model

    return build(setting, finish=finish)


class ReentrantEncoder(nn.Module):
    """The whole text side under re-entrant checkpointing, whose inputs (ids, a mask) carry no
    gradient.
    """

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, input_values: Tensor, attention_mask: Tensor, **keywords: Any) -> Any:
        def run(ids: Tensor, mask: Tensor) -> Any:
            return self.inner(input_values=ids, attention_mask=mask, **keywords)

        if not torch.is_grad_enabled():
            return run(input_values, attention_mask)

        def memory(ids: Tensor, mask: Tensor) -> Tensor:
            return run(ids, mask).last_hidden_state

        from transformers.modeling_outputs import BaseModelOutput

        hidden = checkpoint(memory, input_values, attention_mask, use_reentrant=True)
        return BaseModelOutput(last_hidden_state=hidden)


def checkpointing(setting: Setting) -> Subject:
    """The encoder under re-entrant checkpointing: no input of it carries a gradient."""

    def finish(model: Any) -> nn.Module:
        model.speecht5.encoder = ReentrantEncoder(model.speecht5.encoder)
        return model

    # the path to the embedding that is declared frozen would be another
    return build(replace(setting, tied=False, frozen=False), finish=finish)


# --- stopping and generation ----------------------------------------------------------------------


def stopping(setting: Setting) -> Subject:
    """Drawn: the stop head learns 1 everywhere but at the end, or at 30 to 60 % of the clip instead
    of its end.
    """
    generator = setting.random
    inverted = generator.random() < 0.5
    share = generator.uniform(0.3, 0.6)

    def stops(batch: ClipBatch) -> Tensor:
        last = last_frames(batch)
        if inverted:
            return 1 - last
        too_early = (share * batch.mel_lengths[:, None]).long()
        return (torch.arange(last.shape[1]) == too_early).to(last)

    return build(setting, adapter=functools.partial(SpeechT5, stops=stops))


@contextmanager
def fed_through(model: Any, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Every history (B, K, M) that the pre-net hears goes through `change`."""

    def hear(prenet: nn.Module, inputs: tuple) -> tuple:
        return (change(inputs[0]), *inputs[1:])

    handle = model.speecht5.decoder.prenet.register_forward_pre_hook(hear)
    try:
        yield
    finally:
        handle.remove()


class OtherLayout(SpeechT5):
    """Generation, and what continues a history, hear other frames than training fed."""

    lags = False

    def generate(self, model: Any, batch: ClipBatch, n_frames: int | None = None) -> Tensor:
        def lagging(history: Tensor) -> Tensor:
            return torch.cat([torch.zeros_like(history[:, :1]), history[:, :-1]], dim=1)

        def doubled(history: Tensor) -> Tensor:
            return 2 * history

        with fed_through(model, lagging if self.lags else doubled):
            return super().generate(model, batch, n_frames)


class Lagging(OtherLayout):
    """The history lags by one step."""

    lags = True


def layout(setting: Setting) -> Subject:
    """While generating, the pre-net hears frames that lag by a step, or twice as large as in
    training (drawn).
    """
    lags = setting.random.random() < 0.5
    return build(setting, adapter=Lagging if lags else OtherLayout)


# --- the voice, the guide and the shift -----------------------------------------------------------


class OtherVoice(SpeechT5):
    """Training hears one voice; whoever speaks hands in the opposite one."""

    speaks = False

    def text(self, model: Any, batch: ClipBatch) -> dict[str, Tensor]:
        read = super().text(model, batch)
        if self.speaks:
            read["speaker_embeddings"] = -read["speaker_embeddings"]
        return read

    def generate(self, model: Any, batch: ClipBatch, n_frames: int | None = None) -> Tensor:
        return super(OtherVoice, self.speaking()).generate(model, batch, n_frames)

    def infer(self, model: Any, batch: ClipBatch) -> list[Tensor]:
        return super(OtherVoice, self.speaking()).infer(model, batch)

    def speaking(self) -> OtherVoice:
        return Speaking(**vars(self))


class Speaking(OtherVoice):
    """The same while it speaks."""

    speaks = True


def conditioning(setting: Setting) -> Subject:
    """The voice's vector is the opposite one in generation and in full inference."""
    return build(setting, adapter=OtherVoice)


def side_input(setting: Setting) -> Subject:
    """One number of the voice's vector (drawn, which) is not a number."""
    voice = torch.ones(config(setting).speaker_embedding_dim)
    voice[setting.random.randrange(len(voice))] = torch.nan
    return build(setting, adapter=functools.partial(SpeechT5, speaker=voice))


class LongGuide(SpeechT5):
    """The guide of the attention counts frames where the decoder makes steps of r frames."""

    @property
    def sums_itself(self) -> bool:
        return True

    def criterion(self, model: Any) -> Any:
        criterion = super().criterion(model)
        sound = criterion.attn_criterion._make_guided_attention_mask
        r = model.config.reduction_factor

        def of_frames(n_text: Tensor, n_steps: Tensor, sigma: float, device: Any) -> Tensor:
            return sound(n_text, r * n_steps, sigma, device)[:n_steps]

        criterion.attn_criterion._make_guided_attention_mask = of_frames
        return criterion


def auxiliary_geometry(setting: Setting) -> Subject:
    """The guide of the attention ignores the reduction factor: it passes half of the text only."""
    return build(setting, adapter=LongGuide)


def shifted_twice(setting: Setting) -> Subject:
    """The targets are shifted by a step outside of the model, which shifts its input itself: from
    what lies before step k it learns step k + 1.
    """
    r = config(setting).reduction_factor

    def mel_loss(prediction: Tensor, target: Tensor, lengths: Tensor) -> Tensor:
        return mean_l1(prediction[:, :-r], target[:, r:], lengths - r)

    return build(setting, mel_loss=mel_loss)


# --- designs that are meant -----------------------------------------------------------------------


def layers_left_out(setting: Setting) -> Subject:
    """While training, each layer is left out with the library's own probability, 0.1. The guide of
    the attention is off: the library's fails where every layer of two is left out.
    """
    changes = {"encoder_layerdrop": 0.1, "decoder_layerdrop": 0.1}
    return build(setting, changes={**changes, "use_guided_attention_loss": False})


NONSENSE = {
    "data.duration_sum": "the model knows no durations",
    "data.duration_domain": "the model knows no durations",
    "generation.exposure_gap": (
        "at this size the clean twin drifts under some settings already, there is nothing to add"
    ),
}

# what the plants of the causes cannot know of this model
OWN: dict[str, dict[str, Any]] = {
    "optimizer.missing_parameters": {"parts": ("speecht5.decoder", "speech_decoder_postnet")},
    "loss.imbalance": {"term": "stop"},
    "loss.logged_not_optimised": {"terms": ("mel", "frames")},
}
MEANINGFUL = [cause for cause in GENERIC if cause not in NONSENSE]

STRUCTURAL: dict[str, Build] = {
    "data.conditioning": conditioning,
    "data.side_input": side_input,
    "model.no_causal_mask": no_causal_mask,
    "model.no_right_shift": no_right_shift,
    "model.padding_mask": padding_mask,
    "model.memory_scale": memory_scale,
    "model.text_ignored": text_ignored,
    "model.encoder_detached": encoder_detached,
    "model.positions": positions,
    "model.dead_units": dead_units,
    "model.dropout_always_on": dropout_always_on,
    "model.output_range": output_range,
    "model.norm_mode": norm_mode,
    "model.norm_runaway": norm_runaway,
    "model.bad_initialisation": bad_initialisation,
    "loss.auxiliary_geometry": auxiliary_geometry,
    "loss.shifted_twice": shifted_twice,
    "precision.mask_overflow": mask_overflow,
    "loop.checkpointing": checkpointing,
    "generation.layout": layout,
    "generation.stopping": stopping,
}

PLANTS: dict[str, Build] = {
    **generic_plants(build, own=OWN, only=MEANINGFUL),
    **STRUCTURAL,
}

ARCHITECTURE = Architecture(
    name="speecht5",
    clean=build,
    plants=PLANTS,
    nonsense=NONSENSE,
    outside=further_faults(build, encoder="speecht5.encoder.prenet", durations=False),
    sound={
        **sound_variants(build),
        **decoder_variants(build),
        "layers_left_out": layers_left_out,
    },
    threads=public_threads.anywhere(build),
    layers=LAYERS,
    required=functools.partial(required_setting, low_rate=LOW_RATE),
    max_seconds=0.7,
    steps=200,
)
