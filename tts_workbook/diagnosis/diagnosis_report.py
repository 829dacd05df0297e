"""What a diagnosis says: every cause once, ranked, and the numbers above them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from tts_workbook.diagnosis.subject_state import LEARNS, READS, SOUNDS, State
from tts_workbook.faults.cause import Level
from tts_workbook.faults.finding import Finding, as_json, ranking
from tts_workbook.faults.registry import CAUSES
from tts_workbook.lab.short_run import ChangeKey
from tts_workbook.measure.non_finite import NonFinite


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
    # of the runs of one seed and length: what was changed
    changes: Mapping[str, tuple[ChangeKey, ...]] = field(default_factory=dict)
    # does it learn, is it sound by itself, does it read its text
    state: State = field(default_factory=State)
    # the first tensor that is not finite; None where all are
    non_finite: NonFinite | None = None
    cut: str = ""  # why it ended before everything was examined; empty where it did not
    not_examined: tuple[str, ...] = ()  # causes that there was no time for

    @property
    def findings(self) -> list[Finding]:
        """Causes that are confirmed or suspected, strongest first."""
        return self.at("confirmed") + self.at("suspected")

    @property
    def questions(self) -> list[Finding]:
        """What may be meant: each asks for a declaration, and accuses nobody."""
        return self.at("question")

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
        """It learns, and is sound and reads its text as far as that could be judged; everything was
        examined, and no defect is confirmed or suspected. Drift under self-feeding is no defect.
        """
        accused = any(CAUSES[found.cause].defect for found in self.findings)
        ends_well = not self.cut and self.non_finite is None
        return self.passed and self.state.well and ends_well and not accused

    def at(self, level: Level) -> list[Finding]:
        """The entries of one level."""
        return [entry for entry in self.entries if entry.level == level]

    @property
    def mending_courses(self) -> list[str]:
        """The runs in which nothing was changed but what mends a confirmed cause."""
        mending = {name for found in self.at("confirmed") for name in found.mended_by}
        return [
            course
            for course, changed in self.changes.items()
            if changed and set(changed) <= mending
        ]

    def confirmed(self, cause: str) -> bool:
        """Whether this cause is confirmed."""
        return any(entry.cause == cause for entry in self.at("confirmed"))

    def to_dict(self) -> dict[str, Any]:
        """JSON values; numbers that are not finite become text."""

        def dictionaries(findings: list[Finding]) -> list[dict[str, Any]]:
            return [found.to_dict() for found in findings]

        courses = {}
        for name, points in self.courses.items():
            courses[name] = [[step, as_json(value)] for step, value in points]
        return {
            "cut": self.cut,
            "not_examined": list(self.not_examined),
            "not_finite": None if self.non_finite is None else as_values(self.non_finite),
            "healthy": self.healthy,
            "state": self.state.to_dict(),
            "passed": self.passed,
            "headline": {name: as_json(value) for name, value in self.headline.items()},
            "findings": dictionaries(self.findings),
            "questions": dictionaries(self.questions),
            "undecided": dictionaries(self.undecided),
            "excluded": dictionaries(self.excluded),
            "not_applicable": dictionaries(self.not_applicable),
            "courses": courses,
            "seconds": round(self.seconds, 1),
        }

    def __str__(self) -> str:
        first = (self.what_is_missing, self.what_is_not_finite)
        lines = [line for line in first if line]
        lines += [self.verdict, str(self.state)]
        for place, found in enumerate(self.findings, start=1):
            lines += _told(place, found)
        return "\n".join(lines)

    @property
    def what_is_missing(self) -> str:
        """How many causes were not examined, and why; empty where all were."""
        if not self.cut:
            return ""
        return (
            f"{len(self.not_examined)} of {len(self.entries)} causes were not examined: {self.cut}"
        )

    @property
    def what_is_not_finite(self) -> str:
        """The first tensor that is not finite, by name and place; empty where all are."""
        found = self.non_finite
        if found is None:
            return ""
        place = "" if found.clip is None else f", clip {found.clip}"
        place += "" if found.position is None else f", position {found.position}"
        return f"not finite: {FIRST[found.where].format(found.name)} holds {found.value}{place}"

    @property
    def verdict(self) -> str:
        """One sentence."""
        if not self.findings:
            return self._without_findings()
        names = []
        for found in self.findings:
            doubt = "" if found.level == "confirmed" else " (suspected)"
            names.append(f"{found.cause}{doubt}")
        but = "healthy, but " if self.healthy else ""
        return f"{but}found: {', '.join(names)}"

    def _without_findings(self) -> str:
        """The verdict where no cause is named."""
        if self.healthy:
            return f"healthy: it learns its batch, and no experiment found a fault{self._open}"
        if self.cut:
            return "no cause among those that were examined"
        if self.non_finite is not None:
            return "its numbers are not finite, and no experiment tells why: cannot tell"
        if not self.passed:
            return (
                "it does not learn its batch within the budget, and no experiment tells why:"
                " cannot tell"
            )
        wrong = " and ".join(FAILS[name] for name in self.state.fails)
        return (
            f"it learns its batch teacher-forced, but {wrong}, and no experiment tells why: cannot"
            " tell"
        )

    @property
    def _open(self) -> str:
        """What a verdict without findings does not know, in brackets."""
        parts = []
        if self.state.not_judged:
            parts.append(f"not judged: {' and '.join(self.state.not_judged)}")
        if self.undecided:
            parts.append(f"undecided: {len(self.undecided)} of {len(self.entries)} causes")
        return f" ({'; '.join(parts)})" if parts else ""


# where the first tensor that is not finite was seen -> what it is
FIRST = {
    "batch": "{} of the batch",
    "forward": "the output of {}",
    "loss": "losses[{!r}]",
    "backward": "the gradient of {}",
}
FAILS = {
    LEARNS: "does not learn",
    SOUNDS: "is not sound free-running",
    READS: "does not use its text",
}


def as_values(found: NonFinite) -> dict[str, Any]:
    """JSON values."""
    return {**vars(found), "value": as_json(found.value)}


def _told(place: int, found: Finding) -> list[str]:
    numbers = []
    for name, value in found.evidence.items():
        shown = value if isinstance(value, str) else f"{value:.4g}"
        numbers.append(f"{name} {shown}")
    where = f" at {found.where}" if found.where else ""
    return [
        f"{place}. {found.cause} ({found.level}){where}: {found.title}",
        f"   evidence: {', '.join(numbers)}",
        f"   experiment: {found.experiment}",
        f"   fix: {found.fix}",
    ]


def merged(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """One finding per cause: the strongest level said of it; ranked as `ranking` says.

    What a confirmed cause explains by itself becomes undecided, to be judged again once that cause
    is mended.
    """
    best: dict[str, Finding] = {}
    for found in findings:
        known = best.get(found.cause)
        if known is None or ranking(found) < ranking(known):
            best[found.cause] = found
    for found in list(best.values()):
        if found.level != "confirmed":
            continue
        for sign in CAUSES[found.cause].explains:
            if sign in best and best[sign].level in ("confirmed", "suspected"):
                best[sign] = _explained(best[sign], by=found.cause)
    return tuple(sorted(best.values(), key=ranking))


def _explained(sign: Finding, by: str) -> Finding:
    """The finding, to be judged again once the cause that makes its sign is mended."""
    experiment = f"{sign.experiment}; {by} does that by itself; next: mend it and diagnose again"
    return replace(sign, level="undecided", experiment=experiment)
