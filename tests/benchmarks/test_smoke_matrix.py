"""The planted-fault benchmark in small: eight faults on two architectures, and clean runs, through
its own command.
"""

import json
import subprocess
import sys

import pytest

from tests.conftest import ROOT


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    target = tmp_path_factory.mktemp("matrix") / "smoke.json"
    done = subprocess.run(
        [
            sys.executable,
            str(ROOT / "benchmarks" / "diagnosis.py"),
            "--smoke",
            "--out",
            str(target),
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(target.read_text())


def test_every_planted_fault_is_noticed_and_nearly_all_are_named_first(smoke):
    found = smoke["scores"]["tuning"]
    # 16 cells, one makes no sense for Tacotron 2
    assert found["n"] >= 14
    assert found["detection"]["value"] == 1.0, found["missed"]
    assert found["root_cause"]["value"] >= 0.9, found["missed"]


def test_clean_runs_raise_no_alarm(smoke):
    clean = smoke["scores"]["clean"]
    assert clean["n"] == 2 and clean["alarms"] == 0, clean


def test_the_matrix_is_complete_and_says_what_it_was_made_with(smoke):
    assert smoke["provenance"]["complete"] and len(smoke["rows"]) == 17
    assert all(not row["error"] for row in smoke["rows"])
