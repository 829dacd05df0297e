"""Two by two: factors that multiply, and one that hides the other."""

import pytest

from tts_core.errors import WorkbookError
from tts_workbook.measure.interaction import TwoByTwo


def test_factors_that_multiply_have_no_interaction():
    found = TwoByTwo(neither=0.1, first=0.3, second=0.2, both=0.6)
    assert (found.first_ratio, found.second_ratio) == (pytest.approx(3), pytest.approx(2))
    assert found.second_given_first == pytest.approx(2) and found.interaction == pytest.approx(1)


def test_a_fault_that_hides_the_other_and_one_that_makes_it_worse():
    assert TwoByTwo(0.07, 1.5, 0.4, 1.5).interaction == pytest.approx(0.07 / 0.4)
    assert TwoByTwo(0.07, 1.5, 0.4, 1.5).second_given_first == pytest.approx(1)
    assert TwoByTwo(1.0, 2.0, 2.0, 8.0).interaction == pytest.approx(2)
    swapped = TwoByTwo(0.07, 0.4, 1.5, 1.2)
    assert swapped.interaction == pytest.approx(TwoByTwo(0.07, 1.5, 0.4, 1.2).interaction)


def test_a_ratio_needs_errors_above_zero():
    with pytest.raises(WorkbookError, match="above zero"):
        TwoByTwo(0.0, 1.0, 1.0, 1.0)
