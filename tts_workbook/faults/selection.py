"""The selection of paired runs: every suspicion's one factor in a run beside its twin, accepted one
after another until the subject learns.

A suspicion is a rule about numbers at the start; it proposes (`Cause.propose`), and a paired run
decides. All outcomes are teacher-forced L1 over the best constant.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from tts_workbook.bars import Bar
from tts_workbook.faults.cause import Decision, Experiment, Telling
from tts_workbook.faults.loss._identity import loss_is_about
from tts_workbook.faults.suspect import Suspect
from tts_workbook.lab.controls import sham_gain
from tts_workbook.lab.lab import Lab
from tts_workbook.lab.short_run import Change, Course
from tts_workbook.measure.headline import generated, text_use
from tts_workbook.subject.opened import once_per_subject

MARGIN = Bar(
    0.1,
    control="best constants of the subject's own target, of the mean curve: a change that gains"
    " less removes no harm that could be told from the next",
)
AGAIN = Bar(0.05, control="best constants; what a second seed has to gain as well")
OVER_SHAM = Bar(3.0, control="times what a sham intervention gains or loses in this subject")
# of the best gain: among changes that gain as much, the one furthest upstream is the cause
NEARLY = Bar(0.7, control="share of the best gain among the subject's own paired runs")
GENERAL = Bar(0.6, control="weight of a general remedy's gain beside a specific one's")
SOUND = Bar(0.5, control="best constants of the subject's own target; free-running, as the gate")
FREE_SHARE = Bar(0.25, control="share of the free-running error without the change")
DEAF_USE = Bar(
    1.02,
    control="times the teacher-forced error with the right text; below it the text is not used",
)
HEARD_USE = Bar(1.05, control="the same; what a change has to reach that gives the text back")
OWN_STEP = Change("plain_step", (), "the workbook's own step".format, plain_step=True)


# where a cause harms: in the teacher-forced curve, free-running, or in the use of the text
Harm = Literal["curve", "free-running", "text use"]


@dataclass(frozen=True)
class PairedRun:
    """What the change of a suspect gained beside what was accepted before it."""

    suspect: Suspect
    gain: float  # of the outcome
    course: Course  # with the change
    harm: Harm = "curve"  # what the gain is of


@dataclass(frozen=True)
class Accepted:
    """A suspect whose change removes a part of the harm."""

    suspect: Suspect
    gain: float  # of the outcome; where faults hide one another, what is lost without the change
    beside: tuple[str, ...]  # causes that were accepted before it, their changes made too
    before: Course
    after: Course
    harm: Harm = "curve"  # what the gain is of
    # free-running error over the best constant, or text use, before and after; of another harm
    # than the curve's
    states: tuple[float, float] | None = None


@dataclass(frozen=True)
class Selection:
    """Everything that the paired runs said."""

    proposed: tuple[Suspect, ...]  # what lies upstream first
    accepted: tuple[Accepted, ...]
    tried: Mapping[str, PairedRun]  # cause -> its best run, accepted or not
    final: float  # last value of the course with everything that was accepted
    learns: bool  # the subject as it is, or that course
    # why it ended early: the budget is spent, or what the subject's code raised. What was accepted
    # before stays accepted
    cut_short: Exception | None = None

    def of(self, cause: str) -> Accepted | None:
        """How this cause was accepted; None where it was not."""
        return next((found for found in self.accepted if found.suspect.cause == cause), None)


@once_per_subject
def select(lab: Lab) -> Selection:
    """Greedy forward selection over the suspects."""
    search = _Search(lab)
    cut_short: Exception | None = None
    learns = False
    try:
        last = search.run()
        learns = lab.learns or last.learnt
    except Exception as error:  # the subject's code may raise anything
        cut_short = error.with_traceback(None)  # which would hold every model of the search
    return Selection(
        proposed=tuple(search.proposed),
        accepted=tuple(search.accepted),
        tried=search.tried,
        final=search.current.final if search.current is not None else math.nan,
        learns=learns,
        cut_short=cut_short,
    )


def suspects(lab: Lab) -> list[Suspect]:
    """Everything suspicious about the subject at its start, what lies upstream first."""
    # the causes import this file, so that it can know them only now
    from tts_workbook.faults.registry import CAUSES

    found: list[Suspect] = []
    for cause in sorted(CAUSES.values(), key=lambda cause: cause.upstream):
        if cause.propose is not None:
            found += cause.propose(lab)
    return found


class _Search:
    """A selection while it is made."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.proposed: list[Suspect] = []
        self.accepted: list[Accepted] = []
        self.tried: dict[str, PairedRun] = {}
        self.current: Course | None = None  # with everything that was accepted
        self._states: dict[tuple[Harm, int], float] = {}

    def run(self) -> Course:
        """The course with everything that was accepted."""
        self.current = self.lab.course()
        self.proposed = suspects(self.lab)
        open_suspects = self._worth_trying(self.current)
        while open_suspects:
            best = self._best(open_suspects) or self._together(open_suspects)
            if best is None:
                break
            self._accept(best)
            open_suspects = [
                suspect
                for suspect in open_suspects
                if suspect.cause != best.suspect.cause and _stays_open(suspect, best.course)
            ]
        return self.current

    def _worth_trying(self, base: Course) -> list[Suspect]:
        """Those that are tried at all, as the subject is."""
        chosen = []
        for suspect in self.proposed:
            if not suspect.always:
                # asked only here: to know whether a slow subject learns takes a longer course
                learnt = self.lab.learns if suspect.general else base.learnt
                if learnt:
                    continue
            chosen.append(suspect)
        # what is learnt is something else, and faster or slower says nothing about the target
        if loss_is_about(self.lab) in ("its opposite", "something else"):
            chosen = [suspect for suspect in chosen if not suspect.general]
        return chosen

    def _accept(self, best: PairedRun) -> None:
        assert self.current is not None
        beside = tuple(known.suspect.cause for known in self.accepted)
        states = None
        if best.harm != "curve":
            before, after = (
                self._state(best.harm, self.current),
                self._state(best.harm, best.course),
            )
            states = before, after
        self.accepted.append(
            Accepted(
                best.suspect,
                best.gain,
                beside,
                before=self.current,
                after=best.course,
                harm=best.harm,
                states=states,
            )
        )
        self.current = best.course

    @property
    def _beside(self) -> list[Change]:
        return [known.suspect.change for known in self.accepted]

    def _best(self, open_suspects: list[Suspect]) -> PairedRun | None:
        """The suspect furthest upstream among those whose change gains nearly the most, if it gains
        the margin, on two seeds.

        Symptoms gain too where their cause is mended for them: a loud memory of a stack that grows,
        a learning rate of a clip.
        """
        runs: list[PairedRun] = []
        for suspect in sorted(open_suspects, key=lambda suspect: suspect.general):
            mended = any(run.gain > MARGIN and run.course.learnt for run in runs)
            if suspect.general and mended:
                # a specific change mends it: no need to ask what a learning rate would do
                break
            run = self._paired(suspect)
            known = self.tried.get(suspect.cause)
            if known is None or run.gain > known.gain:
                self.tried[suspect.cause] = run
            runs.append(run)
        for run in by_preference(one_dose_each(runs)):
            if run.gain > MARGIN and self._holds(run):
                return run
        return self._beyond_the_curve(runs)

    def _holds(self, run: PairedRun) -> bool:
        """Whether a gain of the curve is more than a sham's, and is there on a second seed."""
        floor = OVER_SHAM * sham_gain(self.lab)
        return run.gain > floor and self._gain(run.suspect, self.lab.seed + 1) > max(AGAIN, floor)

    # --- harm that the teacher-forced curve does not show -----------------------------------------

    def _beyond_the_curve(self, runs: Sequence[PairedRun]) -> PairedRun | None:
        """The specific change that makes the subject sound free-running, or gives the text back,
        where the curve gains too little; on two seeds.
        """
        assert self.current is not None
        candidates = [run for run in runs if not run.suspect.general and run.gain > -MARGIN]
        if not candidates:
            return None
        for harm in self._harms(self.current):
            gains = [
                replace(run, gain=self._state_gain(run, harm), harm=harm) for run in candidates
            ]
            for run in by_preference(gains):
                if run.gain > 0.0 and self._state_holds(run):
                    return run
        return None

    def _harms(self, course: Course) -> list[Harm]:
        """What is wrong with a trained model beside its curve."""
        found: list[Harm] = []
        if (
            self.lab.subject.generate is not None
            and not self._state("free-running", course) < SOUND
        ):
            found.append("free-running")
        reads = self.lab.subject.shuffle_text is not None and course.learnt
        if reads and self._state("text use", course) < DEAF_USE:
            found.append("text use")
        return found

    def _state(self, harm: Harm, course: Course) -> float:
        """Free-running error over the best constant, or text use, of the model of a course; once
        for each.
        """
        key = harm, id(course)
        if key not in self._states:
            measured = (
                self.lab.error(generated(self.lab, course.model))
                if harm == "free-running"
                else text_use(self.lab, course.model)
            )
            self._states[key] = measured
        return self._states[key]

    def _state_gain(self, run: PairedRun, harm: Harm) -> float:
        """What the change of a run gains; 0 where that is no more than another seed makes."""
        assert self.current is not None
        return self._gain_of_states(
            harm, self._state(harm, self.current), self._state(harm, run.course)
        )

    @staticmethod
    def _gain_of_states(harm: Harm, before: float, after: float) -> float:
        if not (math.isfinite(after) and math.isfinite(before)):
            return 0.0
        if harm == "text use":
            return after - before if after > HEARD_USE else 0.0
        gain = before - after
        return gain if gain > FREE_SHARE * before else 0.0

    def _state_holds(self, run: PairedRun) -> bool:
        """The same on a second seed, and more than two seeds differ by without the change."""
        assert self.current is not None
        seed = self.lab.seed + 1
        without = self.lab.course(*self._beside, seed=seed)
        changed = self.lab.course(*self._beside, run.suspect.change, seed=seed)
        before, after = self._state(run.harm, without), self._state(run.harm, changed)
        again = self._gain_of_states(run.harm, before, after)
        noise = abs(before - self._state(run.harm, self.current))
        return min(run.gain, again) > noise

    def _paired(self, suspect: Suspect) -> PairedRun:
        course = self.lab.course(*self._beside, suspect.change)
        return PairedRun(suspect, self._gain(suspect, self.lab.seed), course)

    def _gain(self, suspect: Suspect, seed: int) -> float:
        """Outcome without the suspect's change minus the outcome with it; one that changes the
        losses is compared under the workbook's own step on both sides, for the subject's step has
        its losses inside.
        """
        twin = [OWN_STEP] if suspect.change.losses and not self.lab.steps_as_ours else []
        without = self.lab.course(*self._beside, *twin, seed=seed)
        changed = self.lab.course(*self._beside, suspect.change, seed=seed)
        return without.outcome - changed.outcome

    def _together(self, open_suspects: list[Suspect]) -> PairedRun | None:
        """Faults that hide one another: all specific changes at once, and the one whose removal
        hurts most.
        """
        assert self.current is not None
        specific = [suspect for suspect in open_suspects if not suspect.general]
        if len(specific) < 2 or self.current.learnt:
            return None
        changes = [suspect.change for suspect in specific]
        every = self.lab.course(*self._beside, *changes)
        if self.current.outcome - every.outcome <= MARGIN:
            return None
        missed: list[tuple[float, Suspect]] = []
        for suspect in specific:
            others = [other.change for other in specific if other is not suspect]
            without = self.lab.course(*self._beside, *others)
            missed.append((without.outcome - every.outcome, suspect))
        gain, suspect = max(missed, key=lambda row: row[0])
        if gain <= MARGIN:
            return None
        return PairedRun(suspect, gain, self.lab.course(*self._beside, suspect.change))


