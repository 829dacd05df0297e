"""Pages of a diagnosis and of a triage: self-contained, every text escaped."""

from __future__ import annotations

import io
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import soundfile

from tts_workbook.diagnosis.diagnosis_report import Report
from tts_workbook.diagnosis.triage import Triage
from tts_workbook.faults.finding import Finding
from tts_workbook.lab.lab import AS_IT_IS
from tts_workbook.pages.diagnosis_tables import headline_rows, state_rows, value_text
from tts_workbook.pages.rendering import data_uri, render
from tts_workbook.viz import plot_courses, plot_mels
from tts_workbook.viz.picture import Picture


def diagnosis_page(report: Report, title: str) -> str:
    """The report as one HTML page: the verdict, ranked causes with evidence and fix, the courses,
    and what was ruled out.
    """
    picture = courses_picture(report).png() if report.courses else b""
    return render(
        "diagnosis.html.j2",
        title=title,
        alerts=[line for line in (report.what_is_missing, report.what_is_not_finite) if line],
        verdict=report.verdict,
        state=state_rows(report.state),
        healthy=report.healthy,
        headline=headline_rows(report),
        picture=data_uri("image/png", picture),
        findings=finding_entries(report.findings),
        folded=[
            ("Questions: is this meant?", finding_entries(report.questions)),
            ("Undecided, with what to run next", finding_entries(report.undecided)),
            ("Ruled out", finding_entries(report.excluded)),
            ("Not applicable, with the part to supply", finding_entries(report.not_applicable)),
        ],
        seconds=report.seconds,
        written=time.strftime("%Y-%m-%d %H:%M %Z"),
    )


def courses_picture(report: Report) -> Picture:
    """The training runs of the diagnosis; those behind a confirmed finding in colour."""
    title = "Every run of the diagnosis, teacher-forced"
    return plot_courses(report.courses, AS_IT_IS, report.mending_courses, title)


def finding_entries(entries: Sequence[Finding]) -> list[dict[str, Any]]:
    """What the page shows of each finding."""
    return [
        {
            "cause": found.cause,
            "title": found.title,
            "level": found.level,
            "where": found.where,
            "fix": found.fix,
            "experiment": found.experiment,
            "evidence": number_rows(found.evidence),
        }
        for found in entries
    ]


def number_rows(numbers: Mapping[str, float | str]) -> list[tuple[str, str]]:
    """Names and formatted values."""
    return [(name, value_text(value)) for name, value in numbers.items()]


def triage_page(found: Triage, title: str) -> str:
    """The triage as one HTML page with mels and players; all sounds at one gain."""
    peaks = [float(np.abs(samples).max()) for samples, _ in found.sounds.values()]
    loudest = max([1.0, *peaks])  # one gain for all; nothing is made louder
    sounds = [
        (name, data_uri("audio/wav", wav_bytes(samples / loudest, rate)))
        for name, (samples, rate) in found.sounds.items()
    ]
    hop, title_of_axis = hop_seconds(found)
    mels = {name: mel.cpu().numpy() for name, mel in found.mels.items()}
    picture = plot_mels(mels, hop, title=title_of_axis)
    return render(
        "triage.html.j2",
        title=title,
        advice=found.advice,
        state=state_rows(found.state),
        headline=number_rows(found.headline),
        sounds=sounds,
        missing=list(found.missing.items()),
        seconds=found.seconds,
        written=time.strftime("%Y-%m-%d %H:%M %Z"),
        picture=data_uri("image/png", picture.png()),
    )


def hop_seconds(found: Triage) -> tuple[float, str]:
    """Seconds of a frame, from a sound and its mel, and the title of the figure; without a sound,
    frames stand for seconds.
    """
    title = "The first clip, target units"
    for sound in ("recording", "copy-synthesis"):
        if sound in found.sounds:
            samples, rate = found.sounds[sound]
            return len(samples) / rate / len(found.mels["target"]), title
    return 1.0, f"{title}; the axis counts frames (Subject.audio is not supplied)"


def wav_bytes(samples: np.ndarray, rate: int) -> bytes:
    """16-bit WAV bytes; raises ValueError for samples that are not finite."""
    if not np.isfinite(samples).all():
        raise ValueError("samples are not finite")
    target = io.BytesIO()
    soundfile.write(target, samples, rate, format="WAV", subtype="PCM_16")
    return target.getvalue()
