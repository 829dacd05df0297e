"""data.duration_sum and data.duration_domain fire on sums that miss and on logarithms taken for
counts.
"""

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.planted import ours
from benchmarks.planted.architecture import draw_setting
from benchmarks.planted.ours_twin import build
from tests.tts_workbook.faults.examined import examined, fresh, level
from tts_workbook.faults.data import duration_domain, duration_sum
from tts_workbook.faults.data.duration_domain import Expanded, Inferred
from tts_workbook.faults.data.duration_sum import Sums
from tts_workbook.measure.duration_head import DurationHead
from tts_workbook.subject import clip_batch

SUM, DOMAIN = "data.duration_sum", "data.duration_domain"


# --- sums -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "numbers, level, strength, reason",
    [
        (Sums((100.0, 51.0), (100, 50), ""), "excluded", 0.0, "add up"),
        (Sums((20.0, 11.0), (100, 50), "expm1"), "excluded", 0.0, "logarithms"),
        (Sums((50.0, 25.0), (100, 50), ""), "undecided", 0.0, "groups"),
        (Sums((33.0, 17.0), (100, 50), ""), "undecided", 0.0, "groups"),
        (Sums((100.0, 52.0), (100, 50), ""), "confirmed", 0.04, "miss"),
        (Sums((300.0, 50.0), (100, 50), ""), "confirmed", 1.0, "miss"),
    ],
)
def test_decide_on_sums(numbers, level, strength, reason):
    decision = duration_sum.decide(numbers)
    assert (decision.level, decision.where, decision.reason) == (level, "durations", reason)
    assert decision.strength == pytest.approx(strength)


@pytest.mark.parametrize("seed", (0, 1))
def test_duration_sum_fires(seed):
    assert level(duration_sum.plant(build, draw_setting(seed)), SUM) == "confirmed"
    assert level(build(draw_setting(0)), SUM) == "excluded"


def test_duration_sum_is_silent_on_logs_one_frame_and_groups_of_frames():
    def given(change):
        return replace(
            build(draw_setting(0)),
            durations=lambda batch: [change(np.array(row)) for row in clip_batch.durations(batch)],
        )

    assert level(given(np.log1p), SUM) == "excluded"
    assert level(given(lambda row: row + (np.arange(len(row)) == 0)), SUM) == "excluded"
    assert level(given(lambda row: row / 3), SUM) == "undecided"


# --- counts and logarithms ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "numbers, wanted",
    [
        (Expanded(100, 100.0, None, "", False, True), None),
        (
            Expanded(100, 20.0, None, "expm1", False, True),
            ("suspected", "durations", 0.0, "logarithms"),
        ),
        (
            Expanded(100, 20.0, 20, "expm1", False, True),
            ("confirmed", "durations", 0.8, "logs as counts"),
        ),
        (
            Expanded(100, 100.0, 20, "", True, False),
            ("confirmed", "durations", 0.8, "logs as counts"),
        ),
        # short, and no logarithm explains it
        (Expanded(100, 100.0, 20, "", False, False), None),
        (
            Expanded(100, 100.0, 99, "", False, False),
            ("excluded", "durations", 0.0, "long enough"),
        ),
        # inference has to tell
        (Expanded(100, 100.0, 99, "", False, True), None),
    ],
)
def test_decide_on_training(numbers, wanted):
    decision = duration_domain.decide_training(numbers)
    said = decision and (decision.level, decision.where, decision.strength, decision.reason)
    assert said == wanted


def head(learnt, taken_for):
    return DurationHead("predictor", learnt, taken_for, 0.1, 0.5, (1.0, 2.0))


@pytest.mark.parametrize(
    "numbers, wanted",
    [
        (Inferred(False, None), None),
        (Inferred(True, None), ("undecided", "", 0.0, "no head")),
        (Inferred(True, head("", "frames")), ("undecided", "", 0.0, "no head")),
        (Inferred(True, head("frames", "")), ("undecided", "", 0.0, "no head")),
        (Inferred(True, head("frames", "frames")), ("excluded", "predictor", 0.0, "one domain")),
        (
            Inferred(True, head("log frames", "frames")),
            ("confirmed", "predictor", 1.0, "two domains"),
        ),
    ],
)
def test_decide_on_inference(numbers, wanted):
    decision = duration_domain.decide_inference(numbers)
    said = decision and (decision.level, decision.where, decision.strength, decision.reason)
    assert said == wanted


def domain_setting(predictor: bool):
    """A setting for which the plant draws the predictor, or the batch."""
    return next(
        setting
        for setting in (draw_setting(seed, batch_size=1) for seed in range(20))
        if (setting.random.random() < 0.5) == predictor
    )


@pytest.mark.parametrize("predictor, where", ((False, "durations"), (True, "duration_predictor")))
def test_duration_domain_fires_in_training_and_in_inference(predictor, where):
    entry = examined(ours.PLANTS[DOMAIN](domain_setting(predictor)), DOMAIN)
    assert entry.level == "confirmed" and entry.where == where


@pytest.mark.parametrize("plant", ("clean", "data.duration_sum"))
def test_duration_domain_is_silent_on_clean_and_on_wrong_sums(plant):
    setting = draw_setting(1, batch_size=1)
    subject = build(setting) if plant == "clean" else ours.PLANTS[plant](setting)
    assert level(subject, DOMAIN) == "excluded"


def test_an_untrained_duration_head_is_not_accused():
    subject = build(draw_setting(1, batch_size=1))
    assert examined(subject, DOMAIN, fresh(subject)).level == "undecided"
