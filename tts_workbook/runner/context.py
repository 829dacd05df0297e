"""What the runner tells a notebook's kernel: one environment variable, absent when a reader runs
the cells.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

# not TTS_WORKBOOK_*: that door is for parameters
from tts_workbook.viz.frontend import RUNNER_VARIABLE


@dataclass(frozen=True)
class Context:
    """One execution of one notebook by the runner."""

    token: str  # random, new for every execution: the verdict must carry it
    number: str  # "03"
    key: str  # hash of everything the execution depends on
    data: str  # absolute path
    out: str  # absolute path
    # folder where the command was given: a subject's modules and files are looked for there
    started_in: str = ""

    def to_environment(self) -> dict[str, str]:
        return {RUNNER_VARIABLE: json.dumps(asdict(self))}


def from_environment(environment: Mapping[str, str]) -> Context | None:
    return (
        Context(**json.loads(environment[RUNNER_VARIABLE]))
        if RUNNER_VARIABLE in environment
        else None
    )
