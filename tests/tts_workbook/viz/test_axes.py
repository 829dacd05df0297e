"""Numbers, ticks and labels of levels."""

import numpy as np
import pytest

from tts_workbook.viz.axes import decade, spread_apart, three_digits


def test_numbers_and_ticks_read_as_people_write_them():
    numbers = {
        0.0567: "0.0567",
        1.495: "1.50",
        256.0: "256",
        0: "0",
        2.13e-5: "2.1e-05",
        1234.5: "1234",
    }
    assert {value: three_digits(value) for value in numbers} == numbers
    ticks = {
        0.01: "0.01",
        0.5: "0.5",
        20: "20",
        1000: "1000",
        1e-5: "10⁻⁵",
        2e-4: "2·10⁻⁴",
        1e6: "10⁶",
    }
    assert {value: decade(value) for value in ticks} == ticks


def test_spread_apart_keeps_order_and_gap_and_moves_no_more_than_needed():
    assert spread_apart(np.array([0.1, 0.5, 0.9]), 0.1) == pytest.approx([0.1, 0.5, 0.9])
    assert spread_apart(np.array([0.5, 0.5]), 0.1) == pytest.approx([0.45, 0.55])
    crowded = spread_apart(np.array([0.1, 0.1, 0.12, 0.3]), 0.1)
    assert min(np.diff(crowded)) >= 0.1 - 1e-12
