"""How often each symbol is repeated on its way to the frames, read off the tensors of a forward
pass.

Shapes: B clips, N text positions, T frames, D width.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from torch import Tensor

from tts_workbook.bars import Bar
from tts_workbook.measure.seen_clips import SeenClip
from tts_workbook.subject.module_calls import Call

question = "How many frames is the memory expanded to?"

LEAST_REPEATED = Bar(
    1.15, control="rows to a run, on average, in the memory itself; without expansion 1"
)
FEWEST_RUNS = Bar(0.5, control="of the symbols of the same clip")


def expanded_lengths(calls: Sequence[Call], clips: Sequence[SeenClip]) -> list[int] | None:
    """Frames that each clip's symbols are repeated for, zeros behind them left out, from the first
    tensor (B, T, D) that consists of about as many runs of equal rows as there are symbols; None
    where no module is given or gives such a tensor.
    """
    n_symbols = [len(clip.counts) for clip in clips]
    for call in calls:
        for tensor in (*call.inputs, *call.outputs):
            if not _may_be_memory(tensor, len(clips)):
                continue
            runs = [_runs(row.float()) for row in tensor]
            if all(
                _is_expanded(own, symbols) for own, symbols in zip(runs, n_symbols, strict=True)
            ):
                return [sum(own) for own in runs]
    return None


def _may_be_memory(tensor: Tensor, n_clips: int) -> bool:
    if tensor.ndim != 3 or len(tensor) != n_clips:
        return False
    return tensor.is_floating_point() and min(tensor.shape[1:]) >= 2


def _is_expanded(runs: list[int], n_symbols: int) -> bool:
    about_as_many = FEWEST_RUNS * n_symbols < len(runs) <= n_symbols
    return about_as_many and sum(runs) > LEAST_REPEATED * len(runs)


def _runs(rows: Tensor) -> list[int]:
    """Lengths of the runs of equal rows (T, D), the zero ones at the end left out."""
    changes = (rows[1:] != rows[:-1]).any(dim=1).nonzero().flatten() + 1
    borders = [0, *changes.tolist(), len(rows)]
    runs = [stop - start for start, stop in itertools.pairwise(borders)]
    return runs if rows[-1].any() else runs[:-1]
