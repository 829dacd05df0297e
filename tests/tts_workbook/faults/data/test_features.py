"""data.stale_features, data.sample_rate and data.mel_recipe fire on a stale cache, another rate and
another recipe, and none takes the blame of another.
"""

from dataclasses import replace

import pytest
import torch

from benchmarks.planted.architecture import draw_setting
from benchmarks.planted.ours import PLANTS
from benchmarks.planted.ours_twin import build
from tests.tts_workbook.faults.examined import examined, level
from tests.tts_workbook.faults.varying_batches import varying
from tts_core.config import AudioConfig
from tts_core.speech.audio import log_mel, resample
from tts_workbook.faults.data import mel_recipe, sample_rate, stale_features
from tts_workbook.faults.data._heard import DISTANCE, Heard
from tts_workbook.faults.data.mel_recipe import RECIPES, Converted, Recipe
from tts_workbook.faults.data.stale_features import Stored
from tts_workbook.faults.planting import with_clips
from tts_workbook.lab.lab import Lab
from tts_workbook.measure.feature_difference import FeatureDifference

STALE, RATE, RECIPE = "data.stale_features", "data.sample_rate", "data.mel_recipe"


def said(decision):
    return decision.level, decision.where, decision.strength, decision.reason


# --- how the numbers decide -----------------------------------------------------------------------


def stored(size, scale=None, kind="other", heard_off=False):
    return Stored(FeatureDifference(size, 1.0, scale, kind), size, 8, heard_off)


@pytest.mark.parametrize(
    "numbers, wanted",
    [
        (stored(0.01, kind="same"), ("excluded", "features", 0.0, "same")),
        (stored(0.9, scale=0.43, kind="scaled"), ("excluded", "features", 0.0, "scaled")),
        (stored(0.09), ("undecided", "features", 0.0, "small")),
        (stored(0.2), ("confirmed", "target_mel", 0.2, "other")),
        (stored(1.0, kind="another number of frames"), ("confirmed", "target_mel", 1.0, "other")),
        (
            stored(1.0, kind="another number of frames", heard_off=True),
            ("undecided", "features", 0.0, "another rate"),
        ),
    ],
)
def test_decide_on_stored_features(numbers, wanted):
    assert said(stale_features.decide(numbers)) == wanted


def heard(seconds=1.0, frequency=1.0, match=0.95, slope=0.97, distance=0.25):
    return Heard(seconds, frequency, match, slope, distance, 0.9, "target_mel")


AT_ANOTHER_RATE = heard(seconds=1.378, frequency=0.726)


@pytest.mark.parametrize(
    "numbers, wanted",
    [
        (heard(), ("excluded", "target_mel", 0.0, "as recorded")),
        (AT_ANOTHER_RATE, ("confirmed", "target_mel", 1.0, "rate")),
        (heard(seconds=1.28), ("confirmed", "target_mel", 1.0, "hop")),
        (
            heard(seconds=1.28, frequency=1.2),
            ("confirmed", "target_mel", 1.0, "rate and hop"),
        ),
        (heard(frequency=16_000 / 22_050), ("confirmed", "target_mel", 1.0, "mel filters")),
        # no ratio of two rates
        (heard(frequency=1.8), ("excluded", "target_mel", 0.0, "as recorded")),
        (heard(seconds=1.28, match=0.8), ("undecided", "", 0.0, "too unlike")),
        (heard(frequency=1.2, match=0.8), ("undecided", "", 0.0, "too unlike")),
    ],
)
def test_decide_on_the_rate(numbers, wanted):
    assert said(sample_rate.decide(numbers)) == wanted


@pytest.mark.parametrize(
    "numbers, wanted",
    [
        (Recipe(AT_ANOTHER_RATE, None), ("undecided", "target_mel", 0.0, "rate first")),
        (Recipe(heard(), None), ("excluded", "target_mel", 0.0, "sounds right")),
        (
            Recipe(heard(distance=0.6), None),
            ("suspected", "target_mel", 1.0, "sounds otherwise"),
        ),
        (Recipe(heard(slope=0.5), None), ("suspected", "target_mel", 1.0, "sounds otherwise")),
        (
            Recipe(heard(distance=0.8), None),
            ("confirmed", "target_mel", 1.0, "sounds otherwise"),
        ),
        # too far, but of a copy with another length
        (
            Recipe(heard(distance=0.8, seconds=1.2, match=0.8), None),
            ("suspected", "target_mel", 1.0, "sounds otherwise"),
        ),
        (
            Recipe(heard(distance=0.6), Converted(0.43, heard())),
            ("confirmed", "target_mel", 1.0, "sounds otherwise"),
        ),
        # converted, it sounds right, but hardly nearer
        (
            Recipe(heard(distance=0.52), Converted(0.43, heard(distance=0.45))),
            ("suspected", "target_mel", 1.0, "sounds otherwise"),
        ),
    ],
)
def test_decide_on_the_recipe(numbers, wanted):
    assert said(mel_recipe.decide(numbers)) == wanted


