"""HTML pages from templates: one environment, self-contained, nothing is fetched."""

from __future__ import annotations

from base64 import b64encode
from pathlib import Path
from typing import Any

import jinja2

from tts_workbook.number_text import format_number, seconds_text


def render(template: str, **values: Any) -> str:
    """The page `template` (a file beside this one) with `values`, escaped; an unknown name in the
    template raises.
    """
    templates = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters.update(number=format_number, seconds=seconds_text)
    return templates.get_template(template).render(**values)


def data_uri(kind: str, content: bytes) -> str:
    """`content` as a data: address of media type `kind`; empty for no content."""
    return f"data:{kind};base64,{b64encode(content).decode()}" if content else ""
