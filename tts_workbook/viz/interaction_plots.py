"""Two on/off faults, four cells, several measures: does the one make the other worse, or hide
it?
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from tts_workbook.viz.axes import (
    beside_each_other,
    category_ticks,
    legend_below,
    legend_keys,
    three_digits,
)
from tts_workbook.viz.inputs import entry_of, finite_number, named
from tts_workbook.viz.picture import Picture, new_picture, workbook_style
from tts_workbook.viz.style import colours_of


def plot_interaction(
    measures: Mapping[str, Mapping[str, Mapping[str, float]]], title: str = ""
) -> Picture:
    """One panel per measure, one group of bars per level of the second factor, one colour per level
    of the first.

    `measures[measure][first][second]`: a number; every measure holds the same levels, in the order
    of the first one.
    """
    named("measures", measures)
    first_cells = named("measures", next(iter(measures.values())))
    arms = list(first_cells)
    layouts = list(named("measures", first_cells[arms[0]]))
    colours = colours_of(arms)
    with workbook_style():
        picture = new_picture(2.7, title)
        panels = picture.subplots(1, len(measures), squeeze=False)[0]
        for panel, (measure, cells) in zip(panels, measures.items(), strict=True):
            values = {arm: _cells_of(f"measures[{measure!r}]", cells, arm, layouts) for arm in arms}
            for index, arm in enumerate(arms):
                places = np.arange(len(layouts)) + beside_each_other(index, len(arms)) * 0.36
                bars = panel.bar(places, values[arm], 0.33, color=colours[arm], label=arm)
                numbers = [three_digits(value) for value in values[arm]]
                panel.bar_label(bars, numbers, fontsize=8, padding=1)
            every = [value for row in values.values() for value in row]
            panel.set_ylim(min(0.0, *every), 1.14 * max(*every, 1e-9))
            panel.set_title(measure, fontsize=9)
            category_ticks(panel.xaxis, layouts)
        legend_below(picture, legend_keys(panels[0]), columns=len(arms))
    return picture


def _cells_of(where: str, cells: Mapping, arm: str, layouts: Sequence[str]) -> list[float]:
    """The numbers of one level of the first factor, by the level of the second."""
    inside = f"{where}[{arm!r}]"
    row = entry_of(where, cells, arm)
    return [
        finite_number(f"{inside}[{layout!r}]", entry_of(inside, row, layout)) for layout in layouts
    ]
