"""What a diagnosis says of one cause, and what findings are sorted by."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tts_workbook.faults.cause import LEVELS, Level
from tts_workbook.faults.registry import CAUSES
from tts_workbook.lab.short_run import ChangeKey


@dataclass(frozen=True)
class Finding:
    """What is known about one cause."""

    cause: str  # id of the catalogue: area.name
    level: Level
    experiment: str  # what was run, or what to run next
    evidence: Mapping[str, float | str] = field(default_factory=dict)  # the numbers behind it
    where: str = ""  # module or parameter path, or the part of the subject
    # how much of the trouble it explains; ranks findings of one level
    strength: float = 0.0
    fix: str = ""  # what to change; the catalogue's where it is not said
    mended_by: tuple[ChangeKey, ...] = ()  # the changes whose paired run removes the harm

    def __post_init__(self) -> None:
        if self.cause not in CAUSES:
            raise ValueError(f"{self.cause!r} is not in the catalogue of faults")
        if not self.fix and self.level in ("confirmed", "suspected"):
            object.__setattr__(self, "fix", CAUSES[self.cause].fix)

    @property
    def title(self) -> str:
        """The cause in a few words."""
        return CAUSES[self.cause].title

    def to_dict(self) -> dict[str, Any]:
        """JSON values; numbers that are not finite become text."""
        return {
            "cause": self.cause,
            "title": self.title,
            "level": self.level,
            "where": self.where,
            "evidence": {name: as_json(value) for name, value in self.evidence.items()},
            "experiment": self.experiment,
            "fix": self.fix,
            "strength": as_json(round(self.strength, 4)),
        }


def as_json(value: float | str) -> float | str:
    """A value that JSON has: "nan" and "inf" in words."""
    return value if isinstance(value, str) or math.isfinite(value) else str(value)


def strongest(findings: Sequence[Finding]) -> Finding:
    """Of several findings of one cause the first of those that say most."""
    return min(findings, key=ranking)


# Of findings that weigh the same, what a model is fed comes before how it is trained, and that
# before what it says; then by name.
UPSTREAM = ("data", "loop", "optimizer", "precision", "loss", "model", "generation")


def ranking(found: Finding) -> tuple[int, bool, bool, bool, float, int, str]:
    """What findings are sorted by: level first; drift after every defect; what keeps a model from
    learning before what spoils the sound of a learnt one; remedies after faults; then strength.
    """
    cause = CAUSES[found.cause]
    return (
        LEVELS.index(found.level),
        not cause.defect,
        cause.for_the_ear,
        cause.remedy,
        -found.strength,
        UPSTREAM.index(found.cause.partition(".")[0]),
        found.cause,
    )
