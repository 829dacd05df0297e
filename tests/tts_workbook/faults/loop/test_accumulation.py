"""loop.accumulation: accumulated gradients differ from those of one big batch."""

import functools

import pytest

from tests.tts_workbook.diagnosis.tiny_subject import Tiny, lab, losses
from tests.tts_workbook.faults.one_step import findings, only
from tests.tts_workbook.faults.train_steps import (
    by_frames,
    equally,
    micro_batches,
    over_calls,
    undivided,
)


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
