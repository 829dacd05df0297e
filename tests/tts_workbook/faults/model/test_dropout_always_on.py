"""model.dropout_always_on: p means keep, or no mode switches it off."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests.tts_workbook.diagnosis.tiny_speaker import (
    D,
    blamed,
    findings,
    speaker_lab,
    with_parts,
)
from tests.tts_workbook.faults.judged import JUDGES, OF_THE_MODEL, confirmed, suspects_of
from tts_workbook.faults.model.dropout_always_on import EvalForwards, decide


def test_dropout_that_keeps_its_p():
    found = confirmed(speaker_lab(with_parts(dropout=0.9)), "model.dropout_always_on")
    assert found.evidence["largest share dropped in training"] == 0.9


def test_an_ordinary_dropout_is_silent():
    bench = speaker_lab(with_parts(dropout=0.3))
    assert not suspects_of(bench, "model.dropout_always_on") and not blamed(
        findings(bench, *JUDGES, *OF_THE_MODEL)
    )


class Aside(nn.Module):
    """Most of a small branch is dropped, on purpose."""

    def __init__(self):
        super().__init__()
        self.drop, self.linear = nn.Dropout(0.9), nn.Linear(D, D)

    def forward(self, x):
        return x + 0.01 * self.drop(self.linear(x))


def test_a_heavy_dropout_that_does_no_harm_is_silent():
    bench = speaker_lab(with_parts(layers=lambda: [Aside()]))
    found = findings(bench, *JUDGES, *OF_THE_MODEL)
    assert not blamed(found) and "dropout off" in bench.courses


def dropout_of(kind, **fields):
    return findings(speaker_lab(kind, **fields), "model.dropout_always_on", *OF_THE_MODEL)


class Drops(nn.Module):
    def forward(self, x):
        return F.dropout(x, 0.3, training=True)


def test_dropout_that_no_mode_switches_off_and_one_that_is_meant():
    drawing = with_parts(layers=lambda: [Drops()])
    found = dropout_of(drawing)
    assert (
        blamed(found) == {"model.dropout_always_on"}
        and found["model.dropout_always_on"].where == "layers.0"
    )
    assert not blamed(dropout_of(drawing, stochastic=("layers.0",))) and not blamed(
        dropout_of(with_parts(dropout=0.4))
    )


class Prenet(nn.Module):
    """Drops in every mode, before the text is heard."""

    def forward(self, x):
        return F.dropout(x, 0.5, training=True)


class Sampling(nn.Module):
    """Adds noise in every mode, as a model does that samples its frames."""

    def forward(self, x):
        return x + 0.3 * torch.randn_like(x)


@pytest.mark.parametrize(
    "parts, where", [(dict(prenet=Prenet), "prenet"), (dict(layers=lambda: [Sampling()]), "layers")]
)
def test_noise_that_may_be_meant_is_asked_about(parts, where):
    found = dropout_of(with_parts(**parts))["model.dropout_always_on"]
    assert found.level == "question" and found.where.startswith(where)
    assert f'declare Subject.stochastic = ("{found.where}",)' in found.fix


FOUND = EvalForwards(("layers", "layers.0.drop"), 0.1, error=0.5, spread=0.01, error_without=0.4)


@pytest.mark.parametrize(
    "numbers, wanted",
    [
        (FOUND, ("confirmed", "layers.0.drop", "differ")),
        (replace(FOUND, origins=("",)), ("confirmed", "the model's own forward", "differ")),
        # within the spread, and hardly more than without
        (replace(FOUND, spread=0.05), ("suspected", "layers.0.drop", "differ, no harm")),
        (replace(FOUND, error=0.41), ("suspected", "layers.0.drop", "differ, no harm")),
        (replace(FOUND, error=math.nan), ("suspected", "layers.0.drop", "differ, no harm")),
        (replace(FOUND, on_history_alone=True), ("question", "layers.0.drop", "a pre-net")),
        (replace(FOUND, is_dropout=False), ("question", "layers.0.drop", "noise")),
        (replace(FOUND, difference=0.0), ("excluded", "", "alike")),  # it does not reach the mel
        (replace(FOUND, origins=()), ("excluded", "", "alike")),  # declared stochastic
    ],
)
def test_the_ends_of_two_eval_forwards(numbers, wanted):
    decision = decide(numbers)
    assert (decision.level, decision.where, decision.reason) == wanted
