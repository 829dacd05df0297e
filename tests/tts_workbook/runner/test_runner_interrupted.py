"""The runner cut short from outside: SIGTERM, SIGKILL, full disk. Nothing looks complete, and
`--resume` continues.
"""

import errno
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tts_workbook.runner.workbook_builders import (
    PATIENCE,
    assert_failed_honestly,
    hidden_files,
    record_of,
    run_here,
    title_of,
    verdict_cell,
    wait_until,
    wait_until_gone,
    write_data,
    write_notebook,
)
from tts_core import atomic_files
from tts_core.errors import WorkbookError
from tts_workbook.pages.run_report import write_report

SLEEP = (
    "import os, pathlib, time\npathlib.Path(out,"
    " 'pid').write_text(str(os.getpid()))\ntime.sleep(120)"
)


@pytest.fixture
def sleeping_run(tmp_path):
    """A command-line run whose second notebook sleeps; (process, pid of the kernel, out)."""
    write_notebook(tmp_path / "notebooks", "01_check", verdict_cell("01"))
    write_notebook(tmp_path / "notebooks", "02_audit", verdict_cell("02"), SLEEP)
    out = tmp_path / "out"
    command = [
        sys.executable,
        "-m",
        "tts_workbook.cli",
        "run",
        "--notebooks",
        str(tmp_path / "notebooks"),
        "--data",
        str(write_data(tmp_path / "data")),
        "--out",
        str(out),
        "--jobs",
        "1",
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    wait_until(
        lambda: (out / "pid").exists() and (out / "pid").read_text(), "the second notebook sleeps"
    )
    yield process, int((out / "pid").read_text()), out
    if process.poll() is None:
        process.kill()


def finish(tmp_path, out) -> None:
    """What a reader does next: the cause mended, the same command with --resume."""
    write_notebook(tmp_path / "notebooks", "02_audit", verdict_cell("02"))
    result, _ = run_here(tmp_path, resume=True)
    assert (result.exit_code, result.out, title_of(out)) == (0, out, "Overfit Workbook")
    assert hidden_files(out) == []


def test_sigterm_ends_everything_and_says_so(tmp_path, sleeping_run):
    process, kernel, out = sleeping_run
    with pytest.raises(
        WorkbookError, match=f"another tts-workbook run .process {process.pid}. is writing"
    ):
        run_here(tmp_path, resume=True)

    process.send_signal(signal.SIGTERM)
    printed = process.communicate(timeout=PATIENCE)[0]

    assert process.returncode == 130 and "Traceback" not in printed
    record = record_of(out)
    assert (record["status"], record["failure"]["name"]) == ("interrupted", "02_audit")
    assert [entry["status"] for entry in record["notebooks"].values()] == ["done", "interrupted"]
    assert title_of(out) == "INCOMPLETE: interrupted in 02_audit"
    # 02 had written one already
    assert sorted(path.name for path in (out / "verdicts").iterdir()) == ["01.json"]
    assert sorted(path.name for path in (out / "notebooks").iterdir()) == ["01_check.ipynb"]
    assert hidden_files(out) == []
    wait_until_gone(kernel)
    finish(tmp_path, out)


def test_sigkill_of_the_runner_leaves_running_and_no_kernel(tmp_path, sleeping_run):
    process, kernel, out = sleeping_run
    process.kill()
    process.wait()
    wait_until_gone(kernel)
    record = record_of(out)
    assert (record["status"], record["pid"]) == ("running", process.pid)
    assert not (out / "report.html").exists()
    assert (
        not (out / "state" / "02.json").exists()
        and not (out / "notebooks" / "02_audit.ipynb").exists()
    )
    write_report(out)
    assert title_of(out) == "INCOMPLETE: killed or still running in 02_audit"
    finish(tmp_path, out)


FILL = """
import errno, pathlib
with open(pathlib.Path(out) / "ballast", "wb", buffering=0) as ballast:
    try:
        while True:
            ballast.write(b"x" * 4096)
    except OSError as error:
        assert error.errno == errno.ENOSPC
"""
INJECT = """
import errno, os
def full(*_):
    raise OSError(errno.ENOSPC, "No space left on device")
os.fsync = full
"""
# The atomic writer by its path: the package would import torch first.
SAVE = f"""
import importlib.util
spec = importlib.util.spec_from_file_location("atomic", {atomic_files.__file__!r})
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
module.write_text(out + "/figures/01_curve.png", "x" * 100_000)
"""


def test_full_disk(tmp_path):
    """On a real, full file system where mounting is allowed, else with the error injected into the
    kernel.
    """
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)]
    mounted = subprocess.run(mount, capture_output=True).returncode == 0
    try:
        write_notebook(
            tmp_path / "notebooks",
            "01_check",
            verdict_cell("01"),
            FILL if mounted else INJECT,
            SAVE,
        )
        result, _ = run_here(tmp_path, out="disk/out")
        assert_failed_honestly(result, "01_check", "No space left on device")
        assert not (result.out / "figures" / "01_curve.png").exists()

        (result.out / "ballast").unlink(missing_ok=True)
        write_notebook(tmp_path / "notebooks", "01_check", verdict_cell("01"), SAVE)
        result, _ = run_here(tmp_path, out="disk/out", resume=True)
        assert result.exit_code == 0 and title_of(result.out) == "Overfit Workbook"
        assert (result.out / "figures" / "01_curve.png").stat().st_size == 100_000
    finally:
        if mounted:
            subprocess.run(["umount", str(disk)], check=True)


def test_full_disk_under_the_runner_itself(tmp_path, monkeypatch):
    """The notebook succeeds, and there is no room for its executed copy; or none for anything from
    the start.
    """

    def full_in(folder: str):
        def write_text(path, text):
            if folder in Path(path).parts:
                raise OSError(errno.ENOSPC, "No space left on device", str(path))
            genuine(path, text)

        return write_text

    genuine = atomic_files.write_text
    write_notebook(tmp_path / "notebooks", "01_check", verdict_cell("01"))
    monkeypatch.setattr(atomic_files, "write_text", full_in("notebooks"))
    result, _ = run_here(tmp_path)
    assert_failed_honestly(result, "01_check", "No space left on device")

    def full_until_the_reserve_is_given_up(path, text):
        if (Path(path).parent / ".reserve").exists():
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        genuine(path, text)

    monkeypatch.setattr(atomic_files, "write_text", full_until_the_reserve_is_given_up)
    assert (
        run_here(tmp_path, out="out1")[0].exit_code == 0
        and record_of(tmp_path / "out1")["status"] == "complete"
    )

    monkeypatch.setattr(atomic_files, "write_text", full_in("out2"))
    result, printed = run_here(tmp_path, out="out2")
    assert result.exit_code == 1 and result.report is None and "No space left on device" in printed
    assert [path.name for path in result.out.rglob("*") if path.is_file()] == [".lock"]


def test_folder_that_cannot_be_written(tmp_path):
    write_notebook(tmp_path / "notebooks", "01_check", verdict_cell("01"))
    with pytest.raises(WorkbookError, match="/proc/nowhere cannot be written"):
        run_here(tmp_path, explicit={"out": "/proc/nowhere"})
