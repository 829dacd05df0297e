"""Word error rates and STOI stand beside the copy-synthesis."""

import pytest
from matplotlib.colors import to_hex

from tests.tts_workbook.viz.readings import texts_of
from tts_core import WorkbookError
from tts_workbook.viz import plot_intelligibility
from tts_workbook.viz.style import COLOURS


def test_intelligibility_draws_means_dots_and_the_copy_synthesis_line():
    words = {
        "recording": 0.125,
        "copy-synthesis": [0.0, 0.25],
        "free-running": [0.25, 0.5],
        "no_norm": 1.5,
    }
    picture = plot_intelligibility(words, {"free-running": 0.96, "no_norm": -0.1})
    rates, stoi = picture.axes
    assert [bar.get_width() for bar in rates.patches] == [0.125, 0.125, 0.375, 1.5]
    assert rates.lines[0].get_xdata()[0] == 0.125
    assert [dots.get_offsets()[:, 0].tolist() for dots in rates.collections] == [
        [0.0, 0.25],
        [0.25, 0.5],
    ]
    assert [bar.get_width() for bar in stoi.patches] == [0.96, -0.1] and stoi.get_xlim()[0] <= -0.1
    assert "word error rate" in rates.get_xlabel() and "STOI" in stoi.get_xlabel()


def test_intelligibility_needs_its_reference_unless_told_otherwise():
    with pytest.raises(WorkbookError, match="words: no 'copy-synthesis'"):
        plot_intelligibility({"recording": 0.1})
    assert len(plot_intelligibility({"recording": 0.1}, reference=None).axes) == 1


def test_without_word_error_rates_stoi_stands_alone():
    (axes,) = plot_intelligibility({}, {"healthy": 0.9, "no_norm": 0.3}).axes
    assert [bar.get_width() for bar in axes.patches] == [0.9, 0.3]
    assert texts_of(axes.get_yticklabels()) == ["healthy", "no_norm"]
    assert "STOI" in axes.get_xlabel()
    with pytest.raises(WorkbookError, match="stoi"):
        plot_intelligibility({}, {})


def test_diamonds_stand_at_the_warped_values_and_need_no_bar():
    words = {"copy-synthesis": 0.1, "full inference": 0.2, "uniform": 0.3}
    _, axes = plot_intelligibility(
        words,
        {"copy-synthesis": 1.0, "uniform": 0.5},
        warped={"full inference": 0.9, "uniform": 0.8},
    ).axes
    assert [(bar.get_y() + bar.get_height() / 2, bar.get_width()) for bar in axes.patches] == [
        (0, 1.0),
        (2, 0.5),
    ]
    assert axes.collections[0].get_offsets().tolist() == [[0.9, 1], [0.8, 2]]
    assert sorted(text.get_text() for text in axes.texts) == ["0.500", "0.900", "1.000"]
    (alone,) = plot_intelligibility(
        {}, {"copy-synthesis": 1.0}, warped={"full inference": 0.9}
    ).axes
    assert texts_of(alone.get_yticklabels()) == [
        "copy-synthesis",
        "full inference",
    ]
    assert alone.collections[0].get_offsets().tolist() == [[0.9, 1]]
    (first,) = plot_intelligibility(
        {},
        {"copy-synthesis": 1.0},
        warped={"full inference": 0.9},
        order=["full inference", "copy-synthesis"],
    ).axes
    assert first.collections[0].get_offsets().tolist() == [[0.9, 0]]


def test_a_version_keeps_its_colour_whatever_the_order():
    one = {"copy-synthesis": 0.1, "healthy: a": 0.2, "healthy: b": 0.3}
    other = dict(reversed(one.items()))
    like = {"healthy: a": "healthy", "healthy: b": "healthy"}
    first, second = (
        plot_intelligibility(versions, like=like).axes[0].patches for versions in (one, other)
    )
    assert [bar.get_facecolor() for bar in first] == [
        bar.get_facecolor() for bar in reversed(list(second))
    ]
    assert to_hex(first[1].get_facecolor()).upper() == COLOURS["healthy"]
    assert first[1].get_facecolor() != first[2].get_facecolor()
