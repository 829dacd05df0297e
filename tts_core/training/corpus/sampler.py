"""Which clips belong to which step: every clip once an epoch, clips of like length together, the
same plan on every process.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np

from tts_core.errors import WorkbookError


class BatchPlan:
    """The clips of every step, as a function of (lengths, sizes, seed) and the step number alone:
    resuming needs no state.

    Each epoch shuffles all clips, sorts pools of `pool_batches` batches by length (frames), cuts
    each pool into batches of at most `batch_clips`, all of nearly one size, and shuffles the
    batches. Raises WorkbookError for no clips.
    """

    def __init__(
        self, lengths: Sequence[int], batch_clips: int, pool_batches: int = 50, seed: int = 0
    ) -> None:
        if not len(lengths):
            raise WorkbookError("there are no clips to train on; every one is held out or rejected")
        self.lengths = np.asarray(lengths)
        self.seed = seed
        n_pools = math.ceil(len(lengths) / (batch_clips * pool_batches))
        pools = np.array_split(np.arange(len(lengths)), n_pools)
        # clips and batches of each pool
        self._pools = [(len(pool), math.ceil(len(pool) / batch_clips)) for pool in pools]
        self._epoch = lru_cache(maxsize=2)(self._make_epoch)

    @property
    def steps_per_epoch(self) -> int:
        return sum(batches for _, batches in self._pools)

    @property
    def smallest_batch(self) -> int:
        """Clips of the smallest batch."""
        return min(clips // batches for clips, batches in self._pools)

    def _make_epoch(self, epoch: int) -> list[np.ndarray]:
        generator = np.random.default_rng([self.seed, epoch])
        order = generator.permutation(len(self.lengths))
        batches: list[np.ndarray] = []
        start = 0
        for clips, count in self._pools:
            pool = order[start : start + clips]
            start += clips
            by_length = np.argsort(self.lengths[pool], kind="stable")
            batches += np.array_split(pool[by_length], count)
        return [batches[index] for index in generator.permutation(len(batches))]

    def clips_of(self, step: int) -> np.ndarray:
        """Indices of the clips of the 0-based `step`, shortest first."""
        epoch, index = divmod(step, self.steps_per_epoch)
        return self._epoch(epoch)[index]

    def parts_of(self, step: int, rank: int, world: int, micro_batches: int) -> list[list[int]]:
        """The share of process `rank` of `world` in `step`, as micro-batches; together the
        processes hold each clip once.

        Shares differ by one clip at most and alternate in length; the micro-batches of one hold
        like lengths. Raises WorkbookError where a part would be empty.
        """
        if self.smallest_batch < world * micro_batches:
            raise WorkbookError(
                f"a step has as few as {self.smallest_batch} clips, too few for {world} processes"
                f" with {micro_batches} micro-batches each; give --batch-clips"
                f" {world * micro_batches} or more, fewer parts, or more data"
            )
        share = self.clips_of(step)[rank::world]
        return [part.tolist() for part in np.array_split(share, micro_batches)]

    def parts(
        self, start: int, stop: int, rank: int = 0, world: int = 1, micro_batches: int = 1
    ) -> Iterator[list[int]]:
        """Micro-batches of the steps `start` to `stop` - 1, one after the other: what a loader runs
        ahead on.
        """
        for step in range(start, stop):
            yield from self.parts_of(step, rank, world, micro_batches)
