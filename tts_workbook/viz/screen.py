"""A place inside a widget that shows pictures, players, text or other widgets, and shows errors
instead of hiding them.

An exception in a widget's callback reaches nobody: Jupyter logs it and the picture silently stays
as it was. Here the first draw happens in the cell and raises there; a later one that fails puts its
error where the picture was.
"""

from __future__ import annotations

import html
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from tts_core.errors import WorkbookError
from tts_workbook.viz.frontend import load_widgets, under_runner
from tts_workbook.viz.style import ALARM

ERROR_STYLE = (
    "margin:6px 0;padding:6px 10px;border-left:4px solid"
    f" {ALARM};color:{ALARM};white-space:pre-wrap"
)


class Interactive:
    """A control above the screen it steers: the last expression of a cell. `control` and `screen`
    are None headless.

    Under the runner nothing but the first draw happens, and one line of text stands in for the
    widget.
    """

    def __init__(self, control: Any, screen: Screen | None, summary: str) -> None:
        self.control, self.screen, self.summary = control, screen, summary
        self.box = None if screen is None else load_widgets().VBox([control, screen.box])

    def _repr_mimebundle_(self, **keywords: Any) -> dict[str, Any]:
        bundle = {} if self.box is None else self.box._repr_mimebundle_(**keywords)
        return {**bundle, "text/plain": repr(self)}

    def __repr__(self) -> str:
        return f"{self.summary}: open this notebook in JupyterLab to use it"

    def close(self) -> None:
        """Let go of every widget in it."""
        if self.box is None or self.screen is None:
            return
        self.screen.clear()
        inside = getattr(self.control, "children", ())
        for widget in (*inside, self.control, self.screen.box, self.box):
            widget.close()


@dataclass(frozen=True)
class Part:
    """One thing on a screen: the kind of widget that shows it, and what is shown."""

    kind: Literal["Image", "HTML", "VBox"]
    content: Any  # PNG bytes, an HTML text, an Interactive

    def widget(self) -> Any:
        """A widget that shows it."""
        if self.kind == "VBox":
            return self.content.box
        widgets = load_widgets()
        if self.kind == "HTML":
            return widgets.HTML(value=self.content)
        layout = widgets.Layout(max_width="100%", object_fit="contain")
        return widgets.Image(value=self.content, format="png", layout=layout)


class Screen:
    """Shows what `draw` returns: a Picture, anything with HTML, an `Interactive`, text, or a list
    of such.
    """

    def __init__(self) -> None:
        self.box = load_widgets().VBox()
        self.error = ""  # the error that is shown, as HTML; empty while all is well
        self._parts: list[Part] = []

    def show(self, draw: Callable[[Any], Any], value: Any) -> None:
        """Show `draw(value)`; what it raises is raised."""
        parts = parts_of(draw(value))
        kinds = [part.kind for part in parts]
        if kinds == [part.kind for part in self._parts] and "VBox" not in kinds:
            for child, part in zip(self.box.children, parts, strict=True):  # no flicker
                child.value = part.content
            self._parts = parts
        else:
            self._put(parts)
        self.error = ""

    def show_or_tell(self, draw: Callable[[Any], Any], value: Any) -> None:
        """`show` for a callback, where a raised error would be lost: it is shown in place of the
        picture.
        """
        try:
            self.show(draw, value)
        except Exception as error:  # whatever it is, the reader sees it
            told = str(error)
            if not isinstance(error, WorkbookError):
                told = "".join(traceback.format_exception(error))
            shown = f'<pre style="{ERROR_STYLE}">{html.escape(told)}</pre>'
            self._put([Part("HTML", shown)])
            self.error = shown

    def clear(self) -> None:
        """Let go of everything on the screen."""
        children, self.box.children = self.box.children, ()
        for part in self._parts:
            if part.kind == "VBox":
                part.content.close()
        for child in children:
            child.close()
        self._parts = []

    def _put(self, parts: list[Part]) -> None:
        """New widgets in place of what is there."""
        self.clear()
        self._parts = parts
        self.box.children = [part.widget() for part in parts]


def parts_of(shown: Any) -> list[Part]:
    """What goes on a screen for what `draw` returned, one thing or a list."""
    return [_part(one) for one in (shown if isinstance(shown, list | tuple) else [shown])]


def _part(one: Any) -> Part:
    if isinstance(one, Interactive):
        return Part("VBox", one)
    if hasattr(one, "png"):
        return Part("Image", one.png())
    if hasattr(one, "_repr_html_"):
        return Part("HTML", one._repr_html_())
    return Part("HTML", f'<pre style="white-space:pre-wrap">{html.escape(str(one))}</pre>')


def steered(
    control: Callable[[Any], Any], draw: Callable[[Any], Any], first: Any, summary: str
) -> Interactive:
    """Draw the `first` state here and now (errors are raised), with the control that
    `control(widgets)` makes above it.

    The control's `value` is what is drawn from then on.
    """
    if under_runner():
        parts_of(draw(first))
        return Interactive(None, None, summary)
    widget, screen = control(load_widgets()), Screen()
    screen.show(draw, first)
    widget.observe(lambda change: screen.show_or_tell(draw, change["new"]), names="value")
    return Interactive(widget, screen, summary)
