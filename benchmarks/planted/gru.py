"""Faults planted in the model and the loss of the GRU subject, faults that no catalogue holds, and
the architecture itself.

It was written by somebody who had not read the rules, and held out until two others took its
place. Ranges that severities are drawn from stand next to each plant.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from benchmarks.planted.architecture import Architecture
from benchmarks.planted.gru_data import DATA
from benchmarks.planted.gru_later import LATER, NONSENSE
from benchmarks.planted.gru_step import STEP
from benchmarks.planted.gru_twin import (
    BINS,
    CLIP_NORM,
    WEIGHTS,
    CharConvGRU,
    CharReader,
    Glance,
    MelData,
    Refine,
    ValidBatchNorm,
    adapt,
    criterion,
    fresh,
    half,
    losses_of,
    mask_of,
    mel_error,
    total,
)
from tts_workbook.faults.planting import Setting
from tts_workbook.subject.subject import Subject

# --- model ----------------------------------------------------------------------------------------


def memory_scale(setting: Setting) -> Subject:
    """What is read from the text is 300 to 10,000 times too loud."""
    gain = setting.log_uniform(300, 10_000)

    class LoudReader(CharReader):
        def forward(self, txt: Tensor, txt_len: Tensor) -> Tensor:
            return super().forward(txt, txt_len) * gain

    class Loud(CharConvGRU):
        reader_kind = LoudReader

    return adapt(setting, kind=Loud)


def no_causal_mask(setting: Setting) -> Subject:
    """The decoder reads frames to come: its GRU runs both ways, or its input is smoothed over 3 to
    8 frames either way.
    """
    dice = setting.random
    both_ways, reach = dice.random() < 0.5, dice.randint(3, 8)

    class Ahead(CharConvGRU):
        def __init__(self, **options) -> None:
            super().__init__(**options)
            if both_ways:
                self.speaker = nn.GRU(
                    self.speaker.input_size, self.width // 2, batch_first=True, bidirectional=True
                )
            else:
                self.smooth = nn.Conv1d(BINS, BINS, 2 * reach + 1, padding=reach, groups=BINS)

        def go_back(self, mels: Tensor) -> Tensor:
            before = super().go_back(mels)
            return before if both_ways else self.smooth(before.transpose(1, 2)).transpose(1, 2)

        def forward(self, batch: dict) -> dict:
            self.lengths = batch["mel_len"]
            mask = mask_of(self.lengths, batch["mels"].shape[2])
            return super().forward(batch | {"mels": batch["mels"] * mask[:, None]})

        def say(self, batch, dur, frames, history=None):
            """All frames so far go through the decoder anew for each new frame."""
            self.lengths, read = None, self.read(batch)
            txt_mask, stretched = (
                mask_of(batch["txt_len"], read.shape[1]),
                self.stretch(read, dur, frames),
            )
            past = stretched.new_zeros(len(read), 0, BINS)
            for t in range(frames):
                before = self.go_back(F.pad(past, (0, 0, 0, 1)))
                spoken, _ = self.speak(self.told(before, stretched[:, : t + 1], read, txt_mask))
                frame, stop = self.frame(spoken, before)
                new = (
                    history[:, t : t + 1]
                    if history is not None and t < history.shape[1]
                    else frame[:, t:]
                )
                past = torch.cat([past, new], dim=1)
            return past, stop

        def speak(self, told: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
            if self.lengths is None or not both_ways:
                return super().speak(told, state)
            told = told.to(self.speaker.all_weights[0][1].dtype)
            packed = pack_padded_sequence(
                told, self.lengths.cpu(), batch_first=True, enforce_sorted=False
            )
            said, left = self.speaker(packed)
            unpacked, _ = pad_packed_sequence(said, batch_first=True, total_length=told.shape[1])
            return unpacked, left

    return adapt(setting, kind=Ahead)


def no_right_shift(setting: Setting) -> Subject:
    """The decoder is told the very frame that it has to say, or the mean of it (20 to 100 %) and
    the one before.
    """
    share = setting.random.uniform(0.2, 1.0)

    class Unshifted(CharConvGRU):
        def go_back(self, mels: Tensor) -> Tensor:
            return share * mels + (1 - share) * super().go_back(mels)

    return adapt(setting, kind=Unshifted)


def padding_mask(setting: Setting) -> Subject:
    """The glance at the text sees padding too, or nothing but padding."""
    inverted = setting.random.random() < 0.5

    class BlindGlance(Glance):
        def hide(self, scores: Tensor, mask: Tensor) -> Tensor:
            return scores.masked_fill(mask[:, None], -1e4) if inverted else scores

    class Blind(CharConvGRU):
        glance_kind = BlindGlance

    return adapt(setting, kind=Blind)


def text_ignored(setting: Setting) -> Subject:
    """What the decoder is told of the text is 1e4 to 1e8 times too quiet."""
    gain = 1 / setting.log_uniform(1e4, 1e8)

    class Deaf(CharConvGRU):
        def told(self, before: Tensor, stretched: Tensor, read: Tensor, txt_mask: Tensor) -> Tensor:
            told = super().told(before, stretched, read, txt_mask)
            return torch.cat([told[..., :64], told[..., 64:] * gain], dim=-1)

    return adapt(setting, kind=Deaf)


def encoder_detached(setting: Setting) -> Subject:
    """The text goes to decoder and durations through a detach (or a round trip over numpy)."""

    class Cut(CharConvGRU):
        def read(self, batch: dict) -> Tensor:
            return super().read(batch).detach().requires_grad_(torch.is_grad_enabled())

    return adapt(setting, kind=Cut)


def positions(setting: Setting) -> Subject:
    """The place within the character is 100 to 3,000 times too loud."""
    gain = setting.log_uniform(100, 3000)

    class Placed(CharConvGRU):
        def placed(self, waves: Tensor) -> Tensor:
            return super().placed(waves * gain)

    return adapt(setting, kind=Placed)


def dead_units(setting: Setting) -> Subject:
    """Rectifiers that start with biases of -20 to -200: those of the reader, or of the pre-net as
    well.
    """
    dice = setting.random
    prenet_too, bias = dice.random() < 0.5, -dice.uniform(20, 200)

    class Dead(CharConvGRU):
        def __init__(self, **options) -> None:
            super().__init__(**options)
            for layer in [unit.bn for unit in self.reader.units] + [self.prenet[0]] * prenet_too:
                nn.init.constant_(cast(nn.Linear, layer).bias, bias)

    return adapt(setting, kind=Dead)


def dropout_always_on(setting: Setting) -> Subject:
    """F.dropout without `training=self.training` behind the decoder: 30 to 70 %."""
    p = setting.random.uniform(0.3, 0.7)

    class Restless(CharConvGRU):
        def speak(self, told: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
            spoken, state = super().speak(told, state)
            return F.dropout(spoken, p), state

    return adapt(setting, kind=Restless)


def output_range(setting: Setting) -> Subject:
    """tanh of 5 to 30 % of the range, a sigmoid, or a floor of 0 to 0.5 on targets of unit
    scale.
    """
    dice = setting.random
    kind, reach, floor = (
        dice.choice(("tanh", "sigmoid", "floor")),
        dice.uniform(0.05, 0.3),
        dice.uniform(0.0, 0.5),
    )
    squash = {
        "tanh": lambda x: reach * torch.tanh(x),
        "sigmoid": torch.sigmoid,
        "floor": lambda x: F.softplus(x) + floor,
    }[kind]

    class Narrow(CharConvGRU):
        def frame(self, spoken: Tensor, before: Tensor) -> tuple[Tensor, Tensor]:
            frame, stop = super().frame(spoken, before)
            return squash(frame), stop

        def finish(self, frames: Tensor, mask: Tensor) -> Tensor:
            return squash(super().finish(frames, mask))

    return adapt(setting, kind=Narrow)


def norm_mode(setting: Setting) -> Subject:
    """BatchNorm statistics that hardly move: momentum 1e-7 to 1e-4."""
    momentum = setting.log_uniform(1e-7, 1e-4)

    class Slow(CharConvGRU):
        def __init__(self, **options) -> None:
            super().__init__(**options)
            for module in self.modules():
                if isinstance(module, ValidBatchNorm):
                    module.momentum = momentum

    return adapt(setting, kind=Slow)


def norm_runaway(setting: Setting) -> Subject:
    """Residual networks without their norms, each 5 to 20 times louder than its input."""
    gain = setting.log_uniform(5, 20)

    class LoudRefine(Refine):
        def __init__(self, width: int, dropout: float) -> None:
            super().__init__(width, dropout)
            self.norm = nn.Identity()
            for layer in (self.up, self.down):
                nn.init.normal_(layer.weight, std=(2 * gain / width) ** 0.5)

    class Runaway(CharConvGRU):
        refine_kind = LoudRefine

        def __init__(self, **options) -> None:
            super().__init__(**options)
            self.out_norm = nn.Identity()

    return adapt(setting, kind=Runaway)


def bad_initialisation(setting: Setting) -> Subject:
    """Decoder weights that saturate every gate (standard deviation 3 to 30), or that are all the
    same (0.01 to 0.1).
    """
    dice = setting.random
    same, std, value = dice.random() < 0.5, setting.log_uniform(3, 30), dice.uniform(0.01, 0.1)

    class BadStart(CharConvGRU):
        def __init__(self, **options) -> None:
            super().__init__(**options)
            for weight in self.speaker.parameters():
                nn.init.constant_(weight, value) if same else nn.init.normal_(weight, std=std)

    return adapt(setting, kind=BadStart)


# --- loss -----------------------------------------------------------------------------------------


def with_terms(setting: Setting, change, weights: dict[str, float] = WEIGHTS) -> Subject:
    """The clean subject with other terms of the loss: `change(terms, out, batch)` -> terms that
    replace them.
    """

    def losses(model, batch) -> dict:
        with half(setting):
            out = model(batch)
        terms = criterion(out, batch)
        return total(terms | change(terms, out, batch), weights)

    return adapt(setting, losses=losses)


def padding_included(setting: Setting) -> Subject:
    """Means over the padded frames too: of both mel terms, or of the stop term as well."""
    stop_too = setting.random.random() < 0.5

    def change(terms: dict, out: dict, batch: dict) -> dict:
        every = torch.ones_like(out["mask"])
        new = {
            "mel_raw": mel_error(out["frames"], batch["mels"], every),
            "mel": mel_error(out["mels"], batch["mels"], every),
        }
        if stop_too:
            last = (torch.arange(every.shape[1]) == batch["mel_len"][:, None] - 1).float()
            new["stop"] = F.binary_cross_entropy_with_logits(
                out["stop"].float(), last, pos_weight=torch.tensor(3.0)
            )
        return new

    return with_terms(setting, change)


def shifted_twice(setting: Setting) -> Subject:
    """The data shifts the target by a frame, and the decoder shifts its input."""

    def change(terms: dict, out: dict, batch: dict) -> dict:
        later, mask = batch["mels"][..., 1:], out["mask"][:, 1:]
        return {
            "mel_raw": mel_error(out["frames"][..., :-1], later, mask),
            "mel": mel_error(out["mels"][..., :-1], later, mask),
        }

    return with_terms(setting, change)


def imbalance(setting: Setting) -> Subject:
    """The stop term or the duration term weighs 30,000 to 3,000,000 times as much as it should."""
    return with_terms(
        setting,
        lambda *_: {},
        WEIGHTS | {setting.random.choice(("stop", "dur")): 0.2 * setting.log_uniform(3e4, 3e6)},
    )


def wrong_reduction(setting: Setting) -> Subject:
    """Errors are averaged over time, over bins, or over both before their size is taken; padding
    stays out of it.
    """
    kind = setting.random.choice(("time", "bins", "both"))

    def error(guess: Tensor, batch: dict, mask: Tensor) -> Tensor:
        gap = (guess.float() - batch["mels"]) * mask[:, None]
        if kind == "bins":
            gap = gap.mean(dim=1)[mask]
        else:
            gap = gap.sum(dim=2) / batch["mel_len"][:, None]
            gap = gap.mean(dim=1) if kind == "both" else gap
        return gap.square().mean() + gap.abs().mean()

    return with_terms(
        setting,
        lambda terms, out, batch: {
            "mel_raw": error(out["frames"], batch, out["mask"]),
            "mel": error(out["mels"], batch, out["mask"]),
        },
    )


def detached(setting: Setting) -> Subject:
    """Terms made anew from their numbers: both mel terms, that behind the post-net, the durations,
    or the stop.
    """
    names = setting.random.choice((("mel_raw", "mel"), ("mel",), ("dur",), ("stop",)))
    return with_terms(
        setting,
        lambda terms, out, batch: {
            name: torch.tensor(float(terms[name].detach())) for name in names
        },
    )


def logged_not_optimised(setting: Setting) -> Subject:
    """The step shows the whole loss and follows its small terms only, the mel's at 0 to 0.0001 of
    their weight.
    """
    dice = setting.random
    share = dice.choice((0.0, 10 ** dice.uniform(-6, -4)))

    def step(model, optimizer, batch) -> dict:
        optimizer.zero_grad()
        terms = losses_of(setting, model, batch)
        total(terms, WEIGHTS | {"mel": share, "mel_raw": share, "total": 0.0})["total"].backward()
        nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
        optimizer.step()
        return {name: float(term.detach()) for name, term in terms.items()}

    return replace(adapt(setting), train_step=step)


# --- outside the catalogue ------------------------------------------------------------------------


def gradient_sign(setting: Setting) -> Subject:
    """A gradient-reversal layer left in: the gradients of one module point uphill."""
    where = setting.random.choice(("speaker", "to_mel", "refine"))

    def build() -> nn.Module:
        model = fresh(setting)
        for weight in getattr(model, where).parameters():
            weight.register_hook(torch.neg)
        return model

    return replace(adapt(setting), build_model=build)


def delayed_text(setting: Setting) -> Subject:
    """The text runs 15 to 40 frames behind the audio; durations still add up."""
    delay = setting.random.randint(15, 40)

    class Late(MelData):
        def item(self, clip) -> dict:
            item = super().item(clip)
            ends = item["dur"].cumsum(0)
            ends = (ends + delay).clamp(max=int(ends[-1]) - len(ends)) + torch.arange(
                1, len(ends) + 1
            )
            ends[-1] = len(item["mel"])
            return item | {"dur": ends.clamp(max=len(item["mel"])).diff(prepend=ends.new_zeros(1))}

    return adapt(setting, Late(setting))


def swapped_bins(setting: Setting) -> Subject:
    """The loss counts the mel bins in another order than everyone else: 20 to 40 pairs are
    swapped.
    """
    dice = setting.random
    order = list(range(BINS))
    chosen = dice.sample(order, 2 * dice.randint(20, 40))
    for a, b in zip(chosen[::2], chosen[1::2], strict=True):
        order[a], order[b] = b, a

    def change(terms: dict, out: dict, batch: dict) -> dict:
        mels = batch["mels"][:, order]
        return {
            "mel_raw": mel_error(out["frames"], mels, out["mask"]),
            "mel": mel_error(out["mels"], mels, out["mask"]),
        }

    return with_terms(setting, change)


def reversed_targets(setting: Setting) -> Subject:
    """The loss sees the last 50 to 100 % of each clip backwards in time."""
    share = setting.random.uniform(0.5, 1.0)

    def change(terms: dict, out: dict, batch: dict) -> dict:
        mels = batch["mels"].clone()
        for row, n in zip(mels, batch["mel_len"].tolist(), strict=True):
            row[:, n - int(share * n) : n] = row[:, n - int(share * n) : n].flip(1)
        return {
            "mel_raw": mel_error(out["frames"], mels, out["mask"]),
            "mel": mel_error(out["mels"], mels, out["mask"]),
        }

    return with_terms(setting, change)


def label_noise(setting: Setting) -> Subject:
    """Targets with noise of 3 to 10 times their spread, drawn anew at every step."""
    size = setting.random.uniform(3, 10)

    def change(terms: dict, out: dict, batch: dict) -> dict:
        mels = batch["mels"] + size * torch.randn_like(batch["mels"])
        return {
            "mel_raw": mel_error(out["frames"], mels, out["mask"]),
            "mel": mel_error(out["mels"], mels, out["mask"]),
        }

    return with_terms(setting, change)


def stale_average(setting: Setting) -> Subject:
    """Evaluation uses an average of the weights that is never (or by 1e-5 to 1e-4 a step)
    updated.
    """
    pace = setting.log_uniform(1e-5, 1e-4)

    class Averaged(CharConvGRU):
        def __init__(self, **options) -> None:
            super().__init__(**options)
            self.average = CharConvGRU(**options).requires_grad_(False)
            self.average.load_state_dict(self.state_dict(), strict=False)

        def forward(self, batch: dict) -> dict:
            if not self.training:
                return self.average(batch)
            with torch.no_grad():
                for slow, fast in zip(self.average.parameters(), self.parameters(), strict=False):
                    slow.lerp_(fast, pace)
            return super().forward(batch)

        def say(self, *inputs) -> tuple[Tensor, Tensor]:
            return super().say(*inputs) if self.training else self.average.say(*inputs)

        def finish(self, *inputs) -> Tensor:
            return super().finish(*inputs) if self.training else self.average.finish(*inputs)

        def talk(self, batch: dict) -> list[Tensor]:
            return super().talk(batch) if self.training else self.average.talk(batch)

    subject = adapt(setting, kind=Averaged)
    return replace(subject, frozen=(*subject.frozen, "average"))


def gradient_noise(setting: Setting) -> Subject:
    """Noise of 10 to 100 times the gradient's own size is added to it (a broken all-reduce)."""
    size = setting.log_uniform(10, 100)

    def step(model, optimizer, batch) -> dict:
        optimizer.zero_grad()
        terms = losses_of(setting, model, batch)
        terms["total"].backward()
        for weight in model.parameters():
            if weight.grad is not None:
                weight.grad += size * weight.grad.std(correction=0) * torch.randn_like(weight.grad)
        nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
        optimizer.step()
        return {name: float(term.detach()) for name, term in terms.items()}

    return replace(adapt(setting), train_step=step)


