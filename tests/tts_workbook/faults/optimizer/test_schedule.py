"""optimizer.schedule: a rate that dies, one that never starts, and schedules that are sound."""

import pytest
import torch

from tests.tts_workbook.diagnosis.test_observe import step_with
from tests.tts_workbook.diagnosis.tiny_speaker import adam, blamed, findings, speaker_lab
from tests.tts_workbook.faults.judged import JUDGES
from tts_workbook.diagnosis.diagnosis_report import merged
from tts_workbook.faults.optimizer._rates import Rates, rates, rates_from
from tts_workbook.faults.optimizer.schedule import Scheduled, decide
from tts_workbook.faults.selection import Accepted, OneFactor, PairedRun
from tts_workbook.faults.suspect import Suspect
from tts_workbook.lab.lab import Lab
from tts_workbook.lab.short_run import Change, Course

CAUSE = "optimizer.schedule"
RATES = ("optimizer.lr_too_small", "optimizer.lr_too_large")
STEPS = 48


def stepped(make_schedule, lr=0.01, made=None):
    """A subject whose train step makes the schedule's step after the optimiser's."""
    schedules = {}

    def make_optimizer(model):
        optimizer = adam(lr)(model)
        schedules[id(optimizer)] = make_schedule(optimizer)
        return optimizer

    def step(model, optimizer, batch):
        step_with()(model, optimizer, batch)
        schedules[id(optimizer)].step()

    return speaker_lab(make_optimizer=make_optimizer, train_step=step, steps=STEPS)


def decaying(gamma):
    return lambda optimizer: torch.optim.lr_scheduler.ExponentialLR(optimizer, gamma)


def by_factor(factor):
    return lambda optimizer: torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


