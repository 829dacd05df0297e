"""Where, when and from which commit a recorded picture comes, in small type under it."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping

from tts_workbook.viz.picture import Picture
from tts_workbook.viz.style import GREY

LINE_CHARACTERS = 150  # of small type across a picture
WORDS = {"date": "recorded", "device": "on", "commit": "at commit"}


def state_provenance(picture: Picture, provenance: Mapping | None) -> None:
    """Write the record's origin under the picture; nothing where it was not recorded."""
    if provenance is not None:
        picture.supxlabel(provenance_line(provenance), fontsize=7, color=GREY, x=0.01, ha="left")


def provenance_line(provenance: Mapping) -> str:
    """The record's origin in at most two lines of small type: date, device, commit, then the
    command.
    """
    known = [f"{word} {provenance[key]}" for key, word in WORDS.items() if provenance.get(key)]
    origin = ", ".join(known) or "recorded; where and when is not stated"
    lines = [origin, str(provenance.get("command", ""))]
    shortened = [textwrap.shorten(line, LINE_CHARACTERS, placeholder=" …") for line in lines]
    return "\n".join(line for line in shortened if line)
