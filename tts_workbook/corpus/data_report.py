"""The data report: is this speech fit to be learned? One row of measurements and warnings per clip,
one summary.

Shape letters: L samples, T frames, M mel bins. Levels are dB; mels are ln units.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tts_core.config import AudioConfig
from tts_core.metrics.baselines import best_constant_l1, copy_previous_l1
from tts_core.speech.alignment import read_textgrid
from tts_core.speech.audio import clipped_share, read_wav, wav_info
from tts_core.speech.dataset import Clip, corpus_warnings, iterate_clips
from tts_core.speech.folder import Rejection, scan_folder
from tts_core.speech.phonemes import ARPABET, PAUSE
from tts_workbook.corpus.reading import read_any_clip

LEVEL_SECONDS = 0.02  # window of the level measurements
SILENCE_BELOW_SPEECH = 35.0  # dB; a frame is silent if it is this far below the speech level ...
SILENCE_ABOVE_NOISE = 6.0  # dB; ... or no more than this above the noise level
MAX_ROBUST_Z = 3.5  # Iglewicz and Hoaglin 1993
WARN = {  # measurement -> (limit, what is wrong above it, remedy)
    "clipped_share": (0.001, "of the samples are clipped", "record at a lower level"),
    "dc_offset": (0.01, "of full scale is a constant offset", "apply a high-pass filter"),
    "silence_start": (1.0, "s of silence at the start", "trim the clip"),
    "silence_end": (1.0, "s of silence at the end", "trim the clip"),
    "silence_inside": (1.0, "s of silence inside", "cut the clip in two"),
    "longest_phoneme": (
        0.6,
        "s for one phoneme",
        "look at the alignment, words may be missing from the transcript",
    ),
    "empty_phonemes": (0, "phonemes got no frame", "look at the alignment, or use a smaller hop"),
    "floor_share": (
        0.3,
        "of the mel bins sit at the floor",
        "lower log_floor, or trim digital silence",
    ),
    "ceiling_share": (
        0.001,
        "of the mel bins sit at the ceiling",
        "use a recipe without log_ceiling",
    ),
    "word_mismatch": (0.0, "of the transcript's words differ from the TextGrid's", "align again"),
    "recogniser_wer": (0.6, "word error rate of the recogniser", "listen: is it this text?"),
}
MIN_SNR = 15.0  # dB; below, noise is learned
# measurement -> the value beyond which a clip is warned of: what pictures draw
LIMITS = {name: float(limit) for name, (limit, _, _) in WARN.items()}
LIMITS |= {"snr_db": MIN_SNR, "pace_z": MAX_ROBUST_Z}
N_NAMED = 5  # clips that a warning names


@dataclass(frozen=True)
class ClipReport:
    """Measurements of one clip; shares lie between 0 and 1, times are seconds."""

    id: str
    rate: int  # Hz, of the file
    channels: int
    seconds: float
    clipped_share: float
    dc_offset: float  # |mean| of the samples, full scale 1.0
    silence_start: float
    silence_end: float
    silence_inside: float  # the longest
    snr_db: float  # 95th minus 5th percentile of the frame levels: an estimate
    alignment: str  # textgrid, forced or uniform
    phonemes: int  # without pauses
    seconds_per_phoneme: float  # pauses left out
    longest_phoneme: float
    empty_phonemes: int  # with a duration of no frame
    frames: int
    duration_sum: int  # frames; equals `frames`
    mel_min: float
    mel_max: float
    floor_share: float  # mel bins at the recipe's floor
    ceiling_share: float  # mel bins at its ceiling
    best_constant_l1: float  # trivial baselines of this clip
    copy_previous_l1: float
    word_mismatch: float  # words of the transcript against those of the TextGrid
    recogniser_wer: float | None
    pace_z: float = 0.0  # robust z of seconds_per_phoneme over the corpus
    warnings: tuple[str, ...] = ()


# columns of the printed table: measurement -> its format
COLUMNS = {
    "seconds": ".2f",
    "rate": "d",
    "clipped_share": ".2%",
    "snr_db": ".0f",
    "silence_start": ".2f",
    "silence_end": ".2f",
    "silence_inside": ".2f",
    "phonemes": "d",
    "seconds_per_phoneme": ".3f",
    "frames": "d",
    "mel_min": ".1f",
    "mel_max": ".1f",
    "best_constant_l1": ".3f",
    "copy_previous_l1": ".3f",
    "alignment": "",
}


@dataclass(frozen=True)
class DataReport:
    """One row for each clip that could be loaded, the clips that could not, and the whole corpus in
    numbers.
    """

    rows: list[ClipReport]
    rejected: list[Rejection]
    corpus_summary: dict[str, Any]
    warnings: list[str]

    def to_rows(self) -> list[dict[str, Any]]:
        return [asdict(row) for row in self.rows]

    def to_text(self) -> str:
        """A table with one line per clip, its warnings under it, then rejections and the
        summary.
        """
        header, *table = self._table_lines()
        lines = [header]
        for row, line in zip(self.rows, table, strict=True):
            lines.append(line)
            lines += [f"    ! {warning}" for warning in row.warnings]
        for rejection in self.rejected:
            lines.append(f"REJECTED {rejection.id}: {rejection.reason}")
        for name, value in self.corpus_summary.items():
            lines.append(f"{name.replace('_', ' ')}: {value}")
        lines += [f"WARNING {warning}" for warning in self.warnings]
        return "\n".join(lines)

    def _table_lines(self) -> list[str]:
        """The header and one line per clip, with columns of one width."""
        table = [["clip", *(name.replace("_", " ") for name in COLUMNS)]]
        for row in self.rows:
            cells = [format(getattr(row, name), code) for name, code in COLUMNS.items()]
            table.append([row.id, *cells])
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines = []
        for cells in table:
            padded = [cell.rjust(width) for cell, width in zip(cells, widths, strict=True)]
            lines.append("  ".join(padded))
        return lines


# --- measurements ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Levels:
    """How loud a recording is over time."""

    snr_db: float  # 95th minus 5th percentile of the frame levels: an estimate
    silence_start: float  # s
    silence_end: float  # s
    silence_inside: float  # s, the longest


def measure_levels(samples: np.ndarray, rate: int) -> Levels:
    """SNR estimate and silences of samples (L,) at `rate` Hz, from the levels of short windows."""
    window = max(1, round(LEVEL_SECONDS * rate))
    frames = samples[: len(samples) // window * window].reshape(-1, window)
    levels = 10 * np.log10(np.square(frames, dtype=np.float64).mean(axis=1) + 1e-10)
    noise, speech = np.percentile(levels, [5, 95])
    threshold = max(speech - SILENCE_BELOW_SPEECH, noise + SILENCE_ABOVE_NOISE)
    loud = np.flatnonzero(levels >= min(speech, threshold))
    inside = max(np.diff(loud).max(initial=1) - 1, 0)
    return Levels(
        snr_db=float(speech - noise),
        silence_start=float(loud[0] * LEVEL_SECONDS),
        silence_end=float((len(levels) - 1 - loud[-1]) * LEVEL_SECONDS),
        silence_inside=float(inside * LEVEL_SECONDS),
    )


def _words(text: str) -> list[str]:
    return re.findall(r"[\w']+", text.lower().replace("\u2019", "'"))


def word_mismatch(transcript: str, aligned: Sequence[str]) -> float:
    """Share of words in which transcript and TextGrid differ, order apart; 0.0 for a TextGrid
    without words.
    """
    wanted = Counter(_words(transcript))
    seen = Counter(_words(" ".join(aligned)))
    if not seen:
        return 0.0
    missing, added = (wanted - seen).total(), (seen - wanted).total()
    return max(missing, added) / max(wanted.total(), 1)


def recogniser_word_error_rate(text: str, samples: np.ndarray, rate: int) -> float:
    """Word error rate of the English recogniser on samples (L,) at `rate` Hz against their
    transcript.
    """
    import jiwer

    from tts_workbook.corpus.recogniser import recognise

    said = " ".join(_words(text)) or "?"
    return float(jiwer.wer(said, recognise(samples, rate)))


def _measure_clip(clip: Clip, audio: AudioConfig, recognise: bool) -> ClipReport:
    info = wav_info(clip.path)
    recorded, rate = read_wav(clip.path)
    levels = measure_levels(recorded, rate)
    is_spoken = np.array(clip.phonemes) != PAUSE
    spoken = clip.durations[is_spoken] * audio.hop_length / clip.sample_rate
    ceiling = np.inf if audio.log_ceiling is None else audio.log_ceiling
    error_rate = None
    if recognise and clip.language == "en":
        error_rate = recogniser_word_error_rate(clip.text, recorded, rate)
    return ClipReport(
        id=clip.id,
        rate=rate,
        channels=info.channels,
        seconds=info.seconds,
        clipped_share=clipped_share(recorded),
        dc_offset=float(abs(recorded.mean(dtype=np.float64))),
        silence_start=levels.silence_start,
        silence_end=levels.silence_end,
        silence_inside=levels.silence_inside,
        snr_db=levels.snr_db,
        alignment=clip.alignment,
        phonemes=len(spoken),
        seconds_per_phoneme=float(spoken.sum() / max(len(spoken), 1)),
        longest_phoneme=float(spoken.max(initial=0.0)),
        empty_phonemes=int((clip.durations == 0).sum()),
        frames=len(clip.mel),
        duration_sum=int(clip.durations.sum()),
        mel_min=float(clip.mel.min()),
        mel_max=float(clip.mel.max()),
        floor_share=float((clip.mel <= audio.silence + 1e-4).float().mean()),
        ceiling_share=float((clip.mel >= ceiling).float().mean()),
        best_constant_l1=best_constant_l1(clip.mel),
        copy_previous_l1=copy_previous_l1(clip.mel),
        word_mismatch=word_mismatch(clip.text, _words_of_textgrid(clip)),
        recogniser_wer=error_rate,
    )


def _words_of_textgrid(clip: Clip) -> list[str]:
    """The words that the clip's TextGrid names; none where its durations come from elsewhere."""
    if clip.alignment != "textgrid":
        return []
    path = clip.path.parents[1] / "alignments" / f"{clip.id}.TextGrid"
    return [word.label for word in read_textgrid(path).words]


