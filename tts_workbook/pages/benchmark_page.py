"""The page of the planted-fault benchmark: how often the diagnosis is right, beside what was asked
of it, and every miss.
"""

from __future__ import annotations

import time
from typing import Any

from tts_workbook.number_text import format_number
from tts_workbook.pages.benchmark_record import (
    CLEAN_RUNS,
    Bar,
    Benchmark,
    alarm_points,
    bars,
    by_fault,
    interval_text,
    look_alikes,
    value_text,
    wanted_text,
)
from tts_workbook.pages.rendering import data_uri, render
from tts_workbook.viz import plot_alarms, plot_confusion, plot_root_cause

# classes of page.css: green, red, amber
LEVELS = {True: "supported", False: "refuted", None: "undecided"}
NOTHING = "Not recorded."


def benchmark_page(
    found: Benchmark, title: str = "Benchmark of the diagnosis on planted faults"
) -> str:
    """The recorded benchmark as one self-contained HTML page, every text escaped."""
    asked = [bar for bar in bars(found) if bar.wanted is not None]
    reached = sum(bar.reached is True for bar in asked)
    unmeasured = sum(bar.reached is None for bar in asked)
    verdict = (
        (
            f"{reached} of the {len(asked)} bars set before the runs are reached"
            + (f", {unmeasured} are not measured" if unmeasured else "")
            + "."
        )
        if asked
        else "No bar applies."
    )
    level = (
        "good"
        if reached == len(asked) and not found.caution
        else "warning"
        if reached + unmeasured == len(asked)
        else "bad"
    )
    return render(
        "benchmark.html.j2",
        title=title,
        verdict=verdict,
        level=level,
        caution=found.caution,
        bars=[bar_row(bar) for bar in bars(found)],
        figures=figures(found),
        halves=half_rows(found),
        time=time_text(found),
        lists=lists(found),
        provenance=provenance_rows(found),
        written=time.strftime("%Y-%m-%d %H:%M %Z"),
    )


def bar_row(bar: Bar) -> dict[str, Any]:
    """One line of the table of headline numbers."""
    numbers = {
        "value": value_text(bar),
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
        made.append(
            (
                "Detection against false alarms",
                plot_alarms(points, provenance=found.provenance),
                alarms_caption(),
            )
        )
    if tables := look_alikes(found):
        made.append(
            (
                "Look-alikes",
                plot_confusion(tables, provenance=found.provenance),
                (
                    f"Faults whose curves or sounds are alike, {found.half} half, plants that do"
                    " harm. Look off the diagonal: what is taken for what."
                ),
            )
        )
    if faults := by_fault(found):
        made.append(
            (
                "Root cause by fault",
                plot_root_cause(faults, provenance=found.provenance),
                (
                    f"Runs of the {found.half} half in which the planted fault was named first. An"
                    " empty place is a fault that makes no sense in that architecture, or is not"
                    " run."
                ),
            )
        )
    return [
        {"head": head, "caption": caption, "picture": data_uri("image/png", picture.png())}
        for head, picture, caption in made
    ]


def alarms_caption() -> str:
    """What to know of the baselines: they raise an alarm and name nothing, and one of them is the
    gate itself.
    """
    return (
        "Baselines raise an alarm and name no cause. “Loss below half of the best constant” has no"
        " false alarm by construction: a sound run counts only if it passes this very rule."
    )


def half_rows(found: Benchmark) -> list[list[str]]:
    """Both halves and each architecture of the scored half, as texts."""
    parts = {
        "scored half": found.scores["scored"],
        "tuning half": found.scores["tuning"],
        **{
            f"scored half, {name}{', never tuned on' if name in found.held_out else ''}": scores
            for name, scores in found.scores["by_architecture"].items()
        },
    }
    return [
        [
            name,
            str(scores["n"]),
            *(
                ["–"] * 6
                if not scores["n"]
                else [
                    str(scores["faults"]),
                    *(
                        f"{scores[key]['value']:.3f}"
                        for key in ("detection", "root_cause", "named", "macro_f1", "cannot_tell")
                    ),
                ]
            ),
        ]
        for name, scores in parts.items()
    ]


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
    clean, outside, pairs, masked = (
        found.scores[name] for name in ("clean", "outside", "pairs", "masked")
    )
    missed = [
        (f"{half} half", found.scores[half].get("missed", [])) for half in ("scored", "tuning")
    ]
    n_planted = sum(row.cell.kind == "fault" for row in found.rows)
    return [
        part(
            "Missed, and what was named first instead",
            (
                "architecture-fault-name-seed: first cause named. A pattern here is a defect of a "
                "check."
                if any(entries for _, entries in missed)
                else "Nothing was missed."
            ),
            dict(missed),
        ),
        part(
            "Sound runs",
            clean_text(clean),
            {
                "alarms: a confirmed cause in a sound run": clean["which"],
                "only suspected": clean["suspected"],
                "did not pass the overfit gate, not counted": clean["not_passed"],
            },
        ),
        part(
            "Faults outside the catalogue",
            (
                f"{outside['noticed']} of {outside['n']} runs were noticed; “cannot tell” is the"
                " right answer."
                if outside["n"]
                else NOTHING
            ),
            {"a confirmed cause, wrong here": outside["wrongly_confirmed"]},
        ),
        part(
            "Two faults at once",
            (
                f"Of {pairs['n']} pairs both were among the findings in {pairs['both']}, one in"
                f" {pairs['one']}, none in {pairs['none']}."
                if pairs["n"]
                else NOTHING
            ),
            {"pairs that were not found whole: what was found": pairs["missed"]},
            False,
        ),
        part(
            "Masked plants",
            f"{len(masked)} of {n_planted} planted runs.",
            {"spoil nothing measurable against their sound twin, not scored": masked},
            False,
        ),
    ]


def part(
    head: str, text: str, entries: dict[str, list[str]], unfolded: bool = True
) -> dict[str, Any]:
    """A section of lists; `unfolded` ones are open."""
    return {"head": head, "text": text, "lists": list(entries.items()), "open": unfolded}


def clean_text(clean: dict[str, Any]) -> str:
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
    listed = {
        name: (
            ", ".join(f"{key} {part}" for key, part in value.items())
            if isinstance(value, dict)
            else value
        )
        for name, value in found.provenance.items()
    }
    return [
        ("runs", str(len(found.rows))),
        ("architectures", ", ".join(found.architectures)),
        *(
            (name, value if isinstance(value, str) else format_number(value))
            for name, value in listed.items()
        ),
    ]
