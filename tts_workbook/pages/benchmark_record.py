"""The recorded planted-fault benchmark: read, summed up for figures and tables, and held against
the bars set for it.

What is not recorded, or only in part, is said and never filled in: a share over no runs is None.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tts_core.errors import WorkbookError
from tts_workbook.planted.matrix import (
    GROUPS,
    SCORED,
    TUNING,
    Row,
    confusion,
    rate,
    right,
    score,
    upper_bound,
)
from tts_workbook.runner.recorded import RESULTS, read_record

NAME = "diagnosis"
COMMAND = "make bench-diagnosis"
CLEAN_RUNS, PAIRS = 40, 20  # fewer do not reach a bar, however they come out
ASKED = (
    ("detection", "detection", 0.97),
    ("root_cause", "root cause named first", 0.92),
    ("macro_f1", "macro-F1 of naming first", 0.90),
)
HELD_OUT_ASKED, BOTH_ASKED = 0.85, 0.80
SILENT = "silent subset: plants that pass the overfit gate"


@dataclass(frozen=True)
class Bar:
    """One number of the benchmark beside what was asked of it before it ran."""

    name: str
    value: float | None  # None: not measured
    n: int  # runs behind it
    # of the item that rules on it; empty where no bar was set
    id: str = ""
    unit: str = "plants"
    interval: tuple[float, float] | None = None  # 95 %, clustered by fault
    wanted: float | None = None  # None: no bar was set
    most: bool = False  # the bar is a ceiling, for alarms
    least_n: int = 1

    @property
    def reached(self) -> bool | None:
        """Whether the value reaches the bar; None where there is none, or nothing was measured."""
        if self.value is None or self.wanted is None:
            return None
        return self.n >= self.least_n and (
            self.value <= self.wanted if self.most else self.value >= self.wanted
        )

    @property
    def verdict(self) -> str:
        """In words."""
        if self.value is None:
            return "not measured"
        few = (
            f": {self.n} {self.unit}, {self.least_n} are asked for" if self.n < self.least_n else ""
        )
        return {True: "reached", False: f"not reached{few}", None: ""}[self.reached]


@dataclass(frozen=True)
class Benchmark:
    """A recorded run of benchmarks/diagnosis.py."""

    provenance: Mapping[str, Any]
    scores: Mapping[str, Any]
    rows: tuple[Row, ...]
    held_out: tuple[str, ...]  # architectures that were never tuned on

    @cached_property
    def half(self) -> str:
        """The half that is shown: "scored", or "tuning" where no scored plant is recorded yet."""
        return (
            "scored" if self.scores["scored"]["n"] or not self.scores["tuning"]["n"] else "tuning"
        )

    @cached_property
    def planted(self) -> tuple[Row, ...]:
        """Runs of that half with one fault, masked ones too."""
        seeds = SCORED if self.half == "scored" else TUNING
        return tuple(
            row for row in self.rows if row.cell.kind == "fault" and row.cell.seed in seeds
        )

    @property
    def architectures(self) -> list[str]:
        """Names, the held-out ones last."""
        return sorted(
            {row.cell.architecture for row in self.rows},
            key=lambda name: (name in self.held_out, name),
        )

    @property
    def caution(self) -> str:
        """What keeps these numbers from being a calibration; empty for a whole scored half on every
        architecture.
        """
        words = []
        if not self.scores["scored"]["n"]:
            words.append(
                "No scored run is recorded: these are tuning seeds, which the rules were made on."
                " No calibration."
            )
        else:
            absent = [
                name
                for name in self.held_out
                if not (self.scores["by_architecture"].get(name) or {"n": 0})["n"]
            ]
            words += (
                [f"Not recorded: the held-out architecture {', '.join(absent)}."] if absent else []
            )
        if self.provenance.get("complete") is False:
            words.append("The matrix is not complete: some of its runs are still to be made.")
        if older := self.provenance.get("rows_of_an_older_source"):
            words.append(
                f"{older} of {len(self.rows)} runs were made by an older state of the source."
            )
        return " ".join(words)


def read_benchmark(folder: Path = RESULTS) -> Benchmark | None:
    """The recorded benchmark; None where none is recorded yet. Raises WorkbookError for a file that
    is not one.
    """
    path = folder / f"{NAME}.json"
    return as_benchmark(read_record(NAME, COMMAND, folder), str(path)) if path.exists() else None


# every number of it is "not measured"
NOT_RECORDED = Benchmark({}, score([]), (), ("the third architecture",))


def as_benchmark(record: Mapping[str, Any], where: str = "record") -> Benchmark:
    """A record's JSON as a Benchmark; raises WorkbookError naming what it lacks."""
    try:
        rows = tuple(Row.from_dict(row) for row in record["rows"])
        scores = record["scores"]
        for name in ("tuning", "scored", "by_architecture", "clean", "outside", "pairs", "masked"):
            scores[name]
    except (KeyError, TypeError) as error:
        raise WorkbookError(
            f"{where}: no result of the benchmark ({type(error).__name__}: {error}); `{COMMAND}`"
            " computes it anew"
        ) from None
    return Benchmark(
        record.get("provenance") or {}, scores, rows, tuple(record.get("held_out", ()))
    )


