"""What a notebook uses, in plain Python: verdicts and items are checked, files are recorded, the
way out is named.
"""

import json

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from tts_core.errors import WorkbookError
from tts_workbook.runner.context import Context
from tts_workbook.runner.notebook import Item, Notebook
from tts_workbook.runner.verdicts import read_verdict


@pytest.fixture
def book(tmp_path) -> Notebook:
    return Notebook(
        "03",
        question="Can it?",
        values={"out": str(tmp_path / "out"), "profile": "smoke", "unrelated": 1},
    )


def item(**changes) -> Item:
    return Item(
        **{
            "id": "theory_1",
            "claim": "It can.",
            "verdict": "supported",
            "refuting_experiment": "Show that it cannot.",
            **changes,
        }
    )


def test_verdict_round_trip(book):
    (book.folder("checkpoints") / "a.bin").write_bytes(b"abc")
    book.verdict(
        "It can.",
        {"tf_l1": np.float32(0.25), "steps": np.int64(3), "text_use": torch.tensor(1.5)},
        [
            item(
                effect=1.5,
                unit="ratio",
                interval=(1, 2.0),
                n=3,
                unit_of_replication="run",
                threshold=1.0,
                provenance="03.jsonl",
            )
        ],
    )
    verdict = read_verdict(book.out / "verdicts" / "03.json")
    assert (verdict["question"], verdict["answer"]) == ("Can it?", "It can.")
    assert verdict["metrics"] == {"tf_l1": 0.25, "steps": 3, "text_use": 1.5}
    assert verdict["items"] == [
        {
            "id": "theory_1",
            "claim": "It can.",
            "verdict": "supported",
            "effect": 1.5,
            "unit": "ratio",
            "interval": [1, 2.0],
            "n": 3,
            "unit_of_replication": "run",
            "threshold": 1.0,
            "provenance": "03.jsonl",
            "refuting_experiment": "Show that it cannot.",
        }
    ]
    assert verdict["provenance"]["artefacts"] == {"checkpoints/a.bin": 3}
    assert (
        verdict["provenance"]["token"] is None
        and verdict["provenance"]["parameters"]["profile"] == "smoke"
    )


@pytest.mark.parametrize(
    "changes, complaint",
    [
        ({"verdict": "true"}, "verdict = 'true'"),
        ({"effect": float("nan")}, "effect = nan"),
        ({"effect": "big"}, "effect = 'big'"),
        ({"effect": True}, "effect = True"),
        ({"interval": (2, 1)}, "low must not exceed high"),
        ({"interval": 3}, "must be a pair"),
        ({"interval": (0, float("inf"))}, "interval high = inf"),
        ({"n": 1.5}, "n = 1.5"),
        ({"n": -1}, "n = -1"),
        ({"claim": " "}, "claim = ' '"),
        ({"refuting_experiment": ""}, "refuting_experiment = ''"),
        ({"id": "theory 1"}, "letters, digits and underscores"),
        ({"unit": None}, "unit = None"),
        ({"threshold": float("-inf")}, "threshold = -inf"),
    ],
)
def test_items_that_say_nothing_or_nonsense_are_refused(changes, complaint):
    with pytest.raises(WorkbookError) as caught:
        item(**changes)
    assert complaint in str(caught.value)


@pytest.mark.parametrize(
    "metrics",
    [
        {"l1": float("nan")},
        {"l1": "0.1"},
        {"l1": True},
        {"l1": [0.1]},
        {"l 1": 0.1},
        {"l1": None},
        {"l1": np.array([1.0, 2.0])},
        {1: 1.0},
    ],
)
def test_metrics_are_flat_finite_numbers(book, metrics):
    with pytest.raises(WorkbookError, match="metrics"):
        book.verdict("It can.", metrics)
    assert not (book.out / "verdicts").exists()


def test_malformed_verdicts_are_refused(book):
    with pytest.raises(WorkbookError, match="answer = ''"):
        book.verdict("", {})
    with pytest.raises(WorkbookError, match="two items have the id 'theory_1'"):
        book.verdict("It can.", {}, [item(), item()])
    with pytest.raises(WorkbookError, match="is not an Item"):
        book.verdict("It can.", {}, [{"id": "theory_1"}])
    book.verdict("It can.", {}, [item()])
    file = book.out / "verdicts" / "03.json"
    verdict = json.loads(file.read_text())
    for broken in (
        {**verdict, "items": [{**verdict["items"][0], "surprise": 1}]},
        {**verdict, "metrics": None},
        {**verdict, "answer": 3},
        [verdict],
        {**verdict, "provenance": None},
    ):
        file.write_text(json.dumps(broken))
        with pytest.raises(WorkbookError, match=r"03\.json"):
            read_verdict(file)


