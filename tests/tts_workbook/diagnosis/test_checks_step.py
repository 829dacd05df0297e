"""Every check of the train step fires on its fault and stays silent on its look-alikes and on clean
steps.
"""

import functools

import pytest
import torch
from torch import nn

from tests.tts_workbook.diagnosis.test_observe import (
    CLEAN,
    gradient_scaler,
    overflowing,
    scheduled,
    step_with,
)
from tests.tts_workbook.diagnosis.tiny_subject import Tiny, lab, losses, sgd, split
from tests.tts_workbook.faults.one_step import blamed, findings, only

# --- clean ----------------------------------------------------------------------------------------


def over_calls(k, divided=True):
    """One optimiser step every k calls."""
    count = {"calls": 0}

    def step(model, optimizer, batch):
        (losses(model, batch)["total"] / (k if divided else 1)).backward()
        count["calls"] += 1
        if count["calls"] % k == 0:
            optimizer.step()
            optimizer.zero_grad()

    return step


def micro_batches(
    weigh, clip=None, zero_inside=False, stepping=False, autocast=False, one_backward=False
):
    """One step over micro-batches of one clip; `weigh(part, batch, k)` is what a part's loss is
    multiplied by.
    """

    def step(model, optimizer, batch):
        optimizer.zero_grad()
        parts, totals = split(batch), []
        for part in parts:
            if zero_inside:
                optimizer.zero_grad()
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
                totals.append(losses(model, part)["total"] * weigh(part, batch, len(parts)))
            if not one_backward:
                totals[-1].backward()
            if stepping:
                optimizer.step()
        if one_backward:
            sum(totals).backward()
        if clip:
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        if not stepping:
            optimizer.step()

    return step


def by_frames(part, batch, k):
    return float(part["lengths"].sum() / batch["lengths"].sum())


def equally(part, batch, k):
    return 1 / k


def undivided(part, batch, k):
    return 1.0


def value_clipped(model, optimizer, batch):
    optimizer.zero_grad()
    losses(model, batch)["total"].backward()
    nn.utils.clip_grad_value_(model.parameters(), 1e-3)
    optimizer.step()


def two_backwards(model, optimizer, batch):
    optimizer.zero_grad()
    total = losses(model, batch)["total"]
    (0.3 * total).backward(retain_graph=True)
    (0.7 * total).backward()
    optimizer.step()


adamw = functools.partial(
    lambda model, **options: torch.optim.AdamW(model.parameters(), lr=1e-2, **options)
)
SILENT = {name: dict(train_step=step) for name, step in CLEAN.items()} | {
    "AdamW with decay": dict(make_optimizer=functools.partial(adamw, weight_decay=0.1)),
    "dropout": dict(build=functools.partial(Tiny, dropout=0.3)),
    "BatchNorm": dict(
        build=functools.partial(Tiny, batch_norm=True), train_step=micro_batches(by_frames)
    ),
    "warm-up": dict(make_optimizer=scheduled),
    "one clip": dict(lengths=(9,)),
    "clips values": dict(train_step=value_clipped),
    "accumulates over calls": dict(train_step=over_calls(4)),
    "accumulates by frames": dict(train_step=micro_batches(by_frames)),
    "accumulates by frames, bf16": dict(train_step=micro_batches(by_frames, autocast=True)),
    "accumulates by frames, clips": dict(train_step=micro_batches(by_frames, clip=1e-3)),
    "adds losses by frames": dict(train_step=micro_batches(by_frames, one_backward=True)),
    "mean of equal clips": dict(train_step=micro_batches(equally), lengths=(12, 12)),
    "two backward passes": dict(train_step=two_backwards),
    "steps at every clip": dict(
        train_step=lambda model, optimizer, batch: [
            step_with()(model, optimizer, part) for part in split(batch)
        ]
    ),
}


@pytest.mark.parametrize("name", SILENT)
def test_silent_on_clean_steps(name):
    found = findings(lab(**SILENT[name]))
    assert {finding.level for finding in found.values()} <= {"excluded", "not applicable"}


# --- loop.no_step ---------------------------------------------------------------------------------


def never_steps(model, optimizer, batch):
    optimizer.zero_grad()
    losses(model, batch)["total"].backward()


def never_steps_or_zeroes(model, optimizer, batch):
    losses(model, batch)["total"].backward()


def zeroes_before_the_step(model, optimizer, batch):
    losses(model, batch)["total"].backward()
    optimizer.zero_grad(set_to_none=False)
    optimizer.step()


def without_gradients(model, optimizer, batch):
    optimizer.zero_grad()
    with torch.no_grad():
        total = losses(model, batch)["total"]
    total.requires_grad_().backward()
    optimizer.step()


def puts_weights_back(model, optimizer, batch):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    step_with()(model, optimizer, batch)
    model.load_state_dict(before)


@pytest.mark.parametrize(
    "step",
    [
        never_steps,
        never_steps_or_zeroes,
        zeroes_before_the_step,
        without_gradients,
        puts_weights_back,
    ],
)
def test_no_step(step):
    only(lab(train_step=step, make_optimizer=adamw), "loop.no_step")


