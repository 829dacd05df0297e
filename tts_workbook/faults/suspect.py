"""A change that may undo a cause, proposed to the selection of paired runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tts_workbook.lab.short_run import Change


@dataclass(frozen=True)
class Suspect:
    """A cause, what makes it suspicious, and the change that would undo it."""

    cause: str
    change: Change
    evidence: Mapping[str, float | str]
    where: str = ""
    general: bool = False  # a remedy that mends many faults a little: the learning rate
    # tried even where the subject learns its batch; a general one not, if it does with more steps
    always: bool = True
