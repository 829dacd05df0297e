"""Faults planted in the VITS-like model, its losses and its inference, and the architecture itself.
Ranges that severities are drawn from stand beside each plant.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from benchmarks.planted.architecture import Architecture
from tests.tts_workbook.diagnosis import vits_like_data_plants as data_plants
from tests.tts_workbook.diagnosis import vits_like_step_plants as step_plants
from tests.tts_workbook.diagnosis.vits_like_data import Item, SpeechBatch
from tests.tts_workbook.diagnosis.vits_like_kit import Kit, bound, by_id
from tests.tts_workbook.diagnosis.vits_like_model import (
    LATENT,
    WIDTH,
    Decoder,
    DecoderBlock,
    Flow,
    Latents,
    LatentSpeech,
    MaskedBatchNorm,
    SelfAttention,
    TextEncoder,
)
from tests.tts_workbook.diagnosis.vits_like_tts import (
    CLIP_NORM,
    LR,
    WEIGHTS,
    VoiceData,
    autocast,
    build,
    criterion,
    fresh,
    kl_error,
    mel_error,
    numbers,
    total,
)
from tts_workbook.faults.planting import Setting
from tts_workbook.subject.subject import Subject

KIT = Kit(
    build=build,
    fresh=lambda setting, data, kind: fresh(setting, kind),
    data=VoiceData,
    kind=LatentSpeech,
    terms=lambda model, batch: criterion(model(batch), batch),
    weights=WEIGHTS,
    main_terms=("mel",),
    parts=(("decoder",), ("prior", "text"), ("posterior", "decoder"), ("prior", "decoder.leave")),
    rates=LR,
    clip_norm=CLIP_NORM,
)


# --- data -----------------------------------------------------------------------------------------


def duration_domain(setting: Setting) -> Subject:
    """One of three: logarithms of the frames are stretched as counts; the predictor learns counts
    that inference exponentiates; or it learns logarithms that inference takes for counts.
    """
    kind = setting.random.choice(("stored", "counts", "logarithms"))

    class Logarithms(VoiceData):
        def item(self, clip) -> Item:
            item = super().item(clip)
            if kind != "stored":
                return item
            return replace(item, frames=torch.log1p(item.frames.float()).round().long())

    class Forgetful(LatentSpeech):
        def count_frames(self, log_frames: Tensor) -> Tensor:
            if kind != "logarithms":
                return super().count_frames(log_frames)
            return log_frames.round().long().clamp(1, 100)

    def losses(model: nn.Module, batch: SpeechBatch) -> dict[str, Tensor]:
        with autocast(setting):
            made = model(batch)
        terms = criterion(made, batch)
        if kind == "counts":
            gap = (made.log_frames.float() - batch.frames)[batch.id_mask]
            terms["frames"] = gap.square().mean()
        return total(terms)

    return build(setting, Logarithms(setting), Forgetful, losses)


def conditioning(setting: Setting) -> Subject:
    """Inference has another voice than training (drawn): none, which is zero; one that is not
    brought to unit variance, 10 to 30 times as loud; or one that is upside down.
    """
    kind = setting.random.choice(("none", "level", "reversed"))
    factor = setting.log_uniform(10, 30)
    changes: dict[str, Callable[[Tensor], Tensor]] = {
        "none": torch.zeros_like,
        "level": lambda voice: factor * voice,
        "reversed": lambda voice: voice.flip(1),
    }
    change = changes[kind]
    return data_plants.conditions_changed(KIT, setting, lambda name, voice: change(voice))


def side_input(setting: Setting) -> Subject:
    """The voices of one or all clips (drawn) are not finite, or 1e3 to 1e5 times too loud: they
    were divided by a deviation of zero, or by next to nothing.
    """
    dice = setting.random
    infinite, single = dice.random() < 0.5, dice.random() < 0.5
    factor = setting.log_uniform(1e3, 1e5)

    class Absurd(VoiceData):
        def conditioned(self, items: list[Item]) -> list[Item]:
            told = super().conditioned(items)
            return [
                self.spoilt(item) if self.hit(number) else item for number, item in enumerate(told)
            ]

        def hit(self, number: int) -> bool:
            return number == 0 or not single

        def spoilt(self, item: Item) -> Item:
            voice = item.conditions["voice"]
            wrong = (voice - voice) / (voice - voice) if infinite else factor * voice
            return replace(item, conditions={"voice": wrong})

    return build(setting, Absurd(setting))


# --- model ----------------------------------------------------------------------------------------


def memory_scale(setting: Setting) -> Subject:
    """What is read from the text is 100 to 3,000 times too loud."""
    gain = setting.log_uniform(100, 3_000)

    class LoudText(TextEncoder):
        def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
            return gain * super().forward(ids, mask)

    class Loud(LatentSpeech):
        text_kind = LoudText

    return build(setting, kind=Loud)


def padding_mask(setting: Setting) -> Subject:
    """The text encoder looks at padding too, or at nothing but padding (drawn)."""
    inverted = setting.random.random() < 0.5

    class Careless(SelfAttention):
        def hide(self, scores: Tensor, mask: Tensor) -> Tensor:
            return scores.masked_fill(mask[:, None, None], -1e4) if inverted else scores

    class CarelessText(TextEncoder):
        attention_kind = Careless

        def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
            return super().forward(ids, mask if inverted else torch.ones_like(mask))

    class Blind(LatentSpeech):
        text_kind = CarelessText

    return build(setting, kind=Blind)


def text_ignored(setting: Setting) -> Subject:
    """The prior hears the text 1e4 to 1e8 times too quietly, and how far a symbol is spoken as
    loudly as before.
    """
    gain = 1 / setting.log_uniform(1e4, 1e8)

    class Deaf(LatentSpeech):
        def stretch(self, text: Tensor, frames: Tensor, length: int) -> Tensor:
            return super().stretch(gain * text, frames, length)

    return build(setting, kind=Deaf)


def encoder_detached(setting: Setting) -> Subject:
    """The detach in front of the duration predictor stands one line too early: the prior hears a
    detached text too.
    """

    class Cut(LatentSpeech):
        def read(self, batch: SpeechBatch) -> Tensor:
            return super().read(batch).detach().requires_grad_(torch.is_grad_enabled())

    return build(setting, kind=Cut)


def positions(setting: Setting) -> Subject:
    """Positions 50 to 3,000 times too loud: those of the symbols, or how far each is spoken
    (drawn).
    """
    dice = setting.random
    of_symbols, gain = dice.random() < 0.5, setting.log_uniform(50, 3_000)

    class LoudPlaces(TextEncoder):
        def placed(self, x: Tensor) -> Tensor:
            return x + gain * (super().placed(x) - x) if of_symbols else super().placed(x)

    class Placed(LatentSpeech):
        text_kind = LoudPlaces

        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            if not of_symbols:
                self.progress.register_forward_hook(lambda module, inputs, said: gain * said)

    return build(setting, kind=Placed)


def dead_units(setting: Setting) -> Subject:
    """Rectified units that never fire: the decoder has ReLUs for leaky ones, behind norms whose
    biases start at -10 to -100.
    """
    bias = -setting.log_uniform(10, 100)

    class DeadBlock(DecoderBlock):
        def __init__(self, width: int, dropout: float) -> None:
            super().__init__(width, dropout)
            for norm in self.norms:
                nn.init.constant_(norm.bias, bias)

        def forward(self, x: Tensor, mask: Tensor) -> Tensor:
            for norm, conv in zip(self.norms, self.convs, strict=True):
                x = conv(norm(x, mask).relu() * mask[:, None])
            return self.drop(x)

    class DeadDecoder(Decoder):
        block_kind = DeadBlock

    class Dead(LatentSpeech):
        decoder_kind = DeadDecoder

    return build(setting, kind=Dead)


def dropout_always_on(setting: Setting) -> Subject:
    """F.dropout without `training=self.training` in front of the mel: 30 to 70 %, or a p that was
    taken for the share that is kept, 5 to 20 % (drawn).
    """
    dice = setting.random
    p = dice.uniform(0.3, 0.7) if dice.random() < 0.5 else 1 - dice.uniform(0.05, 0.2)

    class Restless(LatentSpeech):
        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            self.decoder.leave.register_forward_pre_hook(
                lambda module, inputs: (F.dropout(inputs[0], p),)
            )

    return build(setting, kind=Restless)


def output_range(setting: Setting) -> Subject:
    """The mel ends in a tanh of 5 to 40 % of a deviation, in a sigmoid, or in a softplus (drawn),
    as if it were a waveform, a share or a power.
    """
    dice = setting.random
    kind, reach = dice.choice(("tanh", "sigmoid", "softplus")), dice.uniform(0.05, 0.4)
    squash: dict[str, Callable[[Tensor], Tensor]] = {
        "tanh": lambda mel: reach * mel.tanh(),
        "sigmoid": torch.sigmoid,
        "softplus": F.softplus,
    }
    chosen = squash[kind]

    class NarrowDecoder(Decoder):
        def forward(self, latent: Tensor, mask: Tensor, voice: Tensor) -> Tensor:
            return chosen(super().forward(latent, mask, voice))

    class Narrow(LatentSpeech):
        decoder_kind = NarrowDecoder

    return build(setting, kind=Narrow)


def norm_mode(setting: Setting) -> Subject:
    """The decoder's BatchNorms hardly move their statistics: a momentum of 1e-6 to 1e-3; the latent
    that comes to them is 3 to 20 times louder than they start from.
    """
    momentum, gain = setting.log_uniform(1e-6, 1e-3), setting.log_uniform(3, 20)

    class Slow(LatentSpeech):
        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            for module in self.modules():
                if isinstance(module, MaskedBatchNorm):
                    module.momentum = momentum
            with torch.no_grad():
                self.decoder.enter.weight.mul_(gain)

    return build(setting, kind=Slow)


def norm_runaway(setting: Setting) -> Subject:
    """The decoder's blocks have no norm, and each of them is 3 to 8 times louder than what comes
    in; there are six of them.
    """
    gain = setting.log_uniform(3, 8)

    class LoudBlock(DecoderBlock):
        def __init__(self, width: int, dropout: float) -> None:
            super().__init__(width, dropout)
            for conv in self.convs:
                nn.init.normal_(conv.weight, std=gain / (3 * width) ** 0.5)

        def forward(self, x: Tensor, mask: Tensor) -> Tensor:
            hidden = x
            for conv in self.convs:
                hidden = conv(F.leaky_relu(hidden, 0.1) * mask[:, None])
            return x + self.drop(hidden)

    class LoudDecoder(Decoder):
        block_kind = LoudBlock

        def __init__(self, dropout: float) -> None:
            super().__init__(dropout)
            self.blocks = nn.ModuleList([LoudBlock(WIDTH, dropout) for _ in range(6)])

    class Runaway(LatentSpeech):
        decoder_kind = LoudDecoder

    return build(setting, kind=Runaway)


def bad_initialisation(setting: Setting) -> Subject:
    """The decoder's convolutions start at one value (0.01 to 0.1), or so large that gates shut: a
    deviation of 2 to 20 in the prior's and the posterior's stacks (drawn).
    """
    dice = setting.random
    same, value, deviation = (
        dice.random() < 0.5,
        dice.uniform(0.01, 0.1),
        setting.log_uniform(2, 20),
    )

    class BadStart(LatentSpeech):
        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            if same:
                for weight in self.decoder.parameters():
                    nn.init.constant_(weight, value)
                return
            for stack in (self.prior.stack, self.posterior.stack):
                for conv in stack.convs:
                    nn.init.normal_(conv.weight, std=deviation)

    return build(setting, kind=BadStart)


# --- loss -----------------------------------------------------------------------------------------


def with_terms(
    setting: Setting,
    change: Callable[[dict[str, Tensor], Latents, SpeechBatch], Mapping[str, Tensor]],
    kind: type[LatentSpeech] = LatentSpeech,
    data: VoiceData | None = None,
) -> Subject:
    """The clean subject with some terms replaced by those that `change` returns."""

    def losses(model: nn.Module, batch: SpeechBatch) -> dict[str, Tensor]:
        with autocast(setting):
            made = model(batch)
        terms = criterion(made, batch)
        return total({**terms, **change(terms, made, batch)})

    return build(setting, data, kind, losses)


def padding_included(setting: Setting) -> Subject:
    """Means over padded frames too: of the mel alone, or of the mel and of what prior and posterior
    are apart (drawn).
    """
    both = setting.random.random() < 0.5

    def change(terms: dict, made: Latents, batch: SpeechBatch) -> dict[str, Tensor]:
        everywhere = torch.ones_like(batch.frame_mask)
        changed = {"mel": mel_error(made.mel, batch.mel, everywhere)}
        if both:
            changed["kl"] = kl_error(made, everywhere)
        return changed

    return with_terms(setting, change)


def imbalance(setting: Setting) -> Subject:
    """The divergence weighs 1,000 to 100,000 times too much: it was summed where it should have
    been averaged. The posterior learns to say nothing.
    """
    weight = WEIGHTS["kl"] * setting.log_uniform(1e3, 1e5)
    return build(setting, losses=KIT.losses(setting, kl=weight))


def wrong_reduction(setting: Setting) -> Subject:
    """Errors of the mel are averaged before their size is taken: over time, over bins, or both
    (drawn). Padding stays out of it.
    """
    kind = setting.random.choice(("time", "bins", "both"))

    def change(terms: dict, made: Latents, batch: SpeechBatch) -> dict[str, Tensor]:
        gap = (made.mel.float() - batch.mel) * batch.frame_mask[..., None]
        if kind == "bins":
            return {"mel": gap.mean(dim=2)[batch.frame_mask].abs().mean()}
        over_time = gap.sum(dim=1) / batch.n_frames[:, None]
        if kind == "both":
            over_time = over_time.mean(dim=1)
        return {"mel": over_time.abs().mean()}

    return with_terms(setting, change)


def detached(setting: Setting) -> Subject:
    """One or two terms are made anew from their numbers (drawn): the mel, the divergence, or the
    mel and the frames.
    """
    names = setting.random.choice((("mel",), ("kl",), ("mel", "frames")))

    def change(terms: dict, made: Latents, batch: SpeechBatch) -> dict[str, Tensor]:
        return {name: torch.tensor(float(terms[name].detach())) for name in names}

    return with_terms(setting, change)


def logged_not_optimised(setting: Setting) -> Subject:
    """The step logs the whole loss and follows another: one without the mel, or without the
    divergence, at 0 to 0.0001 of its weight (drawn).
    """
    dice = setting.random
    name = dice.choice(("mel", "kl"))
    share = dice.choice((0.0, 10 ** dice.uniform(-6, -4)))
    subject = build(setting)

    def step(
        model: nn.Module, optimizer: torch.optim.Optimizer, batch: SpeechBatch
    ) -> dict[str, float]:
        optimizer.zero_grad()
        terms = subject.losses(model, batch)
        followed = {key: terms[key] for key in WEIGHTS}
        KIT.total(followed, **{name: share * WEIGHTS[name]})["total"].backward()
        nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
        optimizer.step()
        return numbers(terms)

    return replace(subject, train_step=step)


# --- precision and loop ---------------------------------------------------------------------------


def mask_overflow(setting: Setting) -> Subject:
    """fp16 autocast, and an additive mask of -1e5 to -1e30, which half precision does not hold:
    nothing times infinity.
    """
    far = torch.tensor(-setting.log_uniform(1e5, 1e30))

    class Far(SelfAttention):
        def hide(self, scores: Tensor, mask: Tensor) -> Tensor:
            hidden = (~mask[:, None, None]).to(scores.dtype)
            return scores + hidden * far.to(scores.dtype)

    class FarText(TextEncoder):
        attention_kind = Far

    class FarSpeech(LatentSpeech):
        text_kind = FarText

    return build(setting, kind=FarSpeech, losses=step_plants.half_losses(KIT, setting))


def half_range(setting: Setting) -> Subject:
    """fp16 autocast, and the embedded symbols go through a norm written by hand, whose squares or
    whose eps half precision does not hold (drawn).
    """

    class HalfText(TextEncoder):
        def __init__(self, width: int, dropout: float) -> None:
            super().__init__(width, dropout)
            self.norm = step_plants.HalfNorm.drawn(setting)

        def embed(self, ids: Tensor, mask: Tensor) -> Tensor:
            return self.norm(super().embed(ids, mask))

    class InHalf(LatentSpeech):
        text_kind = HalfText

    return build(setting, kind=InHalf, losses=step_plants.half_losses(KIT, setting))


def checkpointing(setting: Setting) -> Subject:
    """Re-entrant checkpointing around what no gradient enters (drawn): the text encoder, whose
    input is ids, the posterior, whose input is the mel, or both.
    """
    where = setting.random.choice((("text",), ("posterior",), ("text", "posterior")))

    class Saving(LatentSpeech):
        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            for name in where:
                module = getattr(self, name)
                module.forward = functools.partial(saved, module, type(module).forward)

    return build(setting, kind=Saving)


def saved(module: nn.Module, forward: Callable[..., Any], *inputs: Tensor) -> Any:
    """A module's forward under re-entrant checkpointing."""
    if not torch.is_grad_enabled():
        return forward(module, *inputs)
    return checkpoint(functools.partial(forward, module), *inputs, use_reentrant=True)


