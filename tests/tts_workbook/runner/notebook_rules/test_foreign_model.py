"""The rule of notebook 08 by a table: every verdict follows its own number."""

from dataclasses import replace

import pytest

from tts_workbook.runner.notebook_rules.foreign_model import DiagnosisNumbers, rule

AS_HOPED = DiagnosisNumbers(
    sound_passed=True,
    sound_healthy=True,
    sound_findings=0,
    planted_named_first=True,
    planted_rank=1,
    planted_passed=True,
    planted_tf_over_constant=0.3,
)
S, R, U = "supported", "refuted", "undecided"


@pytest.mark.parametrize(
    "changes, healthy, planted, silent",
    [
        ({}, S, S, S),
        ({"sound_healthy": False, "sound_findings": 2}, R, S, S),
        ({"planted_named_first": False, "planted_rank": 2}, S, R, S),
        ({"planted_passed": False, "planted_tf_over_constant": 0.8}, S, S, R),
        ({"sound_passed": False}, U, U, U),
        ({"sound_passed": False, "sound_healthy": False, "planted_passed": False}, U, U, U),
    ],
)
def test_every_verdict_follows_its_own_number(changes, healthy, planted, silent):
    items = rule(replace(AS_HOPED, **changes), "encoder", "notebook 08")
    assert [(item.id, item.verdict) for item in items] == [
        ("diagnosis_healthy", healthy),
        ("diagnosis_planted", planted),
        ("diagnosis_planted_is_silent", silent),
    ]


def test_items_carry_the_numbers_and_what_would_refute_them():
    numbers = replace(AS_HOPED, sound_findings=3, planted_rank=2, planted_tf_over_constant=0.45)
    items = rule(numbers, "encoder", "notebook 08")
    assert [(item.effect, item.threshold) for item in items] == [(3, 0), (2, 1), (0.45, 0.5)]
    assert all(item.n == 1 and item.provenance == "notebook 08" for item in items)
    assert "an encoder that the optimiser never got" in items[1].claim
