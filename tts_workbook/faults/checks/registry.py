"""What a check is, and how its causes are answered for even where it cannot run."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from tts_workbook.faults.finding import Finding
from tts_workbook.faults.registry import CATALOGUE
from tts_workbook.lab.lab import BudgetSpent, Lab

Run = Callable[[Lab], Iterable[Finding]]


@dataclass(frozen=True)
class Check:
    """One experiment and the causes that it answers for."""

    name: str
    causes: tuple[str, ...]
    needs: tuple[str, ...]  # optional fields of Subject without which it says "not applicable"
    finite: bool  # whether it compares predictions, which then have to be finite
    run: Run

    def findings(self, lab: Lab) -> list[Finding]:
        """What it finds, with one entry at least for each of its causes; where it breaks off, what
        it had found stays found and the rest is undecided, with the reason.
        """
        missing = [field for field in self.needs if not lab.subject.has(field)]
        if missing:
            return [
                Finding(
                    cause,
                    "not applicable",
                    f"not applicable: supply Subject.{' and Subject.'.join(missing)}",
                )
                for cause in self.causes
            ]
        found, reason = [], ""
        try:
            if self.finite and not lab.predicts_numbers:
                return [
                    Finding(
                        cause,
                        "undecided",
                        "the prediction of a fresh model is not finite; next: mend that, and"
                        " diagnose again",
                    )
                    for cause in self.causes
                ]
            for finding in self.run(lab):
                found.append(finding)
        except BudgetSpent as spent:
            reason = str(spent)
        # the subject's code may raise anything; it is said, and the other checks go on
        except Exception as error:
            reason = f"{self.name} could not run: {type(error).__name__}: {error}"
        answered = {finding.cause for finding in found}
        return found + [
            Finding(cause, "undecided", reason or f"next: {CATALOGUE[cause].experiment}")
            for cause in self.causes
            if cause not in answered
        ]


CHECKS: list[Check] = []


def check(*causes: str, needs: tuple[str, ...] = (), finite: bool = False) -> Callable[[Run], Run]:
    """Register a function (lab) -> findings; it answers for `causes`, some of which others may
    answer for too.
    """

    def register(run: Run) -> Run:
        CHECKS.append(Check(run.__name__, causes, needs, finite, run))
        return run

    return register
