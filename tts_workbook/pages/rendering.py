"""HTML from templates: pages that are self-contained and fetch nothing, and tables for notebooks.

Every text is escaped; a name that a template does not know raises.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import jinja2

from tts_workbook.number_text import format_number, seconds_text


@cache
def _templates() -> jinja2.Environment:
    templates = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters.update(number=format_number, seconds=seconds_text)
    return templates


def render(template: str, **values: Any) -> str:
    """The page `template` (a file beside this one) with `values`."""
    return _templates().get_template(template).render(**values)


def html_table(heads: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table for a notebook, without script; None is an empty cell."""
    macros: Any = _templates().get_template("macros.html.j2").module
    return str(macros.notebook_table(heads, rows))


def data_uri(kind: str, content: bytes) -> str:
    """`content` as a data: address of media type `kind`; empty for no content."""
    return f"data:{kind};base64,{b64encode(content).decode()}" if content else ""
