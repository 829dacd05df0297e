"""The recorded planted-fault benchmark, as it was run: read, and what figures show of it.

What is not recorded, or only in part, is said and never filled in: a share over no runs is None.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tts_core.errors import WorkbookError
from tts_workbook.diagnosis.benchmark_scores import (
    CANNOT_TELL,
    GROUPS,
    SCORED,
    TUNING,
    Row,
    baseline_names,
    confusion,
    rate,
    rate_bound,
    score,
)
from tts_workbook.runner.recorded import RESULTS, read_record

NAME = "diagnosis"
COMMAND = "make bench-diagnosis"
PARTS = ("tuning", "scored", "by_architecture", "clean", "outside", "pairs", "masked")  # of scores


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
        only_tuning = self.scores["tuning"]["n"] and not self.scores["scored"]["n"]
        return "tuning" if only_tuning else "scored"

    @cached_property
    def planted(self) -> tuple[Row, ...]:
        """Runs of that half with one fault, masked ones too."""
        seeds = SCORED if self.half == "scored" else TUNING
        faults = [row for row in self.rows if row.cell.kind == "fault"]
        return tuple(row for row in faults if row.cell.seed in seeds)

    @cached_property
    def harmful(self) -> list[Row]:
        """Those of them that spoil something."""
        return [row for row in self.planted if row.harm]

    def scores_of(self, architecture: str) -> Mapping[str, Any]:
        """Of one architecture, over the scored half; {"n": 0} where nothing of it is recorded."""
        return self.scores["by_architecture"].get(architecture) or {"n": 0}

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
        elif absent := [name for name in self.held_out if not self.scores_of(name)["n"]]:
            words.append(f"Not recorded: the held-out architecture {', '.join(absent)}.")
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
    if not path.exists():
        return None
    return as_benchmark(read_record(NAME, COMMAND, folder), str(path))


# every number of it is "not measured"
NOT_RECORDED = Benchmark({}, score([]), (), ("the third architecture",))


def as_benchmark(record: Mapping[str, Any], where: str = "record") -> Benchmark:
    """A record's JSON as a Benchmark; raises WorkbookError naming what it lacks."""
    try:
        rows = tuple(Row.from_dict(row) for row in record["rows"])
        scores = record["scores"]
        for name in PARTS:
            scores[name]
    except (KeyError, TypeError) as error:
        raise WorkbookError(
            f"{where}: no result of the benchmark ({type(error).__name__}: {error}); `{COMMAND}`"
            " computes it anew"
        ) from None
    held_out = tuple(record.get("held_out", ()))
    return Benchmark(record.get("provenance") or {}, scores, rows, held_out)


# --- what figures are drawn from ------------------------------------------------------------------


def first_named_table(found: Benchmark) -> dict[str, dict[str, dict[str, Any]]]:
    """Planted fault -> architecture -> {"right", "n", "masked", "instead": what was named first in
    the other runs, with how often}.
    """
    runs: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in found.planted:
        runs[row.cell.fault, row.cell.architecture].append(row)
    table: dict[str, dict[str, dict[str, Any]]] = {}
    for fault in sorted({row.cell.fault for row in found.planted}):
        table[fault] = {
            name: first_named(runs[fault, name])
            for name in found.architectures
            if (fault, name) in runs
        }
    return table


def first_named(runs: Sequence[Row]) -> dict[str, Any]:
    """How often the planted fault was named first in these runs of it, and what was instead."""
    harmful = [row for row in runs if row.harm]
    wrong = Counter(said_first(row) for row in harmful if not row.right)
    return {
        "right": sum(row.right for row in harmful),
        "n": len(harmful),
        "masked": len(runs) - len(harmful),
        "instead": dict(wrong.most_common()),
    }


def said_first(row: Row) -> str:
    """What a diagnosis put first, or that it put nothing."""
    if row.error:
        return "the diagnosis raised"
    if row.first:
        return row.first
    return "healthy" if row.healthy else CANNOT_TELL


def look_alikes(found: Benchmark) -> dict[str, dict[str, dict[str, int]]]:
    """Group -> planted -> named first -> runs, over the harmful plants; groups and causes without a
    run are left out.
    """
    tables: dict[str, dict[str, dict[str, int]]] = {}
    for group, causes in GROUPS.items():
        table = confusion(found.harmful, causes)
        planted = {cause: counts for cause, counts in table.items() if counts}
        if planted:
            tables[group] = {cause: _merged(counts, planted) for cause, counts in planted.items()}
    return tables


def _merged(counts: Mapping[str, int], planted: Container[str]) -> dict[str, int]:
    """A cause of the group that was never planted here is another cause, too."""
    merged: dict[str, int] = {}
    others = 0
    for name, n in counts.items():
        if name in planted or name in ("other", CANNOT_TELL):
            merged[name] = n
        else:
            others += n
    if others:
        merged["other"] = merged.get("other", 0) + others
    return merged


def alarm_points(found: Benchmark) -> dict[str, dict[str, Any]]:
    """The diagnosis and each baseline: the share of harmful plants that it notices and of sound
    runs with an alarm, each as {"value", "interval": 95 %, "n"} (bootstrap over faults; one-sided
    exact bound for alarms). Only what has both.
    """
    half = found.scores[found.half]
    clean = found.scores["clean"]
    points = {}
    if half["n"] and clean["n"]:
        points["this diagnosis"] = {
            "detection": {**half["detection"], "n": half["n"]},
            "false_alarms": alarm_rate(clean["alarms"], clean["n"]),
        }
    for name in baseline_names(found.rows):
        point = baseline_point(found, name)
        if point is not None:
            points[name] = point
    return points


def baseline_point(found: Benchmark, baseline: str) -> dict[str, Any] | None:
    """Detection and false alarms of one baseline, over the runs that asked it; None where one of
    them has no runs.
    """

    def alarm(row: Row) -> bool:
        return row.baselines[baseline]

    planted = [row for row in found.harmful if baseline in row.baselines]
    sound = [row for row in found.rows if row.sound and baseline in row.baselines]
    if not planted or not sound:
        return None
    return {
        "detection": {**rate(planted, alarm), "n": len(planted)},
        "false_alarms": alarm_rate(sum(map(alarm, sound)), len(sound)),
    }


def alarm_rate(hits: int, n: int) -> dict[str, Any]:
    """Share of n sound runs with an alarm, from 0 to its one-sided exact 95 % bound."""
    return {"value": hits / n, "interval": [0.0, rate_bound(hits, n)], "n": n}
