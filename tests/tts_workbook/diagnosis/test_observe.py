"""The observed train step, its switches, and the changes that hold whatever a train step does."""

import functools

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from tests.tts_workbook.diagnosis.tiny_subject import Tiny, lab, losses, make_batch, sgd
from tts_workbook.lab.run_changes import fp32_weights, lr_times, no_weight_decay, unclipped
from tts_workbook.lab.short_run import Change
from tts_workbook.measure.observed_steps import n_checkpointed, observe, observe_steps, reference
from tts_workbook.subject.interventions import (
    in_fp32,
    kept_scalers,
    masks_in_range,
    without_batch_statistics,
    without_checkpointing,
)
from tts_workbook.subject.tensor_math import cosine, difference, factor, tensors_norm


def step_with(clip=None, scaler=None, unscale=True, autocast=None, zero="start"):
    """A train step as users write it."""

    def step(model, optimizer, batch):
        if zero == "start":
            optimizer.zero_grad()
        with torch.autocast("cpu", dtype=autocast or torch.bfloat16, enabled=autocast is not None):
            total = losses(model, batch)["total"]
        (scaler.scale(total) if scaler else total).backward()
        if scaler and unscale:
            scaler.unscale_(optimizer)
        if clip:
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        if scaler:
            scaler.step(optimizer)
            scaler.update()
        else:
            optimizer.step()
        if zero == "end":
            optimizer.zero_grad(set_to_none=False)

    return step


def gradient_scaler(power=16, **options):
    return torch.amp.GradScaler("cpu", init_scale=2.0**power, **options)


CLEAN = {
    "the workbook's": None,
    "plain": step_with(),
    "zeroes at the end": step_with(zero="end"),
    "clips": step_with(clip=0.01),
    "bf16": step_with(autocast=torch.bfloat16),
    "scaler": step_with(scaler=gradient_scaler()),
    "scaler, clips": step_with(scaler=gradient_scaler(), clip=0.01),
}


@pytest.mark.parametrize("name", CLEAN)
def test_clean_steps_give_the_optimiser_the_gradient_of_the_loss(name):
    bench = lab(train_step=CLEAN[name])
    seen, step = observe_steps(bench), observe_steps(bench).step
    tolerance = 0.1 if name == "bf16" else 1e-4
    # a third only where something is left to mark
    n_steps = 2 if name in ("zeroes at the end", "the workbook's") else 3
    assert (seen.n_calls, len(seen.steps), seen.error, seen.finite) == (n_steps, n_steps, "", True)
    assert difference(step.backward, reference(bench)) < tolerance
    assert cosine(step.gradient, reference(bench)) > 0.99
    assert seen.clip_factor == pytest.approx(
        0.01 / tensors_norm(reference(bench).values()) if "clips" in name else 1.0, rel=1e-3
    )
    assert max(map(abs, seen.marks), default=0.0) < 0.1 and seen.leftover == (n_steps == 3)
    assert (
        step.update_ratio > 0
        and all(step.changed.values())
        and step.before_unscale == pytest.approx(1.0)
    )


def test_observing_leaves_scaler_randomness_and_torch_as_they_were():
    scaler = gradient_scaler()
    bench = lab(train_step=step_with(scaler=scaler), build=functools.partial(Tiny, dropout=0.2))
    before, state = vars(scaler).copy(), torch.get_rng_state()
    kind = torch.amp.GradScaler
    patched = [torch.autograd.backward, kind.scale, kind.step, kind.unscale_, kind.update]
    assert observe(bench).n_attempts == 3
    assert (
        scaler.get_scale() == 2.0**16
        and vars(scaler).keys() == before.keys()
        and scaler._scale is None
    )
    assert torch.equal(state, torch.get_rng_state())
    assert patched == [torch.autograd.backward, kind.scale, kind.step, kind.unscale_, kind.update]


def test_a_forced_loss_scale_holds_and_goes():
    scaler = gradient_scaler(power=10, growth_interval=1)
    bench = lab(train_step=step_with(scaler=scaler))
    assert observe(bench, loss_scale=4.0).loss_scales == (4.0, 4.0, 4.0)
    assert (
        observe(bench).loss_scales == (2.0**10, 2.0**11, 2.0**12) and scaler.get_scale() == 2.0**10
    )


