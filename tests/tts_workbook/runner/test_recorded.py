"""Recorded results: read only where they say how they came about."""

import json

import pytest

from tts_core.errors import WorkbookError
from tts_workbook.runner import recorded


def test_a_recorded_result_needs_a_file_and_a_provenance(tmp_path, monkeypatch):
    monkeypatch.setattr(recorded, "RESULTS", tmp_path)
    with pytest.raises(WorkbookError, match=r"no recorded result .*absent\.json; `make evidence`"):
        recorded.read_record("absent")
    (tmp_path / "bare.json").write_text(json.dumps({"runs": {}}))
    with pytest.raises(WorkbookError, match="without provenance"):
        recorded.read_record("bare")
    (tmp_path / "good.json").write_text(json.dumps({"runs": {}, "provenance": {"command": "x"}}))
    assert recorded.read_record("good")["provenance"] == {"command": "x"}


def test_the_committed_record_of_the_seed_size_has_all_arms_with_curves_and_provenance():
    record = recorded.read_record("seed_size")
    assert set(record["runs"]) == {"seed", "no_norm", "healthy"}
    assert {"command", "commit", "device", "date", "versions"} <= set(record["provenance"])
    for run in record["runs"].values():
        assert (
            run["experiment"]["model"]["hidden_dim"] == 512
            and run["experiment"]["optimizer"]["lr"] == 7e-5
        )
        assert len(run["steps"]) == len(run["over_constant"]) == len(run["gradient_norm"]) >= 300
