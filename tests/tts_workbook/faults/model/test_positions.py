"""model.positions: missing, drowning what they are added to, or known in another way."""

import pytest
from torch import nn

from tests.tts_workbook.diagnosis.tiny_speaker import (
    D,
    Positions,
    SelfAttention,
    blamed,
    findings,
    speaker_lab,
    with_parts,
)
from tests.tts_workbook.faults.judged import JUDGES, confirmed
from tts_workbook.faults.model.positions import HistoryOrder, Order, TextOrder, decide


def test_positions_that_drown_the_text():
    assert (
        confirmed(
            speaker_lab(with_parts(positions=lambda: Positions(50.0))), "model.positions"
        ).where
        == "positions"
    )


def test_positions_that_are_missing():
    found = findings(speaker_lab(with_parts(positions=nn.Identity)), *JUDGES)
    assert blamed(found) == {"model.positions"} and found["model.positions"].level == "confirmed"
    assert found["model.positions"].evidence["text side: order noticed"] < 1e-4


class Convolution(nn.Conv1d):
    def forward(self, x):
        return super().forward(x.transpose(1, 2)).transpose(1, 2)


class Recurrent(nn.GRU):
    def forward(self, x):
        return super().forward(x)[0]


ORDERED = {
    "positions": dict(mix=SelfAttention),
    "loud positions": dict(positions=lambda: Positions(4.0)),
    "a convolution": dict(positions=nn.Identity, mix=lambda: Convolution(D, D, 3, padding=1)),
    "a recurrence": dict(positions=nn.Identity, mix=lambda: Recurrent(D, D, batch_first=True)),
    "no place mixed": dict(positions=nn.Identity, mix=nn.Identity),
}


@pytest.mark.parametrize("name", ORDERED)
def test_silent_where_order_is_known_or_nothing_is_mixed(name):
    found = findings(speaker_lab(with_parts(**ORDERED[name])), *JUDGES)
    assert not blamed(found) and found["model.positions"].level == "excluded"


BLIND, SEEING = TextOrder(1e-6, 0.5, "encoder"), TextOrder(0.3, 0.5, "encoder")
UNMIXED = TextOrder(1e-6, 1e-5, "encoder")
DEAF, HEARING = HistoryOrder(1e-6, 0.5), HistoryOrder(0.3, 0.5)
FORGETFUL = HistoryOrder(1e-6, 1e-6)


@pytest.mark.parametrize(
    "text, history, wanted",
    [
        (BLIND, HEARING, ("confirmed", "encoder", "text without order")),
        (BLIND, DEAF, ("confirmed", "encoder", "text without order")),
        (SEEING, DEAF, ("confirmed", "prenet", "history without order")),
        (None, DEAF, ("confirmed", "prenet", "history without order")),
        (SEEING, HEARING, ("excluded", "", "order is noticed")),
        (UNMIXED, FORGETFUL, ("excluded", "", "order is noticed")),
        (None, HEARING, ("excluded", "", "order is noticed")),
        (None, None, None),  # it could not be asked
    ],
)
def test_the_ends_of_the_order_of_places(text, history, wanted):
    decision = decide(Order(text, history, "prenet", rounding=1e-5))
    assert (decision and (decision.level, decision.where, decision.reason)) == wanted
