"""The clips of a subject one by one, as its fields show them: text, durations, frames, audio; and
which of them were made of the batch's.

Shapes: T frames, M mel bins, N text positions.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from tts_workbook.bars import Bar
from tts_workbook.subject.isolation import private_copy, unchanged_randomness
from tts_workbook.subject.opened import OpenSubject, once_per_subject
from tts_workbook.subject.subject import Batch, supplied

question = "What do the fields of a subject show of its clips, one by one?"

N_BATCHES = 12  # of `Subject.batches` that are looked at
LIKE = Bar(
    0.6,
    absolute="correlation of frames; other clips of a voice reach 0.5, and one clip has no other",
)
LEAST_RUN = 4  # symbols in a row that another text is not likely to share
LEAST_FRAMES = 10  # that a correlation is taken over


@dataclass(frozen=True)
class SeenClip:
    """One clip of a batch; what the subject does not supply is None."""

    frames: Tensor  # (T, M) valid target frames
    symbols: tuple[str, ...] | None  # N
    durations: np.ndarray | None  # (N,) frames, as given
    audio: tuple[np.ndarray, int] | None  # samples and their rate in Hz

    @property
    def hash(self) -> str:
        """Of the frames, whatever padding they were in."""
        return hashlib.sha256(self.frames.contiguous().numpy().tobytes()).hexdigest()

    @property
    def recording(self) -> tuple[np.ndarray, int]:
        """Samples and their rate in Hz. Raises SubjectError where the subject gives none."""
        return supplied(self.audio, "audio")

    @property
    def counts(self) -> np.ndarray:
        """(N,) durations as given. Raises SubjectError where the subject gives none."""
        return supplied(self.durations, "durations")


def clips_of(opened: OpenSubject, batch: Batch) -> list[SeenClip]:
    """The clips of a batch, on the CPU."""
    subject = opened.subject
    target, lengths = subject.target_mel(batch)
    target = target.detach().float().cpu()
    nothing = [None] * len(target)
    symbols: Sequence[Any] = subject.symbols(batch) if subject.symbols else nothing
    # a tensor (B, N), or a row for each clip
    durations: Any = subject.durations(batch) if subject.durations else nothing
    audio: Sequence[Any] = subject.audio(batch) if subject.audio else nothing
    clips = []
    for row, length, written, counted, recording in zip(
        target, lengths.tolist(), symbols, durations, audio, strict=True
    ):
        text = None if written is None else tuple(written)
        counts = None if counted is None else _unpadded(_as_array(counted), text)
        clips.append(SeenClip(row[:length], text, counts, recording))
    return clips


def _as_array(counted: Any) -> np.ndarray:
    on_cpu = counted.detach().cpu() if isinstance(counted, Tensor) else counted
    return np.asarray(on_cpu, np.float64)


def _unpadded(counts: np.ndarray, text: tuple[str, ...] | None) -> np.ndarray:
    """Durations cut to the text, where nothing but padding lies behind it."""
    if text is None or len(counts) <= len(text) or counts[len(text) :].any():
        return counts
    return counts[: len(text)]


@once_per_subject
def seen_batches(opened: OpenSubject) -> list[Batch]:
    """The first batches of `Subject.batches`, copied; none where it is not supplied. Drawn once."""
    if opened.subject.batches is None:
        return []
    with unchanged_randomness(opened.seed):
        drawn = itertools.islice(opened.subject.batches(), N_BATCHES)
        return [private_copy(batch) for batch in drawn]


@once_per_subject
def distinct_clips(opened: OpenSubject) -> list[SeenClip]:
    """Clips of the batch and of `batches` that differ in their frames, those of the batch first."""
    found: dict[str, SeenClip] = {}
    for batch in (opened.batch, *seen_batches(opened)):
        for clip in clips_of(opened, batch):
            found.setdefault(clip.hash, clip)
    return list(found.values())


@once_per_subject
def true_clips(opened: OpenSubject) -> list[SeenClip]:
    """Those of the distinct clips that are the batch's, or other clips: no crops or noisy variants
    of the batch's.
    """
    own = {clip.hash: clip for clip in clips_of(opened, opened.batch)}
    return [
        clip
        for clip in distinct_clips(opened)
        if clip.hash in own or not any(is_variant(clip, original) for original in own.values())
    ]


# --- one clip that changes ------------------------------------------------------------------------


def is_variant(clip: SeenClip, original: SeenClip) -> bool:
    """Whether a clip that is not `original` was made of it: by a crop, noise or the like.

    The text decides where both have one (the whole, or a run of 4 or more symbols of it), else the
    frames at the best lag; of a shorter run of symbols both.
    """
    if clip.symbols and original.symbols:
        run = _is_run(clip.symbols, original.symbols)
        if not run or len(clip.symbols) >= LEAST_RUN:
            return run
    a, b = clip.frames.numpy(), original.frames.numpy()
    mean = b.mean(axis=0)
    first_lag, end = -len(a) // 4, len(b) - len(a) * 3 // 4
    return any(
        _frame_correlation(a[max(0, -lag) :], b[max(0, lag) :], mean) > LIKE
        for lag in range(first_lag, end)
    )


def _is_run(part: Sequence[str], whole: Sequence[str]) -> bool:
    part, whole = tuple(part), tuple(whole)
    starts = range(len(whole) - len(part) + 1)
    return any(whole[start : start + len(part)] == part for start in starts)


def _frame_correlation(a: np.ndarray, b: np.ndarray, mean: np.ndarray) -> float:
    """Of the frames that both have, around `mean` (M,); 0 where they are too few."""
    length = min(len(a), len(b))
    if length < LEAST_FRAMES:
        return 0.0
    a, b = a[:length] - mean, b[:length] - mean
    size = np.sqrt(np.square(a).sum() * np.square(b).sum())
    return float((a * b).sum() / (size + 1e-12))
