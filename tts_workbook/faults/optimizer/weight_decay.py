"""optimizer.weight_decay: weight decay wins over the gradient."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch

from tts_workbook.bars import Bar
from tts_workbook.faults.cause import Cause, Decision, Experiment, Telling
from tts_workbook.faults.planting import Build, Setting, with_groups
from tts_workbook.faults.selection import MARGIN, paired, select
from tts_workbook.faults.suspect import Suspect
from tts_workbook.lab.lab import LONGER, BudgetSpent, Lab
from tts_workbook.lab.run_changes import no_weight_decay
from tts_workbook.subject.subject import Subject

# share of a weight that decay takes away during a course: below, nobody is asked
DECAYED = Bar(
    0.02, absolute="it only chooses what a paired run tries; a share of a weight has no unit"
)
# a share that is looked into even where the subject learns
HALF = Bar(0.5, absolute="it only chooses what a paired run tries; a share of a weight has no unit")
# a curve that ends higher has come to rest
AT_REST = Bar(0.9, control="the same course after a third of the steps")


def propose(lab: Lab) -> Iterable[Suspect]:
    """Decay that takes a visible share of the weights away during a course."""
    taken = decay_of_a_step(lab) * lab.n_steps
    if taken > DECAYED:
        yield Suspect(
            CAUSE.id,
            no_weight_decay(),
            {"decay over a course, weight decay × lr × steps": taken},
            "make_optimizer",
            always=taken > HALF,
        )


def decay_of_a_step(lab: Lab) -> float:
    """Of the group that decays most: the share of a weight under AdamW, else the weight decay."""
    optimizer = lab.subject.make_optimizer(lab.build())
    is_decoupled = isinstance(optimizer, torch.optim.AdamW)
    decays = []
    for group in optimizer.param_groups:
        decay = group.get("weight_decay", 0.0)
        decays.append(decay * group["lr"] if is_decoupled else decay)
    return max(decays, default=0.0)


# --- a decay that only later holds the model up ---------------------------------------------------


@dataclass(frozen=True)
class LateDecay:
    """A subject that learns beside a decay that can be seen, in a longer course: last values of TF
    L1 over the best constant.
    """

    suspect: Suspect
    own: float  # of the subject's course
    long: float | None = None  # after LONGER times the steps
    twin: float | None = None  # the same without the decay, where the long course came to rest
    out_of_time: str = ""  # what the budget was spent before


def measure_late(lab: Lab) -> LateDecay | None:
    """None where something was accepted, or there is nothing to ask: the subject does not learn, or
    no decay can be seen.
    """
    selection = select(lab)
    decays = [found for found in selection.proposed if found.cause == CAUSE.id and found.always]
    if selection.cut_short is not None or selection.accepted or not decays:
        return None
    base = lab.course()
    if not base.learnt:
        return None
    try:
        long = lab.course(times=LONGER).final
        if long < AT_REST * base.final:
            return LateDecay(decays[0], base.final, long)
        twin = lab.course(decays[0].change, times=LONGER).final
    except BudgetSpent as spent:  # what was tried before stays decided
        return LateDecay(decays[0], base.final, out_of_time=str(spent))
    return LateDecay(decays[0], base.final, long, twin)


def decide_late(numbers: LateDecay | None) -> Decision | None:
    """Pure: the curve comes to rest where its twin's goes on falling."""
    if numbers is None:
        return None
    if numbers.out_of_time:
        return Decision("undecided", reason="out of time")
    if numbers.long is None or numbers.twin is None:
        return None
    gain = numbers.long - numbers.twin
    if gain < MARGIN:
        return None
    return Decision("confirmed", numbers.suspect.where, gain, "comes to rest")


def tell_late(numbers: LateDecay, decision: Decision) -> Telling:
    suspect = numbers.suspect
    if decision.reason == "out of time":
        return Telling(numbers.out_of_time, suspect.evidence)
    assert numbers.long is not None and numbers.twin is not None
    change = suspect.change.name
    return Telling(
        f"{change} as the one factor, same seeds, {LONGER} times the steps",
        {
            **suspect.evidence,
            "last TF L1 / best constant": numbers.own,
            f"after {LONGER} times the steps": numbers.long,
            f"after {LONGER} times the steps, {change}": numbers.twin,
        },
        mended_by=(suspect.change.key,),
    )


def plant(build: Build, setting: Setting) -> Subject:
    """Weights shrink by 5 to 30 % a step (AdamW, SGD); under Adam the decay is 1 to 30 times the
    weight in the gradient.
    """
    shrink, coupled = setting.log_uniform(0.05, 0.3), setting.log_uniform(1, 30)

    def change(group: dict[str, Any]) -> None:
        group["weight_decay"] = coupled if setting.optimizer == "adam" else shrink / group["lr"]

    return with_groups(build(setting), change)


CAUSE = Cause(
    id="optimizer.weight_decay",
    title="weight decay wins over the gradient",
    experiment="decay 0 as the one factor, same seeds",
    fix="decay near 0.01, without biases and norms",
    experiments=(
        paired("optimizer.weight_decay"),
        Experiment(measure_late, decide_late, tell_late),
    ),
    propose=propose,
    upstream=9,
    plant=plant,
    plant_layers=True,
)
