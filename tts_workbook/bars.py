"""Bars: the numbers that decide, each with what it is measured against.

A bar is relative to a control of the same diagnosis (the subject's own clean noise, its rounding
floor, a sham intervention), or a convention of the field with its source. What neither can give is
absolute, and says why. `docs/BARS.md` is the table of all of them, generated from the code.
"""

from __future__ import annotations

from typing import Literal

BarKind = Literal["control", "convention", "absolute"]
KINDS: tuple[BarKind, ...] = ("control", "convention", "absolute")


class Bar(float):
    """A number that decides; it calculates as a float does.

    Exactly one of these says where it comes from: `control`, what it is a multiple or a share of,
    measured in the same diagnosis; `convention`, the source that states it; `absolute`, why no
    control can give it. Raises ValueError for none or several.
    """

    kind: BarKind
    reason: str

    def __new__(
        cls, value: float, *, control: str = "", convention: str = "", absolute: str = ""
    ) -> Bar:
        reasons = {"control": control, "convention": convention, "absolute": absolute}
        given = [kind for kind in KINDS if reasons[kind]]
        if len(given) != 1:
            raise ValueError(f"a bar of {value:g} has {len(given)} reasons, wanted one: {reasons}")
        bar = super().__new__(cls, value)
        bar.kind = given[0]
        bar.reason = reasons[bar.kind]
        return bar

    def __getnewargs_ex__(self) -> tuple[tuple[float], dict[str, str]]:
        """How a copy or another process makes it again."""
        return (float(self),), {self.kind: self.reason}