def test_no_step_because_the_optimiser_holds_a_copy():
    finding = only(lab(make_optimizer=lambda model: sgd(Tiny())), "loop.no_step")
    assert finding.where == "make_optimizer"


def test_a_learning_rate_of_zero_is_no_missing_step():
    only(
        lab(make_optimizer=lambda model: torch.optim.SGD(model.parameters(), lr=0.0)),
        "optimizer.lr_too_small",
    )


def test_a_step_that_raises_is_not_blamed():
    def raising(model, optimizer, batch):
        raise ValueError("no such clip")

    found = findings(lab(train_step=raising))
    assert not {
        cause for cause, finding in found.items() if finding.level in ("confirmed", "suspected")
    }


# --- loop.no_zero_grad and loop.accumulation ------------------------------------------------------


def never_zeroes(clip=None):
    return step_with(clip=clip, zero="never")


@pytest.mark.parametrize("clip", [None, 0.01])
def test_no_zero_grad(clip):
    """Clipping hides the growth of the gradient, but not a marker."""
    finding = only(lab(train_step=never_zeroes(clip)), "loop.no_zero_grad")
    growth = finding.evidence["growth of the gradient by the second step"]
    assert growth == pytest.approx(2.0, rel=1e-3) if clip is None else growth < 1.2


@pytest.mark.parametrize("phase", [0, 1, 2])
def test_zeroing_at_every_third_step_is_a_fault_of_accumulation(phase):
    count = {"calls": phase}

    def step(model, optimizer, batch):
        if count["calls"] % 3 == 0:
            optimizer.zero_grad()
        count["calls"] += 1
        losses(model, batch)["total"].backward()
        optimizer.step()

    only(lab(train_step=step), "loop.accumulation")


ACCUMULATION = {
    "undivided": dict(train_step=micro_batches(undivided)),
    "undivided, clipped, bf16": dict(train_step=micro_batches(undivided, clip=1e-3, autocast=True)),
    "undivided over calls": dict(train_step=over_calls(3, divided=False)),
    "undivided, one clip": dict(train_step=micro_batches(undivided), lengths=(9,)),
    "undivided sum of losses": dict(
        train_step=micro_batches(undivided, one_backward=True), lengths=(12, 12)
    ),
    "mean of means": dict(train_step=micro_batches(equally), lengths=(3, 12)),
    "mean of means, BatchNorm": dict(
        train_step=micro_batches(equally),
        lengths=(3, 12),
        build=functools.partial(Tiny, batch_norm=True),
    ),
    "zeroes between the passes": dict(train_step=micro_batches(by_frames, zero_inside=True)),
    "steps at every pass": dict(train_step=micro_batches(by_frames, stepping=True)),
}


@pytest.mark.parametrize("name", ACCUMULATION)
def test_accumulation(name):
    only(lab(**ACCUMULATION[name]), "loop.accumulation")


def test_another_loss_is_no_fault_of_accumulation():
    """The step optimises something else in two passes: nothing here can say which of them is
    right.
    """

    def step(model, optimizer, batch):
        optimizer.zero_grad()
        for _ in range(2):
            (model(batch) ** 2).mean().backward()
        optimizer.step()

    assert findings(lab(train_step=step))["loop.accumulation"].level == "undecided"


# --- optimizer.missing_parameters -----------------------------------------------------------------


def without(*names, lr=None):
    """An optimiser over all parameters but those of the modules `names`, or with those at `lr`."""

    def make(model):
        inside = [p for name, p in model.named_parameters() if name.split(".")[0] in names]
        others = [p for name, p in model.named_parameters() if name.split(".")[0] not in names]
        return torch.optim.SGD(
            [{"params": others}] + ([] if lr is None else [{"params": inside, "lr": lr}]), lr=0.05
        )

    return make


def adam_of_trained(model):
    return torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.02)


class Hidden(Tiny):
    """The output layer sits in a plain list."""

    def __init__(self):
        super().__init__()
        self.heads = [self._modules.pop("out")]

    @property
    def out(self):
        return self.heads[0]


class Off(Tiny):
    def __init__(self, *names):
        super().__init__()
        for name in names:
            getattr(self, name).requires_grad_(False)


@pytest.mark.parametrize(
    ("fields", "where"),
    [
        (dict(make_optimizer=without("encoder")), "encoder"),
        (dict(make_optimizer=without("out", lr=0.0)), "out"),
        (dict(build=Hidden), "heads.0"),
        (
            dict(build=lambda: Off("out", "history"), make_optimizer=adam_of_trained, n_steps=200),
            "",
        ),
    ],
    ids=["not in the optimiser", "learning rate 0", "not registered", "requires_grad off"],
)
def test_missing_parameters(fields, where):
    assert only(lab(**fields), "optimizer.missing_parameters").where == where


def test_gradients_of_missing_parameters_that_nobody_zeroes_are_no_fault_of_their_own():
    """optimizer.zero_grad() leaves what it does not hold: those gradients grow, and no step uses
    them.
    """
    only(
        lab(train_step=step_with(), make_optimizer=without("out", "history", "encoder")),
        "optimizer.missing_parameters",
    )


