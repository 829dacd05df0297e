"""What a plant spoils against its clean twin where only the data show it: another text, clips that
the data do not hold.
"""

from dataclasses import replace

import pytest
import torch

from benchmarks.planted import ours
from benchmarks.planted.architecture import draw_setting
from benchmarks.planted.harm import AGAINST_TWIN, against_twin, harm


def setting(seed=0, **changes):
    return draw_setting(seed, n_clips=6, **changes)


@pytest.fixture(scope="module")
def clean():
    return ours.ARCHITECTURE.clean(setting())


def test_clean_against_clean_is_no_harm(clean):
    found = against_twin(clean, ours.ARCHITECTURE.clean(setting()))
    assert found == dict.fromkeys(AGAINST_TWIN, 0.0) and harm(found, {}) == ""


def test_repaired_texts_are_seen_by_their_recordings(clean):
    found = against_twin(ours.PLANTS["data.text_audio_pairing"](setting()), clean)
    assert found == {"clips with another text": 1.0, "clips that the data does not hold": 0.0}
    assert harm(found, {}) == "clips with another text 0 -> 1"


@pytest.mark.parametrize("seed", range(3))
def test_crops_and_noise_are_clips_that_the_data_do_not_hold(seed):
    plant, twin = (
        ours.PLANTS["data.batch_varies"](setting(seed)),
        ours.ARCHITECTURE.clean(setting(seed)),
    )
    found = against_twin(plant, twin)
    assert (
        found["clips with another text"] == 0.0 and found["clips that the data does not hold"] > 0.5
    )
    assert harm(found, {}).startswith("clips that the data does not hold 0 -> ")


@pytest.mark.parametrize(
    "cause",
    ["data.mel_recipe", "data.token_collapse", "model.text_ignored", "optimizer.lr_too_small"],
)
def test_other_plants_leave_texts_and_clips_alone(clean, cause):
    """Another recipe changes every clip of the batch itself: that is no batch that varies."""
    assert not any(against_twin(ours.PLANTS[cause](setting()), clean).values())


def test_what_is_not_supplied_is_not_compared(clean):
    assert against_twin(replace(clean, symbols=None), clean).keys() == {
        "clips that the data does not hold"
    }
    assert against_twin(clean, replace(clean, audio=None, batches=None)) == {}


def test_drawing_the_batches_leaves_randomness_and_the_batch_alone(clean):
    state, mel = torch.get_rng_state(), clean.batch.mel.clone()
    against_twin(clean, clean)
    assert torch.equal(state, torch.get_rng_state()) and torch.equal(mel, clean.batch.mel)