def test_checkpointing_in_the_losses_is_counted_where_the_train_step_does_without():
    def checkpointed(model, batch):
        return losses(lambda given: checkpoint(model, given, use_reentrant=False), batch)

    assert n_checkpointed(lab(losses=checkpointed, train_step=step_with())) == 1
    assert n_checkpointed(lab(train_step=step_with())) == 0


def overflowing(power, **options):
    """fp16 gradients behind a scaler."""
    scaler = gradient_scaler(power, **options)

    def step(model, optimizer, batch):
        optimizer.zero_grad()
        scaler.scale(losses(model, batch)["total"]).backward()
        for p in model.parameters():
            p.grad = p.grad.half().float()
        scaler.step(optimizer)
        scaler.update()

    return step


def test_scaler_backoff_is_waited_for():
    """A scale that overflows at first is what a loss scaler is made for."""
    seen = observe_steps(lab(train_step=overflowing(30)))
    assert len(seen.steps) == 3 and 3 < seen.n_calls == seen.n_attempts < 24
    assert cosine(seen.step.gradient, seen.step.backward) > 0.999


@pytest.mark.parametrize("phase", [0, 2])
def test_accumulation_over_calls_is_seen_as_one_step(phase):
    count = {"calls": phase}

    def step(model, optimizer, batch):
        (losses(model, batch)["total"] / 4).backward()
        count["calls"] += 1
        if count["calls"] % 4 == 0:
            optimizer.step()
            optimizer.zero_grad()

    bench = lab(train_step=step)
    seen = observe_steps(bench)
    assert seen.calls_per_step == 4 and seen.step.n_backward == 4 and not seen.leftover
    assert factor(seen.step.gradient, reference(bench)) == pytest.approx(1.0, abs=1e-5)


def test_fused_optimiser_behind_a_scaler():
    bench = lab(
        train_step=step_with(scaler=gradient_scaler(), unscale=False),
        make_optimizer=lambda model: torch.optim.Adam(model.parameters(), lr=1e-3, fused=True),
    )
    assert factor(observe_steps(bench).step.gradient, reference(bench)) == pytest.approx(
        1.0, abs=1e-4
    )


def test_what_the_step_raises_is_kept():
    def step(model, optimizer, batch):
        raise ValueError("no such clip")

    assert "no such clip" in observe_steps(lab(train_step=step)).error


# --- switches -------------------------------------------------------------------------------------


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointing_is_switched_off_however_it_was_imported(reentrant):
    x = torch.randn(3, requires_grad=True)
    with without_checkpointing() as calls:
        y = checkpoint(torch.sin, x, use_reentrant=reentrant)
    assert len(calls) == 1 and torch.equal(torch.autograd.grad(y.sum(), x)[0], x.cos())
    assert "Checkpoint" in str(checkpoint(torch.sin, x, use_reentrant=True).grad_fn)


def test_fp32_by_force():
    layer = nn.Linear(4, 4)
    with in_fp32(), torch.autocast("cpu", dtype=torch.bfloat16):
        made = layer(torch.zeros(1, 4)), torch.zeros(1).half(), torch.zeros(1).to(torch.float16)
        assert {tensor.dtype for tensor in made} == {torch.float32}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert layer(torch.zeros(1, 4)).dtype == torch.bfloat16


def test_masks_are_brought_into_range_and_nothing_else():
    score, mask = torch.full((2, 2), 3.0).half(), torch.tensor([[True, False], [True, True]])
    for masked in (
        lambda: score.masked_fill(mask, -1e9),
        lambda: score + torch.tensor(-1e9).to(score.dtype) * mask,
        lambda: score + torch.where(mask, -1e9, 0.0).half(),
        lambda: score + mask.half() * -1e9,
    ):
        with masks_in_range():
            assert (
                masked().isfinite().all()
                and float(masked()[0, 0]) < -6e4
                and float(masked()[0, 1]) == 3.0
            )
    with masks_in_range():
        assert (score * 60000.0).isinf().all() and torch.full((1,), -1e9).item() == -1e9


