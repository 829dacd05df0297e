"""The workbook's own presets behind the adapter, diagnosed without being told which they are: the
reference case, solved.
"""

import pytest

from benchmarks.planted.architecture import short_clips
from tts_core.config import preset
from tts_core.speech.phonemes import Vocabulary
from tts_workbook import diagnose
from tts_workbook.subject.presets import preset_subject

N_STEPS = 160


def report_of(name):
    experiment = preset(name, Vocabulary.arpabet().get_vocab_size(), "quick")
    return diagnose(preset_subject(experiment, short_clips()[:4]), steps=N_STEPS)


@pytest.fixture(scope="module")
def seed_report():
    return report_of("seed")


def test_the_seed_preset_comes_out_as_its_memory_scale(seed_report):
    first = seed_report.findings[0]
    assert (first.cause, first.level) == ("model.memory_scale", "confirmed"), str(seed_report)
    assert (
        first.evidence["RMS of the memory"] > 10.0
        and first.evidence["after"] < first.evidence["mean TF L1 / best constant before"] - 0.1
    )


def test_its_layout_and_its_mel_recipe_are_found_beside_it(seed_report):
    assert seed_report.confirmed("generation.layout") and seed_report.confirmed(
        "data.mel_recipe"
    ), str(seed_report)
    layout = next(found for found in seed_report.findings if found.cause == "generation.layout")
    # the first frame has no history
    assert layout.evidence["difference at frame 1"] > 100 * layout.evidence["difference at frame 0"]


def test_the_healthy_preset_is_healthy():
    report = report_of("healthy")
    assert report.healthy and not report.at("confirmed"), str(report)