# --- the numbers and their bars -------------------------------------------------------------------


def bars(found: Benchmark) -> list[Bar]:
    """Every headline number, with the bar that was set for it before the runs where there is
    one.
    """
    half = found.scores[found.half]
    rows = [
        scored(found.scores["scored"], key, f"{title}, scored half", wanted, f"benchmark_{key}")
        for key, title, wanted in ASKED
    ]
    if found.half == "tuning":  # no bar holds for seeds that the rules were made on
        rows += [scored(half, key, f"{title}, tuning half") for key, title, _ in ASKED]
    for name in dict.fromkeys([*found.architectures, *found.held_out]):
        mine = found.scores["by_architecture"].get(name) or {"n": 0}
        never = ", never tuned on" if name in found.held_out else ""
        rows.append(
            scored(
                mine,
                "root_cause",
                f"root cause on {name}{never}",
                HELD_OUT_ASKED if never else None,
                "benchmark_held_out" if never else "",
            )
        )
    rows += [
        scored({"n": 0} if not half["n"] else half["silent"], key, f"{title}, {SILENT}")
        for key, title in (("detection", "detection"), ("root_cause", "root cause"))
    ]
    rows.append(scored(half, "cannot_tell", "share of “cannot tell” (a miss)"))
    clean, pairs, outside = found.scores["clean"], found.scores["pairs"], found.scores["outside"]
    return [
        *rows,
        Bar(
            "false alarms on sound subjects",
            clean["alarms"] if clean["n"] else None,
            clean["n"],
            "benchmark_false_alarms",
            "clean runs",
            wanted=0,
            most=True,
            least_n=CLEAN_RUNS,
        ),
        Bar(
            "wrong confirmed cause on faults outside the catalogue",
            len(outside["wrongly_confirmed"]) if outside["n"] else None,
            outside["n"],
            "benchmark_outside_the_catalogue",
            "runs",
            wanted=0,
            most=True,
        ),
        Bar(
            "both of two planted faults found",
            pairs["both"] / pairs["n"] if pairs["n"] else None,
            pairs["n"],
            "benchmark_pairs",
            "pairs",
            wanted=BOTH_ASKED,
            least_n=PAIRS,
        ),
    ]


def scored(
    scores: Mapping[str, Any], key: str, name: str, wanted: float | None = None, id: str = ""
) -> Bar:
    """One rate of `fault_scores`, or of a part of it; not measured where it is absent."""
    if not scores.get("n") or key not in scores:
        return Bar(name, None, 0, id, wanted=wanted)
    low, high = scores[key]["interval"]
    return Bar(name, scores[key]["value"], scores["n"], id, interval=(low, high), wanted=wanted)


def calibration_table(found: Benchmark) -> str:
    """The bars as a Markdown table, for the README."""
    lines = ["| | measured | 95 % | asked for | |", "|---|---|---|---|---|"]
    for bar in bars(found):
        lines.append(
            "| "
            + " | ".join(
                (
                    f"{bar.name} ({bar.n} {bar.unit})",
                    value_text(bar),
                    interval_text(bar),
                    wanted_text(bar),
                    bar.verdict,
                )
            )
            + " |"
        )
    return "\n".join(lines)


