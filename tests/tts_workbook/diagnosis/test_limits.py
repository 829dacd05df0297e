"""What ends a diagnosis early, and what it says then; the load of the machine is no such thing."""

import json
import multiprocessing
from functools import partial

import pytest

from tests.tts_workbook.diagnosis.tiny_speaker import Gain, Speaker, speaker_lab
from tts_core.errors import WorkbookError
from tts_workbook import cli, diagnose
from tts_workbook.diagnosis import diagnose as diagnosing
from tts_workbook.diagnosis.diagnose import chosen_causes, investigate
from tts_workbook.faults.registry import CAUSES
from tts_workbook.lab.budget import BUDGETS, Budget
from tts_workbook.lab.lab import Lab


def budget(total):
    return Budget("fast", least=32, most=64, course=0.05, total=total)


def loud():
    """A subject with a fault that takes paired runs."""
    return speaker_lab(build=lambda: Speaker(memory=partial(Gain, 30.0))).subject


def burn():
    """Keeps one processor busy."""
    while True:
        sum(range(100_000))


def without_seconds(report):
    return {name: value for name, value in report.to_dict().items() if name != "seconds"}


@pytest.fixture
def busy_machine():
    """Four processes that take what they get."""
    spawn = multiprocessing.get_context("spawn")
    processes = [spawn.Process(target=burn) for _ in range(4)]

    def begin():
        for process in processes:
            process.start()

    yield begin
    for process in processes:
        if process.pid is not None:
            process.kill()
            process.join()


@pytest.mark.parametrize("total, found", [(2.0, ["model.memory_scale"]), (0.3, [])])
def test_the_report_is_the_same_beside_four_busy_loops(total, found, monkeypatch, busy_machine):
    """With a budget that is enough, and with one that the subject runs into: it would show if that
    hung on a clock.
    """
    monkeypatch.setitem(BUDGETS, "fast", (budget(total), budget(total)))
    alone = without_seconds(diagnose(loud()))
    busy_machine()
    assert without_seconds(diagnose(loud())) == alone
    assert [one["cause"] for one in alone["findings"]] == found
    over = [one for one in alone["undecided"] if "--budget full" in one["experiment"]]
    assert bool(over) == (not found)


def test_what_needs_no_training_is_examined_first(monkeypatch):
    order = []
    lab = speaker_lab()
    course = lab.course

    def noted(*changes, **options):
        found = course(*changes, **options)
        order.append("course")
        return found

    examine = diagnosing.examine

    def told(cause, *rest):
        found = examine(cause, *rest)
        order.append(cause.id)
        return found

    monkeypatch.setattr(lab, "course", noted)
    monkeypatch.setattr(diagnosing, "examine", told)
    investigate(lab)
    before = order[: order.index("course")]
    assert {"loss.wrong_reduction", "loop.no_zero_grad", "data.duration_sum"} <= set(before)
    assert sorted(one for one in order if one != "course") == sorted(CAUSES)


def test_an_interrupt_leaves_the_report_so_far(monkeypatch):
    examine, seen = diagnosing.examine, []

    def interrupted(cause, *rest):
        if len(seen) == 5:
            raise KeyboardInterrupt
        seen.append(cause.id)
        return examine(cause, *rest)

    monkeypatch.setattr(diagnosing, "examine", interrupted)
    report = investigate(speaker_lab())
    left = len(CAUSES) - 5
    assert str(report).splitlines()[0] == (
        f"{left} of {len(CAUSES)} causes were not examined: interrupted"
    )
    assert set(report.not_examined) == set(CAUSES) - set(seen) and not report.healthy
    assert {entry.cause for entry in report.entries} == set(CAUSES)


def test_a_time_limit_leaves_the_report_so_far(monkeypatch):
    """The time is over when the first training run ends."""
    lab = Lab(loud(), steps=48, minutes=10.0)

    def late(name, course):
        lab.started -= 3600

    lab.on_course = late
    report = investigate(lab)
    assert "the 10 minutes of --minutes are over" in str(report).splitlines()[0]
    assert "model.memory_scale" in report.not_examined and not report.healthy
    assert not report.confirmed("model.memory_scale")
    assert report.headline["TF L1 / best constant"] > 0


def test_only_some_causes(capsys):
    report = diagnose(loud(), steps=32, only=["model.memory_scale", "loop"])
    loops = {cause for cause in CAUSES if cause.startswith("loop.")}
    assert {entry.cause for entry in report.entries} == {"model.memory_scale", *loops}
    with pytest.raises(WorkbookError, match=r"did you mean model\.memory_scale"):
        chosen_causes(["model.memory_scales"])
    assert cli.main(["diagnose", "nowhere.py:x", "--only", "memory"]) == 2
    assert "wanted the id of a cause" in capsys.readouterr().err


SOURCE = """
from functools import partial
from tests.tts_workbook.diagnosis.tiny_speaker import Gain, Speaker, speaker_lab
sound = speaker_lab().subject
loud = speaker_lab(build=lambda: Speaker(memory=partial(Gain, 30.0))).subject
"""


@pytest.mark.parametrize(
    "subject, options, wanted",
    [
        ("loud", ["--only", "model.memory_scale", "--fail-on", "confirmed"], 3),
        ("loud", ["--only", "model.memory_scale"], 0),
        ("loud", ["--only", "loop.no_step", "--fail-on", "suspected"], 0),
        ("loud", ["--threads", "0"], 2),
        ("loud", ["--steps", "3"], 2),
    ],
)
def test_the_exit_status(subject, options, wanted, tmp_path, monkeypatch, capsys):
    (tmp_path / "mine.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    steps = [] if "--steps" in options else ["--steps", "48"]
    assert cli.main(["diagnose", f"mine.py:{subject}", "--json", *steps, *options]) == wanted
    shown = capsys.readouterr().out
    if wanted != 2:
        assert json.loads(shown)["cut"] == ""