def _stays_open(suspect: Suspect, course: Course) -> bool:
    """Whether it is asked again once something was accepted that led to `course`."""
    return (suspect.always and not suspect.general) or not course.learnt


def one_dose_each(runs: Iterable[PairedRun]) -> list[PairedRun]:
    """Of several doses of one remedy the mildest that makes the subject learn, else the mildest
    that gains nearly the most.
    """
    chosen: dict[str, PairedRun] = {}
    for run in runs:  # the mildest first
        known = chosen.get(run.suspect.cause)
        if known is None or _is_better_dose(run, known):
            chosen[run.suspect.cause] = run
    return list(chosen.values())


def _is_better_dose(run: PairedRun, milder: PairedRun) -> bool:
    if milder.course.learnt:
        return False
    makes_it_learn = run.course.learnt and run.gain > 0
    return makes_it_learn or milder.gain < NEARLY * run.gain


def by_preference(runs: Sequence[PairedRun]) -> list[PairedRun]:
    """Those that gain nearly the most, what lies upstream first; then the others by their gain."""
    best = max(map(_weighed, runs), default=0.0)
    nearly = [run for run in runs if _weighed(run) >= NEARLY * best]
    others = [run for run in runs if _weighed(run) < NEARLY * best]
    return nearly + sorted(others, key=lambda run: -run.gain)


