"""What a diagnosis says: findings with their level, and the report that ranks them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tts_workbook.faults.catalogue import CATALOGUE
from tts_workbook.faults.cause import LEVELS, Level


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

    def __post_init__(self) -> None:
        if self.cause not in CATALOGUE:
            raise ValueError(f"{self.cause!r} is not in the catalogue of faults")
        if not self.fix and self.level in ("confirmed", "suspected"):
            object.__setattr__(self, "fix", CATALOGUE[self.cause].fix)

    @property
    def title(self) -> str:
        """The cause in a few words."""
        return CATALOGUE[self.cause].title

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


@dataclass(frozen=True)
class Report:
    """The outcome of `diagnose`: at most one finding per cause, ranked."""

    # every cause of the catalogue, strongest first within a level
    entries: tuple[Finding, ...]
    headline: Mapping[str, float | str]  # TF, FR, text use … beside their yardsticks
    passed: bool  # the overfit gate, judged teacher-forced
    seconds: float  # wall time of the diagnosis
    # TF / best constant by step, per run
    courses: Mapping[str, list[tuple[int, float]]] = field(default_factory=dict)

    @property
    def findings(self) -> list[Finding]:
        """Causes that are confirmed or suspected, strongest first."""
        return self.at("confirmed") + self.at("suspected")

    @property
    def undecided(self) -> list[Finding]:
        """Causes that no experiment decided, with what to run next."""
        return self.at("undecided")

    @property
    def excluded(self) -> list[Finding]:
        """Causes that an experiment rules out."""
        return self.at("excluded")

    @property
    def not_applicable(self) -> list[Finding]:
        """Causes that the subject supplies nothing to judge by, with the part to supply."""
        return self.at("not applicable")

    @property
    def healthy(self) -> bool:
        """The overfit gate is passed and no defect is confirmed or suspected; drift under
        self-feeding is none.
        """
        return self.passed and not any(CATALOGUE[found.cause].defect for found in self.findings)

    def at(self, level: Level) -> list[Finding]:
        """The entries of one level."""
        return [entry for entry in self.entries if entry.level == level]

    def confirmed(self, cause: str) -> bool:
        """Whether this cause is confirmed."""
        return any(entry.cause == cause for entry in self.at("confirmed"))

    def to_dict(self) -> dict[str, Any]:
        """JSON values; numbers that are not finite become text."""
        return {
            "healthy": self.healthy,
            "passed": self.passed,
            "headline": {name: as_json(value) for name, value in self.headline.items()},
            "findings": [entry.to_dict() for entry in self.findings],
            **{
                name: [entry.to_dict() for entry in self.at(level)]
                for name, level in (
                    ("undecided", "undecided"),
                    ("excluded", "excluded"),
                    ("not_applicable", "not applicable"),
                )
            },
            "courses": {
                name: [[step, as_json(value)] for step, value in points]
                for name, points in self.courses.items()
            },
            "seconds": round(self.seconds, 1),
        }

    def __str__(self) -> str:
        lines = [self.verdict]
        for rank, found in enumerate(self.findings, start=1):
            numbers = ", ".join(
                f"{name} {value:.4g}" if not isinstance(value, str) else f"{name} {value}"
                for name, value in found.evidence.items()
            )
            lines += [
                (
                    f"{rank}. {found.cause}"
                    f" ({found.level}){f' at {found.where}' if found.where else ''}: {found.title}"
                ),
                f"   evidence: {numbers}",
                f"   experiment: {found.experiment}",
                f"   fix: {found.fix}",
            ]
        return "\n".join(lines)

    @property
    def verdict(self) -> str:
        """One sentence."""
        if self.healthy and not self.findings:
            return "healthy: it learns its batch, and no experiment found a fault"
        names = ", ".join(
            f"{found.cause}{'' if found.level == 'confirmed' else ' (suspected)'}"
            for found in self.findings
        )
        if names:
            return f"{'healthy, but ' if self.healthy else ''}found: {names}"
        return (
            "it does not learn its batch within the budget, and no experiment tells why: cannot"
            " tell"
        )


# a confirmed cause -> causes whose signs it makes by itself; they are judged again once it is
# mended
EXPLAINS = {
    "loss.wrong_reduction": ("loss.padding_included",),
}


def merged(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """One finding per cause: the strongest level said of it; ranked as `_rank` says.

    What a confirmed cause explains by itself becomes undecided, to be judged again once that cause
    is mended.
    """
    best: dict[str, Finding] = {}
    for found in findings:
        known = best.get(found.cause)
        if known is None or _rank(found) < _rank(known):
            best[found.cause] = found
    for cause, signs in EXPLAINS.items():
        for sign in signs:
            if (
                cause in best
                and best[cause].level == "confirmed"
                and sign in best
                and best[sign].level in ("confirmed", "suspected")
            ):
                best[sign] = replace(
                    best[sign],
                    level="undecided",
                    experiment=(
                        f"{best[sign].experiment}; {cause} does that by "
                        "itself; next: mend it and diagnose again"
                    ),
                )
    return tuple(sorted(best.values(), key=_rank))


def strongest(findings: Sequence[Finding]) -> Finding:
    """Of several findings of one cause the first of those that say most."""
    return min(findings, key=_rank)


# they matter once a model has learnt
FOR_THE_EAR = ("data.mel_recipe", "data.sample_rate", "generation.layout", "generation.stopping")
# what mends many faults a little is named after the faults
REMEDIES = ("optimizer.lr_too_small", "optimizer.lr_too_large")


def _rank(found: Finding) -> tuple[int, bool, bool, bool, float]:
    """By level; drift is named after every defect, what keeps a model from learning before what
    spoils the sound of a learnt one.
    """
    return (
        LEVELS.index(found.level),
        not CATALOGUE[found.cause].defect,
        found.cause in FOR_THE_EAR,
        found.cause in REMEDIES,
        -found.strength,
    )
