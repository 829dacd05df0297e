"""The verdict of a notebook: what it found, checked alike by the notebook that writes it and the
runner that reads it.

`OUT/verdicts/NN.json`: {notebook, question, answer, metrics: {flat name: number}, items: [Item...],
provenance: {...}}.
"""

from __future__ import annotations

import dataclasses
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tts_core.atomic_files import read_json
from tts_core.errors import WorkbookError
from tts_workbook.trials.statistics import Verdict

VERDICTS: tuple[Verdict, ...] = ("supported", "refuted", "undecided")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")


def record_number(value: Any, where: str) -> int | float:
    """A finite int or float; 0-d arrays and tensors are unpacked. Raises WorkbookError for all
    else, bools included.
    """
    is_scalar = hasattr(value, "item") and getattr(value, "ndim", 0) == 0
    if is_scalar and not isinstance(value, int | float):
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise WorkbookError(f"{where} = {value!r}, but it must be a finite number")
    # a subclass, such as numpy.float64, becomes the plain type
    return int(value) if isinstance(value, int) else float(value)


@dataclass(frozen=True)
class Item:
    """One claim that was put to the test. Numbers are finite, or None where there is none."""

    id: str  # "theory_1", "step_3", "garbage_audio", ...
    claim: str  # a sentence that could be false
    verdict: Verdict
    effect: float | None = None  # the number that decided, in `unit`
    unit: str = ""
    interval: tuple[float, float] | None = None  # low, high, in `unit`
    n: int | None = None  # replications behind the effect
    unit_of_replication: str = ""  # what was repeated: training run, clip, step, ...
    # the effect beyond which the verdict would turn, in `unit`
    threshold: float | None = None
    provenance: str = ""  # where the numbers come from
    refuting_experiment: str = ""  # what would show this verdict wrong

    def __post_init__(self) -> None:
        where = f"item {self.id!r}"
        self._check_texts(where)
        self._check_numbers(where)

    def _check_texts(self, where: str) -> None:
        for name in ("id", "claim", "refuting_experiment"):
            text = getattr(self, name)
            if not isinstance(text, str) or not text.strip():
                raise WorkbookError(f"{where}: {name} = {text!r}, but it must say something")
        for name in ("unit", "unit_of_replication", "provenance"):
            text = getattr(self, name)
            if not isinstance(text, str):
                raise WorkbookError(f"{where}: {name} = {text!r}, but it must be text")
        if not _NAME.fullmatch(self.id):
            raise WorkbookError(
                f"{where}: an id is letters, digits and underscores, for example theory_1"
            )
        if self.verdict not in VERDICTS:
            raise WorkbookError(
                f"{where}: verdict = {self.verdict!r}, but it must be one of {', '.join(VERDICTS)}"
            )

    def _check_numbers(self, where: str) -> None:
        for name in ("effect", "threshold", "n"):
            value = getattr(self, name)
            if value is not None:
                self._settle(name, record_number(value, f"{where}: {name}"))
        if self.n is not None and (not isinstance(self.n, int) or self.n < 0):
            raise WorkbookError(
                f"{where}: n = {self.n!r}, but it must be a whole number of replications"
            )
        if self.interval is not None:
            self._settle("interval", _interval(self.interval, where))

    def _settle(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)  # frozen for everybody else

    def to_dict(self) -> dict[str, Any]:
        """JSON values, as in the verdict's file."""
        values = dataclasses.asdict(self)
        return {**values, "interval": None if self.interval is None else list(self.interval)}


def _interval(interval: Any, where: str) -> tuple[float, float]:
    try:
        low, high = interval
    except (TypeError, ValueError):
        raise WorkbookError(
            f"{where}: interval = {interval!r}, but it must be a pair (low, high)"
        ) from None
    low = record_number(low, f"{where}: interval low")
    high = record_number(high, f"{where}: interval high")
    if low > high:
        raise WorkbookError(f"{where}: interval = ({low}, {high}), but low must not exceed high")
    return low, high


def check_metrics(metrics: Any, where: str = "metrics") -> dict[str, int | float]:
    """Flat name -> finite number, or WorkbookError naming the metric."""
    if not isinstance(metrics, dict):
        raise WorkbookError(
            f"{where}: {type(metrics).__name__}, but it must be a mapping of names to numbers"
        )
    checked = {}
    for name, value in metrics.items():
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise WorkbookError(
                f"{where}: the name {name!r} is not letters, digits and underscores"
            )
        checked[name] = record_number(value, f"{where}: {name}")
    return checked


def check_verdict(verdict: Any, where: str) -> dict[str, Any]:
    """The verdict itself when it is well formed, else WorkbookError saying which part is not."""
    if not isinstance(verdict, dict):
        raise WorkbookError(f"{where}: a {type(verdict).__name__}, but it must be an object")
    for name in ("notebook", "question", "answer"):
        if not isinstance(verdict.get(name), str) or not verdict[name].strip():
            raise WorkbookError(
                f"{where}: {name} = {verdict.get(name)!r}, but it must say something"
            )
    check_metrics(verdict.get("metrics"), f"{where}: metrics")
    items, provenance = verdict.get("items"), verdict.get("provenance")
    if not isinstance(items, list) or not isinstance(provenance, dict):
        raise WorkbookError(f"{where}: it must have a list of items and a provenance")
    _check_items(items, where)
    return verdict


def _check_items(items: list[Any], where: str) -> None:
    known = {field.name for field in dataclasses.fields(Item)}
    ids = set()
    for entry in items:
        if not isinstance(entry, dict) or set(entry) != known:
            raise WorkbookError(
                f"{where}: an item has exactly the fields {', '.join(sorted(known))}; seen"
                f" {entry!r}"
            )
        item = Item(**entry)
        if item.id in ids:
            raise WorkbookError(f"{where}: two items have the id {item.id!r}")
        ids.add(item.id)


def read_verdict(path: Path) -> dict[str, Any]:
    """Raises FileNotFoundError when there is none, WorkbookError when it does not parse or is
    malformed.
    """
    try:
        verdict = read_json(path)
    except ValueError as error:
        raise WorkbookError(f"{path}: not JSON ({error})") from None
    return check_verdict(verdict, str(path))
