"""The recorded benchmark: absent, in part, whole; against its bars; and the items that notebook 08
makes of it.
"""

from dataclasses import replace

import pytest

from tests.tts_workbook.pages.benchmark_rows import full_rows, record_of, row, sound
from tts_core.atomic_files import write_json
from tts_core.errors import WorkbookError
from tts_workbook.pages.benchmark_bars import bars, calibration_table
from tts_workbook.pages.benchmark_items import bars_html, benchmark_items, benchmark_sentence
from tts_workbook.pages.benchmark_record import (
    NOT_RECORDED,
    alarm_points,
    as_benchmark,
    first_named_table,
    look_alikes,
    read_benchmark,
)

IDS = {
    "benchmark_detection",
    "benchmark_root_cause",
    "benchmark_macro_f1",
    "benchmark_held_out",
    "benchmark_false_alarms",
    "benchmark_outside_the_catalogue",
    "benchmark_pairs",
}


@pytest.fixture(scope="module")
def full():
    return as_benchmark(record_of(full_rows()))


def ruled(found):
    return {bar.id: bar for bar in bars(found) if bar.id}


def test_what_is_not_recorded_is_none_and_every_bar_undecided(tmp_path):
    assert read_benchmark(tmp_path) is None
    items = benchmark_items(None)
    assert {item.id for item in items} == IDS and {item.verdict for item in items} == {"undecided"}
    assert all(
        item.effect is None and "not recorded yet: make bench-diagnosis" in item.provenance
        for item in items
    )
    assert "make bench-diagnosis" in benchmark_sentence(None)
    assert all(bar.value is None for bar in bars(NOT_RECORDED))


def test_a_record_survives_the_file_and_a_damaged_one_is_named(tmp_path, full):
    write_json(tmp_path / "diagnosis.json", record_of(full_rows()))
    assert read_benchmark(tmp_path) == full
    write_json(tmp_path / "diagnosis.json", {"provenance": {"commit": "a"}, "rows": []})
    with pytest.raises(WorkbookError, match=r"diagnosis.json.*scores.*make bench-diagnosis"):
        read_benchmark(tmp_path)
    (tmp_path / "diagnosis.json").write_text("{")
    with pytest.raises(WorkbookError, match="make bench-diagnosis"):
        read_benchmark(tmp_path)


def test_a_whole_record_is_held_against_every_bar(full):
    found = ruled(full)
    assert found.keys() == IDS and full.caution == "" and full.half == "scored"
    # 4 of 5 faults; 24 of 25 runs
    assert {id for id, bar in found.items() if bar.reached is False} == {"benchmark_macro_f1"}
    assert (
        found["benchmark_root_cause"].value == 24 / 25
        and found["benchmark_root_cause"].interval[0] < 24 / 25
    )
    assert found["benchmark_held_out"].n == 8 and found["benchmark_false_alarms"].value == 0
    verdicts = {item.id: item.verdict for item in benchmark_items(full)}
    assert verdicts.pop("benchmark_macro_f1") == "refuted" and set(verdicts.values()) == {
        "supported"
    }
    assert "names the planted cause first in 96.0 %" in benchmark_sentence(full)
    assert "macro-F1 of naming first, scored half" in benchmark_sentence(full)


@pytest.mark.parametrize(
    "rows, reached, words",
    [
        ([sound(number) for number in range(40)], True, "reached"),
        (
            [sound(number) for number in range(39)],
            False,
            "not reached: 39 clean runs, 40 are asked for",
        ),
        (
            [sound(number) for number in range(40)]
            + [sound(40, confirmed=("loop.no_step",), healthy=False)],
            False,
            "not reached",
        ),
        ([], None, "not measured"),
    ],
)
def test_no_alarm_counts_only_over_enough_sound_runs(rows, reached, words):
    bar = ruled(as_benchmark(record_of(rows)))["benchmark_false_alarms"]
    assert (bar.reached, bar.verdict) == (reached, words)


def test_tuning_seeds_alone_reach_no_bar():
    found = as_benchmark(
        record_of(
            [row(seed=0), row("loop.no_step", seed=1)], complete=False, rows_of_an_older_source=1
        )
    )
    assert found.half == "tuning" and set(bar.reached for bar in ruled(found).values()) == {None}
    assert (
        "tuning seeds" in found.caution
        and "not complete" in found.caution
        and "1 of 2 runs" in found.caution
    )
    assert any(bar.name.endswith("tuning half") and bar.value == 1.0 for bar in bars(found))
    assert "No scored plant" in benchmark_sentence(found)


def test_without_the_third_architecture_the_record_says_so():
    found = as_benchmark(record_of([one for one in full_rows() if one.cell.architecture != "gru"]))
    assert (
        "held-out architecture gru" in found.caution
        and ruled(found)["benchmark_held_out"].reached is None
    )


def test_figures_are_fed_from_harmful_plants_of_the_shown_half(full):
    table = first_named_table(full)
    assert table["data.token_collapse"]["ours"] == {
        "right": 0,
        "n": 1,
        "masked": 0,
        "instead": {"model.text_ignored": 1},
    }
    assert table["data.silence"]["ours"] == {"right": 0, "n": 0, "masked": 1, "instead": {}}
    assert table["loop.no_step"]["gru"]["n"] == 2  # seeds 2 and 3; seed 0 is for tuning
    assert look_alikes(full)["ignores the text"]["data.token_collapse"] == {"model.text_ignored": 1}
    assert look_alikes(as_benchmark(record_of([row(), row(seed=3, first="", harm="")])))[
        "ignores the text"
    ] == {"model.text_ignored": {"model.text_ignored": 1}}  # a masked plant is no miss
    broke = as_benchmark(record_of([replace(row(first=""), error="ValueError: x", healthy=False)]))
    assert first_named_table(broke)["model.text_ignored"]["ours"]["instead"] == {
        "the diagnosis raised": 1
    }


def test_a_cause_that_was_not_planted_here_is_another_cause():
    found = as_benchmark(
        record_of(
            [row("loop.no_step", first="optimizer.clip_too_tight"), row("optimizer.lr_too_small")]
        )
    )
    assert look_alikes(found) == {
        "above the line": {
            "optimizer.lr_too_small": {"optimizer.lr_too_small": 1},
            "loop.no_step": {"other": 1},
        }
    }


def test_detection_stands_beside_the_baselines_with_their_own_counts(full):
    points = alarm_points(full)
    assert (
        list(points) == ["this diagnosis", "gradient norm"]
        and points["gradient norm"]["detection"]["value"] == 0
    )
    assert points["this diagnosis"]["false_alarms"]["interval"][1] == pytest.approx(
        1 - 0.05 ** (1 / 40)
    )
    assert alarm_points(as_benchmark(record_of([row()]))) == {}


def test_the_tables_hold_every_bar_and_escape(full):
    lines = calibration_table(full).splitlines()
    assert len(lines) == 2 + len(bars(full)) and any(
        "| 0.960 |" in line and line.endswith("| ≥ 0.92 | reached |") for line in lines
    )
    strange = as_benchmark({**record_of(full_rows()), "held_out": ["<b>gru</b>"]})
    assert "<b>gru" not in bars_html(strange) and "&lt;b&gt;gru" in bars_html(strange)


def test_the_sentence_says_when_it_was_recorded(full):
    dated = replace(full, provenance={"date": "2026-11-23"})
    wanted = " Recorded on 2026-11-23: rules that changed since are not in it."
    assert benchmark_sentence(dated).endswith(wanted)
    assert "Recorded on" not in benchmark_sentence(replace(full, provenance={}))
