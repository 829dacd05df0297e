"""The order in which causes are examined changes nothing: what one needs of others it asks for."""

import random
from functools import partial

import pytest

from tests.tts_workbook.diagnosis.tiny_speaker import Gain, Speaker, adam, speaker_lab
from tests.tts_workbook.diagnosis.tiny_subject import losses
from tts_workbook.diagnosis.diagnose import examine_all
from tts_workbook.diagnosis.diagnosis_report import merged
from tts_workbook.faults.registry import CAUSES
from tts_workbook.subject.isolation import unchanged_randomness


def summed_and_padded(model, batch):
    """The loss averages over time before it compares: it is not about the target any more."""
    terms = losses(model, batch)
    wrong = (model(batch).float().mean(dim=1) - batch["mel"].mean(dim=1)).abs().mean()
    return {**terms, "mel": wrong, "total": wrong}


SUBJECTS = {
    "sound": speaker_lab,
    "a loud memory": partial(speaker_lab, build=lambda: Speaker(memory=partial(Gain, 30.0))),
    "a rate too small": partial(speaker_lab, make_optimizer=adam(1e-6)),
    "a loss that is about something else": partial(speaker_lab, losses=summed_and_padded),
}


def examined(bench, causes):
    """The report's entries, as JSON values."""
    with unchanged_randomness(0):
        return [found.to_dict() for found in merged(examine_all(bench(), causes).findings)]


@pytest.mark.parametrize("name", SUBJECTS)
def test_any_order_gives_the_same_findings(name):
    bench, causes = SUBJECTS[name], list(CAUSES.values())
    wanted = examined(bench, causes)
    assert {entry["cause"] for entry in wanted} == set(CAUSES)
    for seed in range(3):
        random.Random(seed).shuffle(causes)
        assert examined(bench, causes) == wanted


def test_the_faults_are_there_to_be_found():
    """Else the test above would compare empty hands."""
    named = {}
    for name, bench in SUBJECTS.items():
        found = examined(bench, CAUSES.values())
        named[name] = {entry["cause"] for entry in found if entry["level"] == "confirmed"}
    assert named["sound"] == set()
    assert "model.memory_scale" in named["a loud memory"]
    assert "optimizer.lr_too_small" in named["a rate too small"]
    assert "loss.wrong_reduction" in named["a loss that is about something else"]
