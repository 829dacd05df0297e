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
    tuned_architectures,
)
from tests.conftest import ROOT
from tts_workbook.diagnosis.benchmark_scores import TUNING, Row
from tts_workbook.faults.cause import AREAS


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
    tuned = list(tuned_architectures())
    assert set(tuned) >= {"ours", "tacotron2", "fastspeech2", "lstm", "flow"}
    assert list(known_architectures()) == [*tuned, *held_out_architectures()]
    assert list(held_out_architectures()) == ["vits_like", "token_lm"]


def test_a_module_without_an_architecture_is_passed_over_and_a_name_is_held_once():
    ours, page = "benchmarks.planted.ours", "benchmarks.planted.plants"
    assert list(held_by([page, ours])) == ["ours"]
    with pytest.raises(ValueError, match="second architecture named 'ours'"):
        held_by([ours, ours])


def test_the_recorded_matrix_is_that_of_its_architectures_without_the_tuning_seeds():
    record = json.loads((ROOT / "benchmarks" / "results" / "diagnosis.json").read_text("utf-8"))
    recorded = {Row.from_dict(row).cell for row in record["rows"]}
    kinds = {cell.kind for cell in recorded}
    # in the order of that pass: clean runs and pairs are dealt out in it
    chosen = {name: known_architectures()[name] for name in ("ours", "tacotron2", "gru")}
    assert set(chosen) == {cell.architecture for cell in recorded}
    found = cells(chosen, held_out_architectures(), (0, 1, 2, 3), kinds)
    assert len(found) == len(set(found))
    of_today = {cell for cell in found if cell.seed not in TUNING}
    # the catalogue holds them by now: they are faults of it, no longer outside
    overtaken = {"schedule_ends", "stale_average"}
    assert {cell for cell in recorded if cell.fault not in overtaken} <= of_today


def test_every_architecture_has_cells_of_every_kind_that_it_can_have():
    known = known_architectures()
    found = Counter(
        (cell.architecture, cell.kind)
        for cell in cells(known, held_out_architectures(), (0, 1, 2, 3))
    )
    for name, architecture in known.items():
        halves = 1 if name in held_out_architectures() else 2
        assert found[name, "sound"] == halves * len(architecture.sound)
        assert found[name, "thread"] == halves * len(architecture.threads)
        assert found[name, "outside"] == halves * len(architecture.outside)
    assert sum(found[name, "clean"] for name in known) == 45


def test_a_thread_names_causes_that_the_catalogue_of_faults_has():
    """Some are of causes that the diagnosis does not hold yet; an id has an area that it knows."""
    for architecture in known_architectures().values():
        for name, thread in architecture.threads.items():
            assert thread.causes and thread.source, name
            assert all(cause.partition(".")[0] in AREAS for cause in thread.causes)


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
    assert rates["ours"] == 1e-4 and rates["tacotron2"] == 1e-3 and rates["gru"] is None
    assert rates["vits_like"] == 2e-4 and rates["token_lm"] == 0.05
    assert rates["fastspeech2"] == 1e-4 and rates["lstm"] == 5e-4 and rates["flow"] == 1e-3
