"""Text use, teacher-forced against free-running: each fires on its fault and only there."""

import math

import pytest
import torch

from tests.conftest import PAUSE_ID, make_batch, make_experiment, make_model
from tts_core.metrics.free_running import l1_over_frames, measure_gap, mel_l1
from tts_core.metrics.text_use import measure_text_use, wrong_over_right
from tts_core.training.loop import fit
from tts_core.training.state import start_training


@pytest.fixture(scope="module")
def trained():
    """A tiny model overfitted to one synthetic clip, and the clip."""
    torch.set_num_threads(1)
    batch = make_batch([[4, 6, 3, 7, 4, 5]], seed=3)
    experiment = make_experiment(lr=3e-3, steps=250)
    return fit(start_training(experiment, make_model(experiment, batch)), batch).model, batch


def test_mel_l1_counts_valid_frames_only(batch):
    shifted = batch.mel + 0.5
    shifted[0, 9:] += 100.0  # the padding of the first clip
    assert mel_l1(shifted, batch) == pytest.approx(0.5, rel=1e-5)


def test_only_frames_that_both_have_are_compared(batch):
    """Generated mels may be shorter or longer than the recording."""
    shifted = batch.mel + 0.5
    shifted[0, 9:] += 100.0
    for n_frames in (5, 12):
        short = shifted[:, :n_frames]
        found = l1_over_frames(short, batch.mel, batch.mel_lengths)
        assert found == pytest.approx(0.5, rel=1e-5)
    long = torch.cat([shifted, shifted], dim=1)
    assert l1_over_frames(long, batch.mel, batch.mel_lengths) == pytest.approx(0.5, rel=1e-5)
    assert math.isnan(l1_over_frames(shifted[:, :0], batch.mel, batch.mel_lengths))


def test_text_use_is_the_mean_error_of_seeded_permutations_over_the_right_one():
    drawn = []

    def error_of(generator):
        drawn.append(generator.initial_seed())
        return 1.0 + len(drawn)

    found = wrong_over_right(0.5, error_of, n_permutations=3)
    assert drawn == [0, 1, 2]
    assert (found.tf_l1, found.shuffled_tf_l1, found.ratio) == (0.5, 3.0, 6.0)


def test_wrong_text_hurts_a_model_that_reads_and_not_one_that_cannot(trained):
    model, batch = trained
    reads = measure_text_use(model, batch, PAUSE_ID)
    assert reads.ratio > 1.5 and reads.ratio == pytest.approx(reads.shuffled_tf_l1 / reads.tf_l1)
    handle = model.text_embedding.register_forward_hook(
        lambda module, inputs, output: torch.zeros_like(output)
    )
    try:
        assert measure_text_use(model, batch, PAUSE_ID).ratio == pytest.approx(1.0, abs=1e-6)
    finally:
        handle.remove()


def test_text_use_is_a_function_of_model_and_batch(trained):
    model, batch = trained
    torch.manual_seed(1)
    first = measure_text_use(model, batch, PAUSE_ID)
    torch.manual_seed(2)
    assert measure_text_use(model, batch, PAUSE_ID) == first


def test_the_gap_is_what_each_frame_says(trained):
    model, batch = trained
    gap = measure_gap(model, batch, "train")
    assert gap.tf_l1 == pytest.approx(float((gap.tf_mel - batch.mel).abs().mean()), rel=1e-5)
    assert gap.fr_l1 == pytest.approx(float(gap.fr_error_per_frame.mean()), rel=1e-5)
    assert gap.fr_l1 >= gap.tf_l1 and model.training
