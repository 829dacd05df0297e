"""Plateau and collapse are what DESIGN says they are."""

import pytest

from tests.conftest import make_experiment, make_model
from tts_core.training.loop import fit
from tts_core.training.state import start_training
from tts_workbook.measure.trajectory import Trajectory, longest_plateau, record_trajectory


def test_a_plateau_is_fifty_consecutive_steps_within_five_per_cent():
    falling = [2.0] * 10
    assert longest_plateau(falling + [1.04] * 50 + [0.5], 1.0) == (50, 11)
    assert longest_plateau(falling + [1.04] * 49 + [0.5], 1.0) == (0, 0)
    # interrupted
    assert longest_plateau(falling + [0.96] * 30 + [0.9] + [1.0] * 30, 1.0) == (0, 0)
    assert longest_plateau([1.0] * 60 + [2.0] + [1.0] * 80, 1.0) == (80, 62)
    assert longest_plateau([1.06] * 100, 1.0) == (0, 0)


def test_a_slow_learner_that_falls_through_the_band_is_on_no_plateau():
    # 100 steps inside the band, at one pace
    falling = [1.5 - 0.001 * step for step in range(900)]
    assert longest_plateau(falling, 1.0) == (0, 0)
    stalled = (
        [1.5 - 0.005 * step for step in range(90)]
        + [1.049 - 0.0009 * step for step in range(110)]
        + [0.9] * 50
    )
    # the pace falls to a fifth: it stalls
    assert longest_plateau(stalled, 1.0)[0] == 110
    # has not left the band yet: cannot be told
    assert longest_plateau(falling[:520], 1.0)[0] > 0


def test_a_curve_that_crosses_the_line_is_neither_plateau_nor_collapse():
    trajectory = Trajectory(
        best_constant=1.0,
        steps=list(range(1, 91)),
        mel_l1=[2.0 - 0.02 * step for step in range(90)],
        share_steps=list(range(1, 91, 10)),
        shares=[0.01] * 9,
    )
    assert (
        trajectory.plateau == (0, 0)
        and trajectory.plateau_share is None
        and not trajectory.collapsed
    )


@pytest.mark.parametrize("share, collapsed", ((0.05, True), (0.2, False)))
def test_a_collapse_is_a_plateau_with_little_variance_in_time(share, collapsed):
    trajectory = Trajectory(
        best_constant=1.0,
        steps=list(range(1, 61)),
        mel_l1=[1.0] * 60,
        share_steps=[1, 30, 60],
        shares=[0.5, share, 0.5],
    )
    assert trajectory.plateau_share == share and trajectory.collapsed is collapsed


def test_the_share_at_the_line_comes_with_how_near_that_was():
    trajectory = Trajectory(
        best_constant=1.0,
        steps=[1, 2, 3, 4],
        mel_l1=[2.0, 1.5, 1.02, 0.7],
        share_steps=[1, 3, 4],
        shares=[0.9, 0.3, 0.6],
    )
    assert trajectory.at_line == (1.02, 0.3) and trajectory.reached_line
    far = Trajectory(
        best_constant=1.0, steps=[1, 2], mel_l1=[2.0, 1.5], share_steps=[1], shares=[0.9]
    )
    assert far.at_line == (2.0, 0.9) and not far.reached_line


def test_a_resumed_run_is_recorded_with_its_own_step_numbers(batch):
    experiment = make_experiment(steps=6)
    model = make_model(experiment, batch)
    training = fit(start_training(experiment, model), batch, until=3)
    trajectory, on_step = record_trajectory(model, batch, share_every=2)
    fit(training, batch, on_step=on_step)
    assert trajectory.steps == [4, 5, 6] and trajectory.share_steps == [4, 6]
    assert trajectory.at_line[1] in trajectory.shares


def test_recording_changes_no_bit_of_the_training(batch):
    experiment = make_experiment(dropout=0.3, steps=6)
    plain = fit(start_training(experiment, make_model(experiment, batch)), batch)
    model = make_model(experiment, batch)
    trajectory, on_step = record_trajectory(model, batch, share_every=2, snapshot_steps=(3,))
    recorded = fit(start_training(experiment, model), batch, on_step=on_step)
    assert recorded.history == plain.history
    assert trajectory.mel_l1 == [row["mel_l1"] for row in plain.history]
    assert trajectory.share_steps == [1, 2, 3, 4, 6] and trajectory.snapshots[3].shape == (9, 80)
