"""Controls for people: a step slider, a chooser, and a grid of results whose cells open what is
behind them.

Each draws its first state in the cell that makes it, and raises there what goes wrong; so a
headless run tests it. Let `draw` draw what was computed before: in JupyterLab it runs on a thread
of its own, beside a cell that may be training.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import to_hex

from tts_core.errors import WorkbookError
from tts_workbook.viz.axes import plain_number
from tts_workbook.viz.frontend import load_widgets, under_runner
from tts_workbook.viz.inputs import finite_numbers, named
from tts_workbook.viz.screen import Interactive, Screen, prepared, steered
from tts_workbook.viz.style import INK, SHARE_COLOURS

CELL_WIDTH, CELL_HEIGHT = "86px", "34px"
BRIGHT = 0.55  # a cell of this relative luminance or more carries dark figures


def scrub(steps: Sequence[int], draw: Callable[[int], Any], label: str = "step") -> Interactive:
    """A slider over the sorted `steps`, the first one shown; `draw(step)` gives a Picture (or
    anything `choose` shows).

    Each step is drawn once and remembered. Raises WorkbookError without steps, and whatever the
    first draw raises.
    """
    steps = sorted(set(steps))
    if not steps:
        raise WorkbookError("scrub: there are no steps to move over")
    drawn: dict[int, Any] = {}

    def draw_once(step: int) -> Any:
        if step not in drawn:
            drawn[step] = frozen(draw(step))
        return drawn[step]

    def control(widgets: Any) -> Any:
        options = [(f"{step:,}", step) for step in steps]
        return widgets.SelectionSlider(
            options=options,
            value=steps[0],
            description=label,
            layout=wide(widgets),
            style={"description_width": "initial"},
        )

    return steered(control, draw_once, steps[0], f"slider over {len(steps)} values of {label}")


def choose(
    options: Sequence[str] | Mapping[str, Any], draw: Callable[[Any], Any], label: str = "clip"
) -> Interactive:
    """A dropdown over `options` (texts, or label -> value), the first one shown.

    `draw(value)` gives a Picture, anything with HTML such as a player, a text, another control, or
    a list of such. Raises WorkbookError without options, and whatever the first draw raises.
    """
    pairs = (
        list(options.items())
        if isinstance(options, Mapping)
        else [(str(option), option) for option in options]
    )
    if not pairs:
        raise WorkbookError("choose: there are no options")
    values = [value for _, value in pairs]

    def control(widgets: Any) -> Any:
        return widgets.Dropdown(
            options=[(text, index) for index, (text, _) in enumerate(pairs)],
            value=0,
            description=label,
            layout=wide(widgets),
            style={"description_width": "initial"},
        )

    return steered(
        control, lambda index: draw(values[index]), 0, f"menu of {len(pairs)} values of {label}"
    )


def sweep_explorer(
    results: Mapping[tuple[str, str], Any],
    draw: Callable[[Any], Any],
    value: Callable[[Any], float] = float,
    label: str = "value",
) -> Interactive:
    """A heatmap of buttons, one per (row, column) of `results`, labelled by `value(result)`; a
    click shows `draw(result)`.

    Rows and columns stand in the order in which they first appear; a pair without a result stays
    empty. The lowest value is darkest; `label` names it. The first cell is shown at once. Raises
    WorkbookError without results or where a value is not finite, and whatever the first draw
    raises.
    """
    keys = list(named("results", results))
    numbers = finite_numbers(
        "results", {" / ".join(map(str, key)): value(results[key]) for key in keys}
    )
    rows, columns = (list(dict.fromkeys(key[axis] for key in keys)) for axis in (0, 1))
    summary = f"grid of {len(keys)} results by {label}"
    if under_runner():
        prepared(draw(results[keys[0]]))
        return Interactive(None, None, summary)
    widgets, screen = load_widgets(), Screen()
    screen.show(draw, results[keys[0]])
    buttons = {
        key: button(widgets, number, colour, f"{key[0]}, {key[1]}: {label} {number:.4g}")
        for key, number, colour in zip(
            keys, numbers.values(), heat(list(numbers.values())), strict=True
        )
    }

    def open_result(key: tuple[str, str]) -> None:
        for other, pressed in buttons.items():
            pressed.layout.border = f"3px solid {INK}" if other == key else "1px solid white"
        screen.show_or_tell(draw, results[key])

    for key, pressed in buttons.items():
        pressed.on_click(lambda _, key=key: open_result(key))
    buttons[keys[0]].layout.border = f"3px solid {INK}"
    cells = [widgets.Label(label), *(widgets.Label(str(column)) for column in columns)]
    for row in rows:
        cells += [
            widgets.Label(str(row)),
            *(buttons.get((row, column), widgets.Label("")) for column in columns),
        ]
    template = f"max-content repeat({len(columns)}, {CELL_WIDTH})"
    layout = widgets.Layout(grid_template_columns=template, grid_gap="2px 6px", overflow="auto")
    return Interactive(widgets.GridBox(cells, layout=layout), screen, summary)


def frozen(shown: Any) -> Any:
    """What `draw` returned, its pictures as bytes: a slider that is moved to and fro draws nothing
    twice.
    """
    if isinstance(shown, list | tuple):
        return [frozen(part) for part in shown]
    return Drawn(shown.png()) if hasattr(shown, "png") else shown


class Drawn:
    """A picture that is already a PNG file."""

    def __init__(self, png: bytes) -> None:
        self._png = png

    def png(self) -> bytes:
        return self._png


def heat(numbers: Sequence[float]) -> list[tuple[str, str]]:
    """(background, figures) per number, as hex colours: the scale of every share in the
    workbook.
    """
    low, high = min(numbers), max(numbers)
    colours = []
    for number in numbers:
        red, green, blue, _ = colormaps[SHARE_COLOURS](
            0.0 if high == low else (number - low) / (high - low)
        )
        bright = np.dot([0.2126, 0.7152, 0.0722], [red, green, blue]) >= BRIGHT
        colours.append((to_hex((red, green, blue)), INK if bright else "#ffffff"))
    return colours


def button(widgets: Any, number: float, colours: tuple[str, str], tooltip: str) -> Any:
    background, figures = colours
    return widgets.Button(
        description=plain_number(number),
        tooltip=tooltip,
        style={"button_color": background, "text_color": figures},
        layout=widgets.Layout(width=CELL_WIDTH, height=CELL_HEIGHT, border="1px solid white"),
    )


def wide(widgets: Any) -> Any:
    return widgets.Layout(width="min(560px, 98%)")
