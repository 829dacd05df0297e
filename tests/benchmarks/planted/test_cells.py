"""Which runs the benchmark has: what is held out, what the clean runs cover, and that nothing of it
hangs on anything but names and seeds.
"""

import json
from collections import Counter

import pytest

from benchmarks.planted.architecture import Architecture
from benchmarks.planted.cells import cells, clean_settings, setting_of
from benchmarks.planted.known_architectures import (
    held_by,
    held_out_architectures,
    known_architectures,
)
from tests.conftest import ROOT
from tts_workbook.diagnosis.benchmark_scores import TUNING, Row


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


def test_architectures_are_found_by_walking_the_folder():
    """A module that holds an ARCHITECTURE is one, in the order of the files; held-out ones last."""
    assert list(known_architectures()) == ["gru", "ours", "tacotron2", "vits_like", "token_lm"]
    assert list(held_out_architectures()) == ["vits_like", "token_lm"]


def test_a_module_without_an_architecture_is_passed_over_and_a_name_is_held_once():
    ours, page = "benchmarks.planted.ours", "benchmarks.planted.plants"
    assert list(held_by([page, ours])) == ["ours"]
    with pytest.raises(ValueError, match="second architecture named 'ours'"):
        held_by([ours, ours])


def test_the_matrix_has_every_kind_and_what_is_recorded_is_of_its_kind():
    """The record may be of fewer architectures than there are now: it says which it held out."""
    found = cells(known_architectures(), held_out_architectures(), (0, 1, 2, 3))
    assert len(found) == len(set(found))
    kinds = Counter(cell.kind for cell in found)
    assert (kinds["clean"], kinds["pair"]) == (45, 20)
    assert kinds["fault"] > 600 and kinds["outside"] >= 50
    record = json.loads((ROOT / "benchmarks" / "results" / "diagnosis.json").read_text("utf-8"))
    recorded = {Row.from_dict(row).cell for row in record["rows"]}
    faults = {cell for cell in found if cell.kind == "fault" and cell.seed not in TUNING}
    assert {cell for cell in recorded if cell.kind == "fault"} <= faults
    assert all(cell.seed not in TUNING for cell in recorded)


def test_what_a_fault_needs_is_in_its_setting_and_in_that_of_its_twin():
    known = known_architectures()
    found = cells(known, held_out_architectures(), (2,), ("fault",))
    for cell in found:
        needed = known[cell.architecture].required(cell.fault)
        setting = setting_of(known[cell.architecture], cell)
        assert {name: getattr(setting, name) for name in needed} == needed
    rates = {
        cell.architecture: known[cell.architecture].required(cell.fault).get("lr")
        for cell in found
        if cell.fault == "precision.low_precision_weights"
    }
    others = {"vits_like": 2e-4, "token_lm": 0.05}
    assert rates == {"ours": 1e-4, "tacotron2": 1e-3, "gru": None, **others}
