"""The planted-fault benchmark of the diagnosis: what a run of it gave, and how runs are scored.

A *cell* is an architecture, a fault (or a clean setting, a fault outside the catalogue, a pair of
faults) and a seed. Seeds 0 and 1 are for tuning, 2 and 3 are scored; the held-out architecture is
only ever scored.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from tts_workbook.faults.registry import CAUSES

Kind = Literal["fault", "clean", "outside", "pair", "sound", "thread"]
TUNING = (0, 1)  # seeds
SCORED = (2, 3)  # seeds
N_BOOTSTRAP = 2000
# fields of a row that most rows have nothing in: stored where there is something
SELDOM = ("questions", "accepted")
CANNOT_TELL = "cannot tell"
# look-alikes: what is confused within a group is shown as a matrix of its own
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
    # catalogue id, "id & id" of a pair, number of a clean setting, or the name of a fault outside
    # the catalogue, of a sound design, of a public thread
    fault: str
    seed: int

    @property
    def faults(self) -> list[str]:
        """What is planted: two ids of a pair, else one name."""
        return self.fault.split(" & ")

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
    questions: tuple[str, ...] = ()  # causes that may be meant: no accusation
    # of a public thread: the causes of which any names it
    accepted: tuple[str, ...] = ()

    @property
    def named(self) -> tuple[str, ...]:
        """Every cause among its findings, strongest first."""
        return self.confirmed + self.suspected

    @property
    def first(self) -> str:
        """The cause that it names first; empty where it names none."""
        return self.named[0] if self.named else ""

    @property
    def right(self) -> bool:
        """Whether the first cause named is the planted one."""
        return self.first == self.cell.fault or self.first in self.accepted

    @property
    def harmful_plant(self) -> bool:
        """Whether one fault was planted and spoils something: what rates are computed over."""
        return self.cell.kind == "fault" and bool(self.harm)

    @property
    def sound(self) -> bool:
        """Whether nothing was planted and the overfit gate was passed: what alarms are counted
        over.
        """
        return self.cell.kind == "clean" and self.passed

    @property
    def detected(self) -> bool:
        """Whether it says that something is wrong: a finding, or no healthy verdict."""
        return not self.healthy or bool(self.named)

    def to_dict(self) -> dict[str, Any]:
        values = {**asdict(self), "cell": asdict(self.cell)}
        for name in SELDOM:
            if not values[name]:
                del values[name]
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Row:
        listed = ("confirmed", "suspected", *SELDOM)
        lists = {name: tuple(values.get(name, ())) for name in listed}
        return cls(**{**values, **lists, "cell": Cell(**values["cell"])})


# --- scores ---------------------------------------------------------------------------------------


def score(rows: Sequence[Row]) -> dict[str, Any]:
    """Every figure of the benchmark over these rows, for the tuning and the scored half and for
    each architecture.
    """
    tuning = [row for row in rows if row.cell.seed in TUNING]
    scored = [row for row in rows if row.cell.seed in SCORED]
    scored_by: dict[str, list[Row]] = {row.cell.architecture: [] for row in rows}
    for row in scored:
        scored_by[row.cell.architecture].append(row)
    baselines = baseline_names(rows)
    harmful = [row for row in scored if row.harmful_plant]
    masked = [row for row in rows if row.cell.kind == "fault" and not row.harm]
    found = {
        "tuning": fault_scores(tuning),
        "scored": fault_scores(scored),
        "by_architecture": {name: fault_scores(mine) for name, mine in scored_by.items()},
        "clean": clean_scores([row for row in rows if row.cell.kind == "clean"]),
        "outside": outside_scores([row for row in scored if row.cell.kind == "outside"]),
        "pairs": pair_scores([row for row in rows if row.cell.kind == "pair"]),
        "baselines": {name: alarm_rates(rows, name) for name in baselines},
        "confusion": {group: confusion(harmful, causes) for group, causes in GROUPS.items()},
        "masked": sorted(row.cell.name for row in masked),
    }
    sound = [row for row in rows if row.cell.kind == "sound"]
    threads = [row for row in rows if row.cell.kind == "thread"]
    if sound:
        found["sound"] = sound_scores(sound)
    if threads:
        found["threads"] = thread_scores(threads)
    return found


def fault_scores(rows: Sequence[Row]) -> dict[str, Any]:
    """Detection, root cause and macro-F1 over the plants that harm, with intervals clustered by
    fault.
    """
    planted = [row for row in rows if row.harmful_plant]
    if not planted:
        return {"n": 0}
    rows_of = rows_by_fault(planted)
    seconds = sorted(row.seconds for row in planted)
    missed = [row for row in planted if not row.right]
    return {
        "n": len(planted),
        "faults": len(rows_of),
        "detection": rate(planted, lambda row: row.detected),
        "root_cause": rate(planted, lambda row: row.right),
        "named": rate(planted, lambda row: row.cell.fault in row.named),
        "cannot_tell": rate(planted, lambda row: not row.first),
        "macro_f1": macro_f1(planted),
        "silent": silent_scores(planted),
        "seconds": {"median": seconds[len(seconds) // 2], "largest": seconds[-1]},
        "by_fault": {fault: share(mine, lambda row: row.right) for fault, mine in rows_of.items()},
        "missed": sorted(
            f"{row.cell.name}: {row.error or row.first or CANNOT_TELL}" for row in missed
        ),
    }


def silent_scores(planted: Sequence[Row]) -> dict[str, Any]:
    """Of the plants that pass the overfit gate: nothing but a diagnosis can see them."""
    silent = [row for row in planted if row.passed]
    if not silent:
        return {"n": 0}
    return {
        "n": len(silent),
        "detection": rate(silent, lambda row: row.detected),
        "root_cause": rate(silent, lambda row: row.right),
    }


def rows_by_fault(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """The rows of each planted fault."""
    found: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        found[row.cell.fault].append(row)
    return dict(found)


def share(rows: Sequence[Row], test: Callable[[Row], bool]) -> float:
    """Share of rows that pass a test."""
    return sum(map(test, rows)) / len(rows)


def rate(rows: Sequence[Row], test: Callable[[Row], bool]) -> dict[str, Any]:
    """Share of rows that pass, with a 95 % interval by a bootstrap over faults: runs of one fault
    are no independent witnesses.
    """
    return {
        "value": share(rows, test),
        "interval": clustered_interval(rows, lambda sample: share(sample, test)),
    }


def clustered_interval(
    rows: Sequence[Row], statistic: Callable[[Sequence[Row]], float]
) -> list[float]:
    """95 % percentile interval of a statistic, faults drawn with replacement."""
    clusters = list(rows_by_fault(rows).values())
    stream = random.Random(0)
    values = []
    for _ in range(N_BOOTSTRAP):
        drawn = stream.choices(clusters, k=len(clusters))
        values.append(statistic([row for cluster in drawn for row in cluster]))
    values.sort()
    return [values[int(0.025 * N_BOOTSTRAP)], values[int(0.975 * N_BOOTSTRAP) - 1]]


def macro_f1(rows: Sequence[Row]) -> dict[str, Any]:
    """Mean over the planted faults of the F1 of naming each first."""
    return {"value": mean_f1(rows), "interval": clustered_interval(rows, mean_f1)}


def mean_f1(rows: Sequence[Row]) -> float:
    """The F1 of a fault is 2 hits / (times planted + times named first)."""
    planted = Counter(row.cell.fault for row in rows)
    named = Counter(row.first for row in rows)
    hits = Counter(row.cell.fault for row in rows if row.right)
    total = sum(2 * hits[fault] / (planted[fault] + named[fault]) for fault in planted)
    return total / len(planted)


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
        "bound": rate_bound(len(alarms), len(gated)) if gated else None,
        "which": sorted(f"{row.cell.name}: {', '.join(row.confirmed)}" for row in alarms),
        "suspected": sorted(f"{row.cell.name}: {', '.join(row.suspected)}" for row in suspected),
    }


def sound_scores(rows: Sequence[Row]) -> dict[str, Any]:
    """Designs that are meant: how many are accused, and how many are asked about. They need not
    pass the overfit gate: nothing is wrong with them.
    """
    accused = [row for row in rows if defects(row.named)]
    asked = [row for row in rows if row.questions]
    return {
        "n": len(rows),
        "confirmed": sum(bool(defects(row.confirmed)) for row in rows),
        "accused": len(accused),
        "which": sorted(f"{row.cell.name}: {', '.join(row.named)}" for row in accused),
        "asked": sorted(f"{row.cell.name}: {', '.join(row.questions)}" for row in asked),
    }


def thread_scores(rows: Sequence[Row]) -> dict[str, Any]:
    """Faults of public threads: how many are named first, are among the findings, are noticed."""
    missed = [row for row in rows if not row.right]
    return {
        "n": len(rows),
        "first": sum(row.right for row in rows),
        "named": sum(any(cause in row.accepted for cause in row.named) for row in rows),
        "noticed": sum(row.detected for row in rows),
        "missed": sorted(
            f"{row.cell.name}: {row.error or ', '.join(row.named) or CANNOT_TELL}" for row in missed
        ),
    }


def defects(causes: Iterable[str]) -> list[str]:
    """Those that the catalogue calls a defect: drift under self-feeding is none, and saying that it
    is there is no alarm.
    """
    return [cause for cause in causes if cause not in CAUSES or CAUSES[cause].defect]


def rate_bound(hits: int, n: int, level: float = 0.95) -> float:
    """One-sided exact (Clopper-Pearson) upper bound of a rate: 0 of 40 means at most 7.2 %."""
    from scipy.stats import binomtest  # here, because it takes a second to import

    interval = binomtest(hits, n, alternative="less").proportion_ci(level, method="exact")
    return float(interval.high)


def outside_scores(rows: Sequence[Row]) -> dict[str, Any]:
    """Faults that the catalogue does not hold: a confirmed cause is wrong there, "cannot tell" is
    right.
    """
    wrong = [row for row in rows if defects(row.confirmed)]
    return {
        "n": len(rows),
        "wrongly_confirmed": sorted(
            f"{row.cell.name}: {', '.join(row.confirmed)}" for row in wrong
        ),
        "noticed": sum(row.detected for row in rows),
    }


def pair_scores(rows: Sequence[Row]) -> dict[str, Any]:
    """Two planted at once: how often both, one or none is among the findings."""
    times_found = Counter(n_found(row) for row in rows)
    incomplete = [row for row in rows if n_found(row) < len(row.cell.faults)]
    return {
        "n": len(rows),
        "both": times_found[2],
        "one": times_found[1],
        "none": times_found[0],
        "missed": sorted(
            f"{row.cell.name}: {', '.join(row.named) or CANNOT_TELL}" for row in incomplete
        ),
    }


def n_found(row: Row) -> int:
    """How many of the planted faults are among the findings."""
    return sum(fault in row.named for fault in row.cell.faults)


def baseline_names(rows: Iterable[Row]) -> list[str]:
    """Every baseline that was asked in any of these runs."""
    return sorted(set().union(*(row.baselines for row in rows)))


def alarm_rates(rows: Sequence[Row], baseline: str) -> dict[str, float | None]:
    """A baseline's alarms over harmful plants of the scored half and over clean runs; None where
    there are none.
    """

    def alarm(row: Row) -> bool:
        return row.baselines[baseline]

    asked = [row for row in rows if baseline in row.baselines]
    planted = [row for row in asked if row.harmful_plant and row.cell.seed in SCORED]
    clean = [row for row in asked if row.sound]
    return {
        "detection": share(planted, alarm) if planted else None,
        "false_alarms": share(clean, alarm) if clean else None,
    }


def confusion(rows: Sequence[Row], causes: Sequence[str]) -> dict[str, dict[str, int]]:
    """Planted cause -> named cause -> how often; what lies outside the group is "other", nothing
    "cannot tell".
    """

    def named(row: Row) -> str:
        if not row.first:
            return CANNOT_TELL
        return row.first if row.first in causes else "other"

    table: dict[str, dict[str, int]] = {}
    for cause in causes:
        mine = [row for row in rows if row.cell.fault == cause]
        table[cause] = dict(Counter(named(row) for row in mine))
    return table
