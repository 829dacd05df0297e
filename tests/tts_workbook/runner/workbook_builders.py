"""Tiny notebooks, run in real kernels, and what every failed run must look like."""

import io
import json
import time
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from tts_workbook.pages.run_report import write_report
from tts_workbook.runner.console import Console
from tts_workbook.runner.run_notebooks import RunResult, run_notebooks

PATIENCE = 60.0  # seconds; only a failing test waits that long
PARAMETERS = 'profile = "quick"\ndata = ""\nout = ""\nlr = None'
# A verdict as Notebook.verdict writes it, without the seconds that importing torch takes.
WRITE_VERDICT = """
import json, os, pathlib
context = json.loads(os.environ["TTS_RUNNER"])
provenance = {{"token": context["token"]}}
verdict = {{"notebook": "{number}", "question": "?", "answer": "{answer}", "items": [],
           "metrics": {{"lr": globals().get("lr") or 0}}, "provenance": provenance}}
file = pathlib.Path(context["out"]) / "verdicts" / "{number}.json"
file.parent.mkdir(exist_ok=True)
file.write_text(json.dumps(verdict))
"""


def verdict_cell(number: str, answer: str = "yes") -> str:
    return WRITE_VERDICT.format(number=number, answer=answer)


def write_notebook(
    folder: Path,
    name: str,
    *cells: str,
    parameters: str | None = PARAMETERS,
    tags: dict[int, list[str]] | None = None,
) -> Path:
    """A title, the parameters cell, then `cells`; `tags` by position in `cells`. In the file,
    cells[0] is cell 3.
    """
    content = [new_markdown_cell("# Is it so?")]
    if parameters is not None:
        content.append(new_code_cell(parameters, metadata={"tags": ["parameters"]}))
    content += [
        new_code_cell(source, metadata={"tags": (tags or {}).get(index, [])})
        for index, source in enumerate(cells)
    ]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.ipynb"
    nbformat.write(new_notebook(cells=content), path)
    return path


def write_data(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metadata.csv").write_text("a|b|b\n")
    return folder


def run_here(
    tmp_path: Path,
    *,
    out: str = "out",
    environment: dict | None = None,
    explicit: dict | None = None,
    **options,
) -> tuple[RunResult, str]:
    """`run_notebooks` on tmp_path/notebooks and tmp_path/data: the result, and what was printed."""
    printed = io.StringIO()
    given = {
        "data": str(write_data(tmp_path / "data")),
        "out": str(tmp_path / out),
        **(explicit or {}),
    }
    result = run_notebooks(
        given,
        write_report,
        notebooks_dir=tmp_path / "notebooks",
        console=Console(printed),
        environment=environment or {},
        **options,
    )
    return result, printed.getvalue()


def record_of(out: Path) -> dict:
    return json.loads((out / "run.json").read_text())


def title_of(out: Path) -> str:
    page = (out / "report.html").read_text()
    return page[page.index("<title>") + 7 : page.index("</title>")]


def hidden_files(out: Path) -> list[str]:
    """Temporary files that were left behind; the lock is meant to stay."""
    return [path.name for path in out.rglob(".*") if path.name != ".lock"]


def assert_failed_honestly(result: RunResult, name: str, cause: str) -> dict:
    """Exit code, record, report and files of a run in which notebook `name` failed. Returns the
    record.
    """
    out, number = result.out, name[:2]
    record = record_of(out)
    assert result.exit_code == 1 and result.status == "failed"
    assert record["status"] == "failed"
    assert record["failure"]["name"] == name
    assert cause in record["failure"]["cause"]
    assert record["notebooks"][number]["status"] == "failed"
    assert not (out / "notebooks" / f"{name}.ipynb").exists()
    assert not (out / "verdicts" / f"{number}.json").exists()
    assert not (out / "state" / f"{number}.json").exists()
    assert title_of(out).startswith("INCOMPLETE") and name in title_of(out)
    assert hidden_files(out) == []
    return record


def wait_until(condition, what: str) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, f"waited in vain until {what}"
        time.sleep(0.05)


def wait_until_gone(pid: int) -> None:
    """Until the process is no more, or a zombie that nobody has reaped yet."""

    def gone() -> bool:
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
        except OSError:
            return True

    wait_until(gone, f"process {pid} is gone")
