"""optimizer.lr_too_large: the learning rate is too large."""

from __future__ import annotations

from collections.abc import Iterable

from tts_workbook.bars import Bar
from tts_workbook.faults.cause import Cause
from tts_workbook.faults.optimizer._pace import YARDSTICK, pace, relative_move
from tts_workbook.faults.optimizer._rates import rates
from tts_workbook.faults.planting import Build, Setting, with_groups
from tts_workbook.faults.selection import paired
from tts_workbook.faults.suspect import Suspect
from tts_workbook.lab.lab import Lab
from tts_workbook.lab.run_changes import lr_times
from tts_workbook.subject.subject import Subject

# of a subject that moves less, no lower rate is tried; sound subjects of six kinds: 0.2 to 4
HARDLY_MOVES = Bar(0.1, control=YARDSTICK)


def propose(lab: Lab) -> Iterable[Suspect]:
    """The learning rate by powers of ten, down where a step moves the weights much."""
    move = relative_move(lab)
    # a course that broke before its first step has no ratio, and is asked; so is one whose loss
    # scaler skips most steps after the first have overshot
    overshot = move == 0.0 and bool(rates(lab).used)
    if move <= HARDLY_MOVES and not overshot:
        return
    for factor in (0.1, 0.01):
        yield Suspect(
            CAUSE.id, lr_times(factor), pace(lab), "make_optimizer", general=True, always=False
        )


def plant(build: Build, setting: Setting) -> Subject:
    """Learning rate 30 to 300 times too large."""
    factor = setting.log_uniform(30, 300)
    return with_groups(build(setting), lambda group: group.update(lr=group["lr"] * factor))


CAUSE = Cause(
    id="optimizer.lr_too_large",
    title="the learning rate is too large",
    experiment="the learning rate lowered as the one factor, same seeds",
    fix="lower the learning rate or warm it up",
    experiments=(paired("optimizer.lr_too_large"),),
    remedy=True,
    propose=propose,
    upstream=12,
    plant=plant,
)
