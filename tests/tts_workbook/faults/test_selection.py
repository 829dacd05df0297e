"""The selection of paired runs: which change is accepted, what its causes say of it, and what a
spent budget leaves standing.
"""

import functools

import pytest

from tests.tts_workbook.diagnosis.test_lab import hurried
from tests.tts_workbook.diagnosis.tiny_speaker import (
    Gain,
    adam,
    blamed,
    findings,
    speaker_lab,
    spoken,
    with_parts,
)
from tests.tts_workbook.faults.judged import JUDGES, PAIRED, tiny_lab
from tts_workbook.faults.registry import CAUSES
from tts_workbook.faults.selection import (
    Accepted,
    OneFactor,
    PairedRun,
    by_preference,
    decide_if_accepted,
    decide_one_factor,
    one_dose_each,
    paired,
    select,
)
from tts_workbook.faults.suspect import Suspect
from tts_workbook.lab.lab import BudgetSpent
from tts_workbook.lab.short_run import Change, Course


@pytest.mark.parametrize(
    "bench",
    [tiny_lab, speaker_lab, functools.partial(speaker_lab, batch=spoken(1.0, 2.5))],
    ids=["tiny", "speaker", "not quite standardised"],
)
def test_nothing_is_suspected_of_a_model_that_learns(bench):
    bench = bench()
    assert not blamed(findings(bench, *JUDGES)) and list(bench.courses) == ["as it is"]


def test_a_slow_subject_that_still_learns_is_given_time():
    """Above the line at the end of its course, below it after three times the steps: no learning
    rate is blamed.
    """
    bench = speaker_lab(make_optimizer=adam(0.002))
    assert not bench.course().learnt and bench.learns
    assert not blamed(findings(bench, *JUDGES)) and set(bench.courses) == {
        "as it is",
        "as it is, 3 times the steps",
    }


# --- which change is accepted ---------------------------------------------------------------------


def course(final):
    """A course that is judged once."""
    return Course((1,), (final,), "", 0.0, 0.0, 0.0, 0.0, None)


def dose(cause, gain, learnt, name):
    """A row of what was tried: its gain, the suspect, and the course it led to."""
    return PairedRun(Suspect(cause, Change(name), {}), gain, course(0.1 if learnt else 0.9))


@pytest.mark.parametrize(
    "rows, wanted",
    [
        ([(0.2, False), (0.25, False)], 0),  # none learns: the mildest that gains nearly the most
        ([(0.1, False), (0.3, False)], 1),  # it does not
        ([(0.1, True), (0.5, True)], 0),  # it learns: no need for more
        ([(0.2, False), (0.1, True)], 1),  # only the stronger learns
        ([(-0.1, False), (-0.2, True)], 0),
    ],
)  # one that learns and loses is no remedy
def test_of_several_doses_the_mildest_that_does(rows, wanted):
    given = [
        dose("optimizer.lr_too_small", gain, learnt, str(number))
        for number, (gain, learnt) in enumerate(rows)
    ]
    other = dose("model.memory_scale", 0.1, False, "other")
    assert one_dose_each([*given, other]) == [given[wanted], other]


@pytest.mark.parametrize(
    "rows, wanted",
    [
        ([("a", 0.5, False), ("b", 0.6, False)], "ab"),  # nearly the most: in their order
        ([("a", 0.3, False), ("b", 0.6, False)], "ba"),
        ([("a", 0.5, False), ("b", 0.8, True)], "ab"),  # a general one counts for less
        ([("a", 0.2, False), ("b", 0.3, False), ("c", 0.6, False)], "cba"),
        ([("a", -0.1, False), ("b", 0.0, False)], "ba"),
        ([], ""),
    ],
)
def test_what_lies_upstream_is_preferred_among_those_that_gain_nearly_the_most(rows, wanted):
    runs = [
        PairedRun(Suspect(name, Change(name), {}, general=general), gain, course(0.9))
        for name, gain, general in rows
    ]
    assert "".join(run.suspect.cause for run in by_preference(runs)) == wanted


def test_causes_are_asked_in_the_order_of_their_place_upstream():
    proposing = [cause for cause in CAUSES.values() if cause.propose is not None]
    assert len({cause.upstream for cause in proposing}) == len(proposing)
    assert [cause.id for cause in sorted(proposing, key=lambda cause: cause.upstream)] == [
        "data.unnormalised_target",
        "model.norm_runaway",
        "model.positions",
        "model.memory_scale",
        "loss.imbalance",
        "model.dropout_always_on",
        "model.bad_initialisation",
        "optimizer.schedule",
        "optimizer.weight_decay",
        "optimizer.clip_too_tight",
        "optimizer.lr_too_small",
        "optimizer.lr_too_large",
        "optimizer.averaged_weights",
        "precision.half_range",
    ]


# --- what it says of one cause --------------------------------------------------------------------

