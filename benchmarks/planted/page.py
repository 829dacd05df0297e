"""The page of the planted-fault benchmark: how often the diagnosis is right, beside what was asked
of it, and every miss.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tts_workbook.number_text import format_number
from tts_workbook.pages.benchmark_bars import (
    CLEAN_RUNS,
    Bar,
    bar_value_text,
    bars,
    interval_text,
    wanted_text,
)
from tts_workbook.pages.benchmark_record import (
    Benchmark,
    alarm_points,
    first_named_table,
    look_alikes,
)
from tts_workbook.pages.rendering import data_uri, render
from tts_workbook.viz import plot_alarms, plot_confusion, plot_root_cause
from tts_workbook.viz.picture import Picture

# classes of page.css: green, red, amber
LEVELS = {True: "supported", False: "refuted", None: "undecided"}
RATES = ("detection", "root_cause", "named", "macro_f1", "cannot_tell")
NOTHING = "Not recorded."
TEMPLATE = Path(__file__).with_name("benchmark.html.j2")


def benchmark_page(
    found: Benchmark, title: str = "Benchmark of the diagnosis on planted faults"
) -> str:
    """The recorded benchmark as one self-contained HTML page, every text escaped."""
    rows = bars(found)
    verdict, level = answer(found, [bar for bar in rows if bar.wanted is not None])
    return render(
        TEMPLATE,
        title=title,
        verdict=verdict,
        level=level,
        caution=found.caution,
        bars=[bar_row(bar) for bar in rows],
        figures=figures(found),
        halves=half_rows(found),
        time=time_text(found),
        lists=lists(found),
        provenance=provenance_rows(found),
        written=time.strftime("%Y-%m-%d %H:%M %Z"),
    )


def answer(found: Benchmark, asked: Sequence[Bar]) -> tuple[str, str]:
    """How many of the bars are reached, in a sentence, and the class of page.css that it has."""
    reached = sum(bar.reached is True for bar in asked)
    unmeasured = sum(bar.reached is None for bar in asked)
    level = "bad"
    if reached == len(asked) and not found.caution:
        level = "good"
    elif reached + unmeasured == len(asked):
        level = "warning"
    if not asked:
        return "No bar applies.", level
    missing = f", {unmeasured} are not measured" if unmeasured else ""
    sentence = f"{reached} of the {len(asked)} bars set before the runs are reached{missing}."
    return sentence, level


def bar_row(bar: Bar) -> dict[str, Any]:
    """One line of the table of headline numbers."""
    numbers = {
        "value": bar_value_text(bar),
        "interval": interval_text(bar),
        "n": f"{bar.n} {bar.unit}",
        "wanted": wanted_text(bar),
    }
    unbroken = {name: text.replace(" ", "\u00a0") for name, text in numbers.items()}
    return {
        "name": bar.name,
        **unbroken,
        "verdict": bar.verdict,
        "level": LEVELS[bar.reached] if bar.verdict else "",
    }


def figures(found: Benchmark) -> list[dict[str, str]]:
    """Head, caption and picture of what there are runs for."""
    made = []
    if points := alarm_points(found):
        picture = plot_alarms(points, provenance=found.provenance)
        made.append(figure("Detection against false alarms", picture, alarms_caption()))
    if tables := look_alikes(found):
        picture = plot_confusion(tables, provenance=found.provenance)
        made.append(figure("Look-alikes", picture, look_alikes_caption(found)))
    if faults := first_named_table(found):
        picture = plot_root_cause(faults, provenance=found.provenance)
        made.append(figure("Root cause by fault", picture, root_cause_caption(found)))
    return made


def figure(head: str, picture: Picture, caption: str) -> dict[str, str]:
    """A figure as the template takes it."""
    return {"head": head, "caption": caption, "picture": data_uri("image/png", picture.png())}


def alarms_caption() -> str:
    """What to know of the baselines: they raise an alarm and name nothing, and one of them is the
    gate itself.
    """
    return (
        "Baselines raise an alarm and name no cause. “Loss below half of the best constant” has no"
        " false alarm by construction: a sound run counts only if it passes this very rule."
    )


def look_alikes_caption(found: Benchmark) -> str:
    """What to look for in the matrices."""
    return (
        f"Faults whose curves or sounds are alike, {found.half} half, plants that do harm. Look off"
        " the diagonal: what is taken for what."
    )


def root_cause_caption(found: Benchmark) -> str:
    """What an empty place means."""
    return (
        f"Runs of the {found.half} half in which the planted fault was named first. An empty place"
        " is a fault that makes no sense in that architecture, or is not run."
    )


def half_rows(found: Benchmark) -> list[list[str]]:
    """Both halves and each architecture of the scored half, as texts."""
    rows = [
        half_row("scored half", found.scores["scored"]),
        half_row("tuning half", found.scores["tuning"]),
    ]
    for name, scores in found.scores["by_architecture"].items():
        never = ", never tuned on" if name in found.held_out else ""
        rows.append(half_row(f"scored half, {name}{never}", scores))
    return rows


def half_row(name: str, scores: Mapping[str, Any]) -> list[str]:
    """A name, its runs, its faults, and each rate; dashes where there are no runs."""
    if not scores["n"]:
        return [name, "0", "–", *["–"] * len(RATES)]
    rates = [f"{scores[key]['value']:.3f}" for key in RATES]
    return [name, str(scores["n"]), str(scores["faults"]), *rates]


def time_text(found: Benchmark) -> str:
    """Seconds that a diagnosis of one subject took."""
    scores = found.scores[found.half]
    if not scores["n"]:
        return ""
    median, largest = (scores["seconds"][name] for name in ("median", "largest"))
    return (
        f"A diagnosis took {median:.0f} s in the median and {largest:.0f} s at most, on one thread"
        " beside other runs."
    )


def lists(found: Benchmark) -> list[dict[str, Any]]:
    """What was missed and said instead, sound runs, faults outside the catalogue, pairs, masked
    plants.
    """
    return [
        missed_part(found),
        clean_part(found.scores["clean"]),
        outside_part(found.scores["outside"]),
        pairs_part(found.scores["pairs"]),
        masked_part(found),
    ]


def part(
    head: str, text: str, entries: dict[str, list[str]], unfolded: bool = True
) -> dict[str, Any]:
    """A section of lists; `unfolded` ones are open."""
    return {"head": head, "text": text, "lists": list(entries.items()), "open": unfolded}


def missed_part(found: Benchmark) -> dict[str, Any]:
    """Harmful plants that were not named first."""
    missed = {f"{half} half": found.scores[half].get("missed", []) for half in ("scored", "tuning")}
    text = "Nothing was missed."
    if any(missed.values()):
        text = (
            "architecture-fault-name-seed: first cause named. A pattern here is a defect of a "
            "check."
        )
    return part("Missed, and what was named first instead", text, missed)


def clean_part(clean: Mapping[str, Any]) -> dict[str, Any]:
    """Sound runs with an alarm, with a suspicion, and those that do not count."""
    entries = {
        "alarms: a confirmed cause in a sound run": clean["which"],
        "only suspected": clean["suspected"],
        "did not pass the overfit gate, not counted": clean["not_passed"],
    }
    return part("Sound runs", clean_text(clean), entries)


def outside_part(outside: Mapping[str, Any]) -> dict[str, Any]:
    """Faults that no cause of the catalogue is right for."""
    text = NOTHING
    if outside["n"]:
        text = (
            f"{outside['noticed']} of {outside['n']} runs were noticed; “cannot tell” is the"
            " right answer."
        )
    entries = {"a confirmed cause, wrong here": outside["wrongly_confirmed"]}
    return part("Faults outside the catalogue", text, entries)


def pairs_part(pairs: Mapping[str, Any]) -> dict[str, Any]:
    """Two faults in one subject."""
    text = NOTHING
    if pairs["n"]:
        text = (
            f"Of {pairs['n']} pairs both were among the findings in {pairs['both']}, one in"
            f" {pairs['one']}, none in {pairs['none']}."
        )
    entries = {"pairs that were not found whole: what was found": pairs["missed"]}
    return part("Two faults at once", text, entries, unfolded=False)


def masked_part(found: Benchmark) -> dict[str, Any]:
    """Plants that spoil nothing."""
    masked = found.scores["masked"]
    n_planted = sum(row.cell.kind == "fault" for row in found.rows)
    text = f"{len(masked)} of {n_planted} planted runs."
    entries = {"spoil nothing measurable against their sound twin, not scored": masked}
    return part("Masked plants", text, entries, unfolded=False)


def clean_text(clean: Mapping[str, Any]) -> str:
    """Alarms among the sound runs with the bound on their rate."""
    if not clean["n"]:
        return NOTHING
    return (
        f"{clean['alarms']} alarms in {clean['n']} sound runs that pass the overfit gate (at least"
        f" {CLEAN_RUNS} are asked for): a rate of at most {100 * clean['bound']:.1f} % (exact"
        f" one-sided 95 % bound). {clean['suspicions']} more with a suspicion only."
    )


def provenance_rows(found: Benchmark) -> list[tuple[str, str]]:
    """Where the record comes from."""
    made = [(name, provenance_text(value)) for name, value in found.provenance.items()]
    return [
        ("runs", str(len(found.rows))),
        ("architectures", ", ".join(found.architectures)),
        *made,
    ]


def provenance_text(value: Any) -> str:
    """One entry of the provenance: a text, a number, or named parts."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {part}" for key, part in value.items())
    return value if isinstance(value, str) else format_number(value)