# --- outside the catalogue ------------------------------------------------------------------------


def flow_not_inverted(setting: Setting) -> Subject:
    """Speaking goes through the flow as training does, or not at all (drawn): what the decoder
    hears is no latent.
    """
    forwards = setting.random.random() < 0.5

    class OneWay(Flow):
        def back(self, x: Tensor, mask: Tensor, voice: Tensor) -> Tensor:
            return self(x, mask, voice)[0] if forwards else x

    class Wrong(LatentSpeech):
        flow_kind = OneWay

    return build(setting, kind=Wrong)


def loud_noise(setting: Setting) -> Subject:
    """Speaking draws 3 to 10 deviations where it should draw less than one."""
    factor = setting.log_uniform(3, 10)

    class Noisy(LatentSpeech):
        def expect(self, text: Tensor, batch: SpeechBatch, mask: Tensor) -> tuple[Tensor, Tensor]:
            mean, log_deviation = super().expect(text, batch, mask)
            if torch.is_grad_enabled():
                return mean, log_deviation
            return mean, log_deviation + torch.tensor(factor / 0.4).log()

    return build(setting, kind=Noisy)


def determinant_sign(setting: Setting) -> Subject:
    """The flow's determinant is added where it should be taken off, 1 to 3 times."""
    times = setting.random.uniform(1, 3)

    def change(terms: dict, made: Latents, batch: SpeechBatch) -> dict[str, Tensor]:
        mean = made.log_det[batch.frame_mask].mean() / LATENT
        return {"kl": terms["kl"] + (1 + times) * mean}

    return with_terms(setting, change)


