"""Notebooks side by side: they really are, none starts before what it reads, and one that fails or
an interrupt ends the others without leaving a kernel or a half result.
"""

import os
import signal
import threading
import time

import pytest

from tests.tts_workbook.runner.workbook_builders import (
    PATIENCE,
    assert_failed_honestly,
    hidden_files,
    record_of,
    run_here,
    verdict_cell,
    wait_until,
    wait_until_gone,
    write_notebook,
)
from tts_core.errors import WorkbookError
from tts_workbook.runner.run_notebooks import threads_of

# Each waits for the other's sign: one after the other they would never end.
MEET = """
import pathlib, time
pathlib.Path(out, "{mine}.here").touch()
until = time.monotonic() + {patience}
while not pathlib.Path(out, "{other}.here").exists():
    assert time.monotonic() < until, "the other notebook did not run at the same time"
    time.sleep(0.02)
"""
SLEEP = """
import os, pathlib, time
pathlib.Path(out, "{mine}.pid").write_text(str(os.getpid()))
time.sleep(600)
"""
AWAIT_SLEEPER = """
import pathlib, time
while not pathlib.Path(out, "{other}.pid").exists():
    time.sleep(0.02)
"""


def meet(mine: str, other: str) -> str:
    return MEET.format(mine=mine, other=other, patience=PATIENCE)


def test_two_run_at_the_same_time_and_both_count(tmp_path):
    notebooks = tmp_path / "notebooks"
    write_notebook(notebooks, "01_check", meet("01", "02"), verdict_cell("01"))
    write_notebook(notebooks, "02_audit", meet("02", "01"), verdict_cell("02"))
    result, printed = run_here(tmp_path, jobs=2)
    assert result.status == "complete", printed
    assert {entry["status"] for entry in record_of(result.out)["notebooks"].values()} == {"done"}
    record = record_of(result.out)
    assert (record["jobs"], record["threads"]) == (2, threads_of(None, jobs=2))
    assert "2 side by side" in (result.out / "report.html").read_text()
    assert "01_check: done after" in printed and "02_audit: done after" in printed
    assert hidden_files(result.out) == []


def test_none_starts_before_what_it_reads(tmp_path):
    """07 reads 03: it may not run beside it."""
    notebooks = tmp_path / "notebooks"
    sign = "import pathlib, time\ntime.sleep(0.5)\npathlib.Path(out, '03.over').touch()"
    seen = "import pathlib\nassert pathlib.Path(out, '03.over').exists()"
    write_notebook(notebooks, "03_overfit", sign, verdict_cell("03"))
    write_notebook(notebooks, "07_listen", seen, verdict_cell("07"))
    result, printed = run_here(tmp_path, jobs=2)
    assert result.status == "complete", printed
    begun = printed.index("07_listen: starting")
    assert printed.index("03_overfit: done after") < begun


def test_one_that_fails_ends_the_other_which_does_not_count(tmp_path):
    notebooks = tmp_path / "notebooks"
    failing = AWAIT_SLEEPER.format(other="02")
    write_notebook(notebooks, "01_check", failing, "raise ValueError('no luck')")
    write_notebook(notebooks, "02_audit", verdict_cell("02"), SLEEP.format(mine="02"))
    write_notebook(notebooks, "03_overfit", verdict_cell("03"))
    result, _ = run_here(tmp_path, jobs=2)
    record = assert_failed_honestly(result, "01_check", "no luck")
    beside = record["notebooks"]["02"]
    assert beside["status"] == "interrupted" and "01_check" in beside["cause"]
    assert record["notebooks"]["03"]["status"] == "not run"
    assert not (result.out / "verdicts" / "02.json").exists()
    assert not list((result.out / "notebooks").glob("*"))
    wait_until_gone(int((result.out / "02.pid").read_text()))


def test_an_interrupt_ends_both_and_resume_continues(tmp_path):
    notebooks, out = tmp_path / "notebooks", tmp_path / "out"
    for number, name in (("01", "check"), ("02", "audit")):
        cell = SLEEP.format(mine=number)
        write_notebook(notebooks, f"{number}_{name}", verdict_cell(number), cell)

    def interrupt() -> None:
        wait_until(lambda: len(list(out.glob("*.pid"))) == 2, "both notebooks sleep")
        time.sleep(0.2)  # until their numbers are in the files
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=interrupt).start()
    result, _ = run_here(tmp_path, jobs=2)
    record = record_of(out)
    assert result.status == "interrupted" == record["status"]
    assert {entry["status"] for entry in record["notebooks"].values()} == {"interrupted"}
    assert not list((out / "verdicts").glob("*")) and hidden_files(out) == []
    for file in out.glob("*.pid"):
        wait_until_gone(int(file.read_text()))
    for number, name in (("01", "check"), ("02", "audit")):
        write_notebook(notebooks, f"{number}_{name}", verdict_cell(number))
    assert run_here(tmp_path, jobs=2, resume=True)[0].status == "complete"


@pytest.mark.parametrize("jobs", [0, -1])
def test_less_than_one_is_an_error_that_names_the_value(tmp_path, jobs):
    write_notebook(tmp_path / "notebooks", "01_check", verdict_cell("01"))
    with pytest.raises(WorkbookError, match=f"jobs = {jobs}: at least one"):
        run_here(tmp_path, jobs=jobs)


def test_each_gets_its_share_of_the_processors_unless_threads_are_given():
    assert threads_of(None, jobs=1) is None
    assert threads_of(3, jobs=1) == 3 == threads_of(3, jobs=2)
    assert threads_of(None, jobs=10_000) == 1
