"""A diagnosis in a notebook: its numbers beside their yardsticks, ranked causes, every answer; HTML
without script.
"""

from __future__ import annotations

from collections.abc import Sequence

from tts_workbook.diagnosis.diagnosis_report import Report
from tts_workbook.diagnosis.subject_state import State, said
from tts_workbook.faults.finding import LEVELS, Finding
from tts_workbook.lab.short_run import LEARNT
from tts_workbook.number_text import format_number
from tts_workbook.pages.rendering import html_table

YARDSTICKS = {  # beside which a number of the headline is read
    "best constant L1": (
        "one spectrum for every frame, in the target's unit: the line that a collapsed model"
        " sits on"
    ),
    "copy of the previous frame L1 / best constant": "needs no text at all",
    "TF L1 / best constant": (
        f"1: nothing is learnt; the overfit gate asks for less than {LEARNT:g}"
    ),
    "FR L1 / best constant": "beside TF: what self-feeding adds",
    "text use": "1: the text is ignored",
    "frames generated over frames wanted": "1: the right length",
}


def headline_html(report: Report) -> str:
    """What the model does, the numbers behind it, each with its yardstick, and how long it took."""
    state = html_table(("what it does", ""), state_rows(report.state))
    rows = headline_rows(report)
    rows.append(("seconds", f"{report.seconds:.0f}", "for every check and its training runs"))
    return state + html_table(("measured on the batch", "", "yardstick"), rows)


def state_rows(state: State) -> list[tuple[str, str]]:
    """The three questions, each with its answer, the number and its bar."""
    return [(name, said(name, judged)) for name, judged in state.named.items()]


def headline_rows(report: Report) -> list[tuple[str, str, str]]:
    """Name, value and yardstick of each number of the verdict."""
    return [
        (name, value_text(value), YARDSTICKS.get(name, ""))
        for name, value in report.headline.items()
    ]


def causes_html(found: Sequence[Finding]) -> str:
    """Findings in the order given: cause and place, how sure, the numbers, the experiment that
    decided, the fix.
    """
    if not found:
        return "<p>No cause was found.</p>"
    rows = [
        (rank, cause_text(one), one.level, numbers_text(one), one.experiment, one.fix)
        for rank, one in enumerate(found, start=1)
    ]
    return html_table(("", "cause", "level", "evidence", "experiment", "fix"), rows)


def cause_text(found: Finding) -> str:
    """The cause, what it is, and its place."""
    place = f", at {found.where}" if found.where else ""
    return f"{found.cause}: {found.title}{place}"


def answered_html(report: Report) -> str:
    """How many causes have each answer, and which."""
    rows = []
    for level in LEVELS:
        causes = [one.cause for one in report.at(level)]
        rows.append((level, len(causes), ", ".join(causes) or "–"))
    return html_table(("answer", "causes", "which"), rows)


def numbers_text(found: Finding) -> str:
    """The evidence in one line."""
    return "; ".join(f"{name} {value_text(value)}" for name, value in found.evidence.items())


def value_text(value: float | str) -> str:
    """Text as it is, numbers with four digits."""
    return value if isinstance(value, str) else format_number(value)
