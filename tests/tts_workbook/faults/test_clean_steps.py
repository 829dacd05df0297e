"""Nothing that one train step can show is seen in steps that are right."""

import functools

import pytest

from tests.tts_workbook.diagnosis.test_observe import CLEAN, scheduled, step_with
from tests.tts_workbook.diagnosis.tiny_subject import Tiny, lab, split
from tests.tts_workbook.faults.one_step import findings
from tests.tts_workbook.faults.train_steps import (
    adamw,
    by_frames,
    equally,
    micro_batches,
    over_calls,
    two_backwards,
    value_clipped,
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
