"""Recipes: what is clamped is counted, and the ceiling is what costs the seed's recipe its
sound.
"""

import dataclasses

import pytest

from tts_core.config import AudioConfig
from tts_workbook.measure.mel_recipes import recipes, through_recipe


@pytest.fixture(scope="module")
def through(librivox):
    clip = librivox.clip("0930")
    return {name: through_recipe(clip.samples, recipe) for name, recipe in recipes().items()}


def test_the_third_recipe_is_the_seeds_but_for_its_ceiling():
    found = recipes()
    assert found["standard"] == AudioConfig() and found["seed's"] == AudioConfig.seed()
    assert dataclasses.replace(found["ceiling-free seed's"], log_ceiling=0.0) == AudioConfig.seed()


def test_clamped_shares_are_those_of_the_mel(through):
    seed, free = through["seed's"], through["ceiling-free seed's"]
    assert (
        seed.at_ceiling == pytest.approx(float((free.mel >= 0.0).float().mean()))
        and 0.15 < seed.at_ceiling < 0.35
    )
    assert free.at_ceiling == through["standard"].at_ceiling == 0.0
    assert seed.at_floor == free.at_floor > through["standard"].at_floor
    assert float(seed.mel.max()) == 0.0 < float(free.mel.max())


def test_the_ceiling_and_not_the_rest_of_the_recipe_costs_the_sound(through):
    standard, seed, free = (through[name].stoi for name in recipes())
    assert standard > 0.93 and free > 0.93 and seed < 0.8


def test_the_vocoder_is_handed_the_recipe_and_the_phase(librivox):
    calls = []

    def vocode(mel, recipe, phase_seed):
        calls.append((mel.shape, recipe, phase_seed))
        return librivox.clip("0930").samples

    found = through_recipe(
        librivox.clip("0930").samples, AudioConfig.seed(), phase_seed=3, vocode=vocode
    )
    assert calls == [(found.mel.shape, AudioConfig.seed(), 3)] and found.stoi == pytest.approx(
        1.0, abs=1e-6
    )
