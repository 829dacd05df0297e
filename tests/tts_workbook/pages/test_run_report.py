"""report.html: self-contained, escaped, bounded, and never more complete than the run."""

import json
from html.parser import HTMLParser

import numpy as np
import pytest
import soundfile

from tts_core.atomic_files import write_json, write_text
from tts_core.errors import WorkbookError
from tts_workbook.pages import run_report
from tts_workbook.runner.notebook import Item, Notebook

EVIL = (
    """</title><script>alert("1")</script><img src=x onerror=alert(2)> & 'quoted' "text" """
    "{{ 7 * 7 }}"
)


class Page(HTMLParser):
    """Tags with their attributes, and the visible text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text += data


def write_run(folder, *, status="complete", notebook_status="done", text="plain", sounds=1) -> None:
    """A run folder as the runner leaves it, with `text` in every place that notebooks and users can
    fill.
    """
    book = Notebook("03", question=f"Why {text}?", values={"out": str(folder)})
    from matplotlib.figure import Figure

    book.save_figure(Figure(figsize=(2, 1)), "curve", f"Look {text}")
    for index in range(sounds):
        book.save_audio(np.zeros(220), 22_050, f"tone_{index}", f"Listen {index} {text}")
    book.verdict(
        f"Because {text}",
        {"tf_l1": 0.123456, "words": 7},
        [
            Item(
                "garbage_audio",
                f"It is {text}",
                "refuted",
                effect=0.5,
                unit=text,
                interval=(0.25, 0.75),
                n=3,
                unit_of_replication=text,
                threshold=1.0,
                provenance=text,
                refuting_experiment=f"Do {text}",
            )
        ],
    )
    verdict = json.loads((folder / "verdicts" / "03.json").read_text())
    verdict["provenance"]["token"] = "token"
    write_json(folder / "verdicts" / "03.json", verdict)
    write_text(folder / "notebooks" / "03_overfit.ipynb", "{}")
    write_json(
        folder / "state" / "03.json",
        {
            "name": "03_overfit",
            "key": "k",
            "token": "token",
            "parts": {},
            "finished": "f",
            "parameters": {"lr": 0.001, "clip": text, "data": "/data"},
        },
    )
    write_json(
        folder / "run.json",
        {
            "status": status,
            "pid": 1,
            "started": "2025-01-02T03:04:05+00:00",
            "seconds": 75.0,
            "device": "cpu",
            "threads": 2,
            "platform": "Linux",
            "parameters": {"profile": "quick", "clip": text, "seed": 0},
            "data": {"path": f"/voices/{text}", "files": 1, "bytes": 2, "hash": "h"},
            "versions": {"python": "3.11"},
            "torchaudio_extension": text,
            "git_commit": None,
            "config_hash": "c",
            "warnings": [text],
            "failure": (
                {"name": "03_overfit", "cause": f"cell 5 raised {text}"}
                if status != "complete"
                else None
            ),
            "notebooks": {
                "03": {
                    "name": "03_overfit",
                    "status": notebook_status,
                    "seconds": 75.0,
                    "cause": f"cell 5 raised {text}",
                    "changed": text,
                }
            },
        },
    )


def build(folder) -> Page:
    return Page(run_report.write_report(folder).read_text())


def test_everything_is_on_the_page_and_nothing_is_requested(tmp_path):
    write_run(tmp_path, sounds=2)
    page = build(tmp_path)
    for words in (
        "Why plain?",
        "Because plain",
        "Look plain",
        "1. Listen 0 plain",
        "2. Listen 1 plain",
        "garbage_audio",
        "It is plain",
        "refuted",
        "[0.25, 0.75]",
        "turns at 1",
        "n = 3 plain",
        "Do plain",
        "0.1235",
        "75 s",
        "lr 0.001",
        "/voices/plain",
    ):
        assert words in page.text, words
    sources = [
        attributes[name]
        for tag, attributes in page.tags
        for name in ("src", "href")
        if name in attributes
    ]
    assert len(sources) == 4 and all(source.startswith(("data:", "#")) for source in sources)
    assert not {"script", "link", "iframe"} & {tag for tag, _ in page.tags}
    policy = [
        attributes["content"]
        for tag, attributes in page.tags
        if attributes.get("http-equiv") == "Content-Security-Policy"
    ]
    assert policy and policy[0].startswith("default-src 'none'")


@pytest.mark.parametrize(
    "status, notebook_status", [("complete", "done"), ("complete", "stale"), ("failed", "failed")]
)
def test_markup_in_texts_and_names_is_shown_as_text(tmp_path, status, notebook_status):
    write_run(tmp_path, text=EVIL, status=status, notebook_status=notebook_status)
    page = build(tmp_path)
    assert "script" not in {tag for tag, _ in page.tags}
    assert all("onerror" not in attributes for _, attributes in page.tags)
    assert EVIL in page.text and "49" not in page.text.replace(EVIL, "")


@pytest.mark.parametrize(
    "status, title",
    [
        ("failed", "INCOMPLETE: 03_overfit failed"),
        ("interrupted", "INCOMPLETE: interrupted in 03_overfit"),
        ("running", "INCOMPLETE: killed or still running in 03_overfit"),
    ],
)
def test_incomplete_runs_say_so_and_show_no_result(tmp_path, status, title):
    write_run(tmp_path, status=status, notebook_status=status)
    page = build(tmp_path)
    assert (
        title in page.text
        and "Do not draw conclusions" in page.text
        and "Because plain" not in page.text
    )


def test_damaged_results_make_a_complete_run_incomplete(tmp_path):
    write_run(tmp_path)
    assert "INCOMPLETE" not in build(tmp_path).text
    (tmp_path / "notebooks" / "03_overfit.ipynb").unlink()
    page = build(tmp_path)
    assert (
        "INCOMPLETE: results of 03_overfit are damaged" in page.text
        and "Because plain" not in page.text
    )


def test_notebooks_run_by_hand_are_shown_as_such(tmp_path):
    write_run(tmp_path)
    (tmp_path / "run.json").unlink()
    page = build(tmp_path)
    assert "cell by cell" in page.text and "Because plain" in page.text
    with pytest.raises(WorkbookError, match="neither a run"):
        run_report.write_report(tmp_path / "figures")


def test_pictures_and_sounds_are_bounded_and_what_is_left_out_is_named(tmp_path, monkeypatch):
    write_run(tmp_path, sounds=3)
    long = tmp_path / "audio" / "03_tone_1.wav"
    soundfile.write(
        long, np.random.default_rng(0).uniform(-0.5, 0.5, 22_050 * 90), 22_050, subtype="PCM_16"
    )
    (tmp_path / "audio" / "03_tone_2.wav").unlink()
    (tmp_path / "figures" / "03_curve.png").write_bytes(b"\x89PNG" + bytes(run_report.MAX_PICTURE))
    page = build(tmp_path)
    assert "the first 30 s of 90 s; all of it: audio/03_tone_1.wav" in page.text
    assert "missing: audio/03_tone_2.wav" in page.text
    assert "left out of this page, 3.0 MB; see figures/03_curve.png" in page.text
    players = [attributes["src"] for tag, attributes in page.tags if tag == "audio"]
    assert [source[:15] for source in players] == ["data:audio/wav;", "data:audio/flac"]
    monkeypatch.setattr(run_report, "MAX_TOTAL", 100)
    page = build(tmp_path)
    assert "left out of this page, which is full" in page.text
    assert not any("src" in attributes for _, attributes in page.tags)