def late_target(setting: Setting) -> Subject:
    """The mel is compared with frames 5 to 15 later than those the posterior hears, wrapped
    round.
    """
    lag = setting.random.randint(5, 15)

    def change(terms: dict, made: Latents, batch: SpeechBatch) -> dict[str, Tensor]:
        later = batch.mel.roll(-lag, dims=1)
        return {"mel": mel_error(made.mel, later, batch.frame_mask)}

    return with_terms(setting, change)


def noisy_target(setting: Setting) -> Subject:
    """The mel is compared with itself and noise of 3 to 10 deviations, drawn anew at each step."""
    size = setting.random.uniform(3, 10)

    def change(terms: dict, made: Latents, batch: SpeechBatch) -> dict[str, Tensor]:
        noisy = batch.mel + size * torch.randn_like(batch.mel)
        return {"mel": mel_error(made.mel, noisy, batch.frame_mask)}

    return with_terms(setting, change)


def swapped_halves(setting: Setting) -> Subject:
    """The loss knows the bins in another order: 30 to 50 of them are rotated."""
    shift = setting.random.randint(30, 50)

    def change(terms: dict, made: Latents, batch: SpeechBatch) -> dict[str, Tensor]:
        return {"mel": mel_error(made.mel, batch.mel.roll(shift, dims=2), batch.frame_mask)}

    return with_terms(setting, change)


