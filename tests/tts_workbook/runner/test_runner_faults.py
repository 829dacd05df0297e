"""Ways in which a notebook can fail while papermill calls it a success: each must be seen, said and
recorded.
"""

import nbformat
import pytest

from tests.tts_workbook.runner.workbook_builders import (
    assert_failed_honestly,
    hidden_files,
    record_of,
    run_here,
    title_of,
    verdict_cell,
    wait_until_gone,
    write_notebook,
)

GOOD = verdict_cell("03")
# name -> (cells after the parameters cell, what the record must say, number of the cell to blame)
FAULTS = {
    "killed kernel": (
        ["import os\nos.kill(os.getpid(), 9)", GOOD],
        "kernel died (SIGKILL) in cell 3",
        3,
    ),
    "kernel killed by its last cell": (
        [GOOD + "\nos.kill(os.getpid(), 11)"],
        "kernel died (SIGSEGV) in cell 3",
        3,
    ),
    "sys.exit": ([GOOD, "import sys\nsys.exit(0)", "1"], "cell 4 called sys.exit(0)", 4),
    "plain error": (["1", "1 / 0", GOOD], "cell 4 raised ZeroDivisionError: division by zero", 4),
    "error in an Output widget": (
        ["import ipywidgets\nwith ipywidgets.Output():\n    raise ValueError('unseen')", GOOD],
        "raised ValueError inside a widget",
        3,
    ),
    "error in an interact callback": (
        [
            "import ipywidgets\n@ipywidgets.interact(x=3)\ndef f(x):\n    raise KeyError('unseen')",
            GOOD,
        ],
        "raised KeyError inside a widget",
        3,
    ),
    "error that is cleared away": (
        [
            (
                "from IPython.display import clear_output\nget_ipython().run_cell('1 /"
                " 0')\nclear_output()"
            ),
            GOOD,
        ],
        "ZeroDivisionError",
        3,
    ),
    "error in a thread": (
        ["import threading\nt = threading.Thread(target=lambda: 1 / 0)\nt.start()\nt.join()", GOOD],
        "ZeroDivisionError",
        3,
    ),
    "no verdict": (["1"], "never wrote its verdict", None),
    "verdict of another execution": (
        [GOOD.replace('context["token"]', '"forged"')],
        "not from this execution",
        None,
    ),
    "verdict with a NaN": (
        [GOOD.replace('globals().get("lr") or 0', "float('nan')")],
        "must be a finite number",
        None,
    ),
    "half a verdict": ([GOOD + "\nfile.write_text(file.read_text()[:40])"], "not JSON", None),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_fault_is_seen_and_recorded(tmp_path, fault):
    cells, cause, number = FAULTS[fault]
    write_notebook(tmp_path / "notebooks", "03_overfit", *cells)
    write_notebook(tmp_path / "notebooks", "07_listen", verdict_cell("07"))

    result, printed = run_here(tmp_path)

    record = assert_failed_honestly(result, "03_overfit", cause)
    assert record["failure"]["cell"] == number
    assert record["notebooks"]["07"]["status"] == "not run"
    assert cause in printed
    copy = nbformat.read(result.out / "failed" / "03_overfit.ipynb", as_version=4)
    assert (
        copy.metadata.tts_workbook.status == "failed" and cause in copy.metadata.tts_workbook.cause
    )


def test_failed_copy_tells_failed_from_never_run_and_resume_continues(tmp_path):
    write_notebook(tmp_path / "notebooks", "01_check", verdict_cell("01"))
    write_notebook(
        tmp_path / "notebooks", "03_overfit", "1", "import os\nos.kill(os.getpid(), 9)", "2"
    )
    result, _ = run_here(tmp_path)
    assert_failed_honestly(result, "03_overfit", "cell 4")
    copy = nbformat.read(result.out / "failed" / "03_overfit.ipynb", as_version=4)
    statuses = [cell.metadata.papermill.status for cell in copy.cells]
    # the third is the injected cell
    assert statuses == ["completed"] * 4 + ["failed", "pending"]
    # what is done is shown, under the banner
    assert "yes" in (result.out / "report.html").read_text()
    first = record_of(result.out)["notebooks"]["01"]["key"]

    write_notebook(tmp_path / "notebooks", "03_overfit", verdict_cell("03"))
    result, printed = run_here(tmp_path, resume=True)

    assert (result.exit_code, record_of(result.out)["status"]) == (0, "complete")
    assert "01_check: done already" in printed
    assert record_of(result.out)["notebooks"]["01"]["key"] == first
    assert title_of(result.out) == "Overfit Workbook"
    assert not (result.out / "failed" / "03_overfit.ipynb").exists()
    assert hidden_files(result.out) == []


def test_cell_left_unexecuted(tmp_path):
    cells = ("1", verdict_cell("01"))
    write_notebook(
        tmp_path / "notebooks", "01_check", *cells, tags={0: ["skip-execution"]}, parameters=None
    )
    result, _ = run_here(tmp_path)
    record = assert_failed_honestly(
        result, "01_check", "cell 2 was not executed (tags: skip-execution)"
    )
    assert record["failure"]["cell"] == 2


def test_a_killed_executor_takes_everything_with_it(tmp_path):
    """The kernel, and what the kernel started."""
    start = (
        "import os, pathlib, subprocess\nchild = subprocess.Popen(['sleep', '120'])\n"
        "pathlib.Path(out, 'pids').write_text(f'{os.getpid()} {child.pid}')\n"
    )
    write_notebook(
        tmp_path / "notebooks", "01_check", start + "os.kill(os.getppid(), 9)\nchild.wait()"
    )
    result, _ = run_here(tmp_path)
    assert_failed_honestly(result, "01_check", "ended with SIGKILL at cell 3")
    for pid in (result.out / "pids").read_text().split():
        wait_until_gone(int(pid))


def test_stale_verdict_does_not_count_and_its_results_are_kept(tmp_path):
    write_notebook(tmp_path / "notebooks", "01_check", verdict_cell("01", "the old answer"))
    assert run_here(tmp_path)[0].exit_code == 0
    write_notebook(tmp_path / "notebooks", "01_check", "1")

    result, _ = run_here(tmp_path, only="01")

    assert_failed_honestly(result, "01_check", "never wrote its verdict")
    assert "the old answer" not in (result.out / "report.html").read_text()
    kept = list((result.out / "superseded").glob("01-*/verdicts/01.json"))
    assert len(kept) == 1 and "the old answer" in kept[0].read_text()