def robust_z(values: Sequence[float]) -> np.ndarray:
    """(K,) distances from the median in units of 1.4826 median absolute deviations; 0 for fewer
    than five values.
    """
    if len(values) < 5:
        return np.zeros(len(values))
    deviations = np.asarray(values) - np.median(values)
    spread = 1.4826 * np.median(np.abs(deviations))
    if not spread > 0:
        return np.zeros(len(values))
    return np.asarray(deviations / spread)


def _clip_warnings(
    row: ClipReport, twins: Sequence[str], namesakes: Sequence[str]
) -> tuple[str, ...]:
    found = []
    for name, (limit, what, remedy) in WARN.items():
        value = getattr(row, name)
        if value is not None and value > limit:
            seen = f"{value:.1%}" if what.startswith("of ") else f"{value:.3g}"
            found.append(f"{seen} {what}: {remedy}")
    if row.snr_db < MIN_SNR:
        found.append(f"signal to noise about {row.snr_db:.0f} dB: record in a quieter place")
    if abs(row.pace_z) > MAX_ROBUST_Z:
        found.append(
            f"{row.seconds_per_phoneme:.3f} s per phoneme is an outlier (robust z"
            f" {row.pace_z:+.1f}): does the recording say this text?"
        )
    if row.alignment == "uniform":
        found.append("uniform durations: nothing that depends on timing can be trusted")
    if len(twins) > 1:
        found.append(f"the same audio as {_others(twins, row.id)}: delete one")
    if len(namesakes) > 1:
        found.append(f"the same text as {_others(namesakes, row.id)}")
    return tuple(found)