FAULTY = {
    "a decay for epochs, at each step": (decaying(0.75), "falls"),
    "ends at zero": (by_factor(lambda step: float(step < 6)), "falls"),
    "begins at its end": (by_factor(lambda step: 1e-4), "never starts"),
    "is zero from the start": (by_factor(lambda step: 0.0), "never starts"),
    "warms up by epochs": (by_factor(lambda step: (1 + step // 1000) / 4000), "never starts"),
}
SOUND = {
    "steady": by_factor(lambda step: 1.0),
    "warms up within the course": by_factor(lambda step: min(1.0, (1 + step) / 20)),
    "warms up all along": by_factor(lambda step: min(1.0, (1 + step) / STEPS)),
    "halves at the end": by_factor(lambda step: 1.0 if step < 40 else 0.4),
    "cosine over the course": lambda optimizer: torch.optim.lr_scheduler.CosineAnnealingLR(
        optimizer, STEPS
    ),
}


@pytest.mark.parametrize("name", FAULTY)
def test_a_rate_that_is_taken_away_is_the_schedules_fault(name):
    make_schedule, _ = FAULTY[name]
    bench = stepped(make_schedule)
    assert not bench.course().learnt
    found = findings(bench, CAUSE, *JUDGES)
    assert found[CAUSE].level == "confirmed" and found[CAUSE].strength > 0.1
    # a higher rate would only help for a while: it is neither blamed nor ruled out
    small = merged(found.values())
    assert small[0].cause == CAUSE
    level = {finding.cause: finding.level for finding in small}["optimizer.lr_too_small"]
    assert level == "undecided"
    # the held rate is in the paired run: its last step used what the first was to use
    held = next(course for course_name, course in bench.courses.items() if "held" in course_name)
    assert max(held.rates[-1]) == max(held.rates[0]) == 0.01 and held.learnt


@pytest.mark.parametrize("name", SOUND)
def test_a_sound_schedule_is_not_accused(name):
    bench = stepped(SOUND[name])
    assert not blamed(findings(bench, CAUSE, *RATES))


def test_a_rate_that_is_low_without_a_schedule_is_the_rates_fault():
    bench = speaker_lab(make_optimizer=adam(1e-5), steps=STEPS)
    found = findings(bench, CAUSE, *RATES)
    assert blamed(found) == {"optimizer.lr_too_small"} and found[CAUSE].level == "excluded"


def test_a_slow_subject_that_still_warms_up_is_not_judged():
    """A warm-up of 4,000 steps, looked at for 48."""
    bench = stepped(by_factor(lambda step: (1 + step) / 4000))
    found = findings(bench, CAUSE, *RATES)
    assert {found[CAUSE].level, found["optimizer.lr_too_small"].level} == {"undecided"}
    assert "warm-up" in found[CAUSE].experiment


def test_the_rates_are_those_that_each_step_used():
    """Also where a hook sets them for the step alone."""
    bench = stepped(decaying(0.5))
    assert bench.course().rates[:3] == ((0.01,), (0.005,), (0.0025,))
    assert rates(bench).wanted == (0.01,) and rates(bench).peak == 0.01

    def make_optimizer(model):
        optimizer = adam(0.01)(model)

        def before(optimizer, *_):
            optimizer.param_groups[0]["lr"] = 0.002

        def after(optimizer, *_):
            optimizer.param_groups[0]["lr"] = 0.01

        optimizer.register_step_pre_hook(before)
        optimizer.register_step_post_hook(after)
        return optimizer

    assert set(speaker_lab(make_optimizer=make_optimizer, steps=16).course().rates) == {(0.002,)}


# --- every end once -------------------------------------------------------------------------------

STEADY = Rates((1.0,) * 4, (1.0,), (1.0,))
DYING = Rates((1.0, 0.5, 0.1, 0.01), (1.0,), (1.0,))
UNSTARTED = Rates((1e-3,) * 4, (1e-3,), (1.0,))
RISING = Rates((0.1, 0.2, 0.3, 0.4), (0.4,), (1.0,))
HALF = Rates((1.0, 1.0, 1.0, 0.4), (1.0,), (1.0,))
SUSPECT = Suspect(CAUSE, Change("held_rate"), {}, "make_optimizer")
COURSE = Course((1,), (1.0,), "", 0.0, 0.0, 0.0, 0.0, None)
TRIED = PairedRun(SUSPECT, 0.01, COURSE)
ACCEPTED = Accepted(SUSPECT, 0.3, (), COURSE, COURSE)
LEARNS, FAILS = OneFactor(None, None, True, 0.1), OneFactor(None, None, False, 1.0)
VAIN, SPARED = OneFactor(None, TRIED, False, 1.0), OneFactor(None, TRIED, True, 0.1)
MENDS = OneFactor(ACCEPTED, TRIED, True, 0.1)


@pytest.mark.parametrize(
    "seen, held, wanted",
    [
        (Rates(), FAILS, ("undecided", "no step")),
        (DYING, MENDS, ("confirmed", "falls")),
        (UNSTARTED, MENDS, ("confirmed", "never starts")),
        (RISING, FAILS, ("undecided", "warms up")),
        (RISING, LEARNS, ("excluded", "learns")),
        (DYING, VAIN, ("undecided", "held in vain")),
        (DYING, SPARED, ("excluded", "gains too little")),
        (HALF, VAIN, ("excluded", "gains too little")),
        (HALF, LEARNS, ("excluded", "learns")),
        (STEADY, FAILS, ("excluded", "steady")),
    ],
)
def test_the_ends(seen, held, wanted):
    decision = decide(Scheduled(seen, held))
    assert (decision.level, decision.reason) == wanted


def test_groups_are_held_each_at_its_own_peak():
    seen = rates_from([(1.0, 0.0), (0.5, 0.2), (0.1, 0.1)], [1.0, 0.2])
    assert seen.used == (1.0, 0.5, 0.1) and seen.peaks == (1.0, 0.2)


def test_a_planted_schedule_keeps_its_nominal_rate():
    from tts_workbook.faults.optimizer.schedule import plant
    from tts_workbook.faults.planting import Setting

    clean = speaker_lab(steps=STEPS).subject
    for seed in range(3):
        bench = Lab(plant(lambda setting: clean, Setting(seed)), steps=STEPS)
        seen = rates(bench)
        assert seen.wanted == (0.01,) and (seen.dies or seen.never_starts)
