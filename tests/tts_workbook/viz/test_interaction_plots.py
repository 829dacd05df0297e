"""Two by two: one panel per measure, the same colour for the same arm, every value printed."""

import pytest
from matplotlib.colors import to_hex

from tests.tts_workbook.viz.readings import texts_of
from tts_core import WorkbookError
from tts_workbook.viz import plot_interaction
from tts_workbook.viz.style import COLOURS

L1 = {"healthy": {"train": 0.08, "seed": 0.4}, "no_norm": {"train": 1.5, "seed": 1.6}}
STOI = {"healthy": {"train": 0.96, "seed": 0.83}, "no_norm": {"train": 0.37, "seed": -0.1}}


def test_bars_stand_at_the_cells():
    left, right = plot_interaction({"FR L1": L1, "STOI": STOI}).axes
    assert [bar.get_height() for bar in left.patches] == [0.08, 0.4, 1.5, 1.6]
    assert [bar.get_height() for bar in right.patches] == [0.96, 0.83, 0.37, -0.1]
    assert texts_of(left.texts) == ["0.0800", "0.400", "1.50", "1.60"]
    colours = [to_hex(bar.get_facecolor()).upper() for bar in left.patches[::2]]
    assert colours == [COLOURS["healthy"], COLOURS["no_norm"]]
    assert texts_of(left.get_xticklabels()) == ["train", "seed"]
    assert left.get_title(loc="left") == "FR L1" and right.get_ylim()[0] <= -0.1
    groups = [bar.get_x() + bar.get_width() / 2 for bar in left.patches]
    assert groups[0] < 0 < groups[2] < groups[1] < 1 < groups[3]


def test_every_measure_holds_every_cell():
    with pytest.raises(WorkbookError, match=r"measures\['STOI'\]\['no_norm'\]: no 'seed'"):
        plot_interaction(
            {"FR L1": L1, "STOI": {"healthy": STOI["healthy"], "no_norm": {"train": 0.4}}}
        )
    with pytest.raises(WorkbookError, match="nothing to draw"):
        plot_interaction({})
