"""Error against self-fed frames: the curves, their dotted twins and both yardsticks stand where the
numbers say.
"""

import numpy as np
import pytest

from tests.tts_workbook.viz.readings import texts_of
from tts_core import WorkbookError
from tts_workbook.viz import plot_self_feeding
from tts_workbook.viz.style import COLOURS

LAST = [1, 2, 4, 8, 29]
HEALTHY = {"last": LAST, "error": [0.06, 0.07, 0.08, 0.08, 0.09], "teacher_forced": [0.06] * 5}
LOST = {"last": LAST, "error": [0.5, 0.7, 0.9, 1.3, 1.5], "teacher_forced": [0.5] * 5}
LEVELS = {"best constant": 1.2, "copy previous": 0.39}


def test_curves_twins_and_yardsticks():
    (axes,) = plot_self_feeding({"healthy": HEALTHY, "no_norm": LOST}, LEVELS).axes
    solid = {
        line.get_label(): line for line in axes.lines if line.get_label() in ("healthy", "no_norm")
    }
    assert solid["no_norm"].get_xdata().tolist() == LAST
    assert solid["no_norm"].get_ydata().tolist() == LOST["error"]
    assert solid["healthy"].get_color() == COLOURS["healthy"]
    dotted = [line for line in axes.lines if line.get_linestyle() == ":"]
    assert sorted(line.get_ydata()[0] for line in dotted) == [0.06, 0.5]
    assert {0.39, 1.2} <= {
        line.get_ydata()[0] for line in axes.lines if line.get_linestyle() == "--"
    }
    assert axes.get_xscale() == "log" and axes.get_ylim()[0] == 0 and axes.get_ylim()[1] > 1.5
    assert texts_of(axes.get_xticklabels()) == [
        "1",
        "2",
        "3–4",
        "5–8",
        "9–29",
    ]
    assert "ln units" in axes.get_ylabel()


def test_a_yardstick_above_every_curve_is_in_the_picture():
    (axes,) = plot_self_feeding({"healthy": HEALTHY}, LEVELS).axes
    assert axes.get_ylim()[1] > 1.2


def test_spans_and_errors_must_fit():
    with pytest.raises(WorkbookError, match="as many errors as spans"):
        plot_self_feeding({"healthy": HEALTHY | {"error": [0.1]}}, LEVELS)
    with pytest.raises(WorkbookError, match="spans that rise from 1"):
        plot_self_feeding({"healthy": HEALTHY | {"last": [1, 2, 2, 8, 29]}}, LEVELS)
    with pytest.raises(
        WorkbookError, match=r"arms\['healthy'\].error: 1 of 5 values are not finite"
    ):
        plot_self_feeding({"healthy": HEALTHY | {"error": [0.1, np.nan, 0.1, 0.1, 0.1]}}, LEVELS)
