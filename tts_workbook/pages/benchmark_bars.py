"""The headline numbers of the recorded planted-fault benchmark, each beside the bar that was set
for it before the runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tts_workbook.pages.benchmark_record import Benchmark

# fewer do not reach a bar, however they come out
CLEAN_RUNS = 40
PAIRS = 20
# key of the scores, in words, what is asked of the scored half
ASKED = (
    ("detection", "detection", 0.97),
    ("root_cause", "root cause named first", 0.92),
    ("macro_f1", "macro-F1 of naming first", 0.90),
)
HELD_OUT_ASKED = 0.85  # root cause named first, on an architecture that was never tuned on
BOTH_ASKED = 0.80  # of the pairs
SILENT = "silent subset: plants that pass the overfit gate"
NO_RUNS: Mapping[str, Any] = {"n": 0}


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
        if self.n < self.least_n:
            return False
        return self.value <= self.wanted if self.most else self.value >= self.wanted

    @property
    def verdict(self) -> str:
        """In words."""
        if self.value is None:
            return "not measured"
        if self.reached is None:
            return ""
        if self.reached:
            return "reached"
        if self.n < self.least_n:
            return f"not reached: {self.n} {self.unit}, {self.least_n} are asked for"
        return "not reached"


def bars(found: Benchmark) -> list[Bar]:
    """Every headline number, with the bar that was set for it before the runs where there is
    one.
    """
    half = found.scores[found.half]
    return [
        *half_bars(found),
        *[architecture_bar(found, name) for name in all_architectures(found)],
        *silent_bars(half),
        rate_bar(half, "cannot_tell", "share of “cannot tell” (a miss)"),
        false_alarms_bar(found.scores["clean"]),
        outside_bar(found.scores["outside"]),
        pairs_bar(found.scores["pairs"]),
    ]


def half_bars(found: Benchmark) -> list[Bar]:
    """Of the scored half, and of the tuning half where that is all there is: no bar holds for seeds
    that the rules were made on.
    """
    made = [
        rate_bar(
            found.scores["scored"],
            key,
            f"{title}, scored half",
            wanted=wanted,
            id=f"benchmark_{key}",
        )
        for key, title, wanted in ASKED
    ]
    if found.half == "tuning":
        tuning = found.scores["tuning"]
        made += [rate_bar(tuning, key, f"{title}, tuning half") for key, title, _ in ASKED]
    return made


def all_architectures(found: Benchmark) -> list[str]:
    """Those with runs, and held-out ones without any."""
    return list(dict.fromkeys([*found.architectures, *found.held_out]))


def architecture_bar(found: Benchmark, name: str) -> Bar:
    """Root cause on one architecture; a bar is set for the held-out ones."""
    scores = found.scores_of(name)
    title = f"root cause on {name}"
    if name not in found.held_out:
        return rate_bar(scores, "root_cause", title)
    return rate_bar(
        scores,
        "root_cause",
        f"{title}, never tuned on",
        wanted=HELD_OUT_ASKED,
        id="benchmark_held_out",
    )


def silent_bars(half: Mapping[str, Any]) -> list[Bar]:
    """Of the plants that no loss shows."""
    silent = half["silent"] if half["n"] else NO_RUNS
    return [
        rate_bar(silent, "detection", f"detection, {SILENT}"),
        rate_bar(silent, "root_cause", f"root cause, {SILENT}"),
    ]


def rate_bar(
    scores: Mapping[str, Any], key: str, name: str, *, wanted: float | None = None, id: str = ""
) -> Bar:
    """One rate of `fault_scores`, or of a part of it; not measured where it is absent."""
    if not scores.get("n") or key not in scores:
        return Bar(name, None, 0, id, wanted=wanted)
    low, high = scores[key]["interval"]
    return Bar(name, scores[key]["value"], scores["n"], id, interval=(low, high), wanted=wanted)


def false_alarms_bar(clean: Mapping[str, Any]) -> Bar:
    """None is asked for, over enough sound runs."""
    return Bar(
        "false alarms on sound subjects",
        clean["alarms"] if clean["n"] else None,
        clean["n"],
        "benchmark_false_alarms",
        "clean runs",
        wanted=0,
        most=True,
        least_n=CLEAN_RUNS,
    )


def outside_bar(outside: Mapping[str, Any]) -> Bar:
    """None is asked for: no cause of the catalogue is the right one there."""
    return Bar(
        "wrong confirmed cause on faults outside the catalogue",
        len(outside["wrongly_confirmed"]) if outside["n"] else None,
        outside["n"],
        "benchmark_outside_the_catalogue",
        "runs",
        wanted=0,
        most=True,
    )


def pairs_bar(pairs: Mapping[str, Any]) -> Bar:
    """Share of the pairs of which both are among the findings."""
    return Bar(
        "both of two planted faults found",
        pairs["both"] / pairs["n"] if pairs["n"] else None,
        pairs["n"],
        "benchmark_pairs",
        "pairs",
        wanted=BOTH_ASKED,
        least_n=PAIRS,
    )


# --- as text --------------------------------------------------------------------------------------


def calibration_table(found: Benchmark) -> str:
    """The bars as a Markdown table, for the README."""
    lines = ["| | measured | 95 % | asked for | |", "|---|---|---|---|---|"]
    for bar in bars(found):
        columns = (
            f"{bar.name} ({bar.n} {bar.unit})",
            bar_value_text(bar),
            interval_text(bar),
            wanted_text(bar),
            bar.verdict,
        )
        lines.append(f"| {' | '.join(columns)} |")
    return "\n".join(lines)


def bar_value_text(bar: Bar) -> str:
    """A share with three digits, a count as it is, a dash for nothing."""
    if bar.value is None:
        return "–"
    return str(bar.value) if isinstance(bar.value, int) else f"{bar.value:.3f}"


def interval_text(bar: Bar) -> str:
    """`0.91 to 0.97`; empty without an interval."""
    if bar.interval is None:
        return ""
    low, high = bar.interval
    return f"{low:.3f} to {high:.3f}"


def wanted_text(bar: Bar) -> str:
    """`≥ 0.92`, or `0 of ≥ 40`; empty without a bar."""
    if bar.wanted is None:
        return ""
    if not bar.most:
        return f"≥ {bar.wanted:.2f}"
    runs = f" of ≥ {bar.least_n}" if bar.least_n > 1 else ""
    return f"{bar.wanted:g}{runs}"
