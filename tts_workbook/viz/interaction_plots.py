"""Two on/off faults, four cells, several measures: does the one make the other worse, or hide
it?
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tts_workbook.viz.axes import category_ticks, plain_number
from tts_workbook.viz.inputs import entry, finite_number, named
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
    arms = list(named("measures", next(iter(measures.values()))))
    layouts = list(named("measures", next(iter(measures.values()))[arms[0]]))
    colours = colours_of(arms)
    with workbook_style():
        picture = new_picture(2.7, title)
        panels = picture.subplots(1, len(measures), squeeze=False)[0]
        for panel, (measure, cells) in zip(panels, measures.items(), strict=True):
            values = {
                arm: [
                    finite_number(
                        f"measures[{measure!r}][{arm!r}][{layout!r}]",
                        entry(
                            f"measures[{measure!r}][{arm!r}]",
                            entry(f"measures[{measure!r}]", cells, arm),
                            layout,
                        ),
                    )
                    for layout in layouts
                ]
                for arm in arms
            }
            for index, arm in enumerate(arms):
                places = np.arange(len(layouts)) + (index - (len(arms) - 1) / 2) * 0.36
                bars = panel.bar(places, values[arm], 0.33, color=colours[arm], label=arm)
                panel.bar_label(
                    bars, [plain_number(value) for value in values[arm]], fontsize=8, padding=1
                )
            every = [value for row in values.values() for value in row]
            panel.set_ylim(min(0.0, *every), 1.14 * max(*every, 1e-9))
            panel.set_title(measure, fontsize=9)
            category_ticks(panel.xaxis, layouts)
        handles = panels[0].get_legend_handles_labels()[0]
        picture.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    return picture
