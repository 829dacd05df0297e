"""How loop.no_zero_grad and loop.accumulation decide, by tables: numbers -> level, where,
reason.
"""

from dataclasses import replace

import pytest

from tts_workbook.faults.loop import accumulation, no_zero_grad
from tts_workbook.faults.loop.accumulation import Accumulation, AddedUp, Passes
from tts_workbook.faults.loop.no_zero_grad import Marks


def shown(decision):
    return decision.level, decision.where, decision.reason


@pytest.mark.parametrize(
    "numbers, expected",
    [
        (Marks(0, 24, False, (), 0.0), ("undecided", "", "no step")),
        (Marks(2, 24, True, (), 1.0), ("undecided", "", "too few calls")),
        (Marks(2, 2, False, (), 1.0), ("excluded", "", "marker gone")),
        (Marks(3, 3, True, (0.7, 0.7), 2.0), ("confirmed", "train_step", "marker kept")),
        # zeroed at some of the steps
        (Marks(3, 3, True, (0.7, 0.001), 2.0), ("excluded", "", "marker gone")),
    ],
)
def test_no_zero_grad(numbers, expected):
    assert shown(no_zero_grad.decide(numbers)) == expected


RIGHT = AddedUp(2, gap=0.01, unexplained=0.001, least_weight=0.5, largest_weight=0.5)
SUMMED = Passes("batch", n_forward=2.0, size=1.0, same=1.0, added_up=None)
ADDED = replace(SUMMED, added_up=RIGHT)


@pytest.mark.parametrize(
    "numbers, expected, strength",
    [
        (Accumulation(False), ("undecided", "", "no step"), 0.0),
        (Accumulation(True, 0.4), ("confirmed", "train_step", "stale"), 1.0),
        (Accumulation(True), ("excluded", "", "one pass"), 0.0),
        (Accumulation(True, 0.0, (ADDED,)), ("excluded", "", "right sum"), 0.0),
        (
            Accumulation(True, 0.0, (ADDED, replace(ADDED, added_up=replace(RIGHT, gap=0.6)))),
            ("confirmed", "train_step", "wrong sum"),
            0.6,
        ),
        (
            Accumulation(
                True, 0.0, (replace(ADDED, added_up=replace(RIGHT, gap=0.9, unexplained=0.6)),)
            ),
            ("undecided", "train_step", "unrelated passes"),
            0.0,
        ),
        (
            Accumulation(
                True, 0.0, (replace(ADDED, added_up=replace(RIGHT, gap=0.2, unexplained=0.3)),)
            ),
            ("undecided", "train_step", "unrelated passes"),
            0.0,
        ),
        (
            Accumulation(True, 0.0, (SUMMED,)),
            ("excluded", "", "as the whole batch"),
            0.0,
        ),
        (
            Accumulation(True, 0.0, (replace(SUMMED, size=2.0),)),
            ("confirmed", "train_step", "losses added up"),
            1.0,
        ),
        (
            Accumulation(True, 0.0, (replace(SUMMED, size=2.0, same=0.5),)),
            ("undecided", "train_step", "another gradient"),
            1.0,
        ),
        (
            Accumulation(True, 0.0, (replace(SUMMED, size=1.5),)),
            ("undecided", "train_step", "another gradient"),
            1.0,
        ),
    ],
)
def test_accumulation(numbers, expected, strength):
    decision = accumulation.decide(numbers)
    assert shown(decision) == expected and decision.strength == strength
