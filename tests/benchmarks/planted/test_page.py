"""The page of the benchmark: every number, every miss, nothing invented, nothing requested, every
text escaped.
"""

from dataclasses import replace

import pytest

from benchmarks.planted.page import benchmark_page
from tests.tts_workbook.pages.benchmark_rows import full_rows, record_of, row, sound
from tests.tts_workbook.pages.test_run_report import Page
from tts_workbook.pages.benchmark_record import NOT_RECORDED, as_benchmark

EVIL = "<script>alert(1)</script>"


def page_of(rows, **changes) -> Page:
    return Page(benchmark_page(as_benchmark({**record_of(rows), **changes})))


def test_the_whole_record_is_on_the_page():
    rows = [
        *full_rows(),
        sound(40, passed=False),
        sound(41, confirmed=("loop.no_step",), healthy=False),
        row("flipped_bins", first="model.positions", kind="outside"),
    ]
    page = page_of(rows)
    for words in (
        "4 of the 7 bars",
        "0.960",
        "≥\u00a00.92",
        "root cause on gru, never tuned on",
        "1 alarms in 41 sound runs",
        "at most 11.1 %",
        "ours-clean-40-140",
        "ours-clean-41-141: loop.no_step",
        "ours-outside-flipped_bins-2: model.positions",
        "ours-fault-data.token_collapse-2: model.text_ignored",
        "Of 20 pairs both were among the findings in 20",
        "ours-fault-data.silence-2",
        "30 s in the median",
        "python benchmarks/diagnosis.py",
        "torch 2",
        "no false alarm by construction",
    ):
        assert words in page.text, words
    assert sum(tag == "img" for tag, _ in page.tags) == 3


def test_nothing_is_requested_and_texts_are_shown_as_text():
    rows = [replace(one, cell=replace(one.cell, architecture=EVIL)) for one in full_rows()]
    rows.append(row(first="", error=EVIL))
    page = page_of(rows, provenance={"commit": EVIL})
    assert "script" not in {tag for tag, _ in page.tags} and EVIL in page.text
    sources = [
        attributes[name]
        for _, attributes in page.tags
        for name in ("src", "href")
        if name in attributes
    ]
    assert sources and all(source.startswith("data:") for source in sources)
    policy = [
        attributes["content"]
        for _, attributes in page.tags
        if attributes.get("http-equiv") == "Content-Security-Policy"
    ]
    assert policy[0].startswith("default-src 'none'")


@pytest.mark.parametrize(
    "rows, words",
    [
        ([row(seed=0)], "these are tuning seeds"),
        ([row()], "held-out architecture gru"),
        ([sound(0)], "these are tuning seeds"),
        ([row(harm="")], "1 of 1 planted runs"),
    ],
)
def test_a_part_of_the_matrix_is_shown_as_a_part(rows, words):
    page = page_of(rows)
    assert words in page.text and "not measured" in page.text and " nan" not in page.text


def test_an_empty_matrix_has_no_figures_and_reaches_nothing():
    page = Page(benchmark_page(NOT_RECORDED))
    assert "0 of the 7 bars set before the runs are reached, 7 are not measured" in page.text
    assert not any(tag == "img" for tag, _ in page.tags)