def weights_reset(setting: Setting) -> Subject:
    """Every 5 to 15 steps the "best" weights are restored, and these are the first."""
    every = setting.random.randint(5, 15)
    done = [0]
    best: dict[str, Tensor] = {}

    def step(model, optimizer, batch) -> dict:
        if done[0] == 0 or best.get("model") is not model:
            best.update(model=model, state=copy.deepcopy(model.state_dict()))
        optimizer.zero_grad()
        terms = losses_of(setting, model, batch)
        terms["total"].backward()
        nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
        optimizer.step()
        done[0] += 1
        if done[0] % every == 0:
            model.load_state_dict(best["state"])
        return {name: float(term.detach()) for name, term in terms.items()}

    return replace(adapt(setting), train_step=step)


# --- the architecture -----------------------------------------------------------------------------

MODEL = {
    f"model.{plant.__name__}": plant
    for plant in (
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
        norm_mode,
        norm_runaway,
        bad_initialisation,
    )
}
LOSS = {
    f"loss.{plant.__name__}": plant
    for plant in (
        padding_included,
        imbalance,
        wrong_reduction,
        detached,
        logged_not_optimised,
        shifted_twice,
    )
}
OUTSIDE = {
    plant.__name__: plant
    for plant in (
        gradient_sign,
        delayed_text,
        swapped_bins,
        reversed_targets,
        label_noise,
        gradient_noise,
        weights_reset,
    )
}

PLANTS = DATA | MODEL | LOSS | STEP | LATER | {"optimizer.averaged_weights": stale_average}

ARCHITECTURE = Architecture(
    name="gru", clean=adapt, plants=PLANTS, nonsense=NONSENSE, outside=OUTSIDE
)