SUSPECT = Suspect("model.memory_scale", Change("quiet"), {"RMS": 9.0}, "memory")
ACCEPTED = Accepted(SUSPECT, 0.4, ("loss.imbalance",), before=course(1.0), after=course(0.6))
TRIED = PairedRun(SUSPECT, 0.02, course(0.98))


@pytest.mark.parametrize(
    "numbers, wanted",
    [
        ((ACCEPTED, TRIED, True), ("confirmed", "memory", 0.4, "removes harm")),
        ((None, TRIED, False), ("excluded", "", 0.0, "gains too little")),
        ((None, TRIED, True), ("excluded", "", 0.0, "gains too little")),
        ((None, None, True), ("excluded", "", 0.0, "in range, learns")),
        ((None, None, False), ("excluded", "", 0.0, "in range")),
    ],
)
def test_the_ends_of_one_factor(numbers, wanted):
    accepted, tried, learns = numbers
    part = OneFactor(accepted, tried, learns, final=0.6)
    decision = decide_one_factor(part)
    assert (decision.level, decision.where, decision.strength, decision.reason) == wanted
    # of a cause that has another experiment to exclude it
    assert decide_if_accepted(part) == (decision if accepted else None)


def test_what_was_accepted_says_beside_what():
    accepted = paired("model.memory_scale")
    part = OneFactor(ACCEPTED, TRIED, True, final=0.6)
    said = accepted.tell(part, accepted.decide(part))
    assert said.experiment == "quiet as the one factor, same seeds, beside loss.imbalance"
    assert said.evidence == {
        "RMS": 9.0,
        "mean TF L1 / best constant before": 1.0,
        "after": 0.6,
        "last TF L1 / best constant before": 1.0,
        "last after": 0.6,
    }


# --- the budget -----------------------------------------------------------------------------------


def test_what_a_deadline_leaves_open_says_so():
    bench = hurried(speaker_lab(make_optimizer=adam(decay=20.0)))
    found = findings(bench, *PAIRED)
    assert set(found) == set(PAIRED) and {finding.level for finding in found.values()} == {
        "undecided"
    }
    assert all("--budget full" in finding.experiment for finding in found.values())


def test_what_was_found_before_the_deadline_stays_found():
    """Two faults: the time is over when the first is decided."""

    def over(name, course):
        if name.endswith(", seed 1") and name != "as it is, seed 1":
            bench.spent += 2e9

    bench = hurried(
        speaker_lab(with_parts(memory=lambda: Gain(100.0)), make_optimizer=adam(decay=20.0)),
        total=1e9,
    )
    bench.on_course = over
    found = findings(bench, *PAIRED)
    first = [cause for cause, finding in found.items() if finding.level == "confirmed"]
    assert first in (["model.memory_scale"], ["optimizer.weight_decay"])
    assert (
        found[first[0]].evidence["after"]
        < found[first[0]].evidence["mean TF L1 / best constant before"]
    )
    rest = [finding for cause, finding in found.items() if cause != first[0]]
    assert {finding.level for finding in rest} == {"undecided"} and all(
        "--budget full" in finding.experiment for finding in rest
    )


def test_what_was_excluded_before_the_deadline_stays_excluded(monkeypatch):
    """The time is over only when a decay is about to be judged in a longer run."""
    bench = speaker_lab(make_optimizer=adam(decay=1.1))
    bench.steps, bench.__dict__["n_steps"] = None, 48
    affords = bench._afford

    def only_short(name, times):
        if times > 1:
            raise BudgetSpent(bench.more_budget)
        return affords(name, times)

    monkeypatch.setattr(bench, "_afford", only_short)
    found = findings(bench, *PAIRED)
    assert found.pop("optimizer.weight_decay").level == "undecided" and {
        finding.level for finding in found.values()
    } == {"excluded"}


def test_what_the_subjects_code_raises_is_a_field_and_keeps_what_was_found(monkeypatch):
    """The second change of two faults cannot be run."""
    bench = speaker_lab(with_parts(memory=lambda: Gain(100.0)), make_optimizer=adam(decay=20.0))
    course_of, told = bench.course, []

    def breaking(*changes, **options):
        if len(told) > 0:
            raise ArithmeticError("no such clip")
        return course_of(*changes, **options)

    monkeypatch.setattr(bench, "course", breaking)
    bench.on_course = lambda name, course: (
        told.append(name) if name.endswith("seed 1") and (name != "as it is, seed 1") else None
    )
    selection = select(bench)
    assert isinstance(selection.cut_short, ArithmeticError) and len(selection.accepted) == 1
    first = selection.accepted[0].suspect.cause
    for cause, finding in findings(bench, *PAIRED).items():
        assert finding.level == ("confirmed" if cause == first else "undecided")
        assert cause == first or finding.experiment.endswith("ArithmeticError: no such clip")
