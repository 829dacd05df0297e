"""The runner's judgement on its own: what each kind of evidence leads to, one at a time."""

import json

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

from tts_workbook.runner.process import ProcessOutcome
from tts_workbook.runner.validate import WIDGET_STATE, find_fault, signal_name

GOOD = {
    "notebook": "01",
    "question": "?",
    "answer": "yes",
    "metrics": {},
    "items": [],
    "provenance": {"token": "t"},
}


def judge(tmp_path, *cells, widgets=None, verdict=GOOD, **seen) -> str | None:
    """The cause of the fault in an executed notebook, None when there is none."""
    notebook = new_notebook(cells=list(cells))
    if widgets is not None:
        notebook.metadata["widgets"] = {
            WIDGET_STATE: {"state": {"m1": {"state": {"outputs": widgets}}}}
        }
    nbformat.write(notebook, tmp_path / "01.ipynb")
    (tmp_path / "01.json").write_text(json.dumps(verdict))
    outcome = ProcessOutcome(
        **{"code": 0, "finished": True, "last_cell": {"index": 1, "first_line": ""}, **seen}
    )
    fault = find_fault(
        outcome, tmp_path / "01.ipynb", tmp_path / "01.json", "t", lambda index: f"cell {index}"
    )
    return fault.cause if fault else None


def cell(count, *outputs, source="1") -> nbformat.NotebookNode:
    return new_code_cell(source, execution_count=count, outputs=list(outputs))


def test_a_clean_execution_has_no_fault(tmp_path):
    widgets = [{"output_type": "stream", "name": "stdout", "text": "fine"}]
    assert judge(tmp_path, cell(1), cell(None, source="  "), cell(3), widgets=widgets) is None


@pytest.mark.parametrize(
    "cells, cause",
    [
        ([cell(1), cell(None)], "cell 1 was not executed (tags: none)"),
        ([cell(2), cell(1)], "cell 1 was executed out of order"),
        ([cell(1), cell(1)], "cell 1 was executed out of order"),
        (
            [cell(1, new_output("error", ename="ValueError", evalue="bad", traceback=[]))],
            "cell 0 raised ValueError: bad",
        ),
    ],
)
def test_cells_bear_witness(tmp_path, cells, cause):
    assert judge(tmp_path, *cells) == cause


@pytest.mark.parametrize(
    "output, cause",
    [
        (
            {"output_type": "error", "ename": "KeyError", "evalue": "x"},
            "a widget hides an error, KeyError: x",
        ),
        (
            {
                "output_type": "stream",
                "name": "stderr",
                "text": "Traceback (most recent call last)\n",
            },
            "a widget hides a traceback",
        ),
    ],
)
def test_widgets_bear_witness(tmp_path, output, cause):
    assert judge(tmp_path, cell(1), widgets=[output]) == cause


@pytest.mark.parametrize(
    "seen, cause",
    [
        ({"code": 1}, "ended with exit code 1 at cell 1"),
        ({"code": -15, "finished": False}, "ended with SIGTERM at cell 1"),
        ({"finished": False}, "ended with exit code 0 at cell 1"),
        ({"dead_kernel": {"code": -9, "index": 0}}, "kernel died (SIGKILL) in cell 0"),
        ({"dead_kernel": {"code": 0, "index": 0}}, "kernel died (exit code 0) in cell 0"),
        (
            {"failure": {"name": "OSError", "value": "no space"}, "finished": False, "code": 1},
            "stopped at cell 1: OSError: no space",
        ),
        (
            {"errors": [{"name": "ValueError", "value": "bad", "index": 0}]},
            "cell 0 raised ValueError inside a widget or an output that hides it: bad",
        ),
        ({"errors": [{"name": "SystemExit", "value": "", "index": 0}]}, "cell 0 called sys.exit()"),
        (
            {
                "tracebacks": [
                    {"text": "Traceback (most recent call last)\n  ...\nKeyError: 1\n", "index": 0}
                ]
            },
            "something failed unseen: KeyError: 1",
        ),
        ({"verdict": {**GOOD, "provenance": {"token": None}}}, "is not from this execution"),
        ({"verdict": {**GOOD, "answer": ""}}, "its verdict is not valid"),
    ],
)
def test_the_process_and_the_verdict_bear_witness(tmp_path, seen, cause):
    assert cause in judge(tmp_path, cell(1), **seen)


def test_an_executed_notebook_that_cannot_be_read_is_a_fault(tmp_path):
    (tmp_path / "01.ipynb").write_text('{"cells": [')
    outcome = ProcessOutcome(code=0, finished=True, last_cell={"index": 1, "first_line": ""})
    fault = find_fault(outcome, tmp_path / "01.ipynb", tmp_path / "01.json", "t", str)
    assert "cannot be read" in fault.cause


def test_exit_codes_have_names():
    assert [signal_name(code) for code in (-9, 137, -11, 0, 1, 255, None)] == [
        "SIGKILL",
        "SIGKILL",
        "SIGSEGV",
        "exit code 0",
        "exit code 1",
        "exit code 255",
        "exit code None",
    ]
