"""The findings page, from verdict files alone: what was asked, what was found, by which number, what would refute it."""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Mapping
from typing import Any

MARKS = {"supported": "✔ supported", "refuted": "✘ refuted", "undecided": "? undecided"}


def all_items(verdicts: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Every item of every verdict, in order, each with the number of its `notebook`."""
    return [{**item, "notebook": number} for number, verdict in verdicts.items() for item in verdict["items"]]


def tally(items: list[Mapping[str, Any]]) -> dict[str, int]:
    """How many items are supported, refuted, undecided."""
    counts = Counter(item["verdict"] for item in items)
    return {name: counts[name] for name in MARKS}


def effect_text(item: Mapping[str, Any]) -> str:
    """Effect size with unit, interval or the lack of it, and what was repeated: `3.2 ratio (no interval, n = 1 run)`."""
    if item["effect"] is None:
        return "not measured"
    unit = f" {item['unit']}" if item["unit"] else ""
    replication = f"n = {item['n']} {item['unit_of_replication']}".rstrip()
    if item["interval"] is None:
        return f"{item['effect']:.3g}{unit} (no interval, {replication})"
    low, high = item["interval"]
    return f"{item['effect']:.3g}{unit} (95 %: {low:.3g} to {high:.3g}, {replication})"


def threshold_text(item: Mapping[str, Any]) -> str:
    """Where the verdict would turn."""
    return "no threshold" if item["threshold"] is None else f"turns at {item['threshold']:.3g}"


def findings_html(verdicts: Mapping[str, Mapping[str, Any]]) -> str:
    """The page as HTML tables without script; every text that came from a file is escaped."""
    def cell(text: Any) -> str:
        return html.escape("" if text is None else str(text))

    rows = "".join(f"<tr><td>{number}</td><td>{cell(verdict['question'])}</td><td>{cell(verdict['answer'])}</td></tr>"
                   for number, verdict in verdicts.items())
    items = "".join(
        f"<tr><td>{cell(item['id'])}</td><td>{cell(item['claim'])}</td><td><b>{MARKS[item['verdict']]}</b></td>"
        f"<td>{cell(effect_text(item))}<br>{cell(threshold_text(item))}</td><td>{cell(item['notebook'])}</td>"
        f"<td>{cell(item['refuting_experiment'])}</td></tr>" for item in all_items(verdicts))
    page = (f"<table><thead><tr><th>notebook</th><th>question</th><th>answer</th></tr></thead><tbody>{rows}</tbody></table>"
            f"<table><thead><tr><th>item</th><th>claim</th><th>verdict</th><th>by which number</th>"
            f"<th>shown in</th><th>what would refute it</th></tr></thead><tbody>{items}</tbody></table>")
    for tag in ("td", "th"):       # JupyterLab aligns cells to the right unless each one says otherwise
        page = page.replace(f"<{tag}>", f"<{tag} style='text-align:left;vertical-align:top'>")
    return page
