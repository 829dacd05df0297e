"""The figures of the benchmark: every count in its cell, right and wrong told apart, partial data
drawn as such.
"""

import pytest
from matplotlib.colors import to_rgb

from tests.tts_workbook.viz.readings import texts_of
from tts_core.errors import WorkbookError
from tts_workbook.viz import plot_alarms, plot_confusion, plot_root_cause
from tts_workbook.viz.benchmark_plots import MASKED, RIGHT, WRONG, ink_on

GROUPS = {
    "alike": {"a.x": {"a.x": 3, "b.y": 1}, "b.y": {"cannot tell": 2}},
    "others": {"c.z": {"other": 1}},
}
FAULTS = {
    "a.x": {
        "ours": {"right": 2, "n": 2, "masked": 0, "instead": {}},
        "gru": {"right": 1, "n": 2, "masked": 1, "instead": {"b.y": 1}},
    },
    "b.y": {"ours": {"right": 0, "n": 2, "masked": 0, "instead": {"cannot tell": 2}}},
    "c.z": {"ours": {"right": 0, "n": 0, "masked": 2, "instead": {}}},
}
POINTS = {
    "this diagnosis": {
        "detection": {"value": 0.9, "interval": [0.8, 1.0], "n": 50},
        "false_alarms": {"value": 0.0, "interval": [0.0, 0.07], "n": 40},
    },
    "rule": {
        "detection": {"value": 0.5, "interval": [0.4, 0.6], "n": 50},
        "false_alarms": {"value": 0.1, "interval": [0.0, 0.2], "n": 40},
    },
}


def texts(axes):
    return texts_of(axes.texts)


def colours(axes):
    return [tuple(patch.get_facecolor()[:3]) for patch in axes.patches]


def test_counts_stand_in_the_cells_and_rows_are_shaded_by_their_shares():
    picture = plot_confusion(GROUPS)
    first, second = picture.axes
    assert sorted(texts(first)) == ["1", "2", "3"] and texts(second) == ["1"]
    assert texts_of(first.get_yticklabels()) == ["a.x  1", "b.y  2"]
    assert texts_of(first.get_xticklabels()) == [
        "1",
        "2",
        "other",
        "cannot\ntell",
    ]
    shade = colours(first)
    assert shade[0] == pytest.approx([1 - 0.75 * (1 - part) for part in to_rgb(RIGHT)])
    assert shade[1] == pytest.approx([1 - 0.25 * (1 - part) for part in to_rgb(WRONG)])
    assert shade[7] == pytest.approx(to_rgb(WRONG))
    assert "n = 6" in first.get_title("left")


def test_a_count_in_a_column_that_does_not_exist_is_an_error():
    with pytest.raises(WorkbookError, match=r"'q.q' is neither"):
        plot_confusion({"alike": {"a.x": {"q.q": 1}}})
    with pytest.raises(WorkbookError, match="below zero"):
        plot_confusion({"alike": {"a.x": {"a.x": -1}}})
    with pytest.raises(WorkbookError, match="nothing to draw"):
        plot_confusion({})


def test_each_fault_and_architecture_has_its_share_and_its_n():
    axes = plot_root_cause(FAULTS).axes[0]
    shown = texts(axes)
    assert {
        "2 of 2",
        "1 of 2 + 1 masked",
        "0 of 2",
        "masked",
        "gru: b.y",
        "ours: cannot tell ×2",
    } <= set(shown)
    assert colours(axes)[0] == pytest.approx(to_rgb(RIGHT))
    assert colours(axes)[2] == pytest.approx(to_rgb(WRONG))
    assert colours(axes)[1] not in (colours(axes)[0], colours(axes)[2])
    assert colours(axes)[3] == pytest.approx(to_rgb(MASKED))
    with pytest.raises(WorkbookError, match=r"faults\['a.x'\]\['ours'\]: 3 of 2"):
        plot_root_cause({"a.x": {"ours": {"right": 3, "n": 2, "masked": 0, "instead": {}}}})


def test_every_alarm_has_its_mark_at_its_rates_and_its_counts_in_the_legend():
    axes = plot_alarms(POINTS).axes[0]
    marks = {
        line.get_label(): (line.get_xdata()[0], line.get_ydata()[0])
        for line in axes.lines
        if line.get_marker() != "None"
    }
    assert list(marks.values()) == [(0.0, 0.9), (0.1, 0.5)]
    assert next(iter(marks)) == "this diagnosis: notices 90 % of 50, alarms in 0.0 % of 40"
    assert axes.get_xlim()[1] >= 0.2
    with pytest.raises(WorkbookError, match="between 0 and 1"):
        plot_alarms(
            {"rule": {**POINTS["rule"], "detection": {"value": 50, "interval": [40, 60], "n": 50}}}
        )


def test_texts_in_cells_can_be_read():
    assert ink_on(to_rgb(RIGHT)) == "white" and ink_on((1, 1, 1)) != "white"


def test_the_provenance_stands_below():
    provenance = {
        "date": "2026-11-24",
        "device": "cpu",
        "commit": "abc",
        "command": "make bench-diagnosis",
    }
    for picture in (
        plot_confusion(GROUPS, provenance=provenance),
        plot_root_cause(FAULTS, provenance=provenance),
        plot_alarms(POINTS, provenance=provenance),
    ):
        assert "make bench-diagnosis" in picture.get_supxlabel() and picture.png()
