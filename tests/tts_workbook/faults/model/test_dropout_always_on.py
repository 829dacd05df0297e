"""model.dropout_always_on: p means keep, or no mode switches it off."""

import pytest
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


@pytest.mark.parametrize(
    "origins, difference, wanted",
    [
        (("layers", "layers.0.drop", "post"), 0.1, ("confirmed", "layers.0.drop", "differ")),
        (("",), 0.1, ("confirmed", "the model's own forward", "differ")),
        (("post",), 0.0, ("excluded", "", "alike")),  # it does not reach the prediction
        ((), 0.1, ("excluded", "", "alike")),  # declared stochastic
    ],
)
def test_the_ends_of_two_eval_forwards(origins, difference, wanted):
    decision = decide(EvalForwards(origins, difference))
    assert (decision.level, decision.where, decision.reason) == wanted
