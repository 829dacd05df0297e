"""generation.exposure_gap is what stays of a gap after a longer training, where nothing else makes
it.
"""

from dataclasses import replace

import pytest
import torch

import tests.tts_workbook.diagnosis.tiny_speaker as tiny
from benchmarks.planted import ours
from benchmarks.planted.architecture import draw_setting
from benchmarks.planted.ours_twin import build
from tests.tts_workbook.diagnosis.tiny_subject import M, Tiny, make_batch, sgd
from tests.tts_workbook.faults.examined import examined, fresh
from tests.tts_workbook.faults.generation.tiny_generation import continued, free_running
from tts_workbook.faults.examine import examine
from tts_workbook.faults.generation import exposure_gap
from tts_workbook.faults.generation.exposure_gap import SelfFedGap, decide
from tts_workbook.faults.registry import CAUSES
from tts_workbook.lab.budget import Budget
from tts_workbook.lab.lab import Lab
from tts_workbook.lab.short_run import Course
from tts_workbook.measure.history_parity import HistoryParity
from tts_workbook.measure.own_history import OwnHistory
from tts_workbook.measure.self_feeding import Drift

CAUSE = "generation.exposure_gap"
SETTING = draw_setting(0, batch_size=2)

# --- how the numbers decide -----------------------------------------------------------------------

HOLDS = HistoryParity({0: 0.0, 1: 0.0}, {0: 0.0, 1: 0.0}, 0.5, 0.0, 0.0, None, 0.0)
BROKEN = replace(HOLDS, difference={0: 0.3, 1: 0.3})


GIVES_ITSELF = OwnHistory(0.0, 0.0, 0.5, 0.0, 0.0)
FED_OTHERWISE = ("undecided", "", 0.0, "fed otherwise")


def drifting(forced, free):
    return Drift({}, forced, free)


def gap(forced=0.2, free=1.2, longer=None, **asked):
    """Of a subject that is fed as in training, unless `asked` says otherwise."""
    known = (
        dict(hears=True, continues=True, from_checkpoint=False, parity=HOLDS, times=3, n_steps=480)
        | asked
    )
    return SelfFedGap(drifting(forced, free), longer=longer, **known)


@pytest.mark.parametrize(
    "numbers, wanted",
    [
        (gap(forced=0.5), ("undecided", "", 0.0, "not learnt")),
        (gap(forced=float("nan")), ("undecided", "", 0.0, "not learnt")),
        (gap(free=0.59), ("excluded", "generate", 0.0, "no gap")),
        # what hears no history does not hear itself
        (gap(hears=False), ("excluded", "generate", 0.0, "hears nothing")),
        (gap(hears=None, continues=False), ("undecided", "", 0.0, "no parity")),
        (gap(continues=False, parity=None), ("undecided", "", 0.0, "no parity")),
        # without that part, generation itself tells
        (gap(continues=False, parity=None, own=replace(GIVES_ITSELF, worst=0.5)), FED_OTHERWISE),
        (gap(continues=False, parity=None, own=replace(GIVES_ITSELF, leaks=0.5)), FED_OTHERWISE),
        (
            gap(continues=False, parity=None, own=GIVES_ITSELF, longer=drifting(0.1, 1.1)),
            ("confirmed", "generate", 0.3, "stays"),
        ),
        (gap(parity=BROKEN), ("undecided", "", 0.0, "fed otherwise")),
        (gap(parity=replace(HOLDS, leaks=None)), ("undecided", "", 0.0, "fed otherwise")),
        (gap(parity=replace(HOLDS, leaks=0.1)), ("undecided", "", 0.0, "fed otherwise")),
        (gap(mend_first=("loss.imbalance",)), ("undecided", "", 0.0, "mend first")),
        (gap(from_checkpoint=True), ("suspected", "generate", 0.3, "of a checkpoint")),
        (gap(free=0.7, from_checkpoint=True), ("undecided", "generate", 0.3, "of a checkpoint")),
        (gap(no_time="over"), ("undecided", "", 0.0, "no time")),
        (gap(longer=drifting(0.1, 1.1)), ("confirmed", "generate", 0.3, "stays")),
        (gap(longer=drifting(0.1, 0.2)), ("excluded", "generate", 0.0, "closes")),
        # it is closing
        (gap(free=1.9, longer=drifting(0.1, 1.1)), ("undecided", "generate", 0.0, "closes")),
        # the longer training broke what was learnt
        (gap(longer=drifting(0.6, 1.1)), ("undecided", "generate", 0.0, "closes")),
    ],
)
def test_decide(numbers, wanted):
    decision = decide(numbers)
    assert (decision.level, decision.where, decision.strength, decision.reason) == wanted


