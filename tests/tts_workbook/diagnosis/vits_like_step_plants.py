"""Faults of the optimiser, the precision and the training loop of both held-out architectures.
Ranges that severities are drawn from stand beside each plant.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from tests.tts_workbook.diagnosis.vits_like_data import SpeechBatch, split
from tests.tts_workbook.diagnosis.vits_like_kit import Kit
from tests.tts_workbook.diagnosis.vits_like_tts import Losses, Step, numbers, optimiser_of
from tts_workbook.faults.planting import Build, Setting, with_groups
from tts_workbook.subject.subject import Subject

# the parts of a subject that judge a model
JUDGED = ("predict_mel", "generate", "infer", "continue_from", "stop")

# --- optimizer ------------------------------------------------------------------------------------


def with_optimizer(kit: Kit, setting: Setting, **changes: Any) -> Subject:
    """The clean subject with another rate, decay or schedule."""
    chosen = {"lr": kit.rate(setting), **changes}

    def make_optimizer(model: nn.Module) -> torch.optim.Optimizer:
        return optimiser_of(setting, list(model.parameters()), **chosen)

    return replace(kit.build(setting), make_optimizer=make_optimizer)


def lr_too_small(kit: Kit, setting: Setting) -> Subject:
    """A rate 50 to 5,000 times too small."""
    return with_optimizer(kit, setting, lr=kit.rate(setting) / setting.log_uniform(50, 5_000))


def lr_too_large(kit: Kit, setting: Setting) -> Subject:
    """A rate 50 to 1,000 times too large."""
    return with_optimizer(kit, setting, lr=kit.rate(setting) * setting.log_uniform(50, 1_000))


def weight_decay(kit: Kit, setting: Setting) -> Subject:
    """AdamW takes 10 to 40 % of each weight at each step; Adam has 3 to 30 times the weight in its
    gradient, SGD 1 to 5 % of it in its step.
    """
    rate = kit.rate(setting)
    severe = setting.random.random()
    decay = {
        "adamw": 0.1 * 4**severe / rate,
        "adam": 3 * 10**severe,
        "sgd": 0.01 * 5**severe / rate,
    }
    return with_optimizer(kit, setting, weight_decay=decay[setting.optimizer])


def clip_too_tight(kit: Kit, setting: Setting) -> Subject:
    """The norm is clipped at 1e-5 to 1e-3 (SGD), or at 1e-10 to 1e-8 under Adam, below its eps."""
    low, high = (1e-5, 1e-3) if setting.optimizer == "sgd" else (1e-10, 1e-8)
    limit = setting.log_uniform(low, high)
    subject = kit.build(setting)
    return replace(subject, train_step=plain_step(subject.losses, clip_norm=limit))


def missing_parameters(kit: Kit, setting: Setting) -> Subject:
    """The optimiser is given the parameters of a list of modules, and some that make the mel are
    not on it.
    """
    forgotten = kit.parts[setting.random.randrange(len(kit.parts))]
    rate = kit.rate(setting)

    def make_optimizer(model: nn.Module) -> torch.optim.Optimizer:
        listed = [
            parameter
            for name, parameter in model.named_parameters()
            if not name.startswith(forgotten)
        ]
        return optimiser_of(setting, listed, rate)

    return replace(kit.build(setting), make_optimizer=make_optimizer)


def schedule(kit: Kit, setting: Setting) -> Subject:
    """The schedule counts steps where epochs were meant (drawn): the rate halves at each of them;
    it has a cosine that ends after 3 to 10; or it goes on at the end of a run of 100,000 steps.
    """
    dice = setting.random
    kind, last = dice.choice(("halves", "cosine", "resumed")), dice.randint(3, 10)

    def factor(step: int) -> float:
        if kind == "halves":
            return 0.5**step
        if kind == "cosine":
            left = max(0.0, 1 - step / last)
            return left**2 * (3 - 2 * left)
        return max(0.0, 1 - (99_997 + step) / 100_000)

    return with_optimizer(kit, setting, factor=factor)


def averaged_weights(kit: Kit, setting: Setting) -> Subject:
    """What speaks is an average of the weights that moves by 1e-5 to 1e-3 at each step, from the
    fresh ones on.
    """
    pace = setting.log_uniform(1e-5, 1e-3)
    subject = kit.build(setting)
    averages: dict[int, tuple[nn.Module, nn.Module]] = {}  # by the model, which is kept beside it

    def train_step(
        model: nn.Module, optimizer: torch.optim.Optimizer, batch: SpeechBatch
    ) -> dict[str, float]:
        if id(model) not in averages:
            averages[id(model)] = (model, copy.deepcopy(model))
        seen = subject.train_step(model, optimizer, batch)
        with torch.no_grad():
            average = averages[id(model)][1]
            for slow, fast in zip(average.parameters(), model.parameters(), strict=True):
                slow.lerp_(fast, pace)
            for slow, fast in zip(average.buffers(), model.buffers(), strict=True):
                slow.copy_(fast)
        return seen

    def judged(model: nn.Module) -> nn.Module:
        return averages.get(id(model), (model, model))[1].train(model.training)

    return replace(subject, train_step=train_step, judged=judged)


# --- precision ------------------------------------------------------------------------------------


def low_precision_weights(kit: Kit, setting: Setting) -> Subject:
    """Every weight is bf16, at the low rate that the setting asks for: fp32 weights learn at it,
    the updates of bf16 weights round away.
    """
    losses = kit.losses(setting, context=torch.autocast("cpu", torch.bfloat16))
    subject = kit.build(setting, losses=losses)

    def build_model() -> nn.Module:
        return subject.build_model().bfloat16()

    def in_bf16(part: Callable[..., Any] | None) -> Callable[..., Any] | None:
        if part is None:
            return None

        def autocast_part(*arguments: Any) -> Any:
            with torch.autocast("cpu", torch.bfloat16):
                return part(*arguments)

        return autocast_part

    parts = {name: in_bf16(getattr(subject, name)) for name in JUDGED}
    return replace(subject, build_model=build_model, **parts)


class HalfNorm(nn.Module):
    """A norm written by hand, in the precision of autocast: x times `gain`, over the root of its
    mean square and `eps`.
    """

    def __init__(self, gain: float, eps: float) -> None:
        super().__init__()
        self.gain, self.eps = gain, eps

    @classmethod
    def drawn(cls, setting: Setting) -> HalfNorm:
        """Squares beyond the range (of numbers of 500 to 5,000), or an eps of 1e-9 to 1e-8 that is
        zero, where padding is zero too.
        """
        dice = setting.random
        if dice.random() < 0.5:
            return cls(gain=500 * 10 ** dice.random(), eps=1e-5)
        return cls(gain=1.0, eps=10 ** dice.uniform(-9, -8))

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_autocast_enabled("cpu"):
            x = x.to(torch.get_autocast_dtype("cpu"))
        x = self.gain * x
        return x * (x.square().mean(dim=-1, keepdim=True) + self.eps).rsqrt()


def half_losses(kit: Kit, setting: Setting) -> Losses:
    """Losses under fp16 autocast."""
    return kit.losses(setting, context=torch.autocast("cpu", torch.float16))


def scaled_step(losses: Any, scaler: torch.amp.GradScaler, clip_norm: float, unscale: bool) -> Step:
    """A step with a loss scaler, which unscales before the clip, or leaves that to the step."""

    def step(
        model: nn.Module, optimizer: torch.optim.Optimizer, batch: SpeechBatch
    ) -> dict[str, float]:
        optimizer.zero_grad()
        terms = losses(model, batch)
        scaler.scale(terms["total"]).backward()
        if unscale:
            scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
        scaler.step(optimizer)
        scaler.update()
        return numbers(terms)

    return step


def scaler_skips(kit: Kit, setting: Setting) -> Subject:
    """fp16 autocast with a loss scale that starts at 2^60 to 2^100 and backs off by 0.1 to 1 % only
    (somebody mistook the factor).
    """
    dice = setting.random
    scaler = torch.amp.GradScaler(
        "cpu", init_scale=2.0 ** dice.randint(60, 100), backoff_factor=dice.uniform(0.99, 0.999)
    )
    subject = kit.build(setting, losses=half_losses(kit, setting))
    step = scaled_step(subject.losses, scaler, kit.clip_norm, unscale=True)
    return replace(subject, train_step=step)


def clip_before_unscale(kit: Kit, setting: Setting) -> Subject:
    """The clip sees gradients that are still scaled: by 2^10 to 2^20 (SGD), or 2^28 to 2^40 under
    Adam, whose eps it takes.
    """
    low, high = (10, 20) if setting.optimizer == "sgd" else (28, 40)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0 ** setting.random.randint(low, high))
    subject = kit.build(setting)
    step = scaled_step(subject.losses, scaler, kit.clip_norm, unscale=False)
    return replace(subject, train_step=step)


# --- loop -----------------------------------------------------------------------------------------


def plain_step(losses: Any, clip_norm: float | None = None) -> Step:
    """Zero, losses, backward, clip, step, for losses of any model."""

    def step(
        model: nn.Module, optimizer: torch.optim.Optimizer, batch: SpeechBatch
    ) -> dict[str, float]:
        optimizer.zero_grad()
        terms = losses(model, batch)
        terms["total"].backward()
        if clip_norm is not None:
            nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
        optimizer.step()
        return numbers(terms)

    return step


def no_zero_grad(kit: Kit, setting: Setting) -> Subject:
    """Gradients are cleared at the end of an epoch of 200 to 20,000 steps. No clip."""
    subject = kit.build(setting)
    return without_zero_grad(subject, round(setting.log_uniform(200, 20_000)))


def without_zero_grad(subject: Subject, every: int) -> Subject:
    done = [0]

    def step(
        model: nn.Module, optimizer: torch.optim.Optimizer, batch: SpeechBatch
    ) -> dict[str, float]:
        terms = subject.losses(model, batch)
        terms["total"].backward()
        optimizer.step()
        done[0] += 1
        if done[0] % every == 0:
            optimizer.zero_grad()
        return numbers(terms)

    return replace(subject, train_step=step)


def no_step(kit: Kit, setting: Setting) -> Subject:
    """The optimiser waits for 1,000 to 50,000 micro-batches."""
    return without_step(kit.build(setting), round(setting.log_uniform(1_000, 50_000)))


def without_step(subject: Subject, wait: int) -> Subject:
    seen = [0]

    def step(
        model: nn.Module, optimizer: torch.optim.Optimizer, batch: SpeechBatch
    ) -> dict[str, float]:
        terms = subject.losses(model, batch)
        (terms["total"] / wait).backward()
        seen[0] += 1
        if seen[0] % wait == 0:
            optimizer.step()
            optimizer.zero_grad()
        return numbers(terms)

    return replace(subject, train_step=step)


def accumulation(kit: Kit, setting: Setting) -> Subject:
    """Clip after clip, and losses are added where their mean is wanted, each 1 to 3 times too heavy
    on top. No clip.
    """
    weight = setting.log_uniform(1, 3)
    subject = kit.build(setting)

    def step(
        model: nn.Module, optimizer: torch.optim.Optimizer, batch: SpeechBatch
    ) -> dict[str, float]:
        optimizer.zero_grad()
        sums: dict[str, float] = {}
        for one in split(batch):
            terms = subject.losses(model, one)
            (weight * terms["total"]).backward()
            for name, value in numbers(terms).items():
                sums[name] = sums.get(name, 0.0) + value
        optimizer.step()
        return sums

    return replace(subject, train_step=step)


_TRAINED: dict[tuple[Any, ...], dict[str, Tensor]] = {}


def trained_state(kit: Kit, setting: Setting, steps: int = 40) -> dict[str, Tensor]:
    """Weights of the clean model after a short training, kept for each setting; the caller's random
    state stays as it was.
    """
    fields = [value for name, value in vars(setting).items() if name != "clips"]
    key = (kit.kind, *fields)
    if key not in _TRAINED:
        subject = kit.build(setting)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(setting.seed)
            model = subject.build_model()
            optimizer = subject.make_optimizer(model)
            for _ in range(steps):
                subject.train_step(model, optimizer, subject.batch)
        _TRAINED[key] = {name: part.clone() for name, part in model.state_dict().items()}
    return _TRAINED[key]


def weights_not_loaded(kit: Kit, setting: Setting) -> Subject:
    """A checkpoint whose names changed (drawn): all behind "module." or "_orig_mod.", or those of
    some parts that were renamed since. Loaded with strict=False.
    """
    dice = setting.random
    wrapper = dice.choice(("module.", "_orig_mod."))
    renamed = kit.parts[dice.randrange(len(kit.parts))]
    everything = dice.random() < 0.4
    saved = {}
    for name, part in trained_state(kit, setting).items():
        if everything:
            saved[wrapper + name] = part
        elif name.startswith(renamed):
            saved["old_" + name] = part
        else:
            saved[name] = part
    subject = kit.build(setting)

    def build_model() -> nn.Module:
        model = subject.build_model()
        model.load_state_dict(saved, strict=False)
        return model

    return replace(subject, build_model=build_model, checkpoint=saved)


def mode_not_restored(kit: Kit, setting: Setting) -> Subject:
    """Drawn: every step ends with a validation that leaves the model in evaluation mode; or what
    judges the model switches it to training first.
    """
    subject = kit.build(setting)
    if setting.random.random() < 0.5:

        def train_step(
            model: nn.Module, optimizer: torch.optim.Optimizer, batch: SpeechBatch
        ) -> dict[str, float]:
            seen = subject.train_step(model, optimizer, batch)
            model.eval()
            with torch.no_grad():
                subject.predict_mel(model, batch)
            return seen

        return replace(subject, train_step=train_step)

    def in_training(part: Callable[..., Any] | None) -> Callable[..., Any] | None:
        if part is None:
            return None
        return lambda model, batch, *others: part(model.train(), batch, *others)

    return replace(subject, **{name: in_training(getattr(subject, name)) for name in JUDGED})


# --- outside the catalogue ------------------------------------------------------------------------


def gradient_reversed(kit: Kit, setting: Setting) -> Subject:
    """A gradient reversal was left in: the gradients of some modules that make the mel point
    uphill.
    """
    subject = kit.build(setting)
    where = kit.parts[setting.random.randrange(len(kit.parts))]

    def build_model() -> nn.Module:
        model = subject.build_model()
        for name, parameter in model.named_parameters():
            if name.startswith(where) and parameter.requires_grad:
                parameter.register_hook(torch.neg)
        return model

    return replace(subject, build_model=build_model)


def weights_restored(kit: Kit, setting: Setting) -> Subject:
    """Every 5 to 15 steps the best weights are restored, and these were noted once, at the first
    step.
    """
    every = setting.random.randint(5, 15)
    subject = kit.build(setting)
    best: dict[str, Any] = {}

    def train_step(
        model: nn.Module, optimizer: torch.optim.Optimizer, batch: SpeechBatch
    ) -> dict[str, float]:
        if best.get("model") is not model:
            best.update(model=model, state=copy.deepcopy(model.state_dict()), done=0)
        seen = subject.train_step(model, optimizer, batch)
        best["done"] += 1
        if best["done"] % every == 0:
            model.load_state_dict(best["state"])
        return seen

    return replace(subject, train_step=train_step)


# --- the second of a pair -------------------------------------------------------------------------


def small_rate_on_top(build: Build, setting: Setting) -> Subject:
    """The optimisers of any subject with a rate 50 to 5,000 times smaller."""
    share = 1 / setting.log_uniform(50, 5_000)
    return with_groups(build(setting), lambda group: group.update(lr=share * group["lr"]))


def decay_on_top(build: Build, setting: Setting) -> Subject:
    """The optimisers of any subject take 10 to 40 % of each weight at each step (AdamW)."""
    share = setting.log_uniform(0.1, 0.4)
    return with_groups(build(setting), lambda group: group.update(weight_decay=share / group["lr"]))


def no_zero_grad_on_top(build: Build, setting: Setting) -> Subject:
    """The step of any subject without clearing gradients."""
    return without_zero_grad(build(setting), round(setting.log_uniform(200, 20_000)))


def no_step_on_top(build: Build, setting: Setting) -> Subject:
    """The step of any subject without the optimiser's."""
    return without_step(build(setting), round(setting.log_uniform(1_000, 50_000)))


ON_TOP = {
    "optimizer.lr_too_small": small_rate_on_top,
    "optimizer.weight_decay": decay_on_top,
    "loop.no_zero_grad": no_zero_grad_on_top,
    "loop.no_step": no_step_on_top,
}

OPTIMIZER = (lr_too_small, lr_too_large, weight_decay, clip_too_tight, missing_parameters)
PRECISION = (low_precision_weights, scaler_skips, clip_before_unscale)
LOOP = (no_zero_grad, no_step, accumulation, weights_not_loaded)
OUTSIDE = (gradient_reversed, weights_restored)