def test_batch_norm_without_batch_statistics():
    norm = nn.BatchNorm1d(3)
    x = torch.randn(5, 3)
    with without_batch_statistics():
        assert torch.allclose(norm(x), x, atol=1e-4)
    assert not torch.allclose(norm(x), x, atol=1e-2)


def test_scalers_are_kept():
    scaler = gradient_scaler()
    with kept_scalers():
        scaler.scale(torch.ones(1))
        scaler._scale.fill_(3.0)
    assert scaler.get_scale() == 2.0**16


# --- changes --------------------------------------------------------------------------------------


def weights_after(bench, *changes):
    return torch.cat(
        [p.detach().flatten() for p in bench._run(changes, 0, 5, judged=1).model.parameters()]
    )


def scheduled(model, early=True):
    """SGD with a LambdaLR that starts at 0.25, stepped by the optimiser's own hook."""
    optimizer = sgd(model)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda n: min(1.0, (n + 1) / 4))
    optimizer.register_step_post_hook(lambda *_: schedule.step())
    return optimizer


def late_hooks():
    """A train step that warms up by hooks of its own, registered at its first call, after ours."""

    def step(model, optimizer, batch):
        if not hasattr(optimizer, "warm"):
            optimizer.warm = 0

            def before(optimizer, *_):
                optimizer.warm += 1
                optimizer.nominal = optimizer.param_groups[0]["lr"]
                optimizer.param_groups[0]["lr"] = optimizer.nominal * min(1.0, optimizer.warm / 4)

            def after(optimizer, *_):
                optimizer.param_groups[0]["lr"] = optimizer.nominal

            optimizer.register_step_pre_hook(before)
            optimizer.register_step_post_hook(after)
        step_with()(model, optimizer, batch)

    return step


@pytest.mark.parametrize(
    "fields",
    [{}, {"make_optimizer": scheduled}, {"train_step": late_hooks()}],
    ids=["constant", "LambdaLR", "late hooks"],
)
def test_learning_rate_survives_schedules(fields):
    faster = lab(
        **{
            **fields,
            "make_optimizer": lambda model: _times(fields.get("make_optimizer", sgd)(model), 3.0),
        }
    )
    assert torch.allclose(
        weights_after(lab(**fields), lr_times(3.0)), weights_after(faster), atol=1e-6
    )


def _times(optimizer, factor):
    """The optimiser whose rates were larger from the beginning, also those that a schedule starts
    from.
    """
    for group in optimizer.param_groups:
        for key in ("lr", "initial_lr"):
            if key in group:
                group[key] *= factor
    for hook in optimizer._optimizer_step_post_hooks.values():
        for cell in hook.__closure__ or ():
            cell.cell_contents.base_lrs = [rate * factor for rate in cell.cell_contents.base_lrs]
    return optimizer


def test_weight_decay_is_taken_away_even_where_the_step_sets_it():
    def step(model, optimizer, batch):
        optimizer.param_groups[0]["weight_decay"] = 0.5
        step_with()(model, optimizer, batch)

    assert torch.equal(
        weights_after(lab(train_step=step), no_weight_decay()),
        weights_after(lab(train_step=step_with())),
    )


@pytest.mark.parametrize("scaled", [False, True])
def test_unclipped_gives_the_loss_its_own_gradient(scaled):
    def make(clip):
        return lab(train_step=step_with(clip=clip, scaler=gradient_scaler() if scaled else None))

    change = unclipped()
    assert torch.allclose(weights_after(make(1e-3), change), weights_after(make(None)), atol=1e-6)
    assert not torch.allclose(weights_after(make(1e-3)), weights_after(make(None)), atol=1e-3)
    model = make(1e-3)._run((change,), 0, 2, judged=1).model
    assert not any(p._post_accumulate_grad_hooks for p in model.parameters())


def test_fp32_twin_of_16_bit_weights():
    bench = lab(build=lambda: Tiny().bfloat16())
    twin = bench.course(fp32_weights())
    assert (
        not twin.broke
        and twin.moved > bench.course().moved
        and next(twin.model.parameters()).dtype == torch.float32
    )
    assert (
        isinstance(fp32_weights(casts=True), Change) and make_batch()["mel"].dtype == torch.float32
    )
