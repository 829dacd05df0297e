"""Stop head: a perfect one, a constant one, and one that stops too early."""

import math
from dataclasses import replace

import pytest
import torch

from tests.conftest import make_batch, make_experiment
from tests.tts_workbook.measure.own_subjects import own
from tts_core.errors import WorkbookError
from tts_workbook.measure.stop_head import (
    constant_stop_bce,
    last_and_elsewhere,
    measure_stop_head,
    stop_of_clips,
)


def logit(probability):
    return math.log(probability / (1 - probability))


def test_a_perfect_head_has_no_loss_and_stops_at_the_last_frame():
    found = measure_stop_head(torch.tensor([-40.0] * 9 + [40.0]))
    assert found.bce < 1e-12 and found.first_stop == 9
    assert found.at_last == pytest.approx(1.0) and found.largest_elsewhere < 1e-12


def test_a_constant_head_at_the_right_rate_scores_the_constant_loss():
    found = measure_stop_head(torch.full((596,), logit(1 / 596)))
    assert found.bce == pytest.approx(found.constant_bce, rel=1e-5)
    assert found.constant_bce == pytest.approx(0.0124, abs=5e-5)  # one positive in 596 frames
    assert found.first_stop is None
    for rate in (0.5, 2):
        assert constant_stop_bce(596) < measure_stop_head(torch.full((596,), logit(rate / 596))).bce


def test_an_early_stop_is_seen_where_it_is():
    logits = torch.full((20,), -5.0)
    logits[7], logits[19] = 2.0, 3.0
    found = measure_stop_head(logits)
    assert found.first_stop == 7 and found.largest_elsewhere == pytest.approx(
        1 / (1 + math.exp(-2))
    )
    assert found.at_last == pytest.approx(1 / (1 + math.exp(-3)))
    expected = (
        18 * math.log1p(math.exp(-5)) + math.log1p(math.exp(2)) + math.log1p(math.exp(-3))
    ) / 20
    assert found.bce == pytest.approx(expected, rel=1e-6)


def test_one_frame_and_what_is_no_clip():
    found = measure_stop_head(torch.tensor([0.0]))
    assert found.constant_bce == 0.0 and found.largest_elsewhere == 0.0 and found.first_stop is None
    for logits in (torch.zeros(2, 3), torch.zeros(0), torch.tensor([0.0, math.nan])):
        with pytest.raises(WorkbookError, match="stop head: logits of shape"):
            measure_stop_head(logits)


def test_the_last_frame_is_that_of_each_clip_and_padding_says_nothing():
    """Clips of 9 and 14 frames in a batch of 14."""
    batch = make_batch([[2, 3, 4], [5, 1, 4, 4]])
    said = torch.full((2, 14), 0.1)
    said[0, 8], said[1, 13], said[1, 4] = 0.6, 0.9, 0.3
    said[0, 9:] = 1.0
    opened = own(make_experiment(), batch)
    opened.subject = replace(opened.subject, stop=lambda model, batch: said)
    first, second = stop_of_clips(opened, opened.model)
    assert (first.at_last, first.largest_elsewhere) == pytest.approx((0.6, 0.1))
    assert (second.at_last, second.largest_elsewhere) == pytest.approx((0.9, 0.3))
    assert first.mean_elsewhere == pytest.approx(0.1)
    assert second.mean_elsewhere == pytest.approx((12 * 0.1 + 0.3) / 13)


def test_a_clip_of_one_frame_has_no_other():
    only = last_and_elsewhere(torch.tensor([0.25]))
    assert (only.at_last, only.largest_elsewhere, only.mean_elsewhere) == (0.25, 0.0, 0.25)
