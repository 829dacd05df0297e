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
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import soundfile

from tts_core import atomic_files
from tts_core.errors import WorkbookError
from tts_workbook.number_text import format_number
from tts_workbook.pages.rendering import data_uri, render
from tts_workbook.runner.parameters import FIELDS
from tts_workbook.runner.run_folder import find_defect, read_run_record, read_state
from tts_workbook.runner.verdicts import VERDICTS, read_verdict
from tts_workbook.subject.addresses import short_address

MAX_PICTURE = 3_000_000  # bytes of one embedded figure
MAX_SOUND = 3_000_000  # bytes of one embedded sound; of a longer one the beginning is embedded
EXCERPT_SECONDS = 30.0
MAX_TOTAL = 40_000_000  # bytes of everything embedded, before base64
COUNTING = ("done", "done earlier", "stale")  # statuses of notebooks whose result is shown


def write_report(folder: Path) -> Path:
    """Write `folder/report.html` atomically and return its path. WorkbookError when there is
    nothing to report.
    """
    record = read_run_record(folder)
    sections = _sections(folder, record)
    if record is None and not sections:
        raise WorkbookError(
            f"{folder} holds neither a run (run.json) nor verdicts; make one with: tts-workbook run"
        )
    headline = _headline(record, sections)
    page = render(
        "report.html.j2",
        title=headline.title,
        headline=headline,
        record=record or {},
        sections=sections,
        made_with=_made_with(record) if record else [],
        written=time.strftime("%Y-%m-%d %H:%M %Z"),
    )
    target = folder / "report.html"
    atomic_files.write_text(target, page)
    return target


def verdict_rows(folder: Path) -> list[dict[str, Any]]:
    """For the table that ends a run: number, name, status, seconds, answer, and a count of items by
    verdict.
    """
    rows = []
    for section in _sections(folder, read_run_record(folder), with_media=False):
        answer = section.verdict["answer"] if section.verdict else section.cause or ""
        rows.append(
            {
                "number": section.number,
                "name": section.name,
                "status": section.status,
                "seconds": section.seconds,
                "answer": answer,
                "items": section.counts,
            }
        )
    return rows


# --- what the page says of the run as a whole -----------------------------------------------------


@dataclass(frozen=True)
class Headline:
    """The page's title, and what it warns of."""

    title: str
    level: Literal["good", "warning", "bad"]
    banner: str = ""


def _headline(record: dict[str, Any] | None, sections: list[Section]) -> Headline:
    if record is None:
        return Headline(
            "Overfit Workbook (cell by cell)",
            "warning",
            "These notebooks were run by hand, cell by cell: nothing vouches for their order or"
            " completeness. For results that count, use tts-workbook run.",
        )
    incomplete = _incomplete(record, sections)
    if incomplete is not None:
        return incomplete
    stale = [section.name for section in sections if section.status == "stale"]
    if stale:
        return Headline(
            "Overfit Workbook (partly stale)",
            "warning",
            f"{', '.join(stale)}: made with other inputs than the rest of this page. "
            "tts-workbook run --resume renews them.",
        )
    subject = record.get("parameters", {}).get("subject")
    studied = f": {short_address(subject)}" if subject else ""
    return Headline(f"Overfit Workbook{studied}", "good")


def _incomplete(record: dict[str, Any], sections: list[Section]) -> Headline | None:
    """What is missing in this run; None when it is whole."""
    status = record.get("status")
    failure = record.get("failure") or {}
    culprit = failure.get("name") or "the run"
    if status == "failed":
        return _incomplete_for(f"{culprit} failed", failure.get("cause", ""))
    if status == "interrupted":
        return _incomplete_for(f"interrupted in {culprit}", failure.get("cause", ""))
    if status != "complete":
        at_work = [section.name for section in sections if section.status == "running"]
        where = f" in {at_work[0]}" if at_work else ""
        return _incomplete_for(
            f"killed or still running{where}",
            f"run.json says {status}, process {record.get('pid')}",
        )
    for section in sections:
        if section.problem:
            return _incomplete_for(f"results of {section.name} are damaged", section.problem)
    return None


def _incomplete_for(what: str, cause: str) -> Headline:
    return Headline(
        f"INCOMPLETE: {what}",
        "bad",
        f"This run is INCOMPLETE: {what}. {cause} Do not draw conclusions from this page.",
    )


