"""Recorded studies come back as they went, name no folder of their machine, and say how to make
them anew.
"""

import dataclasses
import json
import re
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.tts_workbook.trials.trial_builders import made_result, short_corpus, smoke_trial
from tts_core.errors import WorkbookError
from tts_workbook.trials.store import Store
from tts_workbook.trials.study_records import (
    STUDY_RECORDS,
    read_study_record,
    study_record_path,
    write_study_record,
)
from tts_workbook.trials.trial_result import TrialResult

PROVENANCE = {"command": "make evidence", "date": "2026-11-23"}


def results():
    """One real trial, whose clip lies at an absolute path, and one that failed."""
    trial = smoke_trial(short_corpus(), name="base")
    assert Path(trial.clips[0].root).is_absolute()
    real = TrialResult(trial, {"outcome": 0.5, "leave_step": None}, {"over_constant": [1.0, 0.5]})
    return [real, made_result("arm", failed="broke")]


def test_what_was_written_is_read_and_still_answers_for_its_trial(tmp_path):
    written = results()
    write_study_record("repairs", written, PROVENANCE, tmp_path)
    read, provenance = read_study_record("repairs", tmp_path)
    assert provenance == PROVENANCE and [result.digest for result in read] == [
        result.digest for result in written
    ]
    assert [(result.measures, result.curves, result.failed) for result in read] == [
        (result.measures, result.curves, result.failed) for result in written
    ]
    assert (
        Store(tmp_path / "store", recorded=read).get(written[0].trial).measures
        == written[0].measures
    )


@pytest.mark.parametrize("path", sorted(STUDY_RECORDS.glob("*.json")), ids=lambda path: path.stem)
def test_every_recorded_trial_still_has_its_digest(path):
    """Or what was recorded would answer for nothing that is asked today."""
    rows = json.loads(path.read_text())["results"]
    read, _ = read_study_record(path.stem)
    assert [result.digest for result in read] == [row["digest"] for row in rows] != []
    # and every record would be written again as it is
    assert [json.dumps(result.to_dict()) for result in read] == list(map(json.dumps, rows))


def test_no_folder_of_this_machine_is_named(tmp_path):
    write_study_record("repairs", results(), PROVENANCE, tmp_path)
    text = study_record_path("repairs", tmp_path).read_text()
    assert str(ROOT) not in text and not re.search(r'"/', text)
    assert json.loads(text)["results"][0]["trial"]["clips"][0]["root"] == "allison"
    # a line each: a change of one result is a change of one line
    assert len(text.splitlines()) == 4


def test_a_record_that_is_missing_or_broken_names_its_file_and_the_command(tmp_path):
    with pytest.raises(WorkbookError, match=r"no recorded study .*dose\.json; `make evidence`"):
        read_study_record("dose", tmp_path)
    for content in (
        "",
        "{}",
        '{"results": [{}], "provenance": {}}',
        '{"results": 1, "provenance": {}}',
    ):
        study_record_path("dose", tmp_path).write_text(content)
        with pytest.raises(
            WorkbookError, match=r"dose\.json: not a recorded study .*`make evidence`"
        ):
            read_study_record("dose", tmp_path)


def test_a_number_that_json_cannot_hold_leaves_the_old_record(tmp_path):
    write_study_record("dose", results(), PROVENANCE, tmp_path)
    before = study_record_path("dose", tmp_path).read_text()
    broken = dataclasses.replace(results()[0], measures={"outcome": float("nan")})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_study_record("dose", [broken], PROVENANCE, tmp_path)
    assert (
        study_record_path("dose", tmp_path).read_text() == before
        and len(list(tmp_path.iterdir())) == 1
    )
