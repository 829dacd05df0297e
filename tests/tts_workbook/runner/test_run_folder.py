"""State of a run folder as it may be found: whole, old, or not ours."""

import json

import pytest

from tts_workbook.runner.run_folder import NotebookState, find_defect, read_state, time_stamp

WHOLE = {"name": "03_overfit", "key": "k", "token": "t", "parts": {"cells": "c"}, "finished": "f"}


def write_state(folder, content) -> None:
    (folder / "state").mkdir(exist_ok=True)
    (folder / "state" / "03.json").write_text(json.dumps(content))


def test_a_state_is_read_whatever_else_stands_in_it(tmp_path):
    write_state(tmp_path, {**WHOLE, "number": "03", "of a later version": 1})
    expected = NotebookState("03_overfit", key="k", token="t", parts={"cells": "c"}, finished="f")
    assert read_state(tmp_path, "03") == expected
    write_state(tmp_path, {**WHOLE, "seconds": 2.5, "parameters": {"lr": 1.0}})
    state = read_state(tmp_path, "03")
    assert state is not None and (state.seconds, state.parameters) == (2.5, {"lr": 1.0})


@pytest.mark.parametrize(
    "content", [{}, [], "03", None, 3, {name: WHOLE[name] for name in WHOLE if name != "parts"}]
)
def test_a_state_that_lacks_what_it_needs_does_not_count(tmp_path, content):
    write_state(tmp_path, content)
    assert read_state(tmp_path, "03") is None
    assert find_defect(tmp_path, "03", "03_overfit") == "it has not been run there"


def test_a_result_of_another_notebook_of_that_number_does_not_count(tmp_path):
    write_state(tmp_path, WHOLE)
    defect = find_defect(tmp_path, "03", "03_listen")
    assert defect == "what is there is of 03_overfit, which had the number of 03_listen when it ran"
    assert "its verdict cannot be read" in (find_defect(tmp_path, "03", "03_overfit") or "")


def test_time_stamps():
    assert time_stamp("2025-11-23T08:17:36+00:00") == "20251123-081736"
    assert len(time_stamp("no time")) == len("20251123-081736")
