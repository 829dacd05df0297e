"""Controls for people: a step slider, a chooser, and a grid of results whose cells open what is
behind them.

Each draws its first state in the cell that makes it, and raises there what goes wrong; so a
headless run tests it. Let `draw` draw what was computed before: in JupyterLab it runs on a thread
of its own, beside a cell that may be training.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from matplotlib import colormaps
from matplotlib.colors import to_hex

from tts_core.errors import WorkbookError
from tts_workbook.viz.axes import three_digits
from tts_workbook.viz.frontend import load_widgets, under_runner
from tts_workbook.viz.inputs import finite_numbers, named
from tts_workbook.viz.screen import Interactive, Screen, parts_of, steered
from tts_workbook.viz.style import INK, SHARE_COLOURS, luminance

CELL_WIDTH, CELL_HEIGHT = "86px", "34px"
DARK_FIGURES_FROM = 0.55  # relative luminance of a cell
BORDER, OPEN_BORDER = "1px solid white", f"3px solid {INK}"


def scrub(steps: Iterable[int], draw: Callable[[int], Any], label: str = "step") -> Interactive:
    """A slider over the sorted `steps`, the first one shown; `draw(step)` gives a Picture (or
    anything `choose` shows).

    Each step is drawn once and remembered. Raises WorkbookError without steps, and whatever the
    first draw raises.
    """
    rising = sorted(set(steps))
    if not rising:
        raise WorkbookError("scrub: there are no steps to move over")
    drawn: dict[int, Any] = {}

    def draw_once(step: int) -> Any:
        if step not in drawn:
            drawn[step] = _as_bytes(draw(step))
        return drawn[step]

    def control(widgets: Any) -> Any:
        return widgets.SelectionSlider(
            options=[(f"{step:,}", step) for step in rising],
            value=rising[0],
            description=label,
            layout=_wide(widgets),
            style={"description_width": "initial"},
        )

    summary = f"slider over {len(rising)} values of {label}"
    return steered(control, draw_once, rising[0], summary)


def choose(
    options: Sequence[str] | Mapping[str, Any], draw: Callable[[Any], Any], label: str = "clip"
) -> Interactive:
    """A dropdown over `options` (texts, or label -> value), the first one shown.

    `draw(value)` gives a Picture, anything with HTML such as a player, a text, another control, or
    a list of such. Raises WorkbookError without options, and whatever the first draw raises.
    """
    if isinstance(options, Mapping):
        texts, values = list(options), list(options.values())
    else:
        texts, values = [str(option) for option in options], list(options)
    if not texts:
        raise WorkbookError("choose: there are no options")

    def control(widgets: Any) -> Any:
        return widgets.Dropdown(
            options=[(text, index) for index, text in enumerate(texts)],
            value=0,
            description=label,
            layout=_wide(widgets),
            style={"description_width": "initial"},
        )

    summary = f"menu of {len(texts)} values of {label}"
    return steered(control, lambda index: draw(values[index]), 0, summary)


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
    by_name = {f"{row} / {column}": value(results[row, column]) for row, column in keys}
    numbers = list(finite_numbers("results", by_name).values())
    summary = f"grid of {len(keys)} results by {label}"
    if under_runner():
        parts_of(draw(results[keys[0]]))
        return Interactive(None, None, summary)
    widgets, screen = load_widgets(), Screen()
    screen.show(draw, results[keys[0]])
    buttons = {
        (row, column): _button(widgets, number, colours, f"{row}, {column}: {label} {number:.4g}")
        for (row, column), number, colours in zip(keys, numbers, heat(numbers), strict=True)
    }

    def open_result(key: tuple[str, str]) -> None:
        for other, button in buttons.items():
            button.layout.border = OPEN_BORDER if other == key else BORDER
        screen.show_or_tell(draw, results[key])

    for key, button in buttons.items():
        button.on_click(lambda _, key=key: open_result(key))
    buttons[keys[0]].layout.border = OPEN_BORDER
    return Interactive(_grid_of(widgets, buttons, label), screen, summary)


def heat(numbers: Sequence[float]) -> list[tuple[str, str]]:
    """(background, figures) per number, as hex colours: the scale of every share in the
    workbook.
    """
    low, high = min(numbers), max(numbers)
    colours = []
    for number in numbers:
        share = 0.0 if high == low else (number - low) / (high - low)
        red, green, blue, _ = colormaps[SHARE_COLOURS](share)
        bright = luminance((red, green, blue)) >= DARK_FIGURES_FROM
        colours.append((to_hex((red, green, blue)), INK if bright else "#ffffff"))
    return colours


class Drawn:
    """A picture that is already a PNG file."""

    def __init__(self, png: bytes) -> None:
        self._png = png

    def png(self) -> bytes:
        """The file."""
        return self._png


def _as_bytes(shown: Any) -> Any:
    """What `draw` returned, its pictures as bytes: a slider that is moved to and fro draws nothing
    twice.
    """
    if isinstance(shown, list | tuple):
        return [_as_bytes(part) for part in shown]
    return Drawn(shown.png()) if hasattr(shown, "png") else shown


def _grid_of(widgets: Any, buttons: Mapping[tuple[str, str], Any], label: str) -> Any:
    """The buttons in rows and columns, with their names; a place without a button stays empty."""
    rows = dict.fromkeys(row for row, _ in buttons)
    columns = dict.fromkeys(column for _, column in buttons)
    cells = [widgets.Label(label), *(widgets.Label(str(column)) for column in columns)]
    for row in rows:
        cells.append(widgets.Label(str(row)))
        for column in columns:
            cells.append(buttons.get((row, column)) or widgets.Label(""))
    template = f"max-content repeat({len(columns)}, {CELL_WIDTH})"
    layout = widgets.Layout(grid_template_columns=template, grid_gap="2px 6px", overflow="auto")
    return widgets.GridBox(cells, layout=layout)


def _button(widgets: Any, number: float, colours: tuple[str, str], tooltip: str) -> Any:
    background, figures = colours
    return widgets.Button(
        description=three_digits(number),
        tooltip=tooltip,
        style={"button_color": background, "text_color": figures},
        layout=widgets.Layout(width=CELL_WIDTH, height=CELL_HEIGHT, border=BORDER),
    )


def _wide(widgets: Any) -> Any:
    return widgets.Layout(width="min(560px, 98%)")
