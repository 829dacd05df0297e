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
from tts_workbook.lab.budget import BUDGETS, Budget, choose_budget
from tts_workbook.lab.lab import N_JUDGED, BudgetSpent, Lab, TimeIsUp
from tts_workbook.lab.run_changes import lr_times, no_weight_decay
from tts_workbook.measure.step_work import StepWork

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
    little = Budget("fast", least=16, most=24, course=1.0, total=1.0)
    monkeypatch.setitem(BUDGETS, "fast", (little, little))
    assert 16 <= Lab(subject()).n_steps <= 24


@pytest.mark.parametrize(
    "wanted, said",
    [
        (dict(steps=N_JUDGED - 1), "steps is 15.*16 times"),
        (dict(budget="quick"), "'quick'.*fast, full"),
        (dict(minutes=0.0), "minutes is 0"),
    ],
)
def test_what_cannot_be_is_refused(wanted, said):
    with pytest.raises(WorkbookError, match=said):
        Lab(subject(), **wanted)


# --- the budget ---------------------------------------------------------------------------------


def hurried(bench, total=0.0):
    """A lab whose steps come from a budget that has work for `total` seconds."""
    bench.__dict__["n_steps"], bench.steps = 40, None
    bench.__dict__["budget"] = Budget("fast", least=40, most=40, course=1.0, total=total)
    return bench


def test_no_new_course_is_begun_once_the_steps_are_made():
    bench = hurried(speaker_lab())
    # the first one always is: without it nothing could be said
    base = bench.course()
    with pytest.raises(BudgetSpent, match=r'"weight decay 0".*--budget full.* minutes'):
        bench.course(no_weight_decay())
    assert bench.course() is base and list(bench.courses) == ["as it is"]


@pytest.mark.parametrize("limits", [dict(total=1e9), dict(steps=40)], ids=["enough", "given"])
def test_the_limit_is_the_budgets_alone(limits):
    bench = hurried(speaker_lab(), total=limits.get("total", 0.0))
    bench.steps = limits.get("steps")
    bench.course(), bench.course(no_weight_decay())
    assert len(bench.courses) == 2


def test_a_slow_subject_is_not_given_steps_that_the_budget_does_not_have():
    bench = hurried(speaker_lab(make_optimizer=adam(0.002)))
    assert bench.course().final > 0.5 and not bench.learns and len(bench.courses) == 1


def test_the_work_of_a_step_is_counted_and_not_timed(monkeypatch):
    """The same number whatever the clock says, and the steps of a course follow from it."""
    plain = speaker_lab(steps=None)
    monkeypatch.setattr(laboratory.time, "perf_counter", lambda: 0.0)
    assert speaker_lab(steps=None).step_work == plain.step_work
    # two weight matrices of a batch, forward and backward, and no more than all else may add
    assert plain.step_work.operations > 0
    assert plain.step_work.flops > 4 * plain.n_parameters
    seconds = plain.step_work.seconds
    assert plain.n_steps == max(60, min(200, int(plain.budget.course / seconds)))


def test_budgets_grow_with_the_model():
    small, large = choose_budget("fast", 4_999_999), choose_budget("fast", 5_000_000)
    assert large.total > small.total and large.minutes <= 15
    slow = StepWork(flops=int(9.3e10), operations=10_000)  # hidden 512, 6+6, one clip of 3 s
    assert large.steps_of_a_course(slow) == large.least == 60
    assert large.affords(8 * 60 * slow.seconds, 60 * slow.seconds)
    assert not large.affords(12 * 60 * slow.seconds, 60 * slow.seconds)
    assert choose_budget("full", 60_000_000).least * slow.seconds * 7 < 5_400


def test_the_callers_time_ends_a_course_between_two_steps():
    bench = speaker_lab(minutes=10.0)
    bench.course()
    bench.started -= 3600
    assert bench.time_is_up
    with pytest.raises(TimeIsUp, match="the 10 minutes of --minutes are over"):
        bench.course(no_weight_decay())
    assert list(bench.courses) == ["as it is"]


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
    assert len(said) == 1 and "--budget full" in said[0] and list(bench.courses) == ["as it is"]
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
