"""Faults planted in the token language model, its losses and its inference, and the architecture
itself. Ranges that severities are drawn from stand beside each plant.
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
from tests.tts_workbook.diagnosis.token_lm_model import (
    BANDS,
    CODES,
    Block,
    Cache,
    CausalAttention,
    FeedForward,
    Spoken,
    TextPrenet,
    TokenLM,
)
from tests.tts_workbook.diagnosis.token_lm_tts import (
    CLIP_NORM,
    END,
    LR,
    WEIGHTS,
    TokenData,
    band_errors,
    build,
    criterion,
    fresh,
    guide,
    guide_error,
    targets_of,
    total,
)
from tests.tts_workbook.diagnosis.vits_like_data import SpeechBatch
from tests.tts_workbook.diagnosis.vits_like_kit import Kit, bound, by_id
from tests.tts_workbook.diagnosis.vits_like_tts import autocast, numbers
from tts_workbook.faults.planting import Setting
from tts_workbook.subject.subject import Subject


def terms_of(model: nn.Module, batch: SpeechBatch) -> dict[str, Tensor]:
    return criterion(model(batch), model.quantise(batch.mel), batch)


KIT = Kit(
    build=build,
    fresh=lambda setting, data, kind: fresh(setting, data.codebook, kind),
    data=TokenData,
    kind=TokenLM,
    terms=terms_of,
    weights=WEIGHTS,
    main_terms=("first", "rest"),
    parts=(("head",), ("blocks", "head"), ("codes", "blocks"), ("head", "end", "norm")),
    rates=LR,
    clip_norm=CLIP_NORM,
)


# --- data -----------------------------------------------------------------------------------------


def conditioning(setting: Setting) -> Subject:
    """Inference is told something else than training (drawn): speaker number 0, whom nobody
    trained, or the next one; or a rate in frames per symbol, not in its logarithm and not
    standardised.
    """
    kind = setting.random.choice(("nobody", "next", "unit"))

    def change(name: str, values: Tensor) -> Tensor:
        if name == "rate" and kind == "unit":
            return 10 + 3 * values
        if name == "speaker" and kind == "nobody":
            return torch.zeros_like(values)
        if name == "speaker" and kind == "next":
            return values % 3 + 1
        return values

    return data_plants.conditions_changed(KIT, setting, change)


def side_input(setting: Setting) -> Subject:
    """The rate of one clip or of all (drawn) is no number, or a number of samples and not
    standardised, 1e3 to 1e5.
    """
    dice = setting.random
    infinite, single = dice.random() < 0.5, dice.random() < 0.5
    samples = setting.log_uniform(1e3, 1e5)

    class Absurd(TokenData):
        def level(self, rates: Tensor) -> Tensor:
            wrong = rates + samples
            if infinite:  # one clip alone has no deviation
                wrong = (rates - rates) / (rates - rates)
            if single:
                return torch.cat([wrong[:1], super().level(rates)[1:]])
            return wrong

    return build(setting, Absurd(setting))


# --- model ----------------------------------------------------------------------------------------


def memory_scale(setting: Setting) -> Subject:
    """The text comes into the sequence 300 to 30,000 times too loud, and the first block, like the
    decoder it was copied from, has no norm in front of its attention.
    """
    gain = setting.log_uniform(300, 30_000)

    class LoudText(TextPrenet):
        def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
            return gain * super().forward(ids, mask)

    class Loud(TokenLM):
        text_kind = LoudText

        def __init__(self, codebook: Tensor, **options: Any) -> None:
            super().__init__(codebook, **options)
            self.blocks[0].norm_attention = nn.Identity()

    return build(setting, kind=Loud)


def no_causal_mask(setting: Setting) -> Subject:
    """Teacher forcing has no causal mask, or one whose diagonal lies 5 to 20 places too far right
    (drawn). Speaking with a cache sees the past alone.
    """
    dice = setting.random
    ahead = dice.choice((None, dice.randint(5, 20)))

    class Ahead(TokenLM):
        def seen(self, valid: Tensor) -> Tensor:
            size = valid.shape[1]
            everything = torch.ones(size, size, dtype=torch.bool, device=valid.device)
            causal = everything if ahead is None else everything.tril(ahead)
            return causal & valid[:, None]

    return build(setting, kind=Ahead)


def no_right_shift(setting: Setting) -> Subject:
    """The places hear the frames that they have to say: `start` stands at the end."""

    class Unshifted(TokenLM):
        def told(self, codes: Tensor) -> Tensor:
            start = self.begin(len(codes))
            return torch.cat([self.embed_codes(codes, first=-1), start], dim=1)

    return build(setting, kind=Unshifted)


def padding_mask(setting: Setting) -> Subject:
    """Padded symbols are seen, or nothing of the text but them (drawn)."""
    inverted = setting.random.random() < 0.5

    class Blind(TokenLM):
        def prefix(self, batch: SpeechBatch) -> tuple[Tensor, Tensor]:
            text, valid = super().prefix(batch)
            symbols = ~valid[:, 1:] if inverted else torch.ones_like(valid[:, 1:])
            return text, torch.cat([valid[:, :1], symbols], dim=1)

        def narrow(self, seen: Tensor, n_text: int, cached: bool) -> Tensor:
            """Where a reader has no symbol, it sees all that the others do."""
            heads = super().narrow(seen, n_text, cached)
            empty = ~heads.any(dim=3, keepdim=True)
            return heads | (empty & seen[:, None])

    return build(setting, kind=Blind)


def text_ignored(setting: Setting) -> Subject:
    """Symbols come into the sequence 1e4 to 1e8 times too quietly: only their places are heard."""
    gain = 1 / setting.log_uniform(1e4, 1e8)

    class QuietText(TextPrenet):
        def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
            return gain * super().forward(ids, mask)

    class Deaf(TokenLM):
        text_kind = QuietText

    return build(setting, kind=Deaf)


def encoder_detached(setting: Setting) -> Subject:
    """The text pre-net runs under no_grad, as it did while it was taken from a trained model."""

    class Cut(TextPrenet):
        def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
            return super().forward(ids, mask).detach().requires_grad_(torch.is_grad_enabled())

    class Detached(TokenLM):
        text_kind = Cut

    return build(setting, kind=Detached)


def positions(setting: Setting) -> Subject:
    """Positions 50 to 3,000 times too loud: those of text and frames, or of the text alone; or none
    in the text (drawn).
    """
    dice = setting.random
    kind, gain = dice.choice(("both", "text", "missing")), setting.log_uniform(50, 3_000)
    of_text = 0.0 if kind == "missing" else gain
    of_frames = gain if kind == "both" else 1.0

    class Placed(TokenLM):
        def placed_frames(self, places: Tensor) -> Tensor:
            return of_frames * super().placed_frames(places)

        def placed_text(self, places: Tensor) -> Tensor:
            return of_text * super().placed_text(places)

    return build(setting, kind=Placed)


def dead_units(setting: Setting) -> Subject:
    """The rectifiers of all feed-forwards start with biases of -20 to -200; those of the text
    pre-net too (drawn).
    """
    dice = setting.random
    bias, text_too = -setting.log_uniform(20, 200), dice.random() < 0.5

    class Dead(TokenLM):
        def __init__(self, codebook: Tensor, **options: Any) -> None:
            super().__init__(codebook, **options)
            layers = [block.feed.up for block in self.blocks]
            for layer in [*layers, self.text.conv] if text_too else layers:
                nn.init.constant_(layer.bias, bias)

    return build(setting, kind=Dead)


def dropout_always_on(setting: Setting) -> Subject:
    """F.dropout without `training=self.training` behind the last norm: 40 to 70 %, or a p that was
    taken for the share that is kept, 3 to 15 % (drawn).
    """
    dice = setting.random
    p = dice.uniform(0.4, 0.7) if dice.random() < 0.5 else 1 - dice.uniform(0.03, 0.15)

    class Restless(TokenLM):
        def say(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
            return super().say(F.dropout(hidden, p))

    return build(setting, kind=Restless)


def output_range(setting: Setting) -> Subject:
    """Logits are capped by a tanh at 0.05 to 0.5 instead of 30: no code can be likely."""
    cap = setting.log_uniform(0.05, 0.5)

    class Capped(TokenLM):
        def say(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
            logits, end = super().say(hidden)
            return cap * torch.tanh(logits / cap), cap * torch.tanh(end / cap)

    return build(setting, kind=Capped)


def norm_runaway(setting: Setting) -> Subject:
    """No norms in the blocks nor behind them, and each feed-forward 5 to 20 times louder than what
    comes in.
    """
    gain = setting.log_uniform(5, 20)

    class LoudFeed(FeedForward):
        def __init__(self, dropout: float) -> None:
            super().__init__(dropout)
            for layer in (self.up, self.down):
                nn.init.normal_(layer.weight, std=(2 * gain / layer.in_features) ** 0.5)

    class LoudBlock(Block):
        feed_kind = LoudFeed

        def __init__(self, dropout: float) -> None:
            super().__init__(dropout)
            self.norm_attention, self.norm_feed = nn.Identity(), nn.Identity()

    class Runaway(TokenLM):
        block_kind = LoudBlock

        def __init__(self, codebook: Tensor, **options: Any) -> None:
            super().__init__(codebook, **options)
            self.norm = nn.Identity()

    return build(setting, kind=Runaway)


def bad_initialisation(setting: Setting) -> Subject:
    """Drawn: all weights of the blocks' attention start with a deviation of 1 to 10, so that it is
    saturated; or the feed-forwards and the head start at one value, 0.02 to 0.2.
    """
    dice = setting.random
    same, value, deviation = (
        dice.random() < 0.5,
        dice.uniform(0.02, 0.2),
        setting.log_uniform(1, 10),
    )

    class BadStart(TokenLM):
        def __init__(self, codebook: Tensor, **options: Any) -> None:
            super().__init__(codebook, **options)
            if same:
                for weight in (*self.blocks.parameters(), *self.head.parameters()):
                    nn.init.constant_(weight, value)
                return
            for block in self.blocks:
                nn.init.normal_(block.attention.query_key_value.weight, std=deviation)

    return build(setting, kind=BadStart)


# --- loss -----------------------------------------------------------------------------------------

Change = Callable[[dict[str, Tensor], Spoken, Tensor, SpeechBatch], Mapping[str, Tensor]]


def with_terms(setting: Setting, change: Change, kind: type[TokenLM] = TokenLM) -> Subject:
    """The clean subject with some terms replaced by those that `change` returns; it is given the
    sound terms, what the model says, the codes (B, T, G) and the batch.
    """

    def losses(model: nn.Module, batch: SpeechBatch) -> dict[str, Tensor]:
        with autocast(setting):
            spoken = model(batch)
        codes = model.quantise(batch.mel)
        terms = criterion(spoken, codes, batch)
        return total({**terms, **change(terms, spoken, codes, batch)})

    return build(setting, kind=kind, losses=losses)


def padding_included(setting: Setting) -> Subject:
    """The filling is a target like any other: the codes of empty frames (drawn), or the end again
    and again in the first band and code 0 in the others.
    """
    ends = setting.random.random() < 0.5

    def change(terms: dict, spoken: Spoken, codes: Tensor, batch: SpeechBatch) -> dict[str, Tensor]:
        first, rest = targets_of(codes, batch.n_frames, torch.ones_like(batch.frame_mask))
        if ends:
            beyond = ~batch.frame_mask
            first[:, :-1][beyond] = END
            rest = rest.masked_fill(beyond[..., None], 0)
        first[:, -1] = END
        said = band_errors(spoken, first, rest)
        return {"first": said[0], "rest": said[1]}

    return with_terms(setting, change)


def imbalance(setting: Setting) -> Subject:
    """The guide of the attention, or the first band for the sake of its end (drawn), weighs 3,000
    to 300,000 times too much.
    """
    name = setting.random.choice(("guide", "first"))
    weight = WEIGHTS[name] * setting.log_uniform(3e3, 3e5)
    return build(setting, losses=KIT.losses(setting, **{name: weight}))


def wrong_reduction(setting: Setting) -> Subject:
    """Drawn: logits (B, T, G, K) are made (B, K, T, G) by a view in the place of a permutation; or
    they are averaged over the frames before the cross-entropy, for all bands.
    """
    viewed = setting.random.random() < 0.5

    def change(terms: dict, spoken: Spoken, codes: Tensor, batch: SpeechBatch) -> dict[str, Tensor]:
        logits = spoken.logits[:, :-1].float()
        if viewed:
            size, frames = logits.shape[:2]
            turned = logits.reshape(size, CODES, frames, BANDS)
            target = codes.masked_fill(~batch.frame_mask[..., None], -100)
            error = F.cross_entropy(turned, target)
            return {"first": error, "rest": error}
        valid = batch.frame_mask[..., None, None]
        mean = (logits * valid).sum(dim=1, keepdim=True) / batch.n_frames[:, None, None, None]
        spread = mean.expand_as(logits).flatten(0, 2)
        target = codes.masked_fill(~batch.frame_mask[..., None], -100).flatten()
        error = F.cross_entropy(spread, target)
        return {"first": error, "rest": error}

    return with_terms(setting, change)


def detached(setting: Setting) -> Subject:
    """One or two terms are made anew from their numbers (drawn): all bands, the first, or all but
    the first.
    """
    names = setting.random.choice((("first", "rest"), ("first",), ("rest",)))

    def change(terms: dict, spoken: Spoken, codes: Tensor, batch: SpeechBatch) -> dict[str, Tensor]:
        return {name: torch.tensor(float(terms[name].detach())) for name in names}

    return with_terms(setting, change)


def logged_not_optimised(setting: Setting) -> Subject:
    """The step logs the whole loss and follows it without the bands behind the first, or without
    any, at 0 to 0.0001 of their weight (drawn).
    """
    dice = setting.random
    names = dice.choice((("rest",), ("first", "rest")))
    share = dice.choice((0.0, 10 ** dice.uniform(-6, -4)))
    subject = build(setting)

    def step(
        model: nn.Module, optimizer: torch.optim.Optimizer, batch: SpeechBatch
    ) -> dict[str, float]:
        optimizer.zero_grad()
        terms = subject.losses(model, batch)
        followed = {key: terms[key] for key in WEIGHTS}
        weights = {name: share * WEIGHTS[name] for name in names}
        KIT.total(followed, **weights)["total"].backward()
        nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
        optimizer.step()
        return numbers(terms)

    return replace(subject, train_step=step)


def shifted_twice(setting: Setting) -> Subject:
    """The targets are shifted by one before they come to a loss whose model shifts its inputs: the
    place of frame t says frame t + 1, and `start` the second.
    """

    def change(terms: dict, spoken: Spoken, codes: Tensor, batch: SpeechBatch) -> dict[str, Tensor]:
        later = torch.cat([codes[:, 1:], codes[:, -1:]], dim=1)
        n_frames = batch.n_frames - 1
        mask = torch.arange(codes.shape[1]) < n_frames[:, None]
        said = band_errors(spoken, *targets_of(later, n_frames, mask))
        return {"first": said[0], "rest": said[1]}

    return with_terms(setting, change)


def auxiliary_geometry(setting: Setting) -> Subject:
    """The guide is built for other lengths than the sequence has (drawn): frames that were reduced
    by 2 to 5, or symbols with a blank between each two; it weighs 10 to 30 times as much.
    """
    dice = setting.random
    reduced, factor = dice.random() < 0.5, dice.randint(2, 5)
    weight = setting.log_uniform(10, 30)

    def change(terms: dict, spoken: Spoken, codes: Tensor, batch: SpeechBatch) -> dict[str, Tensor]:
        n_symbols, n_frames = batch.n_ids, batch.n_frames
        if reduced:
            n_frames = n_frames // factor
        else:
            n_symbols = 2 * n_symbols + 1
        cost = guide(n_symbols, n_frames, spoken.glance)
        return {"guide": weight * guide_error(spoken.glance, cost, batch)}

    return with_terms(setting, change)


# --- precision and loop ---------------------------------------------------------------------------


def mask_overflow(setting: Setting) -> Subject:
    """fp16 autocast, and an additive mask of -1e5 to -1e30, which half precision does not hold:
    nothing times infinity.
    """
    far = torch.tensor(-setting.log_uniform(1e5, 1e30))

    class Far(CausalAttention):
        def hide(self, scores: Tensor, seen: Tensor) -> Tensor:
            return scores + (~seen).to(scores.dtype) * far.to(scores.dtype)

    class FarBlock(Block):
        attention_kind = Far

    class FarLM(TokenLM):
        block_kind = FarBlock

    return build(setting, kind=FarLM, losses=step_plants.half_losses(KIT, setting))


def half_range(setting: Setting) -> Subject:
    """fp16 autocast, and the embedded symbols go through a norm written by hand, whose squares or
    whose eps half precision does not hold (drawn).
    """

    class HalfText(TextPrenet):
        def __init__(self, dropout: float) -> None:
            super().__init__(dropout)
            self.by_hand = step_plants.HalfNorm.drawn(setting)

        def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
            return self.by_hand(super().forward(ids, mask) * mask[..., None])

    class InHalf(TokenLM):
        text_kind = HalfText

    return build(setting, kind=InHalf, losses=step_plants.half_losses(KIT, setting))


def checkpointing(setting: Setting) -> Subject:
    """Re-entrant checkpointing around the text pre-net, which no gradient enters, and around the
    first block with its input detached, as the manual asks for who "saves more" (drawn).
    """
    block_too = setting.random.random() < 0.6

    class SavingText(TextPrenet):
        def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
            if not torch.is_grad_enabled():
                return super().forward(ids, mask)
            return checkpoint(super().forward, ids, mask, use_reentrant=True)

    class SavingBlock(Block):
        def forward(self, x: Tensor, seen: Tensor, before: Any = None) -> Any:
            if not torch.is_grad_enabled() or not block_too:
                return super().forward(x, seen, before)
            return checkpoint(super().forward, x.detach(), seen, before, use_reentrant=True)

    class Saving(TokenLM):
        block_kind = SavingBlock
        text_kind = SavingText

    return build(setting, kind=Saving)


# --- generation -----------------------------------------------------------------------------------


def exposure_gap(setting: Setting) -> Subject:
    """Nothing wrong in the code: frames have no positions of their own and see one or two
    frames back at most, so that where the model is hangs on what it said last.
    """
    reach = setting.random.randint(1, 2)

    class Leaning(TokenLM):
        def placed_frames(self, places: Tensor) -> Tensor:
            return 0 * super().placed_frames(places)

        def run(
            self, x: Tensor, seen: Tensor, n_text: int, cache: Cache | None = None
        ) -> tuple[Tensor, Tensor, Cache]:
            keys = torch.arange(seen.shape[2])
            queries = keys[-x.shape[1] :, None]
            near = (keys < n_text) | (queries - keys < reach)
            return super().run(x, seen & near, n_text, cache)

    return build(setting, kind=Leaning)


def layout(setting: Setting) -> Subject:
    """Speaking feeds another history than training (drawn): frames 1 to 4 places too early or late
    in their positions; codes without the offset of their band; or the frame before the last one.
    """
    dice = setting.random
    kind, shift = dice.choice(("place", "offset", "late")), dice.choice((-4, -3, -2, 2, 3, 4))

    class Otherwise(TokenLM):
        def begin(self, size: int) -> Tensor:
            self.kept = None
            return super().begin(size)

        def fed_back(self, codes: Tensor, number: int) -> Tensor:
            if kind == "place":
                return self.embed_codes(codes, max(0, number + shift))
            if kind == "offset":
                places = torch.arange(number + 1, number + 2, device=codes.device)
                return self.codes(codes).sum(dim=2) + self.placed_frames(places)
            before = codes if self.kept is None else self.kept
            self.kept = codes
            return super().fed_back(before, number)

    return build(setting, kind=Otherwise)


def stopping(setting: Setting) -> Subject:
    """The end is never a target, or it is the first band's target at every second place or more
    (drawn: a share of 60 to 90 %).
    """
    dice = setting.random
    never, share = dice.random() < 0.5, dice.uniform(0.6, 0.9)

    def change(terms: dict, spoken: Spoken, codes: Tensor, batch: SpeechBatch) -> dict[str, Tensor]:
        first, rest = targets_of(codes, batch.n_frames, batch.frame_mask)
        if never:
            first = first.masked_fill(first == END, -100)
        else:
            number = torch.arange(first.shape[1])
            late = number > (1 - share) * batch.n_frames[:, None]
            first = first.masked_fill(late & (first >= 0), END)
        return {"first": band_errors(spoken, first, rest)[0]}

    return with_terms(setting, change)


# --- outside the catalogue ------------------------------------------------------------------------


def codebook_of_other_units(setting: Setting) -> Subject:
    """The codebook was fitted to mels at another level, 3 to 8 deviations away: nearly all frames
    have the same few codes.
    """
    away = setting.random.uniform(3, 8)

    class OtherUnits(TokenData):
        def __init__(self, setting: Setting) -> None:
            super().__init__(setting)
            self.codebook = self.codebook + away

    return build(setting, OtherUnits(setting))


def codes_decoded_in_another_order(setting: Setting) -> Subject:
    """Codes become mels by a codebook in another order, that of a second run of the k-means: 60 to
    100 % of the entries are not where they were.
    """
    dice = setting.random
    moved = sorted(dice.sample(range(CODES), round(dice.uniform(0.6, 1.0) * CODES)))
    order = list(range(CODES))
    for place, other in zip(moved, moved[1:] + moved[:1], strict=True):
        order[place] = other

    class OtherOrder(TokenLM):
        def expect(self, logits: Tensor) -> Tensor:
            return super().expect(logits[..., order])

    return build(setting, kind=OtherOrder)


def bands_swapped(setting: Setting) -> Subject:
    """The loss has the bands in another order than who puts the mel together: rotated by 3 to 7."""
    shift = setting.random.randint(3, 7)

    def change(terms: dict, spoken: Spoken, codes: Tensor, batch: SpeechBatch) -> dict[str, Tensor]:
        turned = codes.roll(shift, dims=2)
        said = band_errors(spoken, *targets_of(turned, batch.n_frames, batch.frame_mask))
        return {"first": said[0], "rest": said[1]}

    return with_terms(setting, change)


def codes_at_random(setting: Setting) -> Subject:
    """80 to 98 % of the targets are replaced by random codes, drawn anew at each step."""
    share = setting.random.uniform(0.8, 0.98)

    def change(terms: dict, spoken: Spoken, codes: Tensor, batch: SpeechBatch) -> dict[str, Tensor]:
        hit = torch.rand(codes.shape) < share
        noisy = torch.where(hit, torch.randint_like(codes, CODES), codes)
        said = band_errors(spoken, *targets_of(noisy, batch.n_frames, batch.frame_mask))
        return {"first": said[0], "rest": said[1]}

    return with_terms(setting, change)


def drawn_too_hot(setting: Setting) -> Subject:
    """Speaking draws its codes at a temperature of 3 to 10."""
    temperature = setting.random.uniform(3, 10)

    class Hot(TokenLM):
        def choose(self, logits: Tensor) -> Tensor:
            shares = (logits.float() / temperature).softmax(dim=-1)
            drawn = torch.multinomial(shares.flatten(0, 2), 1)
            return drawn.view(logits.shape[:-1])

    return build(setting, kind=Hot)


# --- the architecture -----------------------------------------------------------------------------

DATA = bound(
    KIT,
    "data",
    (
        data_plants.text_audio_pairing,
        data_plants.token_collapse,
        data_plants.mel_recipe,
        data_plants.sample_rate,
        data_plants.stale_features,
        data_plants.silence,
        data_plants.batch_varies,
    ),
)
MODEL = (
    memory_scale,
    no_causal_mask,
    no_right_shift,
    padding_mask,
    text_ignored,
    encoder_detached,
    positions,
    dead_units,
    dropout_always_on,
    output_range,
    norm_runaway,
    bad_initialisation,
)
LOSS = (padding_included, imbalance, wrong_reduction, detached, logged_not_optimised)

PLANTS = {
    **DATA,
    **by_id("model", MODEL),
    **by_id("loss", LOSS),
    **bound(KIT, "optimizer", step_plants.OPTIMIZER),
    **bound(KIT, "precision", step_plants.PRECISION),
    **by_id("precision", (mask_overflow,)),
    **bound(KIT, "loop", step_plants.LOOP),
    **by_id("loop", (checkpointing,)),
    **by_id("generation", (exposure_gap, layout, stopping)),
}

# of causes that may not be registered yet
NEW_PLANTS = {
    **bound(KIT, "optimizer", (step_plants.schedule, step_plants.averaged_weights)),
    **bound(KIT, "loop", (step_plants.mode_not_restored,)),
    **bound(KIT, "data", (data_plants.front_end,)),
    **by_id("data", (conditioning, side_input)),
    **by_id("loss", (shifted_twice, auxiliary_geometry)),
    **by_id("precision", (half_range,)),
}

NO_DURATIONS = "the model knows no durations: it says frame after frame until the end"
NONSENSE = {
    "data.unnormalised_target": "targets are numbers of codes; their mels' units reach no loss",
    "data.duration_sum": NO_DURATIONS,
    "data.duration_domain": NO_DURATIONS,
    "model.norm_mode": "LayerNorm alone, which has no statistics to keep",
}

OUTSIDE = {
    plant.__name__: plant
    for plant in (
        codebook_of_other_units,
        codes_decoded_in_another_order,
        bands_swapped,
        codes_at_random,
        drawn_too_hot,
    )
}
OUTSIDE_SHARED = {plant.__name__: functools.partial(plant, KIT) for plant in step_plants.OUTSIDE}

# What a fault and its clean twin need for the fault to matter: two clips are known by heart; of
# eight, the text and the frames ahead are read.
REQUIRED: dict[str, dict[str, Any]] = {
    "data.token_collapse": {"batch_size": 8},
    "model.no_causal_mask": {"batch_size": 8},
    "model.text_ignored": {"batch_size": 8},
    "model.padding_mask": {"batch_size": 8},
    "loss.padding_included": {"batch_size": 8},
    "loss.imbalance": {"optimizer": "sgd"},
    "optimizer.clip_too_tight": {"optimizer": "sgd"},
    "precision.clip_before_unscale": {"optimizer": "sgd"},
    "precision.low_precision_weights": {"optimizer": "sgd", "lr": 0.05},
    "precision.half_range": {"batch_size": 4},
    "loop.accumulation": {"batch_size": 4, "optimizer": "sgd"},
    "loop.mode_not_restored": {"dropout": 0.5},
}

ARCHITECTURE = Architecture(
    name="token_lm",
    clean=build,
    plants={**PLANTS, **NEW_PLANTS},
    nonsense=NONSENSE,
    outside={**OUTSIDE, **OUTSIDE_SHARED},
    layers=step_plants.ON_TOP,
    max_seconds=1.0,
    steps=80,
    required=lambda cause: REQUIRED.get(cause, {}),
)
