"""When each phoneme is spoken: TextGrids in and out, seconds to frames. N phonemes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from praatio import textgrid

from tts_core.errors import WorkbookError
from tts_core.speech.audio import atomic_path
from tts_core.speech.phonemes import PAUSE, symbol_of_label

LENGTH_TOLERANCE = 0.05  # s; a TextGrid further off belongs to another recording
GAP_TOLERANCE = 1e-3  # s between intervals; rounding by other tools
MAX_TEXTGRID_BYTES = 5_000_000


class Interval(NamedTuple):
    start: float  # s
    end: float  # s
    label: str


class Alignment(NamedTuple):
    words: tuple[Interval, ...]  # without pauses
    phones: tuple[Interval, ...]  # contiguous from 0 to `end`; pauses are labelled ''
    end: float  # s, length of the audio


# --- seconds to frames ----------------------------------------------------------------------------


def frames_from_intervals(
    intervals: Sequence[Interval], n_frames: int, sample_rate: int, hop_length: int
) -> np.ndarray:
    """Contiguous intervals -> durations (N,) int64 in frames that sum to n_frames by construction.

    The *boundaries* are rounded, round(t * sample_rate / hop_length), not the durations: errors
    cannot add up.
    """
    exact = [interval.end * sample_rate / hop_length for interval in intervals]
    ends = np.rint(exact).astype(np.int64)
    ends = np.minimum(ends, n_frames)
    ends[-1] = n_frames
    return np.diff(ends, prepend=0)


def uniform_durations(n_phonemes: int, n_frames: int) -> np.ndarray:
    """Durations (N,) int64 that share n_frames equally, for clips of which nothing says when a
    phoneme is spoken.
    """
    boundaries = np.rint(np.linspace(0, n_frames, n_phonemes + 1)).astype(np.int64)
    return np.diff(boundaries)


def symbols_and_intervals(
    phones: Sequence[Interval], language: str
) -> tuple[tuple[str, ...], list[Interval]]:
    """Vocabulary symbols (N,) and their contiguous intervals; neighbouring pauses become one.
    Raises WorkbookError.
    """
    intervals: list[Interval] = []
    for phone in phones:
        symbol = symbol_of_label(phone.label, language)
        if intervals and symbol == intervals[-1].label == PAUSE:
            intervals[-1] = intervals[-1]._replace(end=phone.end)
        else:
            intervals.append(phone._replace(label=symbol))
    return tuple(interval.label for interval in intervals), intervals


# --- TextGrids ------------------------------------------------------------------------------------


def fill_gaps(intervals: Sequence[Interval], end: float, name: str) -> tuple[Interval, ...]:
    """Check that intervals follow each other, and fill the gaps with pauses, so that they run from
    0 to `end`. Raises WorkbookError that names `name`.
    """
    filled: list[Interval] = []
    now = 0.0
    for start, stop, label in intervals:
        if not now - GAP_TOLERANCE <= start < stop < np.inf:
            raise WorkbookError(
                f"{name}: interval {label!r} runs from {start} to {stop} s, the one before to {now}"
                " s; they must follow each other: mend it in Praat, or align again"
            )
        if start > now + GAP_TOLERANCE:
            filled.append(Interval(now, start, ""))
        filled.append(Interval(filled[-1].end if filled else 0.0, stop, label))
        now = stop
    if now > end + LENGTH_TOLERANCE or filled[-1].start >= end:
        raise WorkbookError(
            f"{name}: the last interval ends at {now:.3f} s, the audio at {end:.3f} s: align again"
        )
    if now < end - GAP_TOLERANCE:
        filled.append(Interval(now, end, ""))
    filled[-1] = filled[-1]._replace(end=end)
    return tuple(filled)


def _intervals(grid: textgrid.Textgrid, kind: str) -> list[Interval] | None:
    """The interval tier `phones` or `words`, or as MFA names it for a speaker, `Ann - phones`; None
    without one.
    """
    for name in grid.tierNames:
        if name.lower() != kind and not name.lower().endswith(f" - {kind}"):
            continue
        entries = grid.getTier(name).entries
        if all(len(entry) == 3 for entry in entries):  # points have two fields
            return [Interval(float(start), float(end), str(label)) for start, end, label in entries]
    return None


def read_textgrid(path: Path | str, seconds: float | None = None) -> Alignment:
    """Read the tiers `words` (optional) and `phones` of a TextGrid, checked and made contiguous.

    `seconds` is the length of the audio; a TextGrid more than 0.05 s longer or shorter is refused.
    Every fault of the file is a WorkbookError that names it.
    """
    path = Path(path)
    if not path.is_file() or path.stat().st_size > MAX_TEXTGRID_BYTES:
        raise WorkbookError(
            f"{path}: no such TextGrid, or larger than {MAX_TEXTGRID_BYTES:,} bytes; "
            "`tts-workbook align DIR` makes TextGrids for English"
        )
    try:
        grid = textgrid.openTextgrid(str(path), includeEmptyIntervals=True, reportingMode="silence")
        words = _intervals(grid, "words")
        phones = _intervals(grid, "phones")
        end = float(grid.maxTimestamp)
    except Exception as error:  # praatio's failures on broken files have no common type
        raise WorkbookError(
            f"{path}: not a readable TextGrid ({type(error).__name__}: {error}); align again, or"
            " open it in Praat and save it as text"
        ) from error
    if phones is None:
        tiers = ", ".join(map(repr, grid.tierNames)) or "none"
        raise WorkbookError(
            f"{path}: no interval tier named 'phones', only {tiers}; rename it, or align again"
        )
    end_wanted = end if seconds is None else seconds
    n_spoken = sum(bool(phone.label.strip()) for phone in phones)
    if not n_spoken or not 0 < end < np.inf or abs(end - end_wanted) > LENGTH_TOLERANCE:
        raise WorkbookError(
            f"{path}: {n_spoken} phones, end at {end:.3f} s, but the audio ends at {end_wanted:.3f}"
            " s; the TextGrid belongs to another recording: align again"
        )
    spoken = tuple(word for word in words or () if word.label.strip())
    return Alignment(spoken, fill_gaps(phones, end_wanted, str(path)), end_wanted)


def write_textgrid(path: Path | str, alignment: Alignment) -> None:
    """Write the tiers `words` and `phones` in Praat's long text format, atomically."""
    grid = textgrid.Textgrid(0.0, alignment.end)
    for name, intervals in (("words", alignment.words), ("phones", alignment.phones)):
        entries: list[Any] = [tuple(interval) for interval in intervals if interval.label]
        grid.addTier(textgrid.IntervalTier(name, entries, 0.0, alignment.end))
    with atomic_path(path) as temporary:
        grid.save(str(temporary), format="long_textgrid", includeBlankSpaces=True)