def test_figures_and_sounds_are_recorded_in_order_with_captions(book):
    for name in ("late", "early", "late"):
        figure = Figure(figsize=(60, 2))
        figure.subplots().plot([1, 2])
        book.save_figure(figure, name, f"Look at {name}.")
    book.save_audio(np.full(1000, 0.25), 22_050, "tone", "Listen.")
    figures = json.loads((book.out / "figures" / "03.json").read_text())
    assert [(entry["name"], entry["file"]) for entry in figures] == [
        ("late", "03_late.png"),
        ("early", "03_early.png"),
    ]
    picture = (book.out / "figures" / "03_late.png").read_bytes()
    width = int.from_bytes(picture[16:20], "big")
    # a 60 inch figure is kept within bounds
    assert picture.startswith(b"\x89PNG") and 1000 < width <= 2600
    assert json.loads((book.out / "audio" / "03.json").read_text()) == [
        {
            "name": "tone",
            "file": "03_tone.wav",
            "caption": "Listen.",
            "seconds": 0.045,
            "sample_rate": 22_050,
        }
    ]
    assert (book.out / "audio" / "03_tone.wav").stat().st_size == 44 + 2 * 1000
    for name, caption in (("../up", "x"), ("Big", "x"), ("ok", " ")):
        with pytest.raises(WorkbookError):
            book.save_figure(Figure(), name, caption)
    with pytest.raises(WorkbookError):
        book.folder("../elsewhere")


def test_metrics_log_starts_anew_and_refuses_nan(book, tmp_path):
    book.log_metrics({"step": 1, "mel": 0.5})
    again = Notebook("03", "Can it?", {"out": str(tmp_path / "out")})
    again.log_metrics({"step": 1, "mel": torch.tensor(0.25), "arm": "healthy"})
    with pytest.raises(WorkbookError, match="log_metrics: mel = nan"):
        again.log_metrics({"mel": float("nan")})
    assert (
        book.out / "metrics" / "03.jsonl"
    ).read_text() == '{"step": 1, "mel": 0.25, "arm": "healthy"}\n'


def test_upstream_names_the_way_out(book, tmp_path):
    later = Notebook("07", "Heard?", {"out": str(tmp_path / "out")})
    assert later.verdicts() == {}
    with pytest.raises(WorkbookError, match="Run notebook 03 first") as caught:
        later.upstream("03")
    assert "there is no" in str(caught.value) and "03.json" in str(caught.value)
    book.verdict("It can.", {"l1": 0.1})
    assert later.upstream("03")["metrics"] == {"l1": 0.1} and list(later.verdicts()) == ["03"]
    renumbered = Notebook("09", "Can it?", {"out": str(tmp_path / "out")})
    with pytest.raises(WorkbookError, match="made when this one was number 03"):
        renumbered.verdicts()
    (book.out / "verdicts" / "03.json").write_text("{")
    with pytest.raises(WorkbookError, match="not JSON"):
        later.upstream("03")


def test_under_the_runner_the_context_decides(tmp_path, monkeypatch):
    context = Context("secret", "07", "key", str(tmp_path / "data"), str(tmp_path / "out"))
    monkeypatch.setenv("TTS_RUNNER", context.to_environment()["TTS_RUNNER"])
    # the runner strips these; were one left, it would not count
    monkeypatch.setenv("TTS_WORKBOOK_SEED", "9")
    book = Notebook("07", "Heard?", {"lr": 0.5})
    assert (book.out, book.parameters.data) == (tmp_path / "out", tmp_path / "data")
    assert (book.parameters.lr, book.parameters.seed) == (0.5, 0)
    book.verdict("Yes.", {})
    assert read_verdict(book.out / "verdicts" / "07.json")["provenance"]["token"] == "secret"
    with pytest.raises(WorkbookError, match="this is notebook 07"):
        Notebook("03", "Can it?", {})


def test_environment_line_is_one_line_and_threads_are_set(tmp_path, capsys):
    book = Notebook("01", "?", {"out": str(tmp_path), "threads": 1, "profile": "smoke"})
    book.environment_line()
    printed = capsys.readouterr().out
    assert printed.count("\n") == 1
    assert all(
        words in printed for words in (f"torch {torch.__version__}", "1 threads", "profile smoke")
    )


def test_uniform_durations_are_said_on_every_figure_and_in_the_answer(book):
    from PIL import Image

    figure = Figure(figsize=(4, 2))
    book.save_figure(figure, "plain", "A caption.")
    book.alignment = "uniform"
    book.save_figure(figure, "warned", "A caption.")
    plain, warned = (
        Image.open(book.out / "figures" / f"03_{name}.png") for name in ("plain", "warned")
    )
    assert warned.height > plain.height and warned.width == plain.width
    book.verdict("It can.", {})
    assert (
        read_verdict(book.out / "verdicts" / "03.json")["answer"]
        == "UNIFORM DURATIONS, not measured: It can."
    )
