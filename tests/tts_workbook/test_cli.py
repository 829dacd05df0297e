"""The command line: errors are sentences on stderr with exit code 2; a run's last line is the
report's path.
"""

import io

import pytest

from tests.tts_workbook.runner.workbook_builders import verdict_cell, write_data, write_notebook
from tts_workbook import cli
from tts_workbook.runner.console import Console, verdict_table


@pytest.mark.parametrize(
    "arguments, complaint",
    [
        (["-p", "stpes=5"], "did you mean steps?"),
        (["-p", "lr=fast"], "lr = 'fast'"),
        (["-p", "lr"], "write name=value"),
        (["--profile", "quik"], "did you mean quick?"),
        (["--profile", "smoke", "-p", "profile=quick"], "contradict each other"),
        (["--data", "/nowhere/at/all"], "/nowhere/at/all does not exist"),
        (["--only", "42"], "there is no such notebook"),
        (["--only", "07"], "tts-workbook run --only 03,07"),
        (["--executor", "dsak"], "did you mean dask?"),
        (["--scheduler", "tcp://a:1"], "goes with executor = 'dask' alone"),
        (
            ["--executor", "dask", "--scheduler", "a"],
            "it must be the address of a Dask scheduler, for example tcp://",
        ),
        (["-p", "threads=2"], "none of the notebooks 03, 07 takes this parameter"),
        (["--notebooks", "/nowhere"], "no notebooks"),
    ],
)
def test_mistakes_are_sentences_not_tracebacks(tmp_path, capsys, arguments, complaint):
    write_notebook(tmp_path / "notebooks", "03_overfit", "1")
    write_notebook(tmp_path / "notebooks", "07_listen", "1")
    given = [
        "run",
        "--notebooks",
        str(tmp_path / "notebooks"),
        "--data",
        str(write_data(tmp_path / "data")),
        "--out",
        str(tmp_path / "out"),
    ]
    assert cli.main([*given, *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("tts-workbook: ") and complaint in captured.err
    assert "Traceback" not in captured.err + captured.out
    assert not (tmp_path / "out").exists()


def test_a_run_ends_with_the_verdicts_and_the_path_of_the_report(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("TTS_WORKBOOK_LR", "0.125")
    write_notebook(tmp_path / "notebooks", "03_overfit", verdict_cell("03", "It can, at once."))
    assert (
        cli.main(
            [
                "run",
                "--notebooks",
                str(tmp_path / "notebooks"),
                "--data",
                str(write_data(tmp_path / "data")),
                "--out",
                str(tmp_path / "out"),
                "--only",
                "03",
            ]
        )
        == 0
    )
    lines = capsys.readouterr().out.strip().splitlines()
    assert lines[-1] == str(tmp_path / "out" / "report.html")
    assert (
        any(line.startswith("03_overfit") and "done" in line for line in lines)
        and "    It can, at once." in lines
    )
    assert '"lr": 0.125' in (tmp_path / "out" / "verdicts" / "03.json").read_text()

    (tmp_path / "out" / "report.html").unlink()
    assert cli.main(["report", str(tmp_path / "out")]) == 0
    assert (
        capsys.readouterr().out.strip() == lines[-1] and (tmp_path / "out" / "report.html").exists()
    )
    assert cli.main(["report", str(tmp_path / "data")]) == 2


class Terminal(io.StringIO):
    def isatty(self):
        return True


def progress(step: int) -> dict:
    return {"kind": "progress", "line": f"healthy {step}/500 mel 0.312, 41 s, about 44 s left"}


def test_a_log_gets_one_plain_line_every_few_seconds(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("tts_workbook.runner.console.time.monotonic", lambda: now[0])
    stream = io.StringIO()
    console = Console(stream)
    console.start("03_overfit", 9)
    for step in range(200):  # 20 s, ten events a second
        now[0] += 0.1
        if step % 2:
            console.event("03_overfit", progress(step))
        else:
            console.tick()
    console.event("03_overfit", {"kind": "cell", "index": 6, "first_line": "plot(mel)"})
    for _ in range(80):  # 40 s of one silent cell
        now[0] += 0.5
        console.tick()
    console.end("03_overfit", "done")
    lines = stream.getvalue().splitlines()
    assert lines[0] == "03_overfit: starting" and lines[-1] == "03_overfit: done after 60 s"
    assert 3 <= sum("healthy" in line for line in lines) <= 4
    assert lines[1] == "03_overfit: healthy 49/500 mel 0.312, 41 s, about 44 s left"
    silent = [line for line in lines if "plot(mel)" in line]
    assert (
        silent[0] == "03_overfit: cell 7 of 9: plot(mel)"
        and len(silent) == 2
        and "\r" not in stream.getvalue()
    )
    assert silent[1].startswith("03_overfit: cell 7 of 9: plot(mel) ... still, after 5")


def test_a_terminal_gets_one_live_line():
    stream = Terminal()
    console = Console(stream)
    console.start("03_overfit", 9)
    console.event("03_overfit", progress(240))
    console.end("03_overfit", "done")
    assert (
        stream.getvalue().count("\n") == 1
        and "\r\x1b[K03_overfit [0 s]: healthy 240/500" in stream.getvalue()
    )


def test_notebooks_that_run_side_by_side_share_the_live_line_and_keep_lines_of_their_own():
    live, log = Terminal(), io.StringIO()
    for console in (Console(live), Console(log)):
        console.start("01_check", 3)
        console.start("02_audit", 9)
        console.event("02_audit", progress(240))
        console.end("01_check", "done")
        console.end("02_audit", "done")
    drawn = live.getvalue().split("\r\x1b[K")[1]
    assert drawn.startswith("01_check [0 s]: starting") and " | 02_audit [0 s]: healthy" in drawn
    ends = [line for line in log.getvalue().splitlines() if "done after" in line]
    assert ends == ["01_check: done after 0 s", "02_audit: done after 0 s"]


def test_console_survives_a_stream_that_knows_only_ascii():
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii", write_through=True)
    Console(stream).say("“ру” \udc80")
    assert stream.buffer.getvalue() == b"\\u201c\\u0440\\u0443\\u201d \\udc80\n"


def test_verdict_table_wraps_long_answers():
    row = {
        "name": "03_overfit",
        "status": "done",
        "seconds": 75.0,
        "answer": "word " * 60,
        "items": "2 supported, 1 refuted",
    }
    lines = verdict_table([row]).splitlines()
    assert "75 s" in lines[0] and lines[0].endswith("2 supported, 1 refuted") and len(lines) > 2
    assert all(line.startswith("    word") and len(line) <= 110 for line in lines[1:])
