"""The planted-fault benchmark of the diagnosis: what a run of it gave, and how runs are scored.

A *cell* is an architecture, a fault (or a clean setting, a fault outside the catalogue, a pair of
faults) and a seed. Seeds 0 and 1 are for tuning, 2 and 3 are scored; the held-out architecture is
only ever scored.
"""

from __future__ import annotations

import math
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from tts_workbook.faults.registry import CAUSES

Kind = Literal["fault", "clean", "outside", "pair"]
TUNING, SCORED = (0, 1), (2, 3)
N_BOOTSTRAP = 2000
# look-alikes of FAULTS.md: what is confused within one is shown as a matrix of its own
GROUPS = {
    "on the best-constant line": (
        "optimizer.weight_decay",
        "data.text_audio_pairing",
        "data.batch_varies",
        "model.memory_scale",
    ),
    "above the line": (
        "optimizer.lr_too_small",
        "precision.low_precision_weights",
        "optimizer.clip_too_tight",
        "loop.no_step",
    ),
    "perfect teacher-forced": (
        "model.no_causal_mask",
        "model.no_right_shift",
        "generation.exposure_gap",
        "generation.layout",
    ),
    "ignores the text": ("model.text_ignored", "model.encoder_detached", "data.token_collapse"),
    "sounds wrong": ("data.mel_recipe", "data.sample_rate", "generation.layout"),
}


@dataclass(frozen=True)
class Cell:
    """One run of the benchmark."""

    architecture: str
    kind: Kind
    # catalogue id, name of an outside fault, number of a clean setting, or "id & id" of a pair
    fault: str
    seed: int

    @property
    def name(self) -> str:
        """A file name."""
        return f"{self.architecture}-{self.kind}-{self.fault.replace(' & ', '+')}-{self.seed}"


@dataclass(frozen=True)
class Row:
    """What one cell gave."""

    cell: Cell
    confirmed: tuple[str, ...]  # causes, strongest first
    suspected: tuple[str, ...]
    healthy: bool
    passed: bool  # the overfit gate
    headline: Mapping[str, float]
    baselines: Mapping[str, bool]  # name -> alarm
    # what the plant measurably spoils against its clean twin; empty: masked
    harm: str
    seconds: float
    error: str = ""  # the diagnosis itself broke

    @property
    def first(self) -> str:
        """The cause that it names first; empty where it names none."""
        return (self.confirmed or self.suspected or ("",))[0]

    @property
    def detected(self) -> bool:
        """Whether it says that something is wrong: a finding, or no healthy verdict."""
        return not self.healthy or bool(self.first)

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "cell": asdict(self.cell)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Row:
        lists = {name: tuple(values[name]) for name in ("confirmed", "suspected")}
        return cls(**{**values, **lists, "cell": Cell(**values["cell"])})


# --- scores ---------------------------------------------------------------------------------------


def score(rows: Sequence[Row]) -> dict[str, Any]:
    """Every figure of the benchmark over these rows, for the tuning and the scored half and for
    each architecture.
    """
    halves = {
        "tuning": [row for row in rows if row.cell.seed in TUNING],
        "scored": [row for row in rows if row.cell.seed in SCORED],
    }
    by_architecture = {
        name: [row for row in halves["scored"] if row.cell.architecture == name]
        for name in dict.fromkeys(row.cell.architecture for row in rows)
    }
    return {
        **{half: fault_scores(found) for half, found in halves.items()},
        "by_architecture": {name: fault_scores(found) for name, found in by_architecture.items()},
        "clean": clean_scores([row for row in rows if row.cell.kind == "clean"]),
        "outside": outside_scores(
            [row for row in rows if row.cell.kind == "outside" and row.cell.seed in SCORED]
        ),
        "pairs": pair_scores([row for row in rows if row.cell.kind == "pair"]),
        "baselines": {
            name: alarm_rates(rows, name)
            for name in sorted({name for row in rows for name in row.baselines})
        },
        "confusion": {
            group: confusion(
                [row for row in halves["scored"] if row.cell.kind == "fault" and row.harm], causes
            )
            for group, causes in GROUPS.items()
        },
        "masked": sorted(
            row.cell.name for row in rows if row.cell.kind == "fault" and not row.harm
        ),
    }


