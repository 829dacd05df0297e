"""How findings are merged and ranked: the root cause is to stand first."""

import itertools
import json
import math

import pytest

from tts_workbook.diagnosis.diagnosis_report import Report, merged
from tts_workbook.faults.finding import Finding
from tts_workbook.faults.registry import CAUSES

FOR_THE_EAR = [cause for cause, known in CAUSES.items() if known.for_the_ear]
REMEDIES = [cause for cause, known in CAUSES.items() if known.remedy]
SPECIFIC, DRIFT = "model.memory_scale", "generation.exposure_gap"


def ranked(*findings):
    """Causes in the order of a report, which must not depend on the order in which they were
    found.
    """
    reports = [merged(order) for order in itertools.permutations(findings)]
    orders = {tuple(entry.cause for entry in report) for report in reports}
    assert len(orders) == 1
    return list(orders.pop())


def confirmed(cause, strength=0.1):
    return Finding(cause, "confirmed", "tried", strength=strength)


def test_the_stronger_of_two_causes_of_one_kind_comes_first():
    assert ranked(confirmed(SPECIFIC, 0.2), confirmed("optimizer.weight_decay", 0.3)) == [
        "optimizer.weight_decay",
        SPECIFIC,
    ]


@pytest.mark.parametrize("later", [*REMEDIES, *FOR_THE_EAR, DRIFT])
def test_a_specific_fault_comes_before_remedies_what_is_heard_and_drift_however_weak(later):
    assert ranked(confirmed(later, 1.0), confirmed(SPECIFIC, 0.01)) == [SPECIFIC, later]


@pytest.mark.parametrize("later", [*FOR_THE_EAR, DRIFT])
def test_what_keeps_a_model_from_learning_comes_before_what_is_heard_of_a_learnt_one(later):
    assert ranked(confirmed(later, 1.0), confirmed("optimizer.lr_too_small", 0.01)) == [
        "optimizer.lr_too_small",
        later,
    ]


@pytest.mark.parametrize("heard", FOR_THE_EAR)
def test_drift_comes_last_of_all_defects(heard):
    assert ranked(confirmed(DRIFT, 1.0), confirmed(heard, 0.01)) == [heard, DRIFT]


def test_what_the_two_lists_above_hold():
    assert set(FOR_THE_EAR) == {
        "data.conditioning",
        "data.front_end",
        "data.mel_recipe",
        "data.sample_rate",
        "generation.layout",
        "generation.stopping",
    }
    assert set(REMEDIES) == {"optimizer.lr_too_small", "optimizer.lr_too_large"}


def test_equals_stand_in_the_order_of_the_areas_and_then_of_their_names():
    equal = ["data.silence", "loop.no_step", "loss.detached", "loss.imbalance"]
    assert ranked(*(confirmed(cause, 1.0) for cause in equal)) == equal


def test_the_level_goes_before_every_rule():
    suspected = Finding(SPECIFIC, "suspected", "looked at", strength=1.0)
    assert ranked(suspected, confirmed(DRIFT, 0.01)) == [DRIFT, SPECIFIC]
    entries = merged(
        [
            suspected,
            confirmed(DRIFT, 0.01),
            Finding("model.positions", "undecided", "next"),
            Finding("loop.no_step", "excluded", "seen"),
            Finding("data.silence", "not applicable", "supply it"),
        ]
    )
    assert [entry.level for entry in entries] == [
        "confirmed",
        "suspected",
        "undecided",
        "excluded",
        "not applicable",
    ]
    assert [entry.cause for entry in Report(entries, {}, passed=True, seconds=1.0).findings] == [
        DRIFT,
        SPECIFIC,
    ]


def test_a_whole_report_is_in_order():
    causes = [SPECIFIC, "optimizer.lr_too_large", "data.mel_recipe", DRIFT]
    assert (
        ranked(
            *(
                confirmed(cause, strength)
                for cause, strength in zip(causes, (0.1, 0.2, 0.3, 0.4), strict=True)
            )
        )
        == causes
    )


def test_of_one_cause_the_stronger_finding_stays():
    said = [
        confirmed(SPECIFIC, 0.2),
        confirmed(SPECIFIC, 0.9),
        Finding(SPECIFIC, "excluded", "other", strength=1.0),
    ]
    for order in itertools.permutations(said):
        assert [(entry.level, entry.strength) for entry in merged(order)] == [("confirmed", 0.9)]


def test_a_report_is_json_whatever_its_numbers_are():
    """JSON has no infinity: other programs could not read what `json.dumps` makes of one."""
    entry = Finding(
        SPECIFIC, "confirmed", "tried", {"a": math.inf, "b": "words", "c": 1.0}, strength=math.inf
    )
    report = Report(
        (entry,),
        {"TF": math.nan},
        passed=False,
        seconds=1.0,
        courses={"as it is": [(1, math.inf), (2, 0.5)]},
    )
    said = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert said["headline"] == {"TF": "nan"} and said["courses"] == {
        "as it is": [[1, "inf"], [2, 0.5]]
    }
    assert (
        said["findings"][0]["evidence"] == {"a": "inf", "b": "words", "c": 1.0}
        and said["findings"][0]["strength"] == "inf"
    )
