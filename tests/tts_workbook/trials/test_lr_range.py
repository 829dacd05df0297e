"""The range test follows its ramp, pairs each rate with what it left behind, and survives a loss
that breaks.
"""

import dataclasses

import numpy as np
import pytest

from tests.tts_workbook.trials.trial_builders import short_corpus
from tts_core.errors import WorkbookError
from tts_core.metrics.baselines import best_constant_l1
from tts_core.training.losses import losses
from tts_core.training.state import start_training
from tts_workbook.trials import lr_range
from tts_workbook.trials.lr_range import DIVERGED, LrRange, lr_range_test, ramp
from tts_workbook.trials.preset_arm import build_arm


@pytest.fixture
def arm():
    corpus = short_corpus()
    return build_arm("healthy", corpus.clips, corpus.vocabulary, "smoke", device="cpu")


def test_the_ramp_is_exponential_and_ends_where_it_should():
    rates = ramp(5, 1e-4, 1.0)
    assert rates == pytest.approx([1e-4, 1e-3, 1e-2, 1e-1, 1.0])
    for n, low, high in ((1, 1e-4, 1.0), (5, 1.0, 1e-4), (5, 0.0, 1.0)):
        with pytest.raises(WorkbookError, match="rates that rise from above zero"):
            ramp(n, low, high)


def test_each_step_has_its_own_rate_and_a_loss_is_what_it_left_behind(arm, monkeypatch):
    used = []

    def watched(experiment, model, device):
        training = start_training(experiment, model, device)
        step = training.optimizer.step
        training.optimizer.step = lambda *arguments, **options: (
            used.append(training.optimizer.param_groups[0]["lr"]),
            step(*arguments, **options),
        )
        return training

    monkeypatch.setattr(lr_range, "start_training", watched)
    constant = float(best_constant_l1(arm.clip.mel))
    before = float(losses(arm.model, arm.batch)["mel_l1"]) / constant
    found = lr_range_test(arm, 6, 1e-5, 1e-2)
    assert used[:6] == pytest.approx(ramp(6, 1e-5, 1e-2)) and list(found.lrs) == pytest.approx(
        used[:6]
    )
    assert found.start == pytest.approx(before, rel=1e-5) and len(found.losses) == 6
    assert found.losses[0] < found.start and found.losses[-1] < 0.9 * found.start
    assert found.diverged_at is None and found.failed == ""


def test_it_stops_where_the_loss_is_four_times_its_lowest(arm):
    found = lr_range_test(arm, 12, 1e-4, 1e5)
    assert len(found.lrs) == len(found.losses) < 12 and found.diverged_at is not None
    if not found.failed:
        assert (
            found.losses[-1] > DIVERGED * min(found.start, *found.losses)
            and found.diverged_at == found.lrs[-1]
        )
    assert all(
        loss <= DIVERGED * min(found.start, *found.losses[: i + 1])
        for i, loss in enumerate(found.losses[:-1])
    )


def test_a_loss_that_is_not_finite_ends_the_test_and_keeps_its_curve(arm):
    found = lr_range_test(arm, 3, 1e-6, 1e18)  # 1e-6 does little, 1e6 breaks everything
    assert "not finite" in found.failed and found.diverged_at == pytest.approx(1e6)
    assert list(found.lrs) == pytest.approx([1e-6]) and found.losses == pytest.approx(
        [found.start], rel=1e-3
    )


def test_a_model_that_is_broken_before_the_first_step_is_an_error(arm):
    with pytest.raises(WorkbookError, match="not finite"):
        arm.model.mel_projection_out.bias.data.fill_(float("nan"))
        lr_range_test(arm, 4)


def test_the_steepest_fall_is_where_the_curve_falls_most_and_nowhere_where_it_only_rises():
    rates = tuple(ramp(41, 1e-4, 1.0))
    # a step down at 1e-2, in logarithms
    falling = tuple(1 + 1 / (1 + (rate / 1e-2) ** 2) for rate in rates)
    assert LrRange(2.0, rates, falling, None).steepest == pytest.approx(1e-2, rel=0.3)
    assert LrRange(1.0, rates, tuple(1 + rate for rate in rates), None).steepest is None
    assert LrRange(1.0, (1e-3,), (0.5,), None).steepest is None
    jagged = list(falling)
    jagged[3] = 0.97 * jagged[3]  # one step's noise is not a fall
    assert LrRange(2.0, rates, tuple(jagged), None).steepest == pytest.approx(1e-2, rel=0.3)


def test_the_ramp_does_not_change_the_arms_own_budget(arm):
    steps = arm.experiment.fit.steps
    found = lr_range_test(arm, steps + 5, 1e-6, 1e-4)
    assert len(found.lrs) == steps + 5 and arm.experiment.fit.steps == steps
    assert (
        dataclasses.asdict(found).keys() >= {"start", "lrs", "losses"}
        and found.curve()["lrs"] == found.lrs
    )


def test_a_jump_beyond_the_lowest_loss_is_no_fastest_fall():
    lrs = tuple(np.geomspace(1e-5, 1.0, 21))
    # slow down, up, fast down
    fall = np.r_[np.linspace(2.0, 1.0, 11), np.linspace(1.5, 3.0, 5), np.linspace(2.4, 1.5, 5)]
    found = LrRange(2.0, lrs, tuple(fall), None)
    assert found.steepest is not None and found.steepest <= lrs[11]
