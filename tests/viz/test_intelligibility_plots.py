"""Word error rates and STOI stand beside the copy-synthesis."""

import pytest

from tts_core import WorkbookError
from tts_core.viz import plot_intelligibility


def test_intelligibility_draws_means_dots_and_the_copy_synthesis_line():
    words = {"recording": 0.125, "copy-synthesis": [0.0, 0.25], "free-running": [0.25, 0.5], "no_norm": 1.5}
    picture = plot_intelligibility(words, {"free-running": 0.96, "no_norm": -0.1})
    rates, stoi = picture.axes
    assert [bar.get_width() for bar in rates.patches] == [0.125, 0.125, 0.375, 1.5]
    assert rates.lines[0].get_xdata()[0] == 0.125
    assert [dots.get_offsets()[:, 0].tolist() for dots in rates.collections] == [[0.0, 0.25], [0.25, 0.5]]
    assert [bar.get_width() for bar in stoi.patches] == [0.96, -0.1] and stoi.get_xlim()[0] <= -0.1
    assert "word error rate" in rates.get_xlabel() and "STOI" in stoi.get_xlabel()


def test_intelligibility_needs_its_reference_unless_told_otherwise():
    with pytest.raises(WorkbookError, match="words: no 'copy-synthesis'"):
        plot_intelligibility({"recording": 0.1})
    assert len(plot_intelligibility({"recording": 0.1}, reference=None).axes) == 1


def test_without_word_error_rates_stoi_stands_alone():
    from tts_core.errors import WorkbookError

    axes, = plot_intelligibility({}, {"healthy": 0.9, "no_norm": 0.3}).axes
    assert [bar.get_width() for bar in axes.patches] == [0.9, 0.3]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["healthy", "no_norm"]
    assert "STOI" in axes.get_xlabel()
    with pytest.raises(WorkbookError, match="stoi"):
        plot_intelligibility({}, {})
