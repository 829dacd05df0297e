"""The clips of a subject one by one, as its fields show them: text, durations, frames, audio; and
how well the text fits them.

Shapes: T frames, M mel bins, N text positions.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from tts_workbook.subject.isolation import private_copy, unchanged_randomness
from tts_workbook.subject.opened import OpenSubject, once_per_subject
from tts_workbook.subject.subject import Batch

question = "What do the fields of a subject show of its clips, one by one?"

N_BATCHES = 12  # of `Subject.batches` that are looked at
# correlation of frames with those of a clip they were made of; other clips of one voice reach 0.5
LIKE = 0.6
LEAST_RUN = 4  # symbols in a row that another text is not likely to share
RIDGE = 10.0  # frames of prior weight on the mean, for symbols that are seen seldom


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


def clips_of(opened: OpenSubject, batch: Batch) -> list[SeenClip]:
    """The clips of a batch, on the CPU."""
    subject = opened.subject
    target, lengths = subject.target_mel(batch)
    target = target.detach().float().cpu()
    symbols: Sequence[Any] = subject.symbols(batch) if subject.symbols else [None] * len(target)
    durations: Sequence[Any] = (
        subject.durations(batch) if subject.durations else [None] * len(target)
    )
    audio: Sequence[Any] = subject.audio(batch) if subject.audio else [None] * len(target)
    clips = []
    for row, length, written, counted, recording in zip(
        target, lengths.tolist(), symbols, durations, audio, strict=True
    ):
        text = None if written is None else tuple(written)
        counts = (
            None
            if counted is None
            else np.asarray(
                counted.detach().cpu() if isinstance(counted, Tensor) else counted, np.float64
            )
        )
        if (
            counts is not None
            and text is not None
            and len(counts) > len(text)
            and not counts[len(text) :].any()
        ):
            counts = counts[: len(text)]  # a padded row
        clips.append(SeenClip(row[:length], text, counts, recording))
    return clips


@once_per_subject
def seen_batches(opened: OpenSubject) -> list[Batch]:
    """The first batches of `Subject.batches`, copied; none where it is not supplied. Drawn once per
    opened.
    """
    with unchanged_randomness(opened.seed):
        drawn = (
            itertools.islice(opened.subject.batches(), N_BATCHES) if opened.subject.batches else ()
        )
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


# --- text against audio ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Pairing:
    """How well text predicts frames of clips that were left out, as paired and with texts re-paired
    at random.
    """

    explained: float  # share of variance of left-out clips, as paired
    repaired: float  # mean over random re-pairings
    deviation: float  # standard deviation over them
    n_clips: int

    @property
    def z(self) -> float:
        """Standard deviations by which the pairing beats re-pairing."""
        return (self.explained - self.repaired) / max(self.deviation, 1e-6)


def pairing(
    frames: Sequence[np.ndarray],
    texts: Sequence[Sequence[str]],
    durations: Sequence[np.ndarray] | None,
    n_repaired: int = 40,
) -> Pairing:
    """Leave-one-clip-out ridge regression of standardised frames (T, M) on the identity of the
    symbol spoken.

    Without `durations` each text is laid evenly over its clip. A re-paired text is stretched to the
    frames of the other clip.
    """
    pooled = np.concatenate(frames)
    spread = np.maximum(pooled.std(axis=0), 1e-6)
    wanted = [(clip - pooled.mean(axis=0)) / spread for clip in frames]
    numbers = {
        symbol: index
        for index, symbol in enumerate(sorted({symbol for text in texts for symbol in text}))
    }
    codes = [np.array([numbers[symbol] for symbol in text]) for text in texts]
    shares = [np.ones(len(text)) for text in texts] if durations is None else durations
    generator = np.random.default_rng(0)

    def explained(order: Sequence[int]) -> float:
        return _explained(
            [_laid_out(codes[text], shares[text], len(clip)) for text, clip in zip(order, wanted)],
            wanted,
            len(numbers),
        )

    repaired = [
        explained(order)
        for order in itertools.islice(_derangements(len(frames), generator), n_repaired)
    ]
    return Pairing(
        explained(range(len(frames))),
        float(np.mean(repaired)),
        float(np.std(repaired)),
        len(frames),
    )


def _laid_out(codes: np.ndarray, shares: np.ndarray, n_frames: int) -> np.ndarray:
    """(T,) the code spoken at each frame."""
    shares = np.maximum(shares, 0) + 1e-9
    ends = np.round(np.cumsum(shares) / shares.sum() * n_frames)
    return codes[
        np.minimum(np.searchsorted(ends, np.arange(n_frames), side="right"), len(codes) - 1)
    ]


def _explained(spoken: Sequence[np.ndarray], frames: Sequence[np.ndarray], n_codes: int) -> float:
    # (T, codes) each
    said = [np.eye(n_codes, dtype=np.float32)[codes] for codes in spoken]
    # (clips, codes)
    counts = np.stack([one.sum(axis=0) for one in said])
    # (clips, codes, M)
    sums = np.stack([one.T @ clip for one, clip in zip(said, frames)])
    all_counts, all_sums = counts.sum(axis=0), sums.sum(axis=0)
    left = 0.0
    for own_counts, own_sums, codes, clip in zip(counts, sums, spoken, frames):
        means = (all_sums - own_sums) / (all_counts - own_counts + RIDGE)[:, None]
        left += np.square(clip - means[codes]).sum()
    return float(1 - left / sum(np.square(clip).sum() for clip in frames))


def _derangements(n: int, generator: np.random.Generator) -> Iterator[np.ndarray]:
    """Endless permutations that leave nothing in its place; n >= 2."""
    while True:
        order = generator.permutation(n)
        if (order != np.arange(n)).all():
            yield order


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
    return any(
        _correlation(a[max(0, -lag) :], b[max(0, lag) :], mean) > LIKE
        for lag in range(-len(a) // 4, len(b) - len(a) * 3 // 4)
    )


def _is_run(part: Sequence[str], whole: Sequence[str]) -> bool:
    part, whole = tuple(part), tuple(whole)
    return any(
        whole[start : start + len(part)] == part for start in range(len(whole) - len(part) + 1)
    )


def _correlation(a: np.ndarray, b: np.ndarray, mean: np.ndarray) -> float:
    length = min(len(a), len(b))
    if length < 10:
        return 0.0
    a, b = a[:length] - mean, b[:length] - mean
    return float((a * b).sum() / (np.sqrt(np.square(a).sum() * np.square(b).sum()) + 1e-12))


def silent_ends(clip: SeenClip, below: float = 40.0) -> tuple[int, int]:
    """Frames at either end whose energy stays `below` dB under the clip's loud frames; from its
    audio.
    """
    samples, n_frames = clip.audio[0], len(clip.frames)
    per_frame = len(samples) / n_frames
    borders = np.round(np.arange(n_frames + 1) * per_frame).astype(int)
    energy = np.array(
        [
            np.square(samples[start:stop], dtype=np.float64).mean() if stop > start else 0.0
            for start, stop in zip(borders, borders[1:])
        ]
    )
    loud = np.flatnonzero(energy > np.quantile(energy, 0.98) * 10 ** (-below / 10))
    return (int(loud[0]), n_frames - 1 - int(loud[-1])) if len(loud) else (0, 0)
