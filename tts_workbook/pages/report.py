"""report.html: one self-contained page made from a run folder alone. No script, no request, and no
look of completeness when the run is not complete.

Texts from notebooks, transcripts and file names are escaped by the template engine; a content
policy in the page forbids scripts and requests besides. Pictures and sounds are embedded up to a
bound, and what is left out is named.
"""

from __future__ import annotations

import io
import os
import time
from pathlib import Path
from typing import Any

import soundfile

from tts_core import atomic_files
from tts_core.errors import WorkbookError
from tts_workbook.pages.pages import data_uri, render
from tts_workbook.runner.folder import find_defect, read_record, read_state
from tts_workbook.runner.order import in_order
from tts_workbook.runner.parameters import OF_PRESETS
from tts_workbook.runner.verdicts import VERDICTS, read_verdict
from tts_workbook.subject.addresses import short_address

MAX_PICTURE = 3_000_000  # bytes of one embedded figure
MAX_SOUND = 3_000_000  # bytes of one embedded sound; of a longer one the beginning is embedded
EXCERPT_SECONDS = 30.0
MAX_TOTAL = 40_000_000  # bytes of everything embedded, before base64


def build(folder: Path) -> Path:
    """Write `folder/report.html` atomically and return its path. WorkbookError when there is
    nothing to report.
    """
    record = read_record(folder)
    sections = _sections(folder, record)
    if record is None and not sections:
        raise WorkbookError(
            f"{folder} holds neither a run (run.json) nor verdicts; make one with: tts-workbook run"
        )
    page = render(
        "report.html.j2",
        headline=_headline(record, sections),
        record=record or {},
        sections=sections,
        written=time.strftime("%Y-%m-%d %H:%M %Z"),
    )
    target = folder / "report.html"
    atomic_files.write_text(target, page)
    return target


def verdict_rows(folder: Path) -> list[dict[str, Any]]:
    """For the table that ends a run: number, name, status, seconds, answer, and a count of items by
    verdict.
    """
    return [
        {
            **section,
            "answer": (section["verdict"] or {}).get("answer", section["cause"] or ""),
            "items": section["counts"],
        }
        for section in _sections(folder, read_record(folder), with_media=False)
    ]


# --- what the page says of the run as a whole -----------------------------------------------------


def _headline(record: dict[str, Any] | None, sections: list[dict[str, Any]]) -> dict[str, str]:
    """{"title", "level": good | warning | bad, "banner"}."""
    if record is None:
        return {
            "title": "Overfit Workbook (cell by cell)",
            "level": "warning",
            "banner": (
                "These notebooks were run by hand, cell by cell: nothing vouches for their order or"
                " completeness. For results that count, use tts-workbook run."
            ),
        }
    failure = record.get("failure") or {}
    culprit = failure.get("name") or "the run"
    if record.get("status") == "failed":
        return _incomplete(f"{culprit} failed", failure.get("cause", ""))
    if record.get("status") == "interrupted":
        return _incomplete(f"interrupted in {culprit}", failure.get("cause", ""))
    broken = [section for section in sections if section["problem"]]
    if record.get("status") != "complete":
        at_work = [section["name"] for section in sections if section["status"] == "running"]
        return _incomplete(
            f"killed or still running{' in ' + at_work[0] if at_work else ''}",
            f"run.json says {record.get('status')}, process {record.get('pid')}",
        )
    if broken:
        return _incomplete(f"results of {broken[0]['name']} are damaged", broken[0]["problem"])
    stale = [section["name"] for section in sections if section["status"] == "stale"]
    if stale:
        return {
            "title": "Overfit Workbook (partly stale)",
            "level": "warning",
            "banner": (
                f"{', '.join(stale)}: made with other inputs than the rest of this page. "
                "tts-workbook run --resume renews them."
            ),
        }
    subject = record.get("parameters", {}).get("subject")
    studied = f": {short_address(subject)}" if subject else ""
    return {"title": f"Overfit Workbook{studied}", "level": "good", "banner": ""}


def _incomplete(what: str, cause: str) -> dict[str, str]:
    return {
        "title": f"INCOMPLETE: {what}",
        "level": "bad",
        "banner": (
            f"This run is INCOMPLETE: {what}. {cause} Do not draw conclusions from this page."
        ),
    }


# --- one section per notebook ---------------------------------------------------------------------


