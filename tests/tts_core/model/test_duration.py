"""Length regulator and the one duration domain."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import make_experiment
from tts_core.errors import WorkbookError
from tts_core.model.duration import MAX_FRAMES, DurationPredictor, regulate_length, to_frames


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 6), min_size=1, max_size=6), min_size=1, max_size=4),
    st.integers(0, 3),
)
def test_regulated_length_equals_repeat_interleave(rows, extra):
    width = max(len(row) for row in rows)
    durations = torch.tensor([row + [0] * (width - len(row)) for row in rows])
    encoded = torch.randn(len(rows), width, 2)
    n_frames = max(1, int(durations.sum(dim=1).max()) + extra)
    expanded = regulate_length(encoded, durations, n_frames)
    for b, row in enumerate(rows):
        torch.testing.assert_close(
            expanded[b, : sum(row)], encoded[b].repeat_interleave(durations[b], dim=0)
        )
        assert (expanded[b, sum(row) :] == 0).all()


def test_frames_invert_log1p_and_padding_gets_none():
    frames = torch.tensor([[1, 4, 30, 200], [7, 2, 0, 0]])
    mask = torch.tensor([[True] * 4, [True, True, False, False]])
    assert to_frames(frames.float().log1p(), mask).tolist() == frames.tolist()
    # never fewer than one frame
    assert to_frames(torch.full((1, 4), -3.0), mask[:1]).tolist() == [[1, 1, 1, 1]]


def test_seed_initialisation_predicts_five_frames():
    predictor = DurationPredictor(
        make_experiment(duration_initialisation="seed_custom").model
    ).eval()
    log_durations = predictor(torch.randn(1, 8, 32), torch.ones(1, 8, dtype=torch.bool))
    assert to_frames(log_durations, torch.ones(1, 8, dtype=torch.bool)).tolist() == [[5] * 8]


def test_padding_phonemes_do_not_reach_valid_ones():
    predictor = DurationPredictor(make_experiment().model).eval()
    encoded = torch.randn(1, 5, 32)
    mask = torch.tensor([[True, True, True, False, False]])
    padded = predictor(encoded, mask)
    torch.testing.assert_close(padded[:, :3], predictor(encoded[:, :3], mask[:, :3]))
    assert (padded[:, 3:] == 0).all()


def test_predicted_durations_that_are_absurd_stay_within_integers_and_nan_is_named():
    mask = torch.ones(1, 2, dtype=torch.bool)
    assert to_frames(torch.tensor([[100.0, float("inf")]]), mask).tolist() == [
        [MAX_FRAMES, MAX_FRAMES]
    ]
    with pytest.raises(WorkbookError, match="predicted durations hold NaN"):
        to_frames(torch.tensor([[1.0, float("nan")]]), mask)
