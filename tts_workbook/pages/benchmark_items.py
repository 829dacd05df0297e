"""What the notebook and its verdict take from the recorded benchmark: a table of the bars, and an
item for each of them.
"""

from __future__ import annotations

from tts_workbook.pages.benchmark_bars import Bar, bar_value_text, bars, interval_text, wanted_text
from tts_workbook.pages.benchmark_record import COMMAND, NOT_RECORDED, Benchmark
from tts_workbook.pages.rendering import html_table
from tts_workbook.runner.verdicts import Item, Verdict

VERDICTS: dict[bool | None, Verdict] = {True: "supported", False: "refuted", None: "undecided"}
REFUTING = (
    "the same matrix on another architecture that the rules were not made on, with its plants"
    " written blind to the checks"
)


def bars_html(found: Benchmark) -> str:
    """Every headline number beside its bar, as an HTML table; text is escaped."""
    heads = ("on planted faults", "measured", "95 %, clustered by fault", "runs", "asked for", "")
    rows = [
        (
            bar.name,
            bar_value_text(bar),
            interval_text(bar),
            f"{bar.n} {bar.unit}",
            wanted_text(bar),
            bar.verdict,
        )
        for bar in bars(found)
    ]
    return html_table(heads, rows)


def benchmark_items(found: Benchmark | None) -> list[Item]:
    """An item for every bar: supported where the recorded matrix reaches it, undecided where that
    is not recorded.
    """
    about = found or NOT_RECORDED
    ruled: dict[str, Item] = {}
    for bar in bars(about):
        # several held-out architectures: the first one stands for the bar
        if bar.id and bar.id not in ruled:
            ruled[bar.id] = item(bar, provenance(about))
    return list(ruled.values())


def item(bar: Bar, where: str) -> Item:
    """One bar as an item: it is about the matrix as recorded, so its value decides and its interval
    stands beside it.
    """
    return Item(
        id=bar.id,
        claim=f"{bar.name}: {wanted_text(bar)}",
        verdict=VERDICTS[bar.reached],
        effect=bar.value,
        unit=bar.unit if bar.most else "share",
        interval=bar.interval,
        n=bar.n,
        unit_of_replication=bar.unit,
        threshold=bar.wanted,
        provenance=where,
        refuting_experiment=REFUTING,
    )


def provenance(found: Benchmark) -> str:
    """Where the numbers come from, or how to make them."""
    if not found.rows:
        return f"not recorded yet: {COMMAND}"
    known = [found.provenance.get(name) for name in ("command", "commit", "date")]
    made = ", ".join(str(value) for value in known if value)
    return f"recorded: {made}. {found.caution}".strip()


def benchmark_sentence(found: Benchmark | None) -> str:
    """What the benchmark says of the diagnosis, in one sentence."""
    if found is None:
        return f"How often it is right is not recorded yet ({COMMAND})."
    asked = [bar for bar in bars(found) if bar.wanted is not None]
    by_id = {bar.id: bar for bar in asked}
    missed = [bar.name for bar in asked if bar.reached is False]
    unknown = [bar.name for bar in asked if bar.reached is None]
    parts = [root_cause_text(by_id["benchmark_root_cause"])]
    parts.append(f"; of {len(asked)} bars {sum(bar.reached is True for bar in asked)} are reached")
    if missed:
        parts.append(f", not reached: {'; '.join(missed)}")
    if unknown:
        parts.append(f", not measured: {'; '.join(unknown)}")
    said = "".join(parts) + "."
    if date := found.provenance.get("date"):
        said += f" Recorded on {date}: rules that changed since are not in it."
    return said


def root_cause_text(bar: Bar) -> str:
    """How often the planted cause was named first, in words."""
    if bar.value is None:
        return "No scored plant is recorded"
    return (
        f"On {bar.n} harmful plants of the scored half it names the planted cause first in"
        f" {100 * bar.value:.1f} %"
    )
