"""The arithmetic of the benchmark's scores, against answers worked out by hand."""

from dataclasses import replace

import pytest

from benchmarks.planted.architecture import Architecture
from benchmarks.planted.cells import cells, clean_settings
from tts_workbook.diagnosis.benchmark_scores import (
    Cell,
    Row,
    clean_scores,
    confusion,
    fault_scores,
    pair_scores,
    score,
    upper_bound,
)


def row(fault="model.text_ignored", first=None, seed=2, kind="fault", **changes):
    confirmed = (fault if first is None else first,) if first != "" else ()
    values = dict(
        cell=Cell("ours", kind, fault, seed),
        confirmed=confirmed,
        suspected=(),
        healthy=False,
        passed=False,
        headline={},
        baselines={"rule": True},
        harm="TF 0.2 -> 0.9",
        seconds=30.0,
    )
    return Row(**{**values, **changes})


def test_none_of_forty_means_at_most_seven_percent():
    assert upper_bound(0, 40) == pytest.approx(1 - 0.05 ** (1 / 40), abs=1e-9)
    assert upper_bound(40, 40) == 1.0
    assert upper_bound(1, 40) == pytest.approx(0.1135, abs=5e-4)  # Clopper-Pearson table


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


def test_the_held_out_architecture_is_never_tuned_on():
    def nothing(setting):
        raise AssertionError("no subject is built for a list of cells")

    known = {
        name: Architecture(name, nothing, {"model.text_ignored": nothing}, {})
        for name in ("a", "b")
    }
    found = cells(known, ("b",), (0, 1, 2, 3))
    assert {cell.seed for cell in found if cell.architecture == "b" and cell.kind == "fault"} == {
        2,
        3,
    }
    assert {cell.seed for cell in found if cell.architecture == "a" and cell.kind == "fault"} == {
        0,
        1,
        2,
        3,
    }
    assert sum(cell.kind == "clean" for cell in found) == 45


def test_clean_runs_cover_what_they_promise():
    settings = clean_settings(40)
    assert {setting["optimizer"] for setting in settings} == {"adamw", "adam", "sgd"}
    assert {setting["batch_size"] for setting in settings} == {1, 2, 4, 8} and max(
        setting["dropout"] for setting in settings
    ) == 0.3
    assert all(
        any(setting[name] for setting in settings) for name in ("bf16", "tied", "frozen", "warmup")
    )
