"""data.batch_varies fires on crops and noise of one clip, and is silent on a corpus."""

from dataclasses import replace

import pytest

from benchmarks.planted.architecture import draw_setting
from benchmarks.planted.ours_twin import build
from tests.tts_workbook.faults.examined import examined, level
from tests.tts_workbook.faults.varying_batches import varying
from tts_workbook.faults.data import silence
from tts_workbook.faults.data.batch_varies import Batches, PairedTraining, decide
from tts_workbook.lab.lab import Lab

CAUSE = "data.batch_varies"


@pytest.mark.parametrize(
    "same, variants, still",
    [
        (1.0, 0.0, True),
        (0.1, 0.0, True),
        (0.0, 1.0, False),
        (0.7, 0.25, False),
        (0.8, 0.24, True),
        (0.6, 0.29, True),  # a corpus with some clips cropped
    ],
)
def test_batches_hold_still_where_they_are_the_batch_or_a_corpus(same, variants, still):
    assert Batches(12, same, variants, None).hold_still == still


@pytest.mark.parametrize(
    "numbers, level, strength, reason",
    [
        (Batches(12, 1.0, 0.0, None), "excluded", 0.0, "holds still"),
        (Batches(12, 0.1, 0.0, None), "excluded", 0.0, "a corpus"),
        (Batches(12, 0.0, 1.0, PairedTraining(0.8, 0.4, False, True)), "confirmed", 0.5, "varies"),
        (
            Batches(12, 0.0, 1.0, PairedTraining(0.9, 0.8, False, False)),
            "suspected",
            1 / 9,
            "varies",
        ),
        # hardly worse, and not learnt any more
        (
            Batches(12, 0.0, 1.0, PairedTraining(0.51, 0.49, False, True)),
            "confirmed",
            2 / 51,
            "varies",
        ),
        (Batches(12, 0.0, 1.0, PairedTraining(0.3, 0.4, True, True)), "suspected", 0.0, "varies"),
    ],
)
def test_decide(numbers, level, strength, reason):
    decision = decide(numbers)
    assert (decision.level, decision.where, decision.reason) == (level, "batches", reason)
    assert decision.strength == pytest.approx(strength)


@pytest.mark.parametrize("noisy", (True, False))
def test_batch_varies_fires_on_crops_and_noise(noisy):
    entry = examined(varying(noisy, batch_size=1), CAUSE)
    assert entry.level == "confirmed"
    held = entry.evidence["the batch held fixed"]
    assert entry.evidence["TF L1 / best constant, as they come"] > held


def test_batch_varies_is_silent_on_a_corpus_and_on_a_batch_that_holds_still():
    clean = build(draw_setting(0))

    def still():
        while True:
            yield clean.batch

    lab = Lab(clean)
    assert examined(clean, CAUSE, lab).level == "excluded" and not lab.courses
    assert level(replace(clean, symbols=None), CAUSE) == "excluded"
    assert level(replace(clean, batches=still), CAUSE) == "excluded"
    assert level(silence.plant(build, draw_setting(0)), CAUSE) == "excluded"
