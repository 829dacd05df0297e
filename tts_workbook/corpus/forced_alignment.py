"""Forced alignment of English with pocketsphinx: when each phoneme of a recording is spoken.

L samples.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from tts_core.errors import WorkbookError
from tts_core.speech.alignment import Alignment, Interval, fill_gaps, write_textgrid
from tts_core.speech.audio import read_wav
from tts_core.speech.folder import Entry, Folder, scan_folder
from tts_core.speech.phonemes import NO_WORDS, PAUSE, Dictionary
from tts_workbook.corpus.recogniser import Span, align_words_and_phones, boundary_seconds


class PocketsphinxAligner:
    """`align_english` as the aligner that the core's reader is handed."""

    packages = ("pocketsphinx",)

    def align(
        self, samples: np.ndarray, sample_rate: int, text: str, dictionary: Dictionary
    ) -> Alignment:
        return align_english(samples, sample_rate, text, dictionary)


POCKETSPHINX = PocketsphinxAligner()


def align_english(
    samples: np.ndarray, sample_rate: int, text: str, user: Dictionary = NO_WORDS
) -> Alignment:
    """Force-align samples (L,) with an English text (pocketsphinx, 10 ms frames). Raises
    WorkbookError.
    """
    end = len(samples) / sample_rate
    words: list[Interval] = []
    phones: list[Interval] = []
    for word_span, phone_spans in align_words_and_phones(samples, sample_rate, text, user):
        words.append(_interval(word_span, end))
        phones += [_interval(span, end) for span in phone_spans]
    # the recogniser drops the last, incomplete acoustic frame
    phones[-1] = phones[-1]._replace(end=end)
    spoken = tuple(word for word in words if word.label)
    return Alignment(spoken, fill_gaps(phones, end, "forced alignment"), end)


def _interval(span: Span, end: float) -> Interval:
    """Acoustic frames to seconds, within a recording of `end` seconds; pauses are labelled ''."""
    label, first, last = span
    return Interval(
        min(boundary_seconds(first), end),
        min(boundary_seconds(last), end),
        "" if label == PAUSE else label,
    )


class AlignmentResult(NamedTuple):
    id: str
    path: Path
    status: Literal["written", "kept", "failed"]
    reason: str  # '' unless failed


def align_folder(
    root: Path | str, overwrite: bool = False, language: str = "auto"
) -> list[AlignmentResult]:
    """Write alignments/ID.TextGrid for every clip of an English corpus; existing ones are kept
    unless `overwrite`.

    One result per clip; a clip that fails is reported with its reason and does not stop the others.
    Raises WorkbookError for a folder that is no corpus, or not English.
    """
    folder = scan_folder(root, language)
    if folder.language != "en":
        raise WorkbookError(
            f"{root}: language {folder.language!r}, but only English can be aligned here; put "
            f"TextGrids of the Montreal Forced Aligner into {folder.root / 'alignments'}"
        )
    results = [
        AlignmentResult(left_out.id, left_out.path, "failed", left_out.reason)
        for left_out in folder.rejected
    ]
    for entry in folder.entries:
        if entry.textgrid.is_file() and not overwrite:
            results.append(AlignmentResult(entry.id, entry.textgrid, "kept", ""))
        else:
            results.append(_align_entry(entry, folder))
    return results


def _align_entry(entry: Entry, folder: Folder) -> AlignmentResult:
    try:
        samples, rate = read_wav(entry.wav)
        alignment = align_english(samples, rate, entry.text, folder.dictionary)
        write_textgrid(entry.textgrid, alignment)
    except (WorkbookError, OSError) as error:
        return AlignmentResult(entry.id, entry.textgrid, "failed", str(error))
    return AlignmentResult(entry.id, entry.textgrid, "written", "")
