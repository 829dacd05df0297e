"""Stop probabilities on a log scale, each of its own length, with the true end and the constant
predictor.
"""

import numpy as np
import pytest

from tts_core import WorkbookError
from tts_workbook.viz import plot_stop_head
from tts_workbook.viz.style import COLOURS


def test_curves_end_and_constant_predictor():
    forced, free = np.r_[np.full(19, 1e-3), 0.99], np.r_[np.zeros(24), 0.6]
    curves = {"healthy: teacher-forced": forced, "healthy: free-running": free}
    (axes,) = plot_stop_head(
        curves,
        20,
        0.01,
        dashed=["healthy: free-running"],
        like=dict.fromkeys(curves, "healthy"),
    ).axes
    lines = {line.get_label(): line for line in axes.lines}
    assert lines["healthy: teacher-forced"].get_ydata()[-1] == 0.99
    # zero has a place on the log scale
    assert lines["healthy: free-running"].get_ydata().min() == 1e-5
    assert lines["healthy: free-running"].get_xdata()[-1] == pytest.approx(0.245)
    assert lines["end of the recording"].get_xdata()[0] == pytest.approx(0.2)
    assert lines["constant predictor, 1 / T"].get_ydata()[0] == pytest.approx(1 / 20)
    styles = [lines[label].get_linestyle() for label in curves]
    assert styles == ["-", "--"]
    assert lines["healthy: teacher-forced"].get_color() == COLOURS["healthy"]
    assert axes.get_yscale() == "log" and axes.get_ylim()[1] > 1 and axes.get_xlim()[1] >= 0.25
    assert 0.5 in [line.get_ydata()[0] for line in axes.lines if line.get_linestyle() == "--"]


def test_what_is_no_probability_is_refused():
    with pytest.raises(WorkbookError, match=r"probabilities\['x'\]: from -3 to 2, wanted 0 to 1"):
        plot_stop_head({"x": [-3.0, 2.0]}, 2, 0.01)
    with pytest.raises(WorkbookError, match="there is nothing to draw"):
        plot_stop_head({}, 2, 0.01)
    with pytest.raises(WorkbookError, match=r"dashed: \['y'\] name no curve"):
        plot_stop_head({"x": [0.0, 1.0]}, 2, 0.01, dashed=["y"])