def _weighed(run: PairedRun) -> float:
    """The gain; that of a general remedy counts less, for it may drive any fault away by force."""
    return GENERAL * run.gain if run.suspect.general else run.gain


# --- what it says of one cause --------------------------------------------------------------------


@dataclass(frozen=True)
class OneFactor:
    """The part of one cause in the selection."""

    accepted: Accepted | None
    tried: PairedRun | None  # its best run
    learns: bool
    final: float


def paired(cause: str, only_accepted: bool = False) -> Experiment:
    """The experiment of a cause that proposes suspects: what gains nothing beside what was found is
    excluded; with `only_accepted` it says nothing then.
    """
    measure = functools.partial(_measured, cause=cause, only_accepted=only_accepted)
    decide = decide_if_accepted if only_accepted else decide_one_factor
    return Experiment(measure, decide, tell_one_factor)


def _measured(lab: Lab, cause: str, only_accepted: bool) -> OneFactor:
    selection = select(lab)
    accepted = selection.of(cause)
    if selection.cut_short is not None and accepted is None and not only_accepted:
        raise selection.cut_short
    return OneFactor(accepted, selection.tried.get(cause), selection.learns, selection.final)


def decide_one_factor(numbers: OneFactor) -> Decision:
    """Pure: which of the ends it is."""
    if numbers.accepted is not None:
        suspect = numbers.accepted.suspect
        return Decision("confirmed", suspect.where, numbers.accepted.gain, "removes harm")
    if numbers.tried is not None:
        return Decision("excluded", reason="gains too little")
    if numbers.learns:
        return Decision("excluded", reason="in range, learns")
    return Decision("excluded", reason="in range")


