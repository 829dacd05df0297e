"""Progress in its three views; the widget view in a real kernel that no runner watches."""

import io

import nbformat
import pytest
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_notebook

from tts_workbook.number_text import seconds_text
from tts_workbook.viz import progress as module
from tts_workbook.viz.progress import Progress, progress_line


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def test_line_says_what_how_far_and_how_long():
    assert (
        progress_line("healthy", 240, 500, "mel 0.312", 41.0)
        == "healthy 240/500 mel 0.312, 41 s, about 44 s left"
    )
    assert progress_line("healthy", 0, 500, "", 0.2) == "healthy 0/500, 0 s"
    assert progress_line("healthy", 500, 500, "", 85.0) == "healthy 500/500, 85 s"
    assert [seconds_text(seconds) for seconds in (0.4, 119, 121, 7325)] == [
        "0 s",
        "119 s",
        "2 min 01 s",
        "2 h 02 min",
    ]


def test_plain_lines_come_every_few_seconds_and_at_the_end(clock):
    stream = io.StringIO()
    with Progress(1000, "healthy", stream=stream) as progress:
        for step in range(1, 1001):
            clock[0] += 0.02
            progress.update(step, f"mel {step}")
    lines = stream.getvalue().splitlines()
    assert lines[0] == "healthy 0/1000, 0 s" and lines[-1] == "healthy 1000/1000 mel 1000, 20 s"
    assert 5 <= len(lines) <= 7 and "left" in lines[1]


def test_terminal_line_is_redrawn_and_an_error_is_not_hidden(clock):
    stream = Terminal()
    with pytest.raises(ZeroDivisionError), Progress(10, "healthy", stream=stream) as progress:
        clock[0] += 1
        progress.update(5)
        raise ZeroDivisionError
    assert stream.getvalue().count("\n") == 1
    assert stream.getvalue().endswith(
        "\r\x1b[Khealthy 5/10, 1 s, about 1 s left (stopped by ZeroDivisionError)\n"
    )


def test_under_the_runner_it_shows_fields_for_the_runner_and_leaves_one_line(
    clock, monkeypatch, capsys
):
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda data, raw: shown.append(data))
    with Progress(100, "healthy", under_runner=True) as progress:
        for step in range(1, 101):
            clock[0] += 0.0625
            progress.update(step, f"mel {step}")
    events = [data[module.PROGRESS_MIME] for data in shown]
    assert all(list(data) == [module.PROGRESS_MIME] for data in shown)
    assert [event["step"] for event in events][:2] == [0, 16]
    assert len(events) == 8  # one a second, and the last
    last = events[-1]
    assert (last["label"], last["step"], last["total"]) == ("healthy", 100, 100)
    assert last["text"] == "mel 100" and last["line"] == "healthy 100/100 mel 100, 6 s"
    assert capsys.readouterr().out == "healthy 100/100 mel 100, 6 s\n"


def test_in_a_kernel_without_a_runner_a_bar_is_shown_and_one_line_of_text_remains(monkeypatch):
    monkeypatch.delenv("TTS_RUNNER", raising=False)
    cell = (
        "from tts_workbook.viz.progress import Progress\n"
        "with Progress(300, 'healthy') as progress:\n"
        "    for step in range(300):\n        progress.update(step + 1, 'mel 0.5')\n"
        "        if step == 0:\n            seen = type(progress._view._bar).__name__\nprint(seen)"
    )
    notebook = new_notebook(cells=[new_code_cell(cell)])
    NotebookClient(notebook, kernel_name="python3", timeout=120).execute()
    shown, printed = notebook.cells[0].outputs
    assert shown.output_type == "display_data" and list(shown.data) == ["text/plain"]
    assert shown.data["text/plain"].startswith("healthy 300/300 mel 0.5, ")
    assert printed.text == "IntProgress\n"
    assert "healthy 299" not in nbformat.writes(notebook)