@pytest.mark.parametrize(
    "fields",
    [
        dict(build=lambda: Off("text"), frozen=("text",)),
        dict(make_optimizer=without("text"), frozen=("text.weight",)),
    ],
    ids=["requires_grad off", "not in the optimiser"],
)
def test_silent_on_declared_frozen(fields):
    assert not blamed(lab(**fields))


def test_fixed_tables_are_not_blamed():
    assert (
        findings(lab(build=lambda: Off("text")))["optimizer.missing_parameters"].level
        == "undecided"
    )


def test_a_second_optimiser_inside_the_step():
    """What moves is optimised, wherever its optimiser lives."""
    others = {}

    def step(model, optimizer, batch):
        other = others.setdefault(id(model), torch.optim.SGD(model.encoder.parameters(), lr=0.05))
        step_with()(model, optimizer, batch)
        other.step()
        other.zero_grad()

    assert not blamed(lab(train_step=step, make_optimizer=without("encoder")))


# --- precision ------------------------------------------------------------------------------------


def test_low_precision_weights():
    make = functools.partial(torch.optim.Adam, lr=3e-4)
    bench = lab(
        build=lambda: Tiny().bfloat16(),
        make_optimizer=lambda model: make(model.parameters()),
        n_steps=300,
    )
    finding = only(bench, "precision.low_precision_weights")
    assert (
        finding.evidence["share of elements that a step changes"]
        < 0.5
        < finding.evidence["share in fp32"]
    )


def test_16_bit_weights_that_learn_are_not_blamed():
    bench = lab(
        build=lambda: Tiny().bfloat16(),
        make_optimizer=lambda model: torch.optim.Adam(model.parameters(), lr=0.02),
    )
    assert not blamed(bench)


class HalfScores(Tiny):
    """fp16 attention, whose fully masked rows overflow."""

    def scores(self, query, memory, mask):
        scores = (query.half() @ memory.half().transpose(1, 2)).float()
        return scores.half() + (~mask[:, None]) * torch.tensor(self.mask_value).to(torch.float16)


def test_mask_overflow():
    """-1e9 becomes -inf in fp16, and 0 × -inf is not a number."""
    finding = only(
        lab(build=functools.partial(HalfScores, mask_value=-1e9)), "precision.mask_overflow"
    )
    assert finding.evidence["finite in fp32"] == finding.evidence["finite with masks in range"] == 1


def test_mask_overflow_that_raises_under_autocast():
    def step(model, optimizer, batch):
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.float16):
            total = losses(model, batch)["total"]
        total.backward()
        optimizer.step()

    only(
        lab(build=functools.partial(Tiny, mask_value=-1e9), train_step=step),
        "precision.mask_overflow",
    )


def test_mask_within_range_is_silent():
    assert not blamed(lab(build=functools.partial(HalfScores, mask_value=-1e4)))


def test_activations_beyond_half_range_are_only_suspected():
    class Loud(Tiny):
        def encode(self, text):
            return ((super().encode(text) * 1e3).half() * 1e3).float()

    found = findings(lab(build=Loud))["precision.mask_overflow"]
    assert found.level == "suspected"


def test_types_that_do_not_fit_are_no_overflow():
    class Mixed(Tiny):
        def encode(self, text):
            return super().encode(text).half() @ torch.ones(16, 16)

    found = findings(lab(build=Mixed))
    assert not {
        cause for cause, finding in found.items() if finding.level in ("confirmed", "suspected")
    }


def test_numbers_that_fp32_cannot_hold_either():
    class Broken(Tiny):
        def encode(self, text):
            return super().encode(text) / 0.0

    assert findings(lab(build=Broken))["precision.mask_overflow"].level == "excluded"


def test_scaler_skips():
    finding = only(lab(train_step=overflowing(60)), "precision.scaler_skips")
    assert (
        finding.evidence["optimiser steps at scale 1"] == 1
        and finding.evidence["optimiser steps"] == 0
    )


def test_a_scaler_that_backs_off_is_silent():
    assert not blamed(lab(train_step=overflowing(30)))


def test_a_mask_that_overflows_behind_a_scaler_is_the_masks_fault():
    only(
        lab(
            build=functools.partial(HalfScores, mask_value=-1e9),
            train_step=step_with(scaler=gradient_scaler()),
        ),
        "precision.mask_overflow",
    )


@pytest.mark.parametrize("power", [8, 16, 30])
def test_clip_before_unscale(power):
    scaled = step_with(clip=0.1, scaler=gradient_scaler(power), unscale=False)
    finding = only(lab(train_step=scaled), "precision.clip_before_unscale")
    assert finding.evidence["norm at unscale_ over that after backward()"] < 0.1


def test_gradients_that_are_never_unscaled_are_not_called_clipped():
    scaler = gradient_scaler(8)

    def step(model, optimizer, batch):
        optimizer.zero_grad()
        scaler.scale(losses(model, batch)["total"]).backward()
        optimizer.step()

    found = findings(lab(train_step=step))
    assert (
        found["precision.clip_before_unscale"].level == "suspected"
        and found["loop.accumulation"].level == "excluded"
    )
