"""Faults planted in the optimiser, the precision, the training step and the generation of the GRU
subject.

Ranges that severities are drawn from stand next to each plant.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from benchmarks.planted.gru_twin import (
    CLIP_NORM,
    CharConvGRU,
    CharReader,
    Glance,
    MelData,
    adapt,
    criterion,
    fresh,
    half,
    learning_rate,
    losses_of,
    optimise,
    total,
)
from tts_workbook.faults.planting import Setting
from tts_workbook.subject.subject import Subject, supplied

# --- optimizer ------------------------------------------------------------------------------------


def with_optimizer(setting: Setting, **changes) -> Subject:
    return replace(adapt(setting), make_optimizer=lambda model: optimise(setting, model, **changes))


def lr_too_small(setting: Setting) -> Subject:
    """Learning rate 30 to 3,000 times too small."""
    return with_optimizer(setting, lr=learning_rate(setting) / setting.log_uniform(30, 3000))


def lr_too_large(setting: Setting) -> Subject:
    """Learning rate 50 to 1,000 times too large."""
    return with_optimizer(setting, lr=learning_rate(setting) * setting.log_uniform(50, 1000))


def weight_decay(setting: Setting) -> Subject:
    """Shrinks weights by 5 to 40 % per step (AdamW), or 3 to 30 (Adam) or 0.2 to 2 (SGD) added per
    unit of weight.
    """
    low, high = {"adamw": (25, 200), "adam": (3, 30), "sgd": (0.2, 2)}[setting.optimizer]
    return with_optimizer(setting, decay=setting.log_uniform(low, high))


def clip_too_tight(setting: Setting) -> Subject:
    """Gradient norm clipped at 1e-5 to 1e-3 (SGD); at 1e-10 to 1e-8 under Adam, which divides by it
    down to its eps.
    """
    limit = setting.log_uniform(*((1e-5, 1e-3) if setting.optimizer == "sgd" else (1e-10, 1e-8)))

    def step(model, optimizer, batch) -> dict:
        optimizer.zero_grad()
        terms = losses_of(setting, model, batch)
        terms["total"].backward()
        nn.utils.clip_grad_norm_(model.parameters(), limit)
        optimizer.step()
        return {name: float(term.detach()) for name, term in terms.items()}

    return replace(adapt(setting), train_step=step)


def missing_parameters(setting: Setting) -> Subject:
    """The optimiser never hears of some modules (one to three of those that make the mel), or a
    list hides them.
    """
    dice = setting.random
    if dice.random() < 0.3:

        class Hidden(CharConvGRU):
            def __init__(self, **options) -> None:
                super().__init__(**options)
                layers = [self.to_mel, *self.refine]
                del self.to_mel, self.refine
                self.layers = [layers]  # a list in a list: nn.Module does not look inside

            to_mel = property(lambda self: self.layers[0][0])
            refine = property(lambda self: self.layers[0][1:])

        return adapt(setting, kind=Hidden)
    left_out = [
        ("to_mel",),
        ("speaker", "to_mel"),
        ("reader", "speaker"),
        ("speaker", "refine", "to_mel"),
        ("post_out", "to_mel"),
    ][dice.randrange(5)]
    return replace(
        adapt(setting),
        make_optimizer=lambda model: optimise(
            setting,
            model,
            [p for name, p in model.named_parameters() if not name.startswith(left_out)],
        ),
    )


# --- precision ------------------------------------------------------------------------------------


def low_precision_weights(setting: Setting) -> Subject:
    """All weights in bf16, at the learning rate of the end of a long run (40 to 100 times smaller):
    fp32 weights still learn at it, updates of bf16 weights round away.
    """
    small = learning_rate(setting) / setting.log_uniform(40, 100)

    class InHalf(CharConvGRU):
        def forward(self, batch: dict) -> dict:
            return super().forward(batch | {"mels": batch["mels"].to(self.to_mel.weight.dtype)})

        def say(self, batch, dur, frames, history=None):
            return super().say(
                batch,
                dur,
                frames,
                None if history is None else history.to(self.to_mel.weight.dtype),
            )

    return replace(
        adapt(setting),
        build_model=lambda: fresh(setting, InHalf).bfloat16(),
        make_optimizer=lambda model: optimise(setting, model, lr=small),
    )


def in_fp16(setting: Setting, model: nn.Module, batch: dict) -> dict[str, Tensor]:
    with torch.autocast("cpu", torch.float16):
        out = model(batch)
    return total(criterion(out, batch))


def mask_overflow(setting: Setting) -> Subject:
    """fp16 autocast, and an additive mask of -1e5 to -1e30 that turns into 0 * -inf."""
    far = torch.tensor(-setting.log_uniform(1e5, 1e30))

    class FarGlance(Glance):
        def hide(self, scores: Tensor, mask: Tensor) -> Tensor:
            return scores + (~mask[:, None]).to(scores.dtype) * far.to(scores.dtype)

    class Far(CharConvGRU):
        glance_kind = FarGlance

    return adapt(setting, kind=Far, losses=functools.partial(in_fp16, setting))


def scaled_step(losses: Callable, scaler: torch.amp.GradScaler, unscale: bool) -> Callable:
    """A training step with a loss scaler, which unscales before the clip or leaves that to
    `scaler.step`.
    """

    def step(model, optimizer, batch) -> dict:
        optimizer.zero_grad()
        terms = losses(model, batch)
        scaler.scale(terms["total"]).backward()
        if unscale:
            scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
        scaler.step(optimizer)
        scaler.update()
        return {name: float(term.detach()) for name, term in terms.items()}

    return step


def scaler_skips(setting: Setting) -> Subject:
    """fp16 autocast with a first loss scale of 2^60 to 2^100 that hardly backs off (0.99 to 0.999 a
    step).
    """
    dice = setting.random
    scale, backoff = 2.0 ** dice.randint(60, 100), dice.uniform(0.99, 0.999)
    losses = functools.partial(in_fp16, setting)
    scaler = torch.amp.GradScaler("cpu", init_scale=scale, backoff_factor=backoff)
    return replace(
        adapt(setting, losses=losses), train_step=scaled_step(losses, scaler, unscale=True)
    )


def clip_before_unscale(setting: Setting) -> Subject:
    """The clip sees scaled gradients: loss scale 2^10 to 2^20 (SGD), 2^28 to 2^40 under Adam, which
    divides by it.
    """
    low, high = (10, 20) if setting.optimizer == "sgd" else (28, 40)
    losses = functools.partial(losses_of, setting)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0 ** setting.random.randint(low, high))
    return replace(adapt(setting), train_step=scaled_step(losses, scaler, unscale=False))


# --- loop -----------------------------------------------------------------------------------------


def no_zero_grad(setting: Setting) -> Subject:
    """Gradients are cleared every 100 to 10,000 steps, as if once per epoch."""
    every, done = round(setting.log_uniform(100, 10_000)), [0]

    def step(model, optimizer, batch) -> dict:
        terms = losses_of(setting, model, batch)
        terms["total"].backward()
        optimizer.step()
        done[0] += 1
        if done[0] % every == 0:
            optimizer.zero_grad()
        return {name: float(term.detach()) for name, term in terms.items()}

    return replace(adapt(setting), train_step=step)


def no_step(setting: Setting) -> Subject:
    """The optimiser waits for 1,000 to 100,000 micro-batches."""
    wait, seen = round(setting.log_uniform(1_000, 100_000)), [0]

    def step(model, optimizer, batch) -> dict:
        optimizer.zero_grad()
        terms = losses_of(setting, model, batch)
        terms["total"].backward()
        nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
        seen[0] += 1
        if seen[0] % wait == 0:
            optimizer.step()
        return {name: float(term.detach()) for name, term in terms.items()}

    return replace(adapt(setting), train_step=step)


def split(batch: dict) -> list[dict]:
    """One batch per clip, each without padding."""
    rows = []
    for i, (n, t) in enumerate(
        zip(batch["txt_len"].tolist(), batch["mel_len"].tolist(), strict=True)
    ):
        row = {name: part[i : i + 1] for name, part in batch.items()}
        rows.append(
            row | {"txt": row["txt"][:, :n], "dur": row["dur"][:, :n], "mels": row["mels"][..., :t]}
        )
    return rows


def accumulation(setting: Setting) -> Subject:
    """Clip by clip, the losses added up where their mean is wanted, and times 2 to 8, the steps of
    an accumulation that should have been divided by.
    """
    weight = setting.log_uniform(2, 8)

    def step(model, optimizer, batch) -> dict:
        optimizer.zero_grad()
        sums: dict[str, float] = {}
        for row in split(batch):
            terms = losses_of(setting, model, row)
            (terms["total"] * weight).backward()
            sums = {
                name: sums.get(name, 0.0) + float(term.detach()) for name, term in terms.items()
            }
        optimizer.step()
        return sums

    return replace(adapt(setting), train_step=step)


def checkpointing(setting: Setting) -> Subject:
    """Re-entrant checkpointing around what no gradient enters: character ids (reader), the history
    (pre-net), or both.
    """
    where = setting.random.choice(("reader", "prenet", "both"))

    class SavingReader(CharReader):
        def forward(self, txt: Tensor, txt_len: Tensor) -> Tensor:
            if self.training and torch.is_grad_enabled() and where != "prenet":
                return checkpoint(super().forward, txt, txt_len, use_reentrant=True)
            return super().forward(txt, txt_len)

    class SavingPrenet(nn.Sequential):
        def forward(self, before: Tensor) -> Tensor:
            if self.training and torch.is_grad_enabled() and where != "reader":
                return checkpoint(super().forward, before, use_reentrant=True)
            return super().forward(before)

    class Saving(CharConvGRU):
        reader_kind = SavingReader

        def __init__(self, **options) -> None:
            super().__init__(**options)
            self.prenet = SavingPrenet(*self.prenet)

    return adapt(setting, kind=Saving)


_TRAINED: dict[tuple, dict[str, Tensor]] = {}


def trained_weights(setting: Setting, steps: int = 40) -> dict[str, Tensor]:
    """State of the clean model after a short training, kept per setting; the caller's random state
    stays as it was.
    """
    key = tuple(value for name, value in vars(setting).items() if name != "clips")
    if key not in _TRAINED:
        subject = adapt(setting)
        step = supplied(subject.train_step, "train_step")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(setting.seed)
            model = subject.build_model()
            optimizer = subject.make_optimizer(model)
            for _ in range(steps):
                step(model, optimizer, subject.batch)
        _TRAINED[key] = {name: part.clone() for name, part in model.state_dict().items()}
    return _TRAINED[key]


def weights_not_loaded(setting: Setting) -> Subject:
    """Saved under other names (all of them behind "module.", or one or two parts renamed), loaded
    with strict=False.
    """
    parts = setting.random.choice(
        (("",), ("to_mel.",), ("speaker.",), ("reader.", "to_mel."), ("speaker.", "to_mel."))
    )
    saved = {}
    for name, part in trained_weights(setting).items():
        renamed = next(
            (
                (
                    f"{part_name.rstrip('.')}_v1.{name[len(part_name) :]}"
                    if part_name
                    else f"module.{name}"
                )
                for part_name in parts
                if name.startswith(part_name)
            ),
            name,
        )
        saved[renamed] = part

    def build() -> nn.Module:
        model = fresh(setting)
        model.load_state_dict(saved, strict=False)
        return model

    return replace(adapt(setting), build_model=build, checkpoint=saved)


# --- generation -----------------------------------------------------------------------------------


def exposure_gap(setting: Setting) -> Subject:
    """Nothing wrong in the code: a frame is predicted as the change from the one before (0.98 to 1
    of it is kept), so that the model leans on its history and its own errors add up.
    """
    kept = setting.random.uniform(0.98, 1.0)

    class Leaning(CharConvGRU):
        def frame(self, spoken: Tensor, before: Tensor) -> tuple[Tensor, Tensor]:
            change, stop = super().frame(spoken, before)
            return change + kept * before, stop

    return adapt(setting, kind=Leaning)


def layout(setting: Setting) -> Subject:
    """Generation is told another history: 2 to 6 frames late, not standardised, or without the
    decoder's state.
    """
    dice = setting.random
    kind, late = dice.choice(("late", "units", "state")), dice.randint(2, 6)
    data = MelData(setting)

    class Other(CharConvGRU):
        def fed_back(self, past: list[Tensor], like: Tensor) -> Tensor:
            if kind == "late":
                return super().fed_back(past[: len(past) - late + 1], like)
            before = super().fed_back(past, like)
            return data.unscale(before) if kind == "units" else before

        def speak(self, told: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
            return super().speak(told, None if kind == "state" else state)

    return adapt(setting, data, Other)


def stopping(setting: Setting) -> Subject:
    """The stop label is never set, set everywhere but at the end, or set from the first 5 to 30 %
    of the clip on.
    """
    dice = setting.random
    kind, share = dice.choice(("never", "inverted", "early")), dice.uniform(0.05, 0.3)

    def losses(model, batch) -> dict:
        with half(setting):
            out = model(batch)
        now = torch.arange(out["stop"].shape[1])
        label = (
            {
                "never": now < 0,
                "inverted": now != batch["mel_len"][:, None] - 1,
                "early": now >= share * batch["mel_len"][:, None],
            }[kind]
            .expand_as(out["stop"])
            .float()
        )
        stop = nn.functional.binary_cross_entropy_with_logits(
            out["stop"].float()[out["mask"]], label[out["mask"]]
        )
        return total(criterion(out, batch) | {"stop": stop})

    return adapt(setting, losses=losses)


STEP = {
    f"{area}.{plant.__name__}": plant
    for area, plants in {
        "optimizer": (lr_too_small, lr_too_large, weight_decay, clip_too_tight, missing_parameters),
        "precision": (low_precision_weights, mask_overflow, scaler_skips, clip_before_unscale),
        "loop": (no_zero_grad, no_step, accumulation, checkpointing, weights_not_loaded),
        "generation": (exposure_gap, layout, stopping),
    }.items()
    for plant in plants
}
