"""The subject as it is stands in black, runs of interest in colour, the others grey: by their keys,
whatever these say.
"""

import math

import pytest

from tts_core import WorkbookError
from tts_workbook.viz import plot_courses
from tts_workbook.viz.diagnosis_plots import MOST_COLOURED
from tts_workbook.viz.style import GREY, INK, SPARE_COLOURS

COURSES = {
    "as it is": [(10, 1.2), (20, 1.1), (30, math.inf)],
    "learning rate × 4": [(10, 0.9), (20, 0.4)],
    "norm of the memory": [(10, 1.0), (20, 0.3)],
    "no decay": [(10, 1.2), (20, 1.1)],
    "no clip": [(10, 1.2), (20, 1.0)],
}


def lines(courses, *arguments):
    return {line.get_label(): line for line in plot_courses(courses, *arguments).axes[0].lines}


def test_black_coloured_and_grey_are_what_the_keys_say():
    drawn = lines(COURSES, "as it is", ["norm of the memory"])
    assert drawn["as it is"].get_color() == INK
    assert drawn["norm of the memory"].get_color() == SPARE_COLOURS[0]
    assert drawn["other changes"].get_color() == GREY
    assert drawn["other changes"].get_ydata().tolist() == [0.9, 0.4]
    assert drawn["best constant"].get_ydata()[0] == 1.0
    assert "no decay" not in drawn and "learning rate × 4" not in drawn


def test_a_value_that_is_not_finite_is_left_out_of_its_curve():
    drawn = lines(COURSES, "as it is")
    assert drawn["as it is"].get_xdata().tolist() == [10, 20]
    broken = lines({"as it is": [(10, math.nan)]}, "as it is")
    assert "as it is" not in broken and "best constant" in broken


def test_no_run_needs_to_be_the_unchanged_one_and_a_highlighted_one_may_be_missing():
    drawn = lines(COURSES, None, ["no clip", "never run"])
    assert drawn["no clip"].get_color() == SPARE_COLOURS[0]
    assert drawn["other changes"].get_ydata().tolist() == [1.2, 1.1]


def test_more_than_seven_runs_of_interest_are_not_told_apart_by_colour():
    many = {f"change {index}": [(1, 0.5), (2, 0.4)] for index in range(MOST_COLOURED + 2)}
    drawn = lines(many, None, list(many))
    assert [key for key in many if key in drawn] == list(many)[:MOST_COLOURED]


def test_nothing_to_draw_is_refused():
    with pytest.raises(WorkbookError, match="courses: there is nothing to draw"):
        plot_courses({}, None)
