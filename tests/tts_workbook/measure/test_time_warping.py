"""Time warping undoes what only time did, and nothing else."""

import pytest
import torch

from tests.conftest import make_batch
from tts_core.errors import WorkbookError
from tts_workbook.measure.time_warping import warp, warping_path


@pytest.fixture
def mel():
    return make_batch([[40]], seed=5).mel[0]


def test_what_is_in_time_stays_as_it_is(mel):
    assert torch.equal(warp(mel, mel), mel)
    assert warping_path(mel, mel).tolist() == [[t, t] for t in range(40)]


def test_a_stretched_mel_comes_back(mel):
    times = torch.ones(40, dtype=torch.long)
    times[[3, 17, 18, 30]] = torch.tensor([4, 2, 3, 6])
    stretched = mel.repeat_interleave(times, dim=0)
    assert len(stretched) > 40 and torch.allclose(warp(stretched, mel), mel, atol=1e-5)
    kept = torch.tensor([t for t in range(40) if t not in (5, 20)])
    back = warp(mel[kept], mel)
    assert back.shape == mel.shape and torch.allclose(back[kept], mel[kept], atol=1e-5)


def test_the_path_rises_from_corner_to_corner_by_single_steps(mel):
    path = warping_path(make_batch([[25]], seed=6).mel[0], mel)
    assert path[0].tolist() == [0, 0] and path[-1].tolist() == [24, 39]
    steps = {tuple(step) for step in (path[1:] - path[:-1]).tolist()}
    assert steps <= {(0, 1), (1, 0), (1, 1)}


def test_a_wrong_sound_stays_wrong(mel):
    other = make_batch([[40]], seed=9).mel[0]
    assert (warp(other, mel) - mel).abs().mean() > 0.3


def test_mels_that_do_not_belong_together_are_refused(mel):
    for other in (mel[:, :40], mel[0], mel[:0]):
        with pytest.raises(WorkbookError, match="as many bins"):
            warp(other, mel)
