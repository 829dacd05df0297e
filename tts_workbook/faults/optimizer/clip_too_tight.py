"""optimizer.clip_too_tight: clipping makes the steps too small."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from tts_workbook.bars import Bar
from tts_workbook.faults.cause import Cause
from tts_workbook.faults.optimizer._pace import LAZY, relative_move
from tts_workbook.faults.planting import Build, Setting
from tts_workbook.faults.selection import paired
from tts_workbook.faults.suspect import Suspect
from tts_workbook.lab.lab import Lab
from tts_workbook.lab.run_changes import unclipped
from tts_workbook.measure.observed_steps import observe_steps
from tts_workbook.subject.clip_data import clipped_step
from tts_workbook.subject.subject import Subject

USUAL_CLIP = Bar(
    1.0, convention="the global norm of Pascanu et al. (2013), 1.0 in most TTS recipes"
)
# above this a clip shrinks little
SHRUNK = Bar(0.1, control="the gradient that the loss gives at the same weights")


def propose(lab: Lab) -> Iterable[Suspect]:
    """A clip that shrinks the gradient far below what the loss gives, where steps are small:
    otherwise Adam has undone it.
    """
    seen = observe_steps(lab)
    if 0.0 < seen.clip_factor < SHRUNK and relative_move(lab) < LAZY:
        for change in (unclipped(USUAL_CLIP), unclipped()):
            yield Suspect(
                CAUSE.id,
                change,
                {"gradient at the optimiser over the loss's own": seen.clip_factor},
                "train_step",
            )


def plant(build: Build, setting: Setting) -> Subject:
    """Gradients clipped to a norm of 1e-5 to 1e-3 under SGD; under Adam to 1e-10 to 1e-8, below its
    eps.
    """
    norm = (
        setting.log_uniform(1e-5, 1e-3)
        if setting.optimizer == "sgd"
        else setting.log_uniform(1e-10, 1e-8)
    )
    subject = build(setting)
    return replace(subject, train_step=clipped_step(subject.losses, clip_norm=norm))


CAUSE = Cause(
    id="optimizer.clip_too_tight",
    title="clipping makes the steps too small",
    experiment="clipping off as the one factor, same seeds",
    fix="clip where only rare spikes are hit",
    experiments=(paired("optimizer.clip_too_tight"),),
    propose=propose,
    upstream=10,
    plant=plant,
    plant_needs={"optimizer": "sgd"},  # Adam divides by the norm again
)
