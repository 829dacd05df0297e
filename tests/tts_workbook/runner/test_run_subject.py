"""`tts-workbook run --subject`: which notebooks run, what is refused beforehand, what a resumed run
goes by, and the run.
"""

import json

import nbformat
import pytest

from tests.tts_workbook.runner.subject_builders import write_subject
from tests.tts_workbook.runner.workbook_builders import (
    record_of,
    title_of,
    verdict_cell,
    write_notebook,
)
from tts_core.errors import WorkbookError
from tts_workbook import cli
from tts_workbook.pages.run_report import write_report
from tts_workbook.runner import plan
from tts_workbook.runner.console import Console
from tts_workbook.runner.parameters import repository_root
from tts_workbook.runner.run_notebooks import run_notebooks, takers_of_subjects
from tts_workbook.runner.verdicts import read_verdict

TAKES = 'profile = "quick"\nout = ""\nseed = 0\nsubject = ""'


@pytest.fixture
def home(tmp_path, monkeypatch):
    """The user's folder, where the command is given: mine.py with parts.py, and tiny notebooks of
    which 02 takes a subject.
    """
    import sys

    for name in ("mine", "parts"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr(sys, "path", list(sys.path))
    write_subject(tmp_path)
    monkeypatch.chdir(tmp_path)
    notebooks = tmp_path / "notebooks"
    see = "import os\nprint('seen', subject, os.getcwd())\n"
    write_notebook(notebooks, "01_check", verdict_cell("01"))
    write_notebook(notebooks, "02_audit", see + verdict_cell("02"), parameters=TAKES)
    write_notebook(notebooks, "09_findings", verdict_cell("09"))
    yield tmp_path
    for name in ("mine", "parts"):
        sys.modules.pop(name, None)


def start(home, *, resume=False, only=None, environment=None, **explicit):
    import io

    printed = io.StringIO()
    result = run_notebooks(
        {"out": str(home / "out"), **explicit},
        write_report,
        only=only,
        resume=resume,
        notebooks_dir=home / "notebooks",
        console=Console(printed),
        environment=environment or {},
    )
    return result, printed.getvalue()


def tokens(out):
    return {
        path.stem: json.loads(path.read_text())["token"] for path in (out / "state").glob("*.json")
    }


def said_in(out, name):
    cells = nbformat.read(out / "notebooks" / f"{name}.ipynb", as_version=4).cells
    return [
        (cell.source, "".join(output.get("text", "") for output in cell.outputs))
        for cell in cells
        if cell.cell_type == "code"
    ]


def test_the_notebooks_that_take_a_subject_run_on_its_absolute_address(home):
    result, printed = start(home, subject="mine.py:subject")
    assert result.exit_code == 0, printed
    record = record_of(result.out)
    assert record["selection"] == ["02"] and record["subject"]["files"] == 2
    assert record["parameters"]["subject"] == f"{home}/mine.py:subject"
    assert any(
        f"seen {home}/mine.py:subject" in said for _, said in said_in(result.out, "02_audit")
    )
    assert title_of(result.out) == "Overfit Workbook: mine.py:subject"
    assert (
        f"Studied here: <strong>{home}/mine.py:subject</strong>"
        in (result.out / "report.html").read_text()
    )


def test_several_subjects_are_one_list_whatever_the_door(home):
    write_notebook(
        home / "notebooks",
        "02_audit",
        "print('seen', subjects)\n" + verdict_cell("02"),
        parameters=TAKES.replace("subject", "subjects"),
    )
    result, printed = start(home, subjects="healthy, mine.py:subject,mine.py:bare")
    assert result.exit_code == 0, printed
    record = record_of(result.out)
    assert record["selection"] == ["02"] and record["subject"]["files"] == 4
    wanted = f"healthy,{home}/mine.py:subject,{home}/mine.py:bare"
    assert record["parameters"]["subjects"] == wanted
    assert any(f"seen {wanted}" in said for _, said in said_in(result.out, "02_audit"))
    # one address is the old parameter by its new name
    result, _ = start(home, subject="mine.py:subject")
    assert record_of(result.out)["parameters"]["subjects"] == f"{home}/mine.py:subject"
    result, _ = start(home, environment={"TTS_WORKBOOK_SUBJECTS": "seed"}, only="02")
    assert record_of(result.out)["parameters"]["subjects"] == "seed"
    assert record_of(result.out)["subject"] == {"hash": ""}
    for wrong, complaint in (
        ("helthy", "healthy, no_norm, seed or package"),
        ("seed,seed", "once"),
    ):
        with pytest.raises(WorkbookError, match=complaint):
            start(home, subjects=wrong)


def test_resume_goes_by_the_source_of_the_subject(home):
    out = start(home, environment={"TTS_WORKBOOK_SUBJECT": "mine:subject"}, only="02")[0].out
    first = tokens(out)
    _, printed = start(home, subject="mine:subject", only="02", resume=True)
    assert tokens(out) == first and "done already" in printed
    (home / "notes.py").write_text("unrelated = 1")
    start(home, subject="mine:subject", only="02", resume=True)
    assert tokens(out) == first
    with open(home / "parts.py", "a") as parts:
        parts.write("\nEPS = 1\n")
    _, printed = start(home, subject="mine:subject", only="02", resume=True)
    assert tokens(out) != first and "02_audit: runs again, changed: the subject's source" in printed


def test_without_a_subject_every_notebook_runs_and_no_key_has_one(home):
    # in JupyterLab, and left there
    edited = TAKES.replace('subject = ""', 'subject = "mine.py:subject"')
    write_notebook(
        home / "notebooks",
        "02_audit",
        "assert subject == ''",
        verdict_cell("02"),
        parameters=edited,
    )
    result, printed = start(home)
    assert result.exit_code == 0 and record_of(result.out)["selection"] == [
        "01",
        "02",
        "09",
    ], printed
    assert all(
        "subject" not in json.loads(path.read_text())["parts"]
        for path in (result.out / "state").glob("*.json")
    )
    page = (result.out / "report.html").read_text()
    assert title_of(result.out) == "Overfit Workbook" and "Studied here" not in page


@pytest.mark.parametrize(
    "arguments, complaint",
    [
        (["--subject", "nowhere.py:subject"], "there is no file"),
        (["--subject", "nowhere:subject"], "there is no module 'nowhere'"),
        (["--subject", "mine.py:missing"], "has no 'missing'"),
        (["--subject", "mine.py:number"], "it is a int"),
        (["--subject", "mine.py"], "it must be package.module:name or file.py:name"),
        (["--subject", "mine.py:no_mel"], "Subject.predict_mel: returned a tensor"),
        (
            ["--subject", "broken.py:subject"],
            "loading it raised ZeroDivisionError: division by zero",
        ),
        (["--subject", "mine.py:subject", "-p", "subject=mine.py:bare"], "contradict each other"),
        (
            ["--subject", "mine.py:subject", "--only", "09"],
            "notebook 09 cannot study a model of yours; these can: 02. Name them",
        ),
        (["--subject", "mine.py:subject", "-p", "lr=1e-3"], "lr = '1e-3' does not reach a subject"),
        (
            ["--subject", "mine.py:subject", "--data", "voice"],
            "data = 'voice' does not reach a subject",
        ),
    ],
)
def test_mistakes_are_sentences_before_anything_runs(home, capsys, arguments, complaint):
    (home / "broken.py").write_text("x = 1\nsubject = 1 / 0\n")
    assert (
        cli.main(
            ["run", "--notebooks", str(home / "notebooks"), "--out", str(home / "out"), *arguments]
        )
        == 2
    )
    captured = capsys.readouterr()
    assert (
        captured.err.startswith("tts-workbook: ")
        and complaint in captured.err
        and "Traceback" not in captured.err
    )
    assert "broken.py" not in complaint or "line 2" in captured.err
    assert not (home / "out").exists()


def test_what_a_later_notebook_reads_must_be_of_the_same_subject(home):
    for name in ("03_overfit", "07_listen"):
        write_notebook(home / "notebooks", name, verdict_cell(name[:2]), parameters=TAKES)
    start(home, subject="mine.py:subject", only="03")
    with pytest.raises(
        WorkbookError, match=r"other inputs \(subject .*mine.py:subject -> .*mine.py:bare\)"
    ) as caught:
        start(home, subject="mine.py:bare", only="07")
    assert f"--only 03,07 --notebooks {home}/notebooks --subject {home}/mine.py:bare" in str(
        caught.value
    )


def test_the_notebooks_themselves_on_a_model_of_ones_own(home):
    """Real kernels, the real notebooks 03 and 07, a module that only the user's folder holds."""
    import io

    printed = io.StringIO()
    result = run_notebooks(
        {"out": str(home / "out"), "subject": "mine:subject", "profile": "smoke", "threads": "1"},
        write_report,
        only="03,07",
        console=Console(printed),
        environment={},
    )
    assert result.exit_code == 0, printed.getvalue()
    heard = read_verdict(result.out / "verdicts" / "07.json")
    assert heard["answer"].startswith("mine:subject: ") and "stoi_free_running" in heard["metrics"]
    assert heard["metrics"]["TF_L1_best_constant"] == pytest.approx(
        read_verdict(result.out / "verdicts" / "03.json")["metrics"]["teacher_forced"], rel=1e-4
    )
    trained = "".join(said for _, said in said_in(result.out, "03_overfit_one_clip"))
    assert "mine:subject: 24 steps, teacher-forced" in trained
    heard_cells = "".join(said for _, said in said_in(result.out, "07_listen"))
    assert "mine:subject: generation on the true history beside teacher forcing:" in heard_cells
    page = (result.out / "report.html").read_text()
    assert page.count("<audio") == 4 and page.count("<img") == 6 and "Does not" not in page


def test_the_five_notebooks_take_a_subject():
    sources = plan.discover(repository_root() / "notebooks")
    assert takers_of_subjects(sources) == [
        "02",
        "03",
        "04",
        "05",
        "07",
    ]
