"""The order of notebooks, in one place: by number, and the findings after all others.

The findings keep the number by which the README and its readers know them. What is added later gets
a higher number, runs before them, and is included by them.
"""

from __future__ import annotations

from collections.abc import Iterable

# reads every other verdict, so it comes last whatever the numbers of the others are
FINDINGS = "08"


def in_order(numbers: Iterable[str]) -> list[str]:
    """Notebook numbers in the order in which they run: "07", "09", "08"."""
    return sorted(numbers, key=_place)


def before(number: str, available: Iterable[str]) -> list[str]:
    """Those of `available` that run before `number`, in order."""
    return [other for other in in_order(available) if _place(other) < _place(number)]


def _place(number: str) -> tuple[bool, str]:
    return number == FINDINGS, number
