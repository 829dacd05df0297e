"""model.output_range: an output that cannot reach its targets."""

import pytest
import torch
from torch.nn import functional as F

from tests.tts_workbook.diagnosis.tiny_speaker import (
    Gain,
    Speaker,
    adam,
    findings,
    speaker_lab,
    spoken,
    with_parts,
)
from tests.tts_workbook.diagnosis.tiny_subject import M


class Through(Speaker):
    """The frame passes a function."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, batch):
        return self.function(super().forward(batch))


def in_range(bench):
    return findings(bench, "model.output_range")["model.output_range"]


@pytest.mark.parametrize(
    "function",
    [lambda mel: 0.5 * mel.tanh(), torch.relu, lambda mel: mel.clamp(max=1.0), torch.sigmoid],
    ids=["tanh", "ReLU", "clamp", "sigmoid"],
)
def test_an_output_that_cannot_reach_its_targets(function):
    found = in_range(speaker_lab(with_parts(Through, function=function)))
    assert (found.level, found.where) == ("confirmed", "after out")
    assert found.evidence["share of target values out of reach"] > 0.02


@pytest.mark.parametrize(
    "function",
    [lambda mel: 10.0 * mel.tanh(), lambda mel: mel.clamp(-4.0, 4.0), F.leaky_relu],
    ids=["wide tanh", "clamp beyond the targets", "leaky"],
)
def test_silent_where_every_target_is_within_reach(function):
    assert in_range(speaker_lab(with_parts(Through, function=function))).level == "excluded"


def test_a_relu_over_targets_without_a_sign_is_silent():
    batch = {**spoken(), "mel": spoken()["mel"].abs()}
    assert (
        in_range(speaker_lab(with_parts(Through, function=torch.relu), batch=batch)).level
        == "excluded"
    )


PLATEAUS = {
    "a small learning rate": dict(make_optimizer=adam(1e-5)),
    "a decay": dict(make_optimizer=adam(decay=20.0)),
    "a loud memory": dict(build=with_parts(memory=lambda: Gain(100.0))),
    "raw targets": dict(batch=spoken(-5.0, 2.0)),
}


@pytest.mark.parametrize("name", PLATEAUS)
def test_a_plateau_from_another_cause_is_no_range(name):
    bench = speaker_lab(**PLATEAUS[name])
    assert not bench.course().learnt and in_range(bench).level == "excluded"


def test_the_tiny_batch_is_what_these_tests_say_of_it():
    assert (
        spoken()["mel"].shape == (2, 16, M)
        and spoken()["mel"].amin() < -2.0
        and spoken()["mel"].abs().amax() < 4.0
    )