def decide_if_accepted(numbers: OneFactor) -> Decision | None:
    """Pure: of a cause that has another experiment to exclude it."""
    return decide_one_factor(numbers) if numbers.accepted is not None else None


def tell_one_factor(numbers: OneFactor, decision: Decision) -> Telling:
    if numbers.accepted is not None:
        return _tell_accepted(numbers.accepted)
    if numbers.tried is not None:
        suspect = numbers.tried.suspect
        return Telling(
            f"{suspect.change.name} as the one factor, same seeds",
            {**suspect.evidence, "gain in mean TF L1 / best constant": numbers.tried.gain},
        )
    experiment = (
        "nothing about it is out of range, and the subject learns its batch"
        if decision.reason == "in range, learns"
        else "nothing about it is out of range at the start"
    )
    return Telling(experiment, {"last TF L1 / best constant": numbers.final})


def _tell_accepted(accepted: Accepted) -> Telling:
    suspect = accepted.suspect
    beside = f", beside {' and '.join(accepted.beside)}" if accepted.beside else ""
    return Telling(
        f"{suspect.change.name} as the one factor, same seeds{beside}",
        {
            **suspect.evidence,
            "mean TF L1 / best constant before": accepted.before.outcome,
            "after": accepted.after.outcome,
            "last TF L1 / best constant before": accepted.before.final,
            "last after": accepted.after.final,
            **_state_evidence(accepted),
        },
        mended_by=(suspect.change.key,),
    )


STATE_NAMES: dict[Harm, str] = {
    "free-running": "FR L1 / best constant",
    "text use": "text use",
}


def _state_evidence(accepted: Accepted) -> dict[str, float | str]:
    if accepted.states is None:
        return {}
    before, after = accepted.states
    name = STATE_NAMES[accepted.harm]
    return {f"{name} before": before, f"{name} after": after}
