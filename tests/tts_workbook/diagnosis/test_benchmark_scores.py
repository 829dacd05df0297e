"""The arithmetic of the benchmark's scores, against answers worked out by hand."""

import json
import math
from dataclasses import replace

import pytest

from tests.conftest import ROOT
from tests.tts_workbook.pages.benchmark_rows import row
from tts_workbook.diagnosis.benchmark_scores import (
    Row,
    clean_scores,
    confusion,
    fault_scores,
    pair_scores,
    rate_bound,
    score,
)


@pytest.fixture(scope="module")
def recorded():
    return json.loads((ROOT / "benchmarks" / "results" / "diagnosis.json").read_text("utf-8"))


def same(found, wanted) -> bool:
    """Equal, numbers to 1e-12 relative."""
    if isinstance(wanted, dict):
        return found.keys() == wanted.keys() and all(
            same(found[key], wanted[key]) for key in wanted
        )
    if isinstance(wanted, list):
        return len(found) == len(wanted) and all(map(same, found, wanted))
    if isinstance(wanted, float):
        return math.isclose(found, wanted, rel_tol=1e-12, abs_tol=1e-12)
    return found == wanted


def test_the_recorded_scores_are_those_of_the_recorded_rows(recorded):
    found = score([Row.from_dict(row) for row in recorded["rows"]])
    assert recorded["rows"] and same(found, recorded["scores"])


def test_the_recorded_rows_survive_storage(recorded):
    rows = recorded["rows"]
    assert json.loads(json.dumps([Row.from_dict(row).to_dict() for row in rows])) == rows


def test_the_bound_is_where_so_few_hits_have_a_chance_of_one_in_twenty():
    for n, hits in [(40, 0), (45, 1), (45, 20), (200, 176)]:
        bound = rate_bound(hits, n)
        chance = sum(math.comb(n, k) * bound**k * (1 - bound) ** (n - k) for k in range(hits + 1))
        assert chance == pytest.approx(0.05, rel=1e-9)


def test_none_of_forty_means_at_most_seven_percent():
    assert rate_bound(0, 40) == pytest.approx(1 - 0.05 ** (1 / 40), abs=1e-9)
    assert rate_bound(40, 40) == 1.0
    assert rate_bound(1, 40) == pytest.approx(0.1135, abs=5e-4)  # Clopper-Pearson table


def test_root_cause_and_macro_f1():
    rows = [row("a.x"), row("a.x", seed=3), row("b.y"), row("b.y", first="a.x", seed=3)]
    found = fault_scores(rows)
    assert found["root_cause"]["value"] == 0.75 and found["detection"]["value"] == 1.0
    assert found["macro_f1"]["value"] == pytest.approx((2 * 2 / (2 + 3) + 2 * 1 / (2 + 1)) / 2)
    assert found["by_fault"] == {"a.x": 1.0, "b.y": 0.5}
    low, high = found["root_cause"]["interval"]
    assert low == 0.5 and high == 1.0  # two faults: a bootstrap over faults sees 0.5, 0.75 or 1


def test_cannot_tell_is_a_miss_and_a_masked_plant_is_not_scored():
    rows = [row("a.x", first=""), row("b.y"), row("c.z", first="", harm="")]
    found = fault_scores(rows)
    assert (
        found["n"] == 2
        and found["root_cause"]["value"] == 0.5
        and found["cannot_tell"]["value"] == 0.5
    )
    assert score(rows)["masked"] == ["ours-fault-c.z-2"]


def test_the_silent_ones_stand_by_themselves():
    found = fault_scores([row("a.x", passed=True, first="b.y"), row("b.y")])
    assert found["silent"]["n"] == 1 and found["silent"]["root_cause"]["value"] == 0.0


def test_a_clean_run_counts_only_if_it_passes_the_gate():
    clean = row(fault="3", kind="clean", first="", passed=True, healthy=True, harm="")
    rows = [clean, replace(clean, confirmed=("a.x",), healthy=False), replace(clean, passed=False)]
    found = clean_scores(rows)
    assert (found["n"], found["alarms"]) == (2, 1) and found["which"] == ["ours-clean-3-2: a.x"]
    assert len(found["not_passed"]) == 1


def test_confusion_and_pairs():
    group = ("a.x", "b.y")
    table = confusion(
        [row("a.x"), row("a.x", first="b.y"), row("a.x", first="q.q"), row("b.y", first="")], group
    )
    assert table == {"a.x": {"a.x": 1, "b.y": 1, "other": 1}, "b.y": {"cannot tell": 1}}
    masked = [row("model.text_ignored"), row("model.text_ignored", first="", harm="")]
    assert score(masked)["confusion"]["ignores the text"]["model.text_ignored"] == {
        "model.text_ignored": 1
    }
    both = row("a.x & b.y", kind="pair", first="a.x", suspected=("b.y",))
    assert pair_scores([both, replace(both, suspected=())])["both"] == 1


def test_a_row_survives_storage():
    one = row()
    assert Row.from_dict(one.to_dict()) == one


def test_a_sound_design_may_be_asked_about_and_not_accused():
    rows = [
        row("tied_weights", first="", kind="sound"),
        row("frozen", first="", kind="sound", questions=("optimizer.missing_parameters",)),
        row("past_the_end", first="model.padding_mask", kind="sound"),
        row("tables", first="", suspected=("loop.weights_not_loaded",), kind="sound"),
        # drift under self-feeding is no defect
        row("slow", first="generation.exposure_gap", kind="sound"),
    ]
    found = score(rows)["sound"]
    assert (found["n"], found["confirmed"], found["accused"]) == (5, 1, 2)
    assert found["which"] == [
        "ours-sound-past_the_end-2: model.padding_mask",
        "ours-sound-tables-2: loop.weights_not_loaded",
    ]
    assert found["asked"] == ["ours-sound-frozen-2: optimizer.missing_parameters"]


def test_a_thread_is_named_by_any_of_its_causes():
    accepted = ("data.duration_sum", "data.sample_rate")
    rows = [
        row("one", first="data.sample_rate", kind="thread", accepted=accepted),
        row("two", first="a.x", suspected=accepted[:1], kind="thread", accepted=accepted),
        row("three", first="", kind="thread", healthy=True, accepted=accepted),
    ]
    found = score(rows)["threads"]
    assert {name: found[name] for name in ("n", "first", "named", "noticed")} == {
        "n": 3,
        "first": 1,
        "named": 2,
        "noticed": 2,
    }
    assert found["missed"] == [
        "ours-thread-three-2: cannot tell",
        "ours-thread-two-2: a.x, data.duration_sum",
    ]


def test_matrices_without_such_cells_have_no_such_scores():
    assert not {"sound", "threads"} & set(score([row()]))
    one = row(questions=("model.padding_mask",), accepted=("a.x",))
    assert Row.from_dict(one.to_dict()) == one and "questions" not in row().to_dict()
