"""Checks that train: every suspicion's one factor in a paired run, accepted one after another until
the subject learns.
"""

from __future__ import annotations

from collections.abc import Iterable

from tts_workbook.faults.checks.registry import check
from tts_workbook.faults.finding import Finding
from tts_workbook.faults.suspect import Suspect
from tts_workbook.faults.suspects import suspects
from tts_workbook.lab.lab import LONGER, BudgetSpent, Lab
from tts_workbook.lab.short_run import Change, Course

# in best constants, of the mean curve: a change that gains less is not the cause of anything
MARGIN = 0.1
AGAIN = 0.05  # what a second seed has to gain as well
# of the best gain: among changes that gain as much, the one furthest upstream is the cause
NEARLY = 0.7
GENERAL = 0.6  # weight of a general remedy's gain beside a specific one's
# of the value after a third of the steps: a curve that ends higher has come to rest
AT_REST = 0.9
OWN_STEP = Change("the workbook's own step", plain_step=True)
CAUSES = (
    "data.unnormalised_target",
    "model.memory_scale",
    "model.bad_initialisation",
    "model.norm_runaway",
    "loss.imbalance",
    "optimizer.lr_too_small",
    "optimizer.lr_too_large",
    "optimizer.weight_decay",
    "optimizer.clip_too_tight",
)


@check(*CAUSES)
def one_factor_at_a_time(lab: Lab) -> Iterable[Finding]:
    """Greedy forward selection over the suspects; what gains nothing beside what was found is
    excluded.
    """
    base, proposed = lab.course(), suspects(lab)
    open_suspects = [
        suspect
        for suspect in proposed
        if suspect.always or not (lab.learns if suspect.general else base.learnt)
    ]
    # what is learnt is something else, and faster or slower says nothing about the target
    if lab.misled:
        open_suspects = [suspect for suspect in open_suspects if not suspect.general]
    accepted: list[Suspect] = []
    current, tried = base, {}
    while open_suspects:
        best, gain, course = _best(lab, open_suspects, accepted, current, tried)
        if best is None:
            together = _together(lab, open_suspects, accepted, current)
            if together is None:
                break
            best, gain, course = together
        yield _confirmed(lab, best, accepted, current, course, gain)
        accepted.append(best)
        open_suspects = [
            suspect
            for suspect in open_suspects
            if suspect.cause != best.cause
            and ((suspect.always and not suspect.general) or not course.learnt)
        ]
        current = course
    found = {suspect.cause for suspect in accepted}
    decays = [
        suspect
        for suspect in proposed
        if suspect.cause == "optimizer.weight_decay" and suspect.always
    ]
    try:
        late = _late(lab, decays, found)
    except BudgetSpent as spent:  # what was tried before stays decided
        late = Finding("optimizer.weight_decay", "undecided", str(spent), decays[0].evidence)
    if late:
        yield late
        found.add(late.cause)
    for cause in CAUSES:
        if cause not in found:
            yield _absolved(lab, cause, current, tried)


def _best(
    lab: Lab,
    open_suspects: list[Suspect],
    accepted: list[Suspect],
    current: Course,
    tried: dict[str, tuple[float, Suspect]],
) -> tuple[Suspect | None, float, Course]:
    """The suspect furthest upstream among those whose change gains nearly the most, if it gains the
    margin, on two seeds.

    Symptoms gain too where their cause is mended for them: a loud memory of a stack that grows, a
    learning rate of a clip.
    """
    beside, gains = [known.change for known in accepted], []
    for suspect in sorted(open_suspects, key=lambda suspect: suspect.general):
        if suspect.general and any(gain > MARGIN and course.learnt for gain, _, course in gains):
            # a specific change mends it: no need to ask what a learning rate would do
            break
        course, gain = lab.course(*beside, suspect.change), gain_of(lab, suspect, beside, lab.seed)
        if suspect.cause not in tried or gain > tried[suspect.cause][0]:
            tried[suspect.cause] = gain, suspect
        gains.append((gain, suspect, course))
    gains = _one_dose_each(gains)
    best = max(map(_weighed, gains), default=0.0)
    # in the order of the rules
    upstream = [row for row in gains if _weighed(row) >= NEARLY * best]
    for gain, suspect, course in upstream + sorted(
        (row for row in gains if row not in upstream), key=lambda row: -row[0]
    ):
        if gain > MARGIN and gain_of(lab, suspect, beside, lab.seed + 1) > AGAIN:
            return suspect, gain, course
    return None, 0.0, current


