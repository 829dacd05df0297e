"""Wrong durations always fill the clip; no jitter changes nothing; more jitter moves boundaries
further.
"""

import numpy as np
import pytest
import torch
from hypothesis import given, strategies

from tests.conftest import make_batch, make_experiment, make_model
from tts_core.errors import WorkbookError
from tts_core.model.generation import free_run
from tts_workbook.corpus.alignment_error import (
    boundary_error,
    jitter_durations,
    with_durations,
    with_uniform_durations,
    wrong_durations,
)

HOP = 256 / 22_050
TRUE = np.array([5, 12, 3, 8, 20, 7, 1, 14])


@given(
    strategies.lists(strategies.integers(0, 30), min_size=1, max_size=20),
    strategies.floats(0, 0.5),
    strategies.integers(0, 9),
)
def test_jittered_durations_fill_the_clip_and_are_never_negative(durations, sigma, seed):
    moved = jitter_durations(np.array(durations), HOP, sigma, seed)
    assert len(moved) == len(durations) and moved.sum() == sum(durations) and (moved >= 0).all()
    assert moved.dtype == np.int64


def test_no_jitter_changes_nothing_and_a_seed_says_everything():
    assert np.array_equal(jitter_durations(TRUE, HOP, 0.0, seed=4), TRUE)
    a, b, c = (jitter_durations(TRUE, HOP, 0.04, seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(a, b) and not np.array_equal(a, c)
    with pytest.raises(WorkbookError, match=r"sigma_seconds = -0.1"):
        jitter_durations(TRUE, HOP, -0.1)


def test_the_boundaries_move_as_far_as_the_jitter_says():
    # so far apart that they never change order
    long = np.full(2000, 40)
    moved = np.cumsum(jitter_durations(long, HOP, 0.04))[:-1] - np.cumsum(long)[:-1]
    assert moved.std() * HOP == pytest.approx(0.04, rel=0.05) and abs(moved.mean()) * HOP < 0.003
    mean_distance = 0.04 * np.sqrt(2 / np.pi)
    assert boundary_error(jitter_durations(long, HOP, 0.04), long) * HOP == pytest.approx(
        mean_distance, rel=0.05
    )


def test_boundary_error_of_known_durations():
    assert boundary_error(TRUE, TRUE) == 0.0
    # boundaries 6 and 8 instead of 4 and 8
    assert boundary_error(np.array([6, 2, 4]), np.array([4, 4, 4])) == 1.0
    assert boundary_error(np.array([3]), np.array([3])) == 0.0


def test_every_variant_has_its_label_and_the_frames_of_the_clip():
    wrong = wrong_durations(TRUE, HOP, sigmas_ms=(10, 40))
    assert list(wrong) == [
        "boundaries off by 10 ms",
        "boundaries off by 40 ms",
        "uniform durations",
    ]
    assert all(durations.sum() == TRUE.sum() for durations in wrong.values())
    assert np.ptp(wrong["uniform durations"]) <= 1
    errors = [boundary_error(durations, TRUE) for durations in wrong.values()]
    assert errors[0] < errors[1]


def test_a_batch_with_other_durations_generates_as_many_frames_and_other_ones():
    batch = make_batch([TRUE.tolist()], seed=2)
    model = make_model(make_experiment(), batch)
    right = free_run(model, batch).mel
    assert torch.equal(free_run(model, with_durations(batch, TRUE)).mel, right)
    uniform = wrong_durations(TRUE, HOP)["uniform durations"]
    other = free_run(model, with_durations(batch, uniform)).mel
    assert other.shape == right.shape and (other - right).abs().max() > 1e-3
    for durations in (TRUE[:-1], TRUE + 1, np.array([-5, 22, 3, 8, 20, 7, 1, 14])):
        with pytest.raises(WorkbookError, match="with_durations"):
            with_durations(batch, durations)


def test_a_clip_with_uniform_durations_says_so(librivox):
    clip = librivox.default_clip
    flat = with_uniform_durations(clip)
    assert (
        flat.alignment == "uniform"
        and flat.durations.sum() == len(clip.mel)
        and np.ptp(flat.durations) <= 1
    )
    assert clip.alignment != "uniform" and not np.array_equal(clip.durations, flat.durations)
