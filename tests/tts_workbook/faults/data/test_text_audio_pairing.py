"""data.text_audio_pairing fires on texts of other clips; of too few clips it says so."""

from dataclasses import replace

import pytest

from benchmarks.planted.architecture import draw_setting, short_clips
from benchmarks.planted.ours_twin import build
from tests.tts_workbook.faults.examined import examined, level
from tts_workbook.faults.data import duration_sum, mel_recipe, stale_features, token_collapse
from tts_workbook.faults.data.text_audio_pairing import (
    HONEST_GAIN_TIMED,
    PAIRED_TIMED,
    UNPAIRED_TIMED,
    Pairing,
    decide,
    plant,
)
from tts_workbook.measure.text_fit import TextFit, text_fit

CAUSE = "data.text_audio_pairing"


def pairing(z, n_clips=12, timed=True, deviation=0.01):
    """Numbers whose re-pairings explain nothing."""
    return Pairing(n_clips, timed, TextFit(z * deviation, 0.0, deviation, n_clips))


@pytest.mark.parametrize(
    "numbers, level, where, reason",
    [
        (Pairing(3, True, None), "undecided", "", "too few clips"),
        (pairing(4.1), "excluded", "symbols", "paired"),
        (pairing(3.9), "undecided", "symbols", "between"),
        (pairing(2.4), "confirmed", "symbols", "re-paired"),
        (pairing(2.4, n_clips=6), "confirmed", "symbols", "re-paired"),
        (pairing(2.4, n_clips=5), "undecided", "symbols", "between"),
        # an honest text would gain 0.2 / 0.06: too little to tell
        (pairing(2.4, deviation=0.06), "undecided", "symbols", "between"),
        (pairing(3.1, timed=False), "excluded", "symbols", "paired"),
        (pairing(1.4, timed=False), "confirmed", "symbols", "re-paired"),
        (pairing(1.4, timed=False, n_clips=11), "undecided", "symbols", "between"),
    ],
)
def test_decide(numbers, level, where, reason):
    decision = decide(numbers)
    assert (decision.level, decision.where, decision.reason) == (level, where, reason)
    assert decision.strength == (1.0 if level == "confirmed" else 0.0)


@pytest.mark.parametrize("seed", range(3))
def test_pairing_fires_on_repaired_texts_with_durations_and_without(seed):
    planted = plant(build, draw_setting(seed))
    assert level(planted, CAUSE) == "confirmed"
    assert level(build(draw_setting(seed)), CAUSE) == "excluded"
    assert level(replace(build(draw_setting(seed)), durations=None), CAUSE) == "excluded"
    assert level(replace(planted, durations=None), CAUSE) in ("confirmed", "undecided")


@pytest.mark.parametrize("look_alike", (token_collapse, stale_features, duration_sum, mel_recipe))
def test_pairing_is_silent_on_its_look_alikes(look_alike):
    assert level(look_alike.plant(build, draw_setting(1)), CAUSE) == "excluded"


def test_pairing_says_when_clips_are_too_few():
    entry = examined(replace(build(draw_setting(0)), batches=None), CAUSE)
    assert entry.level == "undecided" and "batches" in entry.experiment


def test_pairing_has_the_power_that_its_thresholds_state():
    honest, wrong = [], []
    for start in range(0, 48, 6):
        clips = short_clips()[start : start + 6]
        frames, texts = [clip.mel.numpy() for clip in clips], [clip.phonemes for clip in clips]
        durations = [clip.durations.astype(float) for clip in clips]
        honest.append(text_fit(frames, texts, durations, 20))
        wrong.append(text_fit(frames, texts[1:] + texts[:1], durations[1:] + durations[:1], 20))
    assert min(one.z for one in honest) > PAIRED_TIMED
    assert max(one.z for one in wrong) < UNPAIRED_TIMED
    assert min(one.explained - one.repaired for one in honest) > HONEST_GAIN_TIMED