def _others(group: Sequence[str], own: str) -> str:
    """A few of `group` beside `own`, and how many more there are: a corpus of one sentence must not
    make a list for each of its clips.
    """
    named = [name for name in group[: N_NAMED + 1] if name != own][:N_NAMED]
    more = len(group) - 1 - len(named)
    return ", ".join(named) + (f" and {more} more" if more else "")


def _summary(rows: Sequence[ClipReport], counts: Counter[str], language: str) -> dict[str, Any]:
    paces = [row.seconds_per_phoneme for row in rows]
    missing = [symbol for symbol in ARPABET if not counts[symbol]]
    return {
        "clips": len(rows),
        "language": language,
        "minutes": round(sum(row.seconds for row in rows) / 60, 2),
        "phonemes": sum(row.phonemes for row in rows),
        "phoneme_counts": dict(counts.most_common()),
        "missing_phonemes": missing if language == "en" else [],
        "median_seconds_per_phoneme": round(float(np.median(paces or [0])), 4),
    }


def check_corpus(
    root: Path | str, audio: AudioConfig, language: str = "auto", recognise: bool = False
) -> DataReport:
    """Measure every clip of a corpus folder. `recognise` adds the word error rate of the recogniser
    (English only).

    Nothing is dropped silently: what cannot be loaded is in `.rejected` with its reason. Raises
    WorkbookError only for a folder that is no corpus.
    """
    folder = scan_folder(root, language)
    rejected = list(folder.rejected)
    rows: list[ClipReport] = []
    counts: Counter[str] = Counter()
    twins: dict[bytes, list[str]] = defaultdict(list)  # hash of the audio -> clip ids
    namesakes: dict[str, list[str]] = defaultdict(list)  # text -> clip ids
    groups = []  # for each row: the clips of the same audio, and those of the same text
    for clip in iterate_clips(folder, folder.entries, audio, rejected, read_any_clip):
        rows.append(_measure_clip(clip, audio, recognise))
        counts.update(clip.phonemes)
        same_audio = twins[hashlib.sha256(clip.samples.tobytes()).digest()]
        same_text = namesakes[clip.text.casefold()]
        same_audio.append(clip.id)
        same_text.append(clip.id)
        groups.append((same_audio, same_text))
    paces = robust_z([row.seconds_per_phoneme for row in rows])
    finished = []
    for row, pace, (same_audio, same_text) in zip(rows, paces, groups, strict=True):
        row = replace(row, pace_z=float(pace))
        finished.append(replace(row, warnings=_clip_warnings(row, same_audio, same_text)))
    n_uniform = sum(row.alignment == "uniform" for row in rows)
    warnings = folder.warnings + corpus_warnings(folder, len(rows), n_uniform, len(rejected))
    return DataReport(finished, rejected, _summary(finished, counts, folder.language), warnings)