def _weighed(row: tuple[float, Suspect, Course]) -> float:
    """The gain; that of a general remedy counts less, for it may drive any fault away by force."""
    gain, suspect, _ = row
    return GENERAL * gain if suspect.general else gain


def _one_dose_each(
    gains: list[tuple[float, Suspect, Course]],
) -> list[tuple[float, Suspect, Course]]:
    """Of several doses of one remedy the mildest that makes the subject learn, else the mildest
    that gains nearly the most.
    """
    chosen: dict[str, tuple[float, Suspect, Course]] = {}
    for row in gains:  # the mildest first
        gain, suspect, course = row
        known = chosen.get(suspect.cause)
        if known is None or (
            not known[2].learnt and ((course.learnt and gain > 0) or known[0] < NEARLY * gain)
        ):
            chosen[suspect.cause] = row
    return list(chosen.values())


def gain_of(lab: Lab, suspect: Suspect, beside: list[Change], seed: int) -> float:
    """Outcome without the suspect's change minus the outcome with it; one that changes the losses
    is compared under the workbook's own step on both sides, for the subject's step has its losses
    inside.
    """
    twin = [OWN_STEP] if suspect.change.losses and not lab.steps_as_ours else []
    return (
        lab.course(*beside, *twin, seed=seed).outcome
        - lab.course(*beside, suspect.change, seed=seed).outcome
    )


def _together(
    lab: Lab, open_suspects: list[Suspect], accepted: list[Suspect], current: Course
) -> tuple[Suspect, float, Course] | None:
    """Faults that hide one another: all specific changes at once, and the one whose removal hurts
    most.
    """
    specific = [suspect for suspect in open_suspects if not suspect.general]
    if len(specific) < 2 or current.learnt:
        return None
    known = [suspect.change for suspect in accepted]
    every = lab.course(*known, *(suspect.change for suspect in specific))
    if current.outcome - every.outcome <= MARGIN:
        return None
    missed = [
        (
            lab.course(
                *known, *(other.change for other in specific if other is not suspect)
            ).outcome
            - every.outcome,
            suspect,
        )
        for suspect in specific
    ]
    gain, suspect = max(missed, key=lambda row: row[0])
    return (suspect, gain, lab.course(*known, suspect.change)) if gain > MARGIN else None


def _late(lab: Lab, decays: list[Suspect], found: set[str]) -> Finding | None:
    """A decay that lets a subject learn at first and then holds it up: the curve comes to rest
    where its twin's goes on falling.
    """
    base = lab.course()
    if found or not decays or not base.learnt:
        return None
    decay, long = decays[0], lab.course(times=LONGER)
    if long.final < AT_REST * base.final:
        return None
    twin = lab.course(decay.change, times=LONGER)
    if long.final - twin.final < MARGIN:
        return None
    return Finding(
        decay.cause,
        "confirmed",
        f"{decay.change.name} as the one factor, same seeds, {LONGER} times the steps",
        {
            **decay.evidence,
            "last TF L1 / best constant": base.final,
            f"after {LONGER} times the steps": long.final,
            f"after {LONGER} times the steps, {decay.change.name}": twin.final,
        },
        decay.where,
        long.final - twin.final,
        mended_by=(decay.change.name,),
    )


def _confirmed(
    lab: Lab, suspect: Suspect, accepted: list[Suspect], before: Course, after: Course, gain: float
) -> Finding:
    beside = f", beside {' and '.join(known.cause for known in accepted)}" if accepted else ""
    return Finding(
        suspect.cause,
        "confirmed",
        f"{suspect.change.name} as the one factor, same seeds{beside}",
        {
            **suspect.evidence,
            "mean TF L1 / best constant before": before.outcome,
            "after": after.outcome,
            "last TF L1 / best constant before": before.final,
            "last after": after.final,
        },
        suspect.where,
        gain,
        mended_by=(suspect.change.name,),
    )


def _absolved(
    lab: Lab, cause: str, current: Course, tried: dict[str, tuple[float, Suspect]]
) -> Finding:
    if cause in tried:
        gain, suspect = tried[cause]
        return Finding(
            cause,
            "excluded",
            f"{suspect.change.name} as the one factor, same seeds",
            {**suspect.evidence, "gain in mean TF L1 / best constant": gain},
        )
    if lab.learns or current.learnt:
        return Finding(
            cause,
            "excluded",
            "nothing about it is out of range, and the subject learns its batch",
            {"last TF L1 / best constant": current.final},
        )
    return Finding(
        cause,
        "excluded",
        "nothing about it is out of range at the start",
        {"last TF L1 / best constant": current.final},
    )