# --- on subjects ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "early, late, wanted",
    (
        ((0.2, 0.4), None, "excluded"),  # clean: no gap
        ((0.7, 1.5), None, "undecided"),  # not learnt
        ((0.2, 0.9), (0.1, 0.2), "excluded"),  # clean, early: the gap closes
        ((0.4, 1.9), (0.1, 1.1), "undecided"),  # it is closing
        ((0.2, 1.2), (0.1, 1.1), "confirmed"),  # it stays
    ),
)
def test_exposure_gap_needs_a_gap_that_longer_training_does_not_close(
    monkeypatch, early, late, wanted
):
    subject = build(draw_setting(0, batch_size=1))
    lab = fresh(subject)
    lab.n_steps = 200
    course = Course((), (), "", 0.0, 0.0, 0.0, 1.0, lab.build())
    monkeypatch.setattr(Lab, "course", lambda self, *changes, **options: course)
    monkeypatch.setattr(
        exposure_gap,
        "measure_drift",
        lambda lab, model: drifting(*(early if model is lab.trained else late)),
    )
    assert examined(subject, CAUSE, lab).level == wanted


def test_exposure_gap_is_not_judged_where_parity_is_broken(monkeypatch):
    monkeypatch.setattr(exposure_gap, "measure_drift", lambda lab, model: drifting(0.1, 1.5))
    for cause in ("generation.layout", "model.no_right_shift"):
        subject = ours.PLANTS[cause](SETTING)
        assert examined(subject, CAUSE, fresh(subject)).level == "undecided"


@pytest.mark.parametrize(
    "confirmed, said",
    [
        ({"model.positions", "data.silence"}, "mend data.silence and model.positions first"),
        ({"loss.imbalance", "generation.stopping", CAUSE}, "mend loss.imbalance first"),
    ],
)
def test_exposure_gap_is_not_judged_where_another_cause_is_confirmed(monkeypatch, confirmed, said):
    """Free running has the true length, whatever the stop head says: nothing to mend first."""
    monkeypatch.setattr(exposure_gap, "measure_drift", lambda lab, model: drifting(0.1, 1.5))
    lab = fresh(build(SETTING))
    lab.n_steps = 200
    entry = examine(CAUSES[CAUSE], lab, confirmed)
    assert entry.level == "undecided" and said in entry.experiment and not lab.courses


def wandering(n_frames=60):
    """Frames that only the frames before foretell: a text of one symbol says nothing of them."""
    mel = torch.randn(2, n_frames, M, generator=torch.Generator().manual_seed(0)).cumsum(1)
    mel = (mel - mel.mean((0, 1))) / mel.std((0, 1))
    return {
        "text": torch.ones(2, n_frames // 2, dtype=torch.long),
        "mel": mel,
        "lengths": torch.tensor([n_frames] * 2),
    }


DRIFT = {
    "frames that nothing but frames foretell": (
        "confirmed",
        2,
        dict(build=Tiny, batch=wandering(), steps=96),
    ),
    "a gap that longer training closes": (
        "excluded",
        2,
        dict(build=Tiny, batch=make_batch(), make_optimizer=sgd),
    ),
    "frames that follow from the text": ("excluded", 1, {}),
}


@pytest.mark.parametrize("name", DRIFT)
def test_drift_of_tiny_models(name):
    """The whole experiment with its longer training."""
    wanted, courses, fields = DRIFT[name]
    bench = tiny.speaker_lab(generate=free_running, continue_from=continued(), **fields)
    entry = examine(CAUSES[CAUSE], bench)
    assert (
        entry.level == wanted
        and len(bench.courses) == courses
        and entry.evidence["TF L1 / best constant"] < 0.5
    )


def test_drift_without_time_for_a_longer_training_says_what_to_run():
    """The budget has no time for it: what was measured stays, and nothing is blamed. Where the
    steps are given, time is no matter.
    """
    enough_for_one = Budget("fast", least=96, most=96, course=1.0, total=0.0)
    levels = {}
    for steps in (None, 96):
        bench = tiny.speaker_lab(
            generate=free_running,
            continue_from=continued(),
            build=Tiny,
            batch=wandering(),
            steps=steps,
        )
        bench.__dict__["n_steps"] = 96
        bench.__dict__["budget"] = enough_for_one
        levels[steps] = examine(CAUSES[CAUSE], bench)
    assert (
        levels[None].level == "undecided"
        and "train 480 steps" in levels[None].experiment
        and "--budget full" in levels[None].experiment
    )
    assert levels[None].evidence["FR L1 / best constant"] > 0.6 and levels[96].level == "confirmed"
