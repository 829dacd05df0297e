"""How well a text fits its audio: frames of a clip foretold from its symbols by the other clips,
against the same with texts re-paired at random.

Shapes: T frames, M mel bins, N text positions.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

question = "Does the text foretell the frames of clips that were left out?"

RIDGE = 10.0  # frames of prior weight on the mean, for symbols that are seen seldom


@dataclass(frozen=True)
class TextFit:
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


def text_fit(
    frames: Sequence[np.ndarray],
    texts: Sequence[Sequence[str]],
    durations: Sequence[np.ndarray] | None,
    n_repaired: int = 40,
) -> TextFit:
    """Leave-one-clip-out ridge regression of standardised frames (T, M) on the identity of the
    symbol spoken.

    Without `durations` each text is laid evenly over its clip. A re-paired text is stretched to the
    frames of the other clip.
    """
    pooled = np.concatenate(frames)
    spread = np.maximum(pooled.std(axis=0), 1e-6)
    wanted = [(clip - pooled.mean(axis=0)) / spread for clip in frames]
    symbols = sorted({symbol for text in texts for symbol in text})
    numbers = {symbol: index for index, symbol in enumerate(symbols)}
    codes = [np.array([numbers[symbol] for symbol in text]) for text in texts]
    shares = [np.ones(len(text)) for text in texts] if durations is None else durations
    generator = np.random.default_rng(0)

    def explained(order: Sequence[int] | np.ndarray) -> float:
        spoken = [
            _laid_out(codes[text], shares[text], len(clip))
            for text, clip in zip(order, wanted, strict=True)
        ]
        return _explained(spoken, wanted, len(numbers))

    orders = itertools.islice(_derangements(len(frames), generator), n_repaired)
    repaired = [explained(order) for order in orders]
    return TextFit(
        explained=explained(range(len(frames))),
        repaired=float(np.mean(repaired)),
        deviation=float(np.std(repaired)),
        n_clips=len(frames),
    )


def _laid_out(codes: np.ndarray, shares: np.ndarray, n_frames: int) -> np.ndarray:
    """(T,) the code spoken at each frame."""
    shares = np.maximum(shares, 0) + 1e-9
    ends = np.round(np.cumsum(shares) / shares.sum() * n_frames)
    places = np.searchsorted(ends, np.arange(n_frames), side="right")
    return codes[np.minimum(places, len(codes) - 1)]


def _explained(spoken: Sequence[np.ndarray], frames: Sequence[np.ndarray], n_codes: int) -> float:
    # (T, codes) each
    said = [np.eye(n_codes, dtype=np.float32)[codes] for codes in spoken]
    # (clips, codes)
    counts = np.stack([one.sum(axis=0) for one in said])
    # (clips, codes, M)
    sums = np.stack([one.T @ clip for one, clip in zip(said, frames, strict=True)])
    all_counts, all_sums = counts.sum(axis=0), sums.sum(axis=0)
    left = 0.0
    for own_counts, own_sums, codes, clip in zip(counts, sums, spoken, frames, strict=True):
        means = (all_sums - own_sums) / (all_counts - own_counts + RIDGE)[:, None]
        left += np.square(clip - means[codes]).sum()
    whole = sum(np.square(clip).sum() for clip in frames)
    return float(1 - left / whole)


def _derangements(n: int, generator: np.random.Generator) -> Iterator[np.ndarray]:
    """Endless permutations that leave nothing in its place; n >= 2."""
    while True:
        order = generator.permutation(n)
        if (order != np.arange(n)).all():
            yield order
