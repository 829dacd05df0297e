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
from typing import Any

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
        if self.box is not None:
            self.screen.clear()
            for widget in (
                *getattr(self.control, "children", ()),
                self.control,
                self.screen.box,
                self.box,
            ):
                widget.close()


class Screen:
    """Shows what `draw` returns: a Picture, anything with HTML, an `Interactive`, text, or a list
    of such.
    """

    def __init__(self) -> None:
        self.box = load_widgets().VBox()
        self._inside: list[Interactive] = []

    @property
    def error(self) -> str:
        """The error that is shown, as HTML; empty while all is well."""
        shown = [
            child.value
            for child in self.box.children
            if isinstance(getattr(child, "value", None), str)
        ]
        return "".join(text for text in shown if ERROR_STYLE in text)

    def show(self, draw: Callable[[Any], Any], value: Any) -> None:
        """Show `draw(value)`; what it raises is raised."""
        shown = draw(value)
        parts = [prepared(part) for part in (shown if isinstance(shown, list | tuple) else [shown])]
        kinds = [kind for kind, _ in parts]
        if kinds == [type(child).__name__ for child in self.box.children] and "VBox" not in kinds:
            for child, (_, content) in zip(self.box.children, parts, strict=True):  # no flicker
                child.value = content
        else:
            self.clear()
            self._inside = [content for kind, content in parts if kind == "VBox"]
            self.box.children = [made(kind, content) for kind, content in parts]

    def show_or_tell(self, draw: Callable[[Any], Any], value: Any) -> None:
        """`show` for a callback, where a raised error would be lost: it is shown in place of the
        picture.
        """
        try:
            self.show(draw, value)
        except Exception as error:  # whatever it is, the reader sees it
            told = (
                str(error)
                if isinstance(error, WorkbookError)
                else "".join(traceback.format_exception(error))
            )
            self.clear()
            self.box.children = [
                made("HTML", f'<pre style="{ERROR_STYLE}">{html.escape(told)}</pre>')
            ]

    def clear(self) -> None:
        children, self.box.children = self.box.children, ()
        for content in self._inside:
            content.close()
        for child in children:
            child.close()
        self._inside = []


def prepared(part: Any) -> tuple[str, Any]:
    """The widget class that shows `part`, and its value."""
    if isinstance(part, Interactive):
        return "VBox", part
    if hasattr(part, "png"):
        return "Image", part.png()
    if hasattr(part, "_repr_html_"):
        return "HTML", part._repr_html_()
    return "HTML", f'<pre style="white-space:pre-wrap">{html.escape(str(part))}</pre>'


def made(kind: str, content: Any) -> Any:
    """A widget of class `kind` that shows `content`."""
    if kind == "VBox":
        return content.box
    widgets = load_widgets()
    if kind == "Image":
        return widgets.Image(
            value=content,
            format="png",
            layout=widgets.Layout(max_width="100%", object_fit="contain"),
        )
    return widgets.HTML(value=content)


def steered(
    control: Callable[[Any], Any], draw: Callable[[Any], Any], first: Any, summary: str
) -> Interactive:
    """Draw the `first` state here and now (errors are raised), with the control that
    `control(widgets)` makes above it.

    The control's `value` is what is drawn from then on.
    """
    if under_runner():
        shown = draw(first)
        for part in shown if isinstance(shown, list | tuple) else [shown]:
            prepared(part)
        return Interactive(None, None, summary)
    widget, screen = control(load_widgets()), Screen()
    screen.show(draw, first)
    widget.observe(lambda change: screen.show_or_tell(draw, change["new"]), names="value")
    return Interactive(widget, screen, summary)
