"""More and more padding behind a subject's clips: what it does to loss, gradient and prediction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tts_workbook.measure.anatomy import movement
from tts_workbook.measure.equivalence import Equivalence, compare_batches
from tts_workbook.measure.supply import required
from tts_workbook.subject.isolation import without_dropout
from tts_workbook.subject.opened import OpenSubject

question = "Does padding behind the clips move loss, gradient or a valid frame of the prediction?"

AMOUNTS = (1, 8, 0.5)  # frames; below 1 a share of the batch's
LEAST_SHARE = 16  # frames that a share is at least


@dataclass(frozen=True)
class Padding:
    """A padded batch beside the batch as it is."""

    equivalence: Equivalence  # loss and gradient by padded frames
    # padded frames -> largest move of a valid frame, in deviations of the target
    moved: Mapping[int, float]


def measure_padding(opened: OpenSubject) -> Padding:
    """1, 8 and half as many frames again, fresh weights, dropout off. Raises NotMeasured without
    `Subject.pad`.
    """
    pad = required(opened, "pad")
    n_frames = opened.target.shape[1]
    amounts = [int(n) if n >= 1 else max(LEAST_SHARE, int(n * n_frames)) for n in AMOUNTS]
    batches = {n: pad(opened.batch, n) for n in amounts}
    found = compare_batches(opened, batches, "pad")
    moved = {}
    with without_dropout(opened.model):
        own = opened.predict(opened.model)
        for n, batch in batches.items():
            padded = opened.predict(opened.model, batch)[:, :n_frames]
            moved[n] = float(movement(padded, own, opened).max())
    return Padding(found, moved)
