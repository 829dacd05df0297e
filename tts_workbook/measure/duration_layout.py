"""Whether durations lay the frames under their own symbols, or under those some places on.

Frames of a clip are foretold from the symbol that the durations lay under them, by the other clips.
The same durations, moved by one place or two along the text, foretell less where they are right; by
how much a fit varies is measured with texts that are re-paired at random.

Shapes: T frames, M mel bins, N text positions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from tts_workbook.measure.paths import ids_of, training_ids
from tts_workbook.measure.seen_clips import SeenClip, clips_of, is_variant, seen_batches
from tts_workbook.measure.text_fit import text_fit
from tts_workbook.subject.opened import OpenSubject
from tts_workbook.subject.subject import Batch

question = "Under which symbols do the durations lay the frames?"

PLACES = (-2, -1, 0, 1, 2)  # by which durations are moved along the text
FEWEST_CLIPS = 4  # that anything is fitted to


@dataclass(frozen=True)
class DurationLayout:
    """Share of variance of left-out clips that the symbols explain, by the places that durations
    are moved by.
    """

    n_clips: int
    explained: Mapping[int, float]  # empty: too few clips
    repaired: float  # mean over random re-pairings of the texts
    deviation: float  # standard deviation over them

    @property
    def best(self) -> int:
        """The places by which the durations explain most."""
        return max(self.explained, key=lambda places: self.explained[places], default=0)

    @property
    def apart(self) -> float:
        """By how many deviations the best explains more than the durations as they are."""
        if not self.explained:
            return 0.0
        gain = self.explained[self.best] - self.explained[0]
        return gain / max(self.deviation, 1e-6)

    @property
    def z(self) -> float:
        """By how many deviations the best explains more than a re-paired text."""
        if not self.explained:
            return 0.0
        return (self.explained[self.best] - self.repaired) / max(self.deviation, 1e-6)


def duration_layout(opened: OpenSubject) -> DurationLayout:
    """Of the clips of the batch and of `batches` that have a duration for every symbol; the ids of
    the text stand for symbols where the subject gives none.
    """
    texts = _texts(opened)
    clips = list(texts.values())
    if len(clips) < FEWEST_CLIPS:
        return DurationLayout(len(clips), {}, 0.0, 0.0)
    frames = [clip.frames.numpy() for clip, _ in clips]
    symbols = [text for _, text in clips]
    fits = {}
    for places in PLACES:
        durations = [np.roll(clip.counts, places) for clip, _ in clips]
        fits[places] = text_fit(frames, symbols, durations)
    explained = {places: fit.explained for places, fit in fits.items()}
    return DurationLayout(len(clips), explained, fits[0].repaired, fits[0].deviation)


def _texts(opened: OpenSubject) -> dict[tuple[str, ...], tuple[SeenClip, tuple[str, ...]]]:
    """A clip for each text, that of the batch first; no crops or noisy variants of one."""
    found: dict[tuple[str, ...], tuple[SeenClip, tuple[str, ...]]] = {}
    own = clips_of(opened, opened.batch)
    for batch in (opened.batch, *seen_batches(opened)):
        for clip, text in _with_texts(opened, batch):
            timed = clip.durations is not None and len(clip.durations) == len(text)
            fits = timed and abs(clip.counts.sum() - len(clip.frames)) <= 1
            known = any(clip.hash == mine.hash for mine in own)
            if fits and (known or not any(is_variant(clip, mine) for mine in own)):
                found.setdefault(text, (clip, text))
    return found


def _with_texts(opened: OpenSubject, batch: Batch) -> list[tuple[SeenClip, tuple[str, ...]]]:
    clips = clips_of(opened, batch)
    if opened.subject.symbols is not None:
        return [(clip, clip.symbols or ()) for clip in clips]
    known = training_ids(opened, opened.model)
    if len(known) != 1:
        return []
    rows = ids_of(opened, batch, known[0])
    if len(rows) != len(clips):
        return []
    found = []
    for clip, row in zip(clips, rows, strict=True):
        if clip.durations is not None:
            found.append((_cut(clip, len(row)), tuple(map(str, row))))
    return found


def _cut(clip: SeenClip, n_symbols: int) -> SeenClip:
    """The clip without durations of padding behind its text."""
    counts = clip.counts
    if counts[n_symbols:].any():
        return clip
    return SeenClip(clip.frames, clip.symbols, counts[:n_symbols], clip.audio)