def fault_scores(rows: Sequence[Row]) -> dict[str, Any]:
    """Detection, root cause and macro-F1 over the plants that harm, with intervals clustered by
    fault.
    """
    planted = [row for row in rows if row.cell.kind == "fault" and row.harm]
    if not planted:
        return {"n": 0}
    silent = [row for row in planted if row.passed]
    found = {
        "n": len(planted),
        "faults": len({row.cell.fault for row in planted}),
        "detection": rate(planted, lambda row: row.detected),
        "root_cause": rate(planted, right),
        "named": rate(planted, lambda row: row.cell.fault in row.confirmed + row.suspected),
        "cannot_tell": rate(planted, lambda row: not row.first),
        "macro_f1": macro_f1(planted),
        "silent": {
            "n": len(silent),
            **(
                {
                    "detection": rate(silent, lambda row: row.detected),
                    "root_cause": rate(silent, right),
                }
                if silent
                else {}
            ),
        },
        "seconds": {
            "median": sorted(row.seconds for row in planted)[len(planted) // 2],
            "largest": max(row.seconds for row in planted),
        },
    }
    found["by_fault"] = {
        fault: sum(map(right, mine)) / len(mine) for fault, mine in by_fault(planted).items()
    }
    found["missed"] = sorted(
        f"{row.cell.name}: {row.error or row.first or 'cannot tell'}"
        for row in planted
        if not right(row)
    )
    return found


def right(row: Row) -> bool:
    """Whether the first cause named is the planted one."""
    return row.first == row.cell.fault


def by_fault(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Rows by planted fault."""
    found: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        found[row.cell.fault].append(row)
    return dict(found)


def rate(rows: Sequence[Row], test: Callable[[Row], bool]) -> dict[str, Any]:
    """Share of rows that pass, with a 95 % interval by a bootstrap over faults: runs of one fault
    are no independent witnesses.
    """
    return {
        "value": sum(map(test, rows)) / len(rows),
        "interval": clustered(rows, lambda sample: sum(map(test, sample)) / len(sample)),
    }


def clustered(rows: Sequence[Row], statistic: Callable[[Sequence[Row]], float]) -> list[float]:
    """95 % percentile interval of a statistic, faults drawn with replacement."""
    clusters, stream = list(by_fault(rows).values()), random.Random(0)
    values = sorted(
        statistic([row for cluster in stream.choices(clusters, k=len(clusters)) for row in cluster])
        for _ in range(N_BOOTSTRAP)
    )
    return [values[int(0.025 * N_BOOTSTRAP)], values[int(0.975 * N_BOOTSTRAP) - 1]]


def macro_f1(rows: Sequence[Row]) -> dict[str, Any]:
    """Mean over the planted faults of the F1 of naming each first."""

    def value(sample: Sequence[Row]) -> float:
        planted, named = (
            Counter(row.cell.fault for row in sample),
            Counter(row.first for row in sample),
        )
        hits = Counter(row.cell.fault for row in sample if right(row))
        return sum(2 * hits[fault] / (planted[fault] + named[fault]) for fault in planted) / len(
            planted
        )

    return {"value": value(rows), "interval": clustered(rows, value)}


def clean_scores(rows: Sequence[Row]) -> dict[str, Any]:
    """False alarms per clean run, over those that pass the overfit gate, with the exact 95 % upper
    bound.
    """
    gated = [row for row in rows if row.passed]
    alarms = [row for row in gated if defects(row.confirmed)]
    suspected = [row for row in gated if defects(row.suspected) and not defects(row.confirmed)]
    return {
        "n": len(gated),
        "not_passed": sorted(row.cell.name for row in rows if not row.passed),
        "alarms": len(alarms),
        "suspicions": len(suspected),
        "bound": upper_bound(len(alarms), len(gated)) if gated else None,
        "which": sorted(f"{row.cell.name}: {', '.join(row.confirmed)}" for row in alarms),
        "suspected": sorted(f"{row.cell.name}: {', '.join(row.suspected)}" for row in suspected),
    }


def defects(causes: Iterable[str]) -> list[str]:
    """Those that the catalogue calls a defect: drift under self-feeding is none, and saying that it
    is there is no alarm.
    """
    return [cause for cause in causes if cause not in CAUSES or CAUSES[cause].defect]


def upper_bound(hits: int, n: int, level: float = 0.95) -> float:
    """One-sided exact (Clopper-Pearson) upper bound of a rate: 0 of 40 means at most 7.2 %."""
    low, high = hits / n, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        below = sum(math.comb(n, k) * middle**k * (1 - middle) ** (n - k) for k in range(hits + 1))
        low, high = (middle, high) if below > 1 - level else (low, middle)
    return high


def outside_scores(rows: Sequence[Row]) -> dict[str, Any]:
    """Faults that the catalogue does not hold: a confirmed cause is wrong there, "cannot tell" is
    right.
    """
    return {
        "n": len(rows),
        "wrongly_confirmed": sorted(
            f"{row.cell.name}: {', '.join(row.confirmed)}" for row in rows if defects(row.confirmed)
        ),
        "noticed": sum(row.detected for row in rows),
    }


def pair_scores(rows: Sequence[Row]) -> dict[str, Any]:
    """Two planted at once: how often both, one or none is among the findings."""
    found = Counter(
        sum(fault in row.confirmed + row.suspected for fault in row.cell.fault.split(" & "))
        for row in rows
    )
    return {
        "n": len(rows),
        "both": found[2],
        "one": found[1],
        "none": found[0],
        "missed": sorted(
            f"{row.cell.name}: {', '.join(row.confirmed + row.suspected) or 'cannot tell'}"
            for row in rows
            if any(
                fault not in row.confirmed + row.suspected for fault in row.cell.fault.split(" & ")
            )
        ),
    }


def alarm_rates(rows: Sequence[Row], name: str) -> dict[str, float | None]:
    """A baseline's alarms over harmful plants of the scored half and over clean runs; None where
    there are none.
    """
    planted = [
        row
        for row in rows
        if row.cell.kind == "fault"
        and row.harm
        and row.cell.seed in SCORED
        and name in row.baselines
    ]
    clean = [
        row for row in rows if row.cell.kind == "clean" and row.passed and name in row.baselines
    ]
    return {
        "detection": (
            sum(row.baselines[name] for row in planted) / len(planted) if planted else None
        ),
        "false_alarms": sum(row.baselines[name] for row in clean) / len(clean) if clean else None,
    }


def confusion(rows: Sequence[Row], causes: Sequence[str]) -> dict[str, dict[str, int]]:
    """Planted cause -> named cause -> how often; what lies outside the group is "other", nothing
    "cannot tell".
    """
    table: dict[str, dict[str, int]] = {}
    for cause in causes:
        named = Counter(
            row.first if row.first in causes else "other" if row.first else "cannot tell"
            for row in rows
            if row.cell.fault == cause
        )
        table[cause] = dict(named)
    return table
