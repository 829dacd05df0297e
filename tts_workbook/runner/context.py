"""What the runner tells a notebook's kernel: one environment variable, absent when a reader runs
the cells.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from tts_workbook.kernel_protocol import RUNNER_VARIABLE


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
        """The variable of the kernel's environment."""
        return {RUNNER_VARIABLE: json.dumps(asdict(self))}


def from_environment(environment: Mapping[str, str]) -> Context | None:
    """The context of this kernel; None where a reader runs the cells."""
    content = environment.get(RUNNER_VARIABLE)
    return None if content is None else Context(**json.loads(content))
