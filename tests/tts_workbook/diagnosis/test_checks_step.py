"""Every check of the train step fires on its fault and stays silent on its look-alikes and on clean
steps.
"""

import functools

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from tests.tts_workbook.diagnosis.test_observe import (
    CLEAN,
    gradient_scaler,
    overflowing,
    scheduled,
    step_with,
)
from tests.tts_workbook.diagnosis.tiny_subject import Tiny, lab, losses, sgd, split
from tts_workbook.faults.checks import restart
from tts_workbook.faults.checks.registry import CHECKS

MINE = [
    check
    for check in CHECKS
    if check.run.__module__.rsplit(".", 1)[1] in ("step", "precision", "restart")
]


def findings(bench):
    """Cause -> finding, of all checks of the step."""
    return {finding.cause: finding for check in MINE for finding in check.findings(bench)}


def blamed(bench):
    """Confirmed and suspected causes."""
    return {
        cause
        for cause, finding in findings(bench).items()
        if finding.level in ("confirmed", "suspected")
    }


def only(bench, cause):
    """The finding of `cause`, the only one that is blamed, and confirmed."""
    found = findings(bench)
    assert {
        name for name, finding in found.items() if finding.level in ("confirmed", "suspected")
    } == {cause}
    assert found[cause].level == "confirmed" and found[cause].fix and found[cause].strength > 0
    return found[cause]


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


# --- loop.checkpointing ---------------------------------------------------------------------------


class Checkpointed(Tiny):
    def __init__(self, **options):
        self.options = options
        super().__init__(dropout=0.5)

    def encode(self, text):
        return checkpoint(self.encoder, self.text(text), **self.options)


class Killed(Tiny):
    def encode(self, text):
        return checkpoint(super().encode, text, use_reentrant=True)


@pytest.mark.parametrize("options", [dict(use_reentrant=False), dict(use_reentrant=True)], ids=str)
def test_silent_on_right_checkpointing(options):
    found = findings(lab(build=lambda: Checkpointed(**options)))
    assert {finding.level for finding in found.values()} <= {"excluded", "not applicable"}
    assert found["loop.checkpointing"].evidence["checkpointed calls"] >= 2


@pytest.mark.parametrize(
    "options",
    [
        dict(use_reentrant=False, preserve_rng_state=False),
        dict(use_reentrant=True, preserve_rng_state=False),
    ],
    ids=str,
)
def test_checkpointing_that_draws_another_dropout_mask(options):
    only(lab(build=lambda: Checkpointed(**options)), "loop.checkpointing")


@pytest.mark.filterwarnings("ignore:None of the inputs")
def test_checkpointing_that_kills_gradients():
    finding = only(lab(build=Killed), "loop.checkpointing")
    assert finding.evidence["tensors without gradient"] == 5


# --- loop.weights_not_loaded ----------------------------------------------------------------------


@functools.cache
def trained_state():
    return lab().course().model.state_dict()


def loading(state, strict=False, reset=False):
    def build():
        model = Tiny()
        model.load_state_dict(state, strict=strict)
        if reset:
            model.out.reset_parameters()
        return model

    return build


@pytest.mark.parametrize(
    "rename",
    [
        lambda name: f"module.{name}",
        lambda name: name.replace("encoder.", "enc."),
        lambda name: name.replace("out.", "_orig_mod.out."),
    ],
    ids=["all", "encoder", "out"],
)
def test_weights_not_loaded(rename):
    state = {rename(name): value for name, value in trained_state().items()}
    only(lab(build=loading(state), checkpoint=state), "loop.weights_not_loaded")


def test_weights_in_a_nested_file_are_not_loaded():
    only(
        lab(checkpoint={"model": trained_state(), "step": torch.tensor(3)}),
        "loop.weights_not_loaded",
    )


def test_weights_drawn_anew_after_loading():
    finding = only(
        lab(build=loading(trained_state(), reset=True), checkpoint=trained_state()),
        "loop.weights_not_loaded",
    )
    assert finding.where == "out"


def test_a_constant_tensor_proves_no_loading():
    assert restart.arrived(torch.arange(3.0), torch.arange(3.0)) and not restart.arrived(
        torch.arange(3.0), torch.ones(3)
    )
    assert not restart.arrived(torch.ones(3), torch.ones(3))


@pytest.mark.parametrize(
    ("build", "prefix"),
    [
        (Tiny, ""),
        (lambda: loading(trained_state())(), ""),
        (lambda: loading(trained_state())(), "module."),
    ],
    ids=["fresh model", "build loads", "build mends the names"],
)
def test_silent_where_weights_arrive(build, prefix):
    state = {prefix + name: value for name, value in trained_state().items()}
    assert (
        findings(lab(checkpoint=state, build=build))["loop.weights_not_loaded"].level == "excluded"
    )


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
