"""What a target looks like beside today's features of its audio."""

import pytest
import torch

from tts_workbook.measure.feature_difference import OTHER, SAME, _difference


def speech(n_frames=80, n_bins=8, seed=0):
    """Frames that follow from one another, of another level in every bin."""
    generator = torch.Generator().manual_seed(seed)
    walk = torch.randn(n_frames, n_bins, generator=generator).cumsum(0)
    return walk - walk.mean(0) + torch.arange(n_bins)


TODAY = speech()


@pytest.mark.parametrize(
    "target, kind, lag",
    [
        (TODAY, "same", 0),
        (TODAY + 1e-3, "same", 0),
        # a centred transform may begin one frame later
        (TODAY[1:], "same", 0),
        (TODAY[:-10], "cut", 0),
        (TODAY[:, :-1], "another number of bins", 0),
        (2.3 * TODAY - 1.0, "scaled", 0),
        (TODAY.roll(15, dims=0), "rolled", 15),
        (TODAY.T.reshape(TODAY.shape), "rearranged", 0),
        (torch.cat([TODAY[:1].expand(9, -1), TODAY[:-9]]), "shifted", 9),
        (speech(seed=1), "other", 0),
    ],
)
def test_a_target_is_told_by_how_it_differs(target, kind, lag):
    found = _difference(target, TODAY)
    assert (found.kind, found.lag) == (kind, lag)
    assert found.size < SAME if kind in ("same", "cut") else found.size > OTHER
    assert (found.scale is not None) == (kind == "scaled")


def test_a_scale_is_the_slope_over_todays_features():
    assert _difference(2.3 * TODAY - 1.0, TODAY).scale == pytest.approx(2.3, rel=1e-3)


def test_the_number_of_frames_is_said_where_it_is_another():
    assert _difference(TODAY[:40], TODAY).frames == pytest.approx(0.5)
