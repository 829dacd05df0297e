"""What a rule hands to `book.verdict`, and how it names what it says of several subjects."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tts_workbook.runner.verdicts import Item


@dataclass(frozen=True)
class Ruling:
    """The answer in sentences, the numbers, and the claims that were put to the test."""

    answer: str
    metrics: dict[str, Any] = field(default_factory=dict)
    items: list[Item] = field(default_factory=list)


def together(rulings: Sequence[Ruling], nothing: str) -> Ruling:
    """Several rulings as one; `nothing` is the answer where there is none."""
    return Ruling(
        answer=" ".join(ruling.answer for ruling in rulings) or nothing,
        metrics={name: value for ruling in rulings for name, value in ruling.metrics.items()},
        items=[item for ruling in rulings for item in ruling.items],
    )


def metric_name(text: str) -> str:
    """`text` as letters, digits and underscores."""
    return re.sub(r"\W+", "_", text.replace("×", "x"), flags=re.ASCII).strip("_")


def finite(values: Mapping[str, float]) -> dict[str, float]:
    """Those that are finite numbers."""
    return {name: value for name, value in values.items() if math.isfinite(value)}


def own_id(id: str, name: str, alone: Sequence[str]) -> str:
    """The id of an item about one of the user's models: `id` as it is where there is only one."""
    return id if len(alone) == 1 else f"{id}_{metric_name(name)}"


def unmeasured(id: str, claim: str, reason: str) -> Item:
    """The item of an experiment that could not be made."""
    return Item(
        id=id,
        claim=claim,
        verdict="undecided",
        n=0,
        unit_of_replication="seed",
        provenance=reason,
        refuting_experiment="the experiment itself, with what is missing",
    )