def _made_with(record: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Name and value of what the results depend on."""
    data = record["data"]
    machine = (record["device"], record["threads"], record["platform"])
    rows = [
        *record["versions"].items(),
        ("torchaudio extension", record["torchaudio_extension"]),
        ("device, threads, platform", ", ".join(str(part) for part in machine)),
        ("commit", record["git_commit"] or "not known"),
        ("configuration hash", record["config_hash"]),
        ("data", f"{data['files']} files, {data['bytes']} bytes, {data['hash']}"),
    ]
    for name, value in record["parameters"].items():
        rows.append((f"parameter {name}", "default" if value in (None, "") else value))
    return rows


# --- one section per notebook ---------------------------------------------------------------------


@dataclass
class Section:
    """What the page shows of one notebook."""

    number: str
    name: str
    status: str
    seconds: float | None = None
    cause: str | None = None  # why it failed
    changed: str | None = None  # what has changed since a stale result was made
    problem: str | None = None  # why its recorded result cannot be used
    verdict: dict[str, Any] | None = None
    counts: str = ""  # of its items by verdict
    parameters: Mapping[str, Any] = field(default_factory=dict)
    figures: list[dict[str, Any]] = field(default_factory=list)
    sounds: list[dict[str, Any]] = field(default_factory=list)

    @property
    def numbers(self) -> list[tuple[str, str]]:
        """Name and formatted value of each metric."""
        metrics = self.verdict["metrics"] if self.verdict else {}
        return [(name, format_number(value)) for name, value in metrics.items()]


def _sections(
    folder: Path, record: dict[str, Any] | None, with_media: bool = True
) -> list[Section]:
    """In the order in which the notebooks run; `record` is None where they were run by hand."""
    if record is None:
        by_hand = sorted((folder / "verdicts").glob("[0-9][0-9].json"))
        sections = [Section(path.stem, path.stem, "by hand") for path in by_hand]
    else:
        entries = record.get("notebooks", {})
        sections = [_recorded_section(number, entries[number]) for number in sorted(entries)]
    budget = Budget(MAX_TOTAL)
    for section in sections:
        _fill(section, folder, by_runner=record is not None)
        if section.verdict is not None and with_media:
            section.figures = _embedded(folder / "figures", section.number, _picture, budget)
            section.sounds = _embedded(folder / "audio", section.number, _sound, budget)
    return sections


def _recorded_section(number: str, entry: Mapping[str, Any]) -> Section:
    return Section(
        number=number,
        name=entry.get("name", number),
        status=entry.get("status", "unknown"),
        seconds=entry.get("seconds"),
        cause=entry.get("cause"),
        changed=entry.get("changed"),
    )


def _fill(section: Section, folder: Path, by_runner: bool) -> None:
    """Add the verdict, or the problem with it."""
    if by_runner and section.status not in COUNTING:
        return
    if by_runner:
        section.problem = find_defect(folder, section.number, section.name)
    if section.problem:
        return
    try:
        verdict = read_verdict(folder / "verdicts" / f"{section.number}.json")
    except (OSError, WorkbookError) as error:
        section.problem = str(error)
        return
    section.verdict = verdict
    found = Counter(item["verdict"] for item in verdict["items"])
    section.counts = ", ".join(f"{found[name]} {name}" for name in VERDICTS if found[name])
    state = read_state(folder, section.number)
    parameters = state.parameters if state is not None else {}
    hidden = {"out", "data"}
    if parameters.get("subject") or ":" in (parameters.get("subjects") or ""):
        hidden |= {name for name, field in FIELDS.items() if field.of_presets}
    section.parameters = {name: value for name, value in parameters.items() if name not in hidden}


# --- what is embedded -----------------------------------------------------------------------------


@dataclass
class Budget:
    """How many bytes this page may still embed."""

    left: int


def _embedded(
    folder: Path,
    number: str,
    embed: Callable[[Path, Budget], dict[str, Any]],
    budget: Budget,
) -> list[dict[str, Any]]:
    """The files that a notebook saved, in the order of their first saving, each with "uri" and
    "note" beside its caption.
    """
    try:
        manifest = atomic_files.read_json(folder / f"{number}.json")
    except FileNotFoundError:
        return []
    entries = [entry for entry in manifest if {"name", "file", "caption"} <= set(entry)]
    # a name alone: what lies outside the folder is not the notebook's to show
    return [
        {**entry, **embed(folder / os.path.basename(entry["file"]), budget)} for entry in entries
    ]


def _picture(path: Path, budget: Budget) -> dict[str, Any]:
    content, note = _read(path, MAX_PICTURE, budget)
    return {"note": note, "uri": data_uri("image/png", content)}


def _sound(path: Path, budget: Budget) -> dict[str, Any]:
    if path.is_file() and path.stat().st_size > MAX_SOUND:
        return _excerpt(path, budget)
    content, note = _read(path, MAX_SOUND, budget)
    return {"note": note, "uri": data_uri("audio/wav", content)}


def _excerpt(path: Path, budget: Budget) -> dict[str, Any]:
    """The beginning of a sound that is too long to be embedded whole."""
    target = io.BytesIO()
    with soundfile.SoundFile(path) as sound:
        seconds = min(EXCERPT_SECONDS, MAX_SOUND / (sound.samplerate * sound.channels * 2))
        samples = sound.read(int(seconds * sound.samplerate))
        soundfile.write(target, samples, sound.samplerate, format="FLAC")
        whole = len(sound) / sound.samplerate
    content = target.getvalue()
    if len(content) > budget.left:
        note = f"left out of this page, which is full; see audio/{path.name}"
        return {"note": note, "uri": ""}
    budget.left -= len(content)
    note = f"the first {seconds:.0f} s of {whole:.0f} s; all of it: audio/{path.name}"
    return {"note": note, "uri": data_uri("audio/flac", content)}


def _read(path: Path, largest: int, budget: Budget) -> tuple[bytes, str]:
    """(content, "") or (b"", why it is left out)."""
    place = f"{path.parent.name}/{path.name}"
    if not path.is_file():
        return b"", f"missing: {place}"
    size = path.stat().st_size
    if size > min(largest, budget.left):
        return b"", f"left out of this page, {size / 1e6:.1f} MB; see {place}"
    budget.left -= size
    return path.read_bytes(), ""
