"""How many steps a course has, what happens when the time is over, and whether the subject steps as
the workbook does.
"""

from dataclasses import replace

import pytest
import torch

from tests.tts_workbook.diagnosis.test_observe import step_with
from tests.tts_workbook.diagnosis.tiny_speaker import adam, speaker_lab
from tests.tts_workbook.diagnosis.tiny_subject import Tiny, subject
from tts_core.errors import WorkbookError
from tts_workbook.faults.cause import Decision, Experiment, Telling
from tts_workbook.faults.examine import examine
from tts_workbook.faults.registry import CAUSES
from tts_workbook.lab import lab as laboratory
from tts_workbook.lab.lab import N_JUDGED, BudgetSpent, Lab
from tts_workbook.lab.run_changes import lr_times, no_weight_decay

# --- steps ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [16, 40])
def test_a_course_has_the_steps_that_are_asked_for(steps):
    bench = Lab(subject(), steps=steps)
    assert (
        bench.n_steps == steps
        and bench.course().steps[-1] == steps
        and len(bench.course().steps) == N_JUDGED
    )
    assert bench.course(times=3).steps[-1] == 3 * steps
    assert list(bench.courses) == ["as it is", "as it is, 3 times the steps"]


def test_a_course_is_run_once_and_told_of():
    told = []
    bench = Lab(subject(), steps=16, on_course=lambda name, course: told.append((name, course)))
    first = bench.course(lr_times(2.0))
    assert bench.course(lr_times(2.0)) is first and told == [("learning rate × 2", first)]
    assert bench.course(lr_times(2.0), seed=1) is not first and [name for name, _ in told][1:] == [
        "learning rate × 2, seed 1"
    ]


def test_two_changes_of_one_name_are_two_courses():
    """Both read "learning rate × 1": what is cached is known by id and arguments."""
    bench = Lab(subject(), steps=16)
    first, second = bench.course(lr_times(1.0)), bench.course(lr_times(1.0 + 1e-7))
    assert first is not second and bench.course(lr_times(1.0)) is first
    assert list(bench.courses) == ["learning rate × 1", "learning rate × 1 (2)"]


def test_the_budget_says_the_steps_where_nobody_does(monkeypatch):
    monkeypatch.setitem(laboratory.STEPS, "fast", (16, 24))
    assert 16 <= Lab(subject()).n_steps <= 24


@pytest.mark.parametrize(
    "wanted, said",
    [
        (dict(steps=N_JUDGED - 1), "steps is 15.*16 times"),
        (dict(budget="quick"), "'quick'.*fast, full"),
    ],
)
def test_what_cannot_be_is_refused(wanted, said):
    with pytest.raises(WorkbookError, match=said):
        Lab(subject(), **wanted)


# --- the deadline ---------------------------------------------------------------------------------


def hurried(bench, late=True):
    """A lab whose steps come from its budget, begun long ago."""
    bench.__dict__["n_steps"], bench.steps = 40, None
    bench.started -= 2 * laboratory.DEADLINE["fast"] * late
    return bench


def test_no_new_course_is_begun_after_the_deadline():
    bench = hurried(speaker_lab())
    # the first one always is: without it nothing could be said
    base = bench.course()
    with pytest.raises(BudgetSpent, match=r'"weight decay 0".*budget "full"'):
        bench.course(no_weight_decay())
    assert bench.course() is base and list(bench.courses) == ["as it is"]


@pytest.mark.parametrize(
    "change", [dict(late=False), dict(steps=40)], ids=["in time", "steps are given"]
)
def test_the_deadline_is_the_budgets_alone(change):
    bench = hurried(speaker_lab(), late=change.get("late", True))
    bench.steps = change.get("steps")
    bench.course(), bench.course(no_weight_decay())
    assert len(bench.courses) == 2


def test_a_slow_subject_is_not_given_more_steps_after_the_deadline():
    bench = hurried(speaker_lab(make_optimizer=adam(0.002)))
    assert bench.course().final > 0.5 and not bench.learns and len(bench.courses) == 1


def test_an_experiment_that_breaks_off_is_undecided_and_what_another_says_of_the_cause_stays():
    def out_of_time(lab):
        raise BudgetSpent("no time")

    decided = Experiment(
        lambda lab: 1.0, lambda number: Decision("excluded"), lambda number, decision: Telling("x")
    )
    broken = replace(decided, measure=out_of_time)
    cause = replace(CAUSES["loop.accumulation"], experiments=(broken,))
    found = examine(cause, speaker_lab())
    assert (found.level, found.experiment) == ("undecided", "no time")
    for order in ((broken, decided), (decided, broken)):
        assert examine(replace(cause, experiments=order), speaker_lab()).level == "undecided"
    sure = replace(decided, decide=lambda number: Decision("confirmed"))
    for order in ((broken, sure), (sure, broken)):
        assert examine(replace(cause, experiments=order), speaker_lab()).level == "confirmed"


def test_every_check_survives_the_deadline():
    """Nothing raises, and no cause is confirmed for want of time."""
    bench = hurried(Lab(subject(build=lambda: Tiny().bfloat16(), make_optimizer=adam(3e-4))))
    found = [examine(cause, bench) for cause in CAUSES.values()]
    said = [
        finding.experiment
        for finding in found
        if finding.cause == "precision.low_precision_weights"
    ]
    assert len(said) == 1 and 'budget "full"' in said[0] and list(bench.courses) == ["as it is"]
    assert not [finding for finding in found if finding.level in ("confirmed", "suspected")]


# --- the subject's own step -----------------------------------------------------------------------


def raises(model, optimizer, batch):
    raise ValueError("no such clip")


SAME = {
    "none given": None,
    "the same written out": step_with(clip=1.0),
    "zeroes at the end": step_with(clip=1.0, zero="end"),
    "no clip, which nothing would reach": step_with(),
}
OTHER = {
    "clips lower": step_with(clip=0.1),
    "never zeroes": step_with(clip=1.0, zero="never"),
    "bf16": step_with(clip=1.0, autocast=torch.bfloat16),
    "raises": raises,
}


@pytest.mark.parametrize("name", [*SAME, *OTHER])
def test_a_step_is_the_workbooks_where_it_does_the_same_to_the_last_bit(name):
    bench = Lab(subject(train_step={**SAME, **OTHER}[name]), steps=16)
    assert bench.steps_as_ours == (name in SAME) and not bench.courses
