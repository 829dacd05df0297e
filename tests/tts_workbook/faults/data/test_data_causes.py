"""What holds for every cause of the data: absent parts, evidence, and subjects that look alike."""

import math
from dataclasses import replace

import pytest

from benchmarks.planted import ours
from benchmarks.planted.architecture import draw_setting
from benchmarks.planted.ours_twin import build
from tests.tts_workbook.faults.examined import examined
from tts_workbook.faults.examine import examine
from tts_workbook.faults.registry import CAUSES
from tts_workbook.lab.lab import Lab

NEEDED = {
    "data.text_audio_pairing": "symbols",
    "data.token_collapse": "symbols",
    "data.duration_sum": "durations",
    "data.duration_domain": "durations",
    "data.stale_features": "features",
    "data.sample_rate": "vocode",
    "data.mel_recipe": "vocode",
    "data.silence": "audio",
    "data.batch_varies": "batches",
}


@pytest.fixture(scope="module")
def clean():
    return build(draw_setting(0))


@pytest.mark.parametrize("cause, part", NEEDED.items())
def test_causes_say_what_to_supply(clean, cause, part):
    bare = replace(
        clean, symbols=None, durations=None, audio=None, features=None, vocode=None, batches=None
    )
    entry = examined(bare, cause)
    assert entry.level == "not applicable" and f"Subject.{part}" in entry.experiment


def test_evidence_is_plain_numbers(clean):
    lab = Lab(clean)
    for cause in (
        "data.text_audio_pairing",
        "data.token_collapse",
        "data.duration_sum",
        "data.silence",
        "data.batch_varies",
        "data.stale_features",
    ):
        for value in examined(clean, cause, lab).evidence.values():
            assert type(value) in (int, float, str)
            assert value == value and abs(hash(value)) != math.inf


# --- what sounds or learns alike ------------------------------------------------------------------

ALIKE = (
    ("model.memory_scale", ("data.text_audio_pairing",)),
    ("optimizer.weight_decay", ("data.text_audio_pairing",)),
    ("data.batch_varies", ("data.text_audio_pairing",)),
    ("model.text_ignored", ("data.token_collapse",)),
    ("model.encoder_detached", ("data.token_collapse",)),
    ("data.text_audio_pairing", ("data.batch_varies",)),
    ("model.memory_scale", ("data.batch_varies",)),
    ("generation.layout", ("data.sample_rate", "data.mel_recipe")),
    ("data.mel_recipe", ("data.silence",)),
    ("data.silence", ("data.duration_sum",)),
    ("data.sample_rate", ("data.duration_sum",)),
)


@pytest.mark.parametrize(
    "plant, causes", ALIKE, ids=[f"{plant} and {causes[0]}" for plant, causes in ALIKE]
)
def test_data_is_not_blamed_for_what_looks_alike(plant, causes):
    lab = Lab(ours.PLANTS[plant](draw_setting(1, n_clips=8)), steps=16)
    levels = {examine(CAUSES[cause], lab).level for cause in causes}
    assert levels <= {"excluded", "undecided"}
    assert "excluded" in levels or plant == "data.batch_varies"