def _sections(
    folder: Path, record: dict[str, Any] | None, with_media: bool = True
) -> list[dict[str, Any]]:
    entries = (record or {}).get("notebooks", {})
    if record is None:
        entries = {
            path.stem: {"name": path.stem, "status": "by hand"}
            for path in (folder / "verdicts").glob("[0-9][0-9].json")
        }
    budget = [MAX_TOTAL]
    return [
        _section(
            folder, number, entries[number], record is not None, budget if with_media else None
        )
        for number in in_order(entries)
    ]


def _section(
    folder: Path, number: str, entry: dict[str, Any], by_runner: bool, budget: list[int] | None
) -> dict[str, Any]:
    section = {
        "number": number,
        "name": entry.get("name", number),
        "status": entry.get("status", "unknown"),
        "seconds": entry.get("seconds"),
        "cause": entry.get("cause"),
        "changed": entry.get("changed"),
        "verdict": None,
        "problem": None,
        "counts": "",
        "figures": [],
        "sounds": [],
        "parameters": {},
    }
    if by_runner and section["status"] not in ("done", "done earlier", "stale"):
        return section
    section["problem"] = find_defect(folder, number) if by_runner else None
    if section["problem"]:
        return section
    try:
        section["verdict"] = read_verdict(folder / "verdicts" / f"{number}.json")
    except (OSError, WorkbookError) as error:
        section["problem"] = str(error)
        return section
    verdicts = [item["verdict"] for item in section["verdict"]["items"]]
    section["counts"] = ", ".join(
        f"{verdicts.count(verdict)} {verdict}" for verdict in VERDICTS if verdict in verdicts
    )
    parameters = (read_state(folder, number) or {}).get("parameters", {})
    hidden = OF_PRESETS if parameters.get("subject") else ("data",)
    section["parameters"] = {
        name: value for name, value in parameters.items() if name not in ("out", *hidden)
    }
    if budget is not None:
        section["figures"] = [
            _picture(folder / "figures", entry, budget)
            for entry in _manifest(folder / "figures", number)
        ]
        section["sounds"] = [
            _sound(folder / "audio", entry, budget) for entry in _manifest(folder / "audio", number)
        ]
    return section


def _manifest(folder: Path, number: str) -> list[dict[str, Any]]:
    try:
        return [
            entry
            for entry in atomic_files.read_json(folder / f"{number}.json")
            if {"name", "file", "caption"} <= set(entry)
        ]
    except FileNotFoundError:
        return []


def _picture(folder: Path, entry: dict[str, Any], budget: list[int]) -> dict[str, Any]:
    content, note = _read(folder / os.path.basename(entry["file"]), MAX_PICTURE, budget)
    return {**entry, "note": note, "uri": data_uri("image/png", content)}


def _sound(folder: Path, entry: dict[str, Any], budget: list[int]) -> dict[str, Any]:
    path = folder / os.path.basename(entry["file"])
    if not path.is_file() or path.stat().st_size <= MAX_SOUND:
        content, note = _read(path, MAX_SOUND, budget)
        return {**entry, "note": note, "uri": data_uri("audio/wav", content)}
    with soundfile.SoundFile(path) as sound:
        seconds = min(EXCERPT_SECONDS, MAX_SOUND / (sound.samplerate * sound.channels * 2))
        excerpt = io.BytesIO()
        soundfile.write(
            excerpt, sound.read(int(seconds * sound.samplerate)), sound.samplerate, format="FLAC"
        )
        whole = len(sound) / sound.samplerate
    content = excerpt.getvalue()
    if len(content) > budget[0]:
        return {
            **entry,
            "note": f"left out of this page, which is full; see audio/{path.name}",
            "uri": "",
        }
    budget[0] -= len(content)
    return {
        **entry,
        "note": f"the first {seconds:.0f} s of {whole:.0f} s; all of it: audio/{path.name}",
        "uri": data_uri("audio/flac", content),
    }


def _read(path: Path, largest: int, budget: list[int]) -> tuple[bytes, str]:
    """(content, "") or (b"", why it is left out)."""
    if not path.is_file():
        return b"", f"missing: {path.parent.name}/{path.name}"
    size = path.stat().st_size
    if size > min(largest, budget[0]):
        return (
            b"",
            f"left out of this page, {size / 1e6:.1f} MB; see {path.parent.name}/{path.name}",
        )
    budget[0] -= size
    return path.read_bytes(), ""