# --- the architecture -----------------------------------------------------------------------------

DATA = bound(
    KIT,
    "data",
    (
        data_plants.text_audio_pairing,
        data_plants.token_collapse,
        data_plants.mel_recipe,
        data_plants.sample_rate,
        data_plants.unnormalised_target,
        data_plants.duration_sum,
        data_plants.stale_features,
        data_plants.silence,
        data_plants.batch_varies,
    ),
)
MODEL = (
    memory_scale,
    padding_mask,
    text_ignored,
    encoder_detached,
    positions,
    dead_units,
    dropout_always_on,
    output_range,
    norm_mode,
    norm_runaway,
    bad_initialisation,
)
LOSS = (padding_included, imbalance, wrong_reduction, detached, logged_not_optimised)

PLANTS = {
    **DATA,
    **by_id("data", (duration_domain,)),
    **by_id("model", MODEL),
    **by_id("loss", LOSS),
    **bound(KIT, "optimizer", step_plants.OPTIMIZER),
    **bound(KIT, "precision", step_plants.PRECISION),
    **by_id("precision", (mask_overflow,)),
    **bound(KIT, "loop", step_plants.LOOP),
    **by_id("loop", (checkpointing,)),
}

# of causes that may not be registered yet
NEW_PLANTS = {
    **bound(KIT, "optimizer", (step_plants.schedule, step_plants.averaged_weights)),
    **bound(KIT, "loop", (step_plants.mode_not_restored,)),
    **bound(KIT, "data", (data_plants.front_end,)),
    **by_id("data", (conditioning, side_input)),
    **by_id("precision", (half_range,)),
}