def value_text(bar: Bar) -> str:
    """A share with three digits, a count as it is, a dash for nothing."""
    return (
        "–"
        if bar.value is None
        else str(bar.value)
        if isinstance(bar.value, int)
        else f"{bar.value:.3f}"
    )


def interval_text(bar: Bar) -> str:
    """`0.91 to 0.97`; empty without an interval."""
    return "" if bar.interval is None else f"{bar.interval[0]:.3f} to {bar.interval[1]:.3f}"


def wanted_text(bar: Bar) -> str:
    """`≥ 0.92`, or `0 of ≥ 40`; empty without a bar."""
    if bar.wanted is None:
        return ""
    if bar.most:
        return f"{bar.wanted:g}" + (f" of ≥ {bar.least_n}" if bar.least_n > 1 else "")
    return f"≥ {bar.wanted:.2f}"


# --- what figures are drawn from ------------------------------------------------------------------


def by_fault(found: Benchmark) -> dict[str, dict[str, dict[str, Any]]]:
    """Fault -> architecture -> {"right", "n", "masked", "instead": what was named first in the
    other runs, with how often}.
    """
    table: dict[str, dict[str, dict[str, Any]]] = {}
    for fault in sorted({row.cell.fault for row in found.planted}):
        for name in found.architectures:
            runs = [
                row
                for row in found.planted
                if (row.cell.fault, row.cell.architecture) == (fault, name)
            ]
            harmful = [row for row in runs if row.harm]
            if runs:
                wrong = Counter(said_first(row) for row in harmful if not right(row))
                table.setdefault(fault, {})[name] = {
                    "right": sum(map(right, harmful)),
                    "n": len(harmful),
                    "masked": len(runs) - len(harmful),
                    "instead": dict(wrong.most_common()),
                }
    return table


def look_alikes(found: Benchmark) -> dict[str, dict[str, dict[str, int]]]:
    """Group -> planted -> named first -> runs, over the harmful plants; groups and causes without a
    run are left out.
    """
    harmful = [row for row in found.planted if row.harm]
    tables = {
        group: {cause: counts for cause, counts in confusion(harmful, causes).items() if counts}
        for group, causes in GROUPS.items()
    }
    # a cause of the group that was never planted here is another cause, too
    for group, table in tables.items():
        for counts in table.values():
            for name in [name for name in counts if name not in (*table, "other", "cannot tell")]:
                counts["other"] = counts.get("other", 0) + counts.pop(name)
    return {group: table for group, table in tables.items() if table}


def said_first(row: Row) -> str:
    """What a diagnosis put first, or that it put nothing."""
    return (
        "the diagnosis raised"
        if row.error
        else row.first or ("healthy" if row.healthy else "cannot tell")
    )


def alarm_points(found: Benchmark) -> dict[str, dict[str, Any]]:
    """The diagnosis and each baseline: the share of harmful plants that it notices and of sound
    runs with an alarm, each as {"value", "interval": 95 %, "n"} (bootstrap over faults; one-sided
    exact bound for alarms). Only what has both.
    """
    half, clean = found.scores[found.half], found.scores["clean"]
    points = {}
    if half["n"] and clean["n"]:
        points["this diagnosis"] = {
            "detection": {**half["detection"], "n": half["n"]},
            "false_alarms": alarm_rate(clean["alarms"], clean["n"]),
        }
    for name in sorted({name for row in found.rows for name in row.baselines}):
        planted = [row for row in found.planted if row.harm and name in row.baselines]
        sound = [
            row
            for row in found.rows
            if row.cell.kind == "clean" and row.passed and name in row.baselines
        ]
        if planted and sound:
            points[name] = {
                "detection": {**rate(planted, lambda row: row.baselines[name]), "n": len(planted)},
                "false_alarms": alarm_rate(sum(row.baselines[name] for row in sound), len(sound)),
            }
    return points


def alarm_rate(hits: int, n: int) -> dict[str, Any]:
    """Share of n sound runs with an alarm, from 0 to its one-sided exact 95 % bound."""
    return {"value": hits / n, "interval": [0.0, upper_bound(hits, n)], "n": n}