# --- on subjects ----------------------------------------------------------------------------------


def recipe(name, extract_too=True, n_clips=2):
    change = RECIPES[name]
    setting = with_clips(
        draw_setting(0, n_clips=n_clips), lambda clip: replace(clip, mel=change(clip.samples))
    )
    return build(
        setting, **({"extract": lambda samples, rate: change(samples)} if extract_too else {})
    )


def copies(subject):
    """Both causes that copy-synthesis speaks of."""
    lab = Lab(subject)
    return {cause: examined(subject, cause, lab) for cause in (RATE, RECIPE)}


@pytest.mark.parametrize(
    "change, kind",
    (
        (lambda mel: mel.roll(15, dims=0), "shifted round by 15"),
        (lambda mel: mel.T.reshape(mel.shape), "transposed"),
        (lambda mel: torch.cat([mel[:1].expand(9, -1), mel[:-9]]), "shifted by 9"),
    ),
)
def test_stale_features_fires_and_says_what_they_look_like(change, kind):
    subject = replace(build(draw_setting(0, batch_size=1)), batches=None)
    today = subject.target_mel
    subject = replace(
        subject, target_mel=lambda batch: (change(today(batch)[0][0])[None], today(batch)[1])
    )
    entry = examined(subject, STALE)
    assert entry.level == "confirmed" and kind in entry.evidence["looks like"]


def test_stale_features_fires_on_an_older_recipe_whose_copy_synthesis_is_not_blamed():
    older = AudioConfig(power=2.0, f_max=11_025.0)
    subject = build(
        with_clips(
            draw_setting(0, n_clips=2), lambda clip: replace(clip, mel=log_mel(clip.samples, older))
        )
    )
    assert level(subject, STALE) == "confirmed"
    assert {entry.level for entry in copies(subject).values()} == {"excluded"}


LOOK_ALIKES = {
    "clean": lambda: build(draw_setting(0)),
    "recipe": lambda: recipe("ceiling"),
    "scaled": lambda: recipe("base 10", False),
    "noisy batches": lambda: varying(noisy=True),
}


@pytest.mark.parametrize("name", LOOK_ALIKES)
def test_stale_features_is_silent_on_its_look_alikes(name):
    assert level(LOOK_ALIKES[name](), STALE) == "excluded"


@pytest.mark.parametrize(
    "name, extract_too",
    (("base 10", True), ("base 10", False), ("decibels", False), ("scale and norm", True)),
)
def test_mel_recipe_fires_and_a_scale_is_converted_back(name, extract_too):
    entries = copies(recipe(name, extract_too))
    assert entries[RECIPE].level == "confirmed"
    assert entries[RATE].level in ("excluded", "undecided")
    if name != "scale and norm":
        conversion = {"base 10": "log base 10", "decibels": "20 log10"}[name]
        evidence = entries[RECIPE].evidence
        assert evidence["conversion"].startswith(conversion)
        assert evidence["distance once converted"] < DISTANCE


@pytest.mark.parametrize("rate, hop, off", ((16_000, 256, "sample rate"), (22_050, 200, "hop")))
def test_sample_rate_fires_on_rate_and_hop(rate, hop, off):
    def extract(samples, given):
        return log_mel(resample(samples, given, rate), AudioConfig(hop_length=hop))

    setting = with_clips(
        draw_setting(1, n_clips=2),
        lambda clip: replace(clip, mel=extract(clip.samples, clip.sample_rate)),
    )
    entries = copies(build(setting, extract=extract))
    assert entries[RATE].level == "confirmed" and entries[RATE].evidence["off"] == off
    assert entries[RECIPE].level == "undecided"


def test_copy_synthesis_of_clean_and_of_raw_targets_is_right():
    setting = draw_setting(1, n_clips=2)
    for subject in (build(setting), PLANTS["data.unnormalised_target"](setting)):
        assert {entry.level for entry in copies(subject).values()} == {"excluded"}