NO_HISTORY = "all frames are made at once from the latent: nothing is fed back"
NONSENSE = {
    "model.no_causal_mask": NO_HISTORY + ", and the posterior hears the whole mel on purpose",
    "model.no_right_shift": NO_HISTORY + ", and the posterior hears the whole mel on purpose",
    "generation.exposure_gap": NO_HISTORY,
    "generation.layout": NO_HISTORY,
    "generation.stopping": "the length is the sum of the frames; there is no stop head",
}
NEW_NONSENSE = {
    "loss.shifted_twice": NO_HISTORY + ", so no target is shifted",
    "loss.auxiliary_geometry": "the alignment is given, no term guides one",
}

OUTSIDE = {
    plant.__name__: plant
    for plant in (
        flow_not_inverted,
        loud_noise,
        determinant_sign,
        late_target,
        noisy_target,
        swapped_halves,
    )
}
OUTSIDE_SHARED = {plant.__name__: functools.partial(plant, KIT) for plant in step_plants.OUTSIDE}

# what a fault and its clean twin need for the fault to matter
REQUIRED: dict[str, dict[str, Any]] = {
    "model.padding_mask": {"batch_size": 8},
    "loss.padding_included": {"batch_size": 8},
    "optimizer.clip_too_tight": {"optimizer": "sgd"},
    "precision.clip_before_unscale": {"optimizer": "sgd"},
    "precision.low_precision_weights": {"lr": 2e-4},
    "precision.half_range": {"batch_size": 4},
    "loop.accumulation": {"batch_size": 4, "optimizer": "sgd"},
    "loop.mode_not_restored": {"dropout": 0.5},
}

ARCHITECTURE = Architecture(
    name="vits_like",
    clean=build,
    plants={**PLANTS, **NEW_PLANTS},
    nonsense={**NONSENSE, **NEW_NONSENSE},
    outside={**OUTSIDE, **OUTSIDE_SHARED},
    layers=step_plants.ON_TOP,
    max_seconds=1.0,
    steps=100,
    required=lambda cause: REQUIRED.get(cause, {}),
)
