"""The command of the benchmark: which cells it asks for, what counts as known, what is written."""

import json

import pytest

from benchmarks import diagnosis
from tests.tts_workbook.pages.benchmark_rows import row
from tts_core.atomic_files import write_json
from tts_workbook.diagnosis.benchmark_scores import score


@pytest.fixture(autouse=True)
def store(tmp_path, monkeypatch):
    monkeypatch.setattr(diagnosis, "STORE", tmp_path / "store")
    return tmp_path / "store"


def test_a_smoke_run_asks_for_eight_faults_and_two_clean_runs_of_the_tuned_architectures():
    found = diagnosis.wanted_cells(diagnosis.parsed_options(["--smoke"]))
    assert len(found) == 17  # one makes no sense for Tacotron 2
    assert {cell.architecture for cell in found} == {"ours", "tacotron2"}
    assert {cell.fault for cell in found if cell.kind == "fault"} == set(diagnosis.SMOKE_FAULTS)


def test_cells_are_chosen_by_seed_kind_architecture_and_fault():
    arguments = ["--seeds", "3", "--kinds", "fault", "--architectures", "gru"]
    options = diagnosis.parsed_options([*arguments, "--faults", "loop.no_step,data.silence"])
    names = {cell.name for cell in diagnosis.wanted_cells(options)}
    assert names == {"gru-fault-loop.no_step-3", "gru-fault-data.silence-3"}


def test_what_an_older_source_gave_counts_only_where_it_is_asked_for(tmp_path, store):
    now, before, unwanted = row("loop.no_step"), row("data.silence"), row("loop.accumulation")
    store.mkdir()
    stored = {"source": diagnosis.source(), "row": now.to_dict()}
    write_json(store / f"{now.cell.name}.json", stored)
    recorded = {
        "provenance": {"source": "another"},
        "rows": [one.to_dict() for one in (before, unwanted)],
    }
    write_json(tmp_path / "recorded.json", recorded)
    wanted = [now.cell, before.cell, row("model.positions").cell]
    rows, older = diagnosis.known_rows(wanted, tmp_path / "recorded.json", keep=False)
    assert (rows, older) == ({now.cell: now}, 0)
    rows, older = diagnosis.known_rows(wanted, tmp_path / "recorded.json", keep=True)
    assert (rows, older) == ({now.cell: now, before.cell: before}, 1)
    assert diagnosis.known_rows(wanted, tmp_path / "none.json", keep=True)[1] == 0


def test_recording_runs_nothing_and_writes_the_record_and_its_page(tmp_path, store, monkeypatch):
    known = row("loop.no_step")
    store.mkdir()
    stored = {"source": diagnosis.source(), "row": known.to_dict()}
    write_json(store / f"{known.cell.name}.json", stored)
    out = tmp_path / "result" / "diagnosis.json"
    command = ["diagnosis.py", "--record", "--seeds", "2", "--kinds", "fault", "--out", str(out)]
    monkeypatch.setattr("sys.argv", command)
    assert diagnosis.main() == 0
    record = json.loads(out.read_text("utf-8"))
    assert record["rows"] == json.loads(json.dumps([known.to_dict()]))
    assert record["scores"] == json.loads(json.dumps(score([known])))
    assert (
        record["held_out"] == ["vits_like", "token_lm"]
        and record["provenance"]["complete"] is False
    )
    assert "1 plants" in out.with_suffix(".html").read_text("utf-8").replace("\u00a0", " ")


def test_a_diagnosis_that_raises_is_a_miss_that_is_seen():
    cell = row("loop.no_step").cell
    broke = diagnosis.broken(cell, ValueError("no batch"))
    assert broke.error == "ValueError: no batch" and broke.harmful_plant and not broke.right
    assert "ValueError: no batch (0 s)" in diagnosis.log_line(broke)


def test_a_sample_is_settled_by_the_names_and_an_early_stop_leaves_a_sample():
    options = diagnosis.parsed_options(["--seeds", "2,3", "--one-in", "10"])
    sample = diagnosis.wanted_cells(options)
    whole = diagnosis.wanted_cells(diagnosis.parsed_options(["--seeds", "2,3"]))
    assert set(sample) <= set(whole) and 0.05 < len(sample) / len(whole) < 0.15
    assert diagnosis.drawn(list(reversed(whole)), 10) == sample
    half = {cell.architecture for cell in sample[: len(sample) // 2]}
    assert half == {cell.architecture for cell in whole}
    assert diagnosis.command_line(options).endswith("--seeds 2,3 --one-in 10")
