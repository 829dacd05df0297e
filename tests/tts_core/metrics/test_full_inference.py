"""Full inference: length errors are those of the durations and the stop head that were planted."""

import pytest
import torch

from tests.conftest import make_batch, make_experiment, make_model
from tts_core.errors import WorkbookError
from tts_core.metrics.full_inference import attempt_full_inference, measure_full_inference
from tts_core.model.generation import free_run


@pytest.fixture
def planted():
    """A model that predicts the same duration for every phoneme and the same stop logit for every
    frame.
    """
    batch = make_batch([[3, 3, 3, 3]], seed=1)
    model = make_model(make_experiment(), batch)

    def plant(frames, stop_bias):
        with torch.no_grad():
            model.duration_predictor.output.weight.zero_()
            model.duration_predictor.output.bias.fill_(torch.tensor(float(frames)).log1p())
            model.stop_token_predictor.weight.zero_()
            model.stop_token_predictor.bias.fill_(stop_bias)
        return model

    return plant, batch


def test_right_durations_and_a_silent_stop_head_give_the_free_running_output(planted):
    plant, batch = planted
    model = plant(frames=3, stop_bias=-4.0)
    found = measure_full_inference(model, batch)
    assert (found.n_frames, found.n_true, found.stopped) == (12, 12, False)
    assert found.length_error == found.duration_error == 0
    assert (found.mel - free_run(model, batch).mel[0]).abs().max() < 1e-5
    assert found.stop_logits.tolist() == pytest.approx([-4.0] * 12)


def test_long_durations_lengthen_and_an_eager_stop_head_cuts(planted):
    plant, batch = planted
    long = measure_full_inference(plant(frames=5, stop_bias=-4.0), batch)
    assert (long.n_frames, long.length_error, long.duration_error) == (20, 8, 8)
    assert long.length_error_share == pytest.approx(8 / 12)
    cut = measure_full_inference(plant(frames=5, stop_bias=4.0), batch)
    assert (cut.n_frames, cut.length_error, cut.duration_error, cut.stopped) == (1, -11, 8, True)
    assert cut.mel.shape == (1, 80) and cut.stop_logits.shape == (1,)


def test_runaway_durations_are_a_reason_and_not_a_crash(planted):
    plant, batch = planted
    found, reason = attempt_full_inference(plant(frames=10, stop_bias=0.0), batch)
    assert found is None and "add up to 40 frames, more than max_frames = 36" in reason
    found, reason = attempt_full_inference(plant(frames=9, stop_bias=-1.0), batch)
    assert found.n_frames == 36 and reason == ""


def test_several_clips_are_refused(planted, batch):
    plant, _ = planted
    with pytest.raises(WorkbookError, match="2 clips, wanted one"):
        measure_full_inference(plant(frames=3, stop_bias=0.0), batch)
