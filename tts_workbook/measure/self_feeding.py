"""How the error grows while a model hears itself.

Two designs. `measure_drift` asks any Subject: it generates each clip once from its first frame, so
that what grows with the number of self-fed frames cannot be told from what the late frames of a
clip have anyway. `measure_self_feeding` starts runs at many points of a true history, where that
can be told; a Subject only generates from the start, so this one asks the workbook's own model.

A run that starts at frame s has the recording as its history up to s, and its own output from there
on. Its k-th frame is s + k - 1: the first one has a true history and is the teacher-forced frame,
the second has heard one frame of its own. Shapes: B clips, S runs, T frames, M mel bins, K spans.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tts_core.errors import WorkbookError
from tts_core.model.generation import decode_frames
from tts_core.model.modes import evaluating
from tts_core.model.tts import TTSModel
from tts_core.speech.batch import Batch
from tts_workbook.measure.headline import generated
from tts_workbook.subject.opened import OpenSubject

question = "How does the error grow while a model hears only itself?"

N_STARTS = 32
DRIFT_SPANS = (1, 4, 16, 64)  # frames up to which a drift is averaged, then the rest


def mean_by_span(error: Tensor, k: Tensor, last: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Errors (S, T) of the k-th self-fed frames, k (S, T) -> mean error (K,) and number of frames
    (K,) of each span. Span j holds last[j-1] < k <= last[j]; a span without a frame has mean NaN.
    """
    means, counts = [], []
    for before, end in itertools.pairwise([0, *last]):
        inside = (k > before) & (k <= end)
        means.append(error[inside].mean())
        counts.append(int(inside.sum()))
    return torch.stack(means), torch.tensor(counts)


# --- any subject, from the first frame ------------------------------------------------------------


@dataclass(frozen=True)
class Drift:
    """Error of a model that hears itself, over the best constant."""

    by_span: dict[tuple[int, int], float]  # free-running, by first and last frame
    forced: float  # teacher-forced, over all frames
    free: float  # free-running, over all frames


def measure_drift(opened: OpenSubject, model: nn.Module) -> Drift:
    """Free-running error by frame over growing spans, teacher-forced and free-running error as a
    whole. Raises SubjectError where the subject does not generate.
    """
    forced, free = opened.predict(model, field="mel"), generated(opened, model)
    length = min(forced.shape[1], free.shape[1])
    by_span: dict[tuple[int, int], float] = {}
    if length:
        difference = (free[:, :length] - opened.target[:, :length]).abs()
        error = difference.mean(dim=2) / opened.best_constant
        # frames of the padding are the 0th, which is in no span
        k = torch.arange(1, length + 1, device=error.device) * opened.mask[:, :length]
        last = [end for end in DRIFT_SPANS if end < length] + [length]
        means, counts = mean_by_span(error, k, last)
        spans = zip([0, *last], last, means.tolist(), counts.tolist(), strict=False)
        by_span = {(first, end - 1): mean for first, end, mean, count in spans if count}
    whole = opened.error(free) if length else math.inf
    return Drift(by_span, opened.error(forced), whole)


# --- the workbook's own model, from many frames ---------------------------------------------------


@dataclass(frozen=True)
class SelfFeeding:
    """Error against the number of self-fed frames, mean absolute differences in ln units; span j
    holds the k-th frames with last[j-1] < k <= last[j].
    """

    last: Tensor  # (K,) 1, 2, 4, 8, … and T, in frames
    error: Tensor  # (K,) mean over all frames of the span and all runs that reach them
    teacher_forced: Tensor  # (K,) teacher-forced error of the very same frames
    n_frames: Tensor  # (K,) frames behind each mean

    def first_above(self, level: float) -> int | None:
        """The shortest span (its last k) whose mean error exceeds `level`, ln units; None where
        none does.
        """
        above = (self.error > level).nonzero()
        return int(self.last[above[0, 0]]) if len(above) else None


def free_run_from(
    model: TTSModel, batch: Batch, starts: Sequence[int], layout: str = "train"
) -> Tensor:
    """Runs side by side over one clip (batch of 1), one per start -> mel (S, T, M) ln units.

    Before its start a run is fed the recording (its frames there are the teacher-forced ones, in
    layout `train`), from there on itself. Start 0 is free-running, start T teacher forcing. Raises
    WorkbookError for more than one clip.
    """
    n_frames = int(batch.mel_lengths[0])
    if len(batch.mel) != 1 or not starts or not all(0 <= start <= n_frames for start in starts):
        raise WorkbookError(
            f"free_run_from: {len(batch.mel)} clips and starts {list(starts)[:5]}, wanted one clip"
            f" and starts between 0 and its {n_frames} frames"
        )
    with evaluating(model):
        memory = model.expand(
            model.encode(batch.phonemes, batch.phoneme_mask), batch.durations, n_frames
        )
        mel, _ = decode_frames(
            model,
            memory.expand(len(starts), -1, -1),
            batch.mel_mask[:, :n_frames].expand(len(starts), -1),
            layout=layout,
            true_history=batch.mel,
            own_from=torch.tensor(starts, device=memory.device),
        )
    return mel


def spans_up_to(n_frames: int) -> list[int]:
    """Ends of the spans 1, 2, 3–4, 5–8, …: powers of two, and `n_frames`; the last span is no mere
    remnant.
    """
    powers = [2**power for power in range(n_frames.bit_length())]
    return [end for end in powers if 1.5 * end <= n_frames] + [n_frames]


def measure_self_feeding(
    model: TTSModel, batch: Batch, n_starts: int = N_STARTS, layout: str = "train"
) -> SelfFeeding:
    """Error by number of self-fed frames over `n_starts` runs, spread evenly over the clip, the
    first from frame 0.

    Few runs reach the long spans, and those end late in the clip: compare `error` with
    `teacher_forced`, which is taken over the same frames.
    """
    n_frames = int(batch.mel_lengths[0])
    starts = sorted({index * n_frames // n_starts for index in range(n_starts)})
    runs = free_run_from(model, batch, [*starts, n_frames], layout)
    # (S + 1, T)
    errors = (runs - batch.mel[:, :n_frames]).abs().mean(dim=2).cpu()
    # (S, T)
    k = torch.arange(n_frames)[None, :] - torch.tensor(starts)[:, None] + 1
    last = spans_up_to(n_frames)
    error, counts = mean_by_span(errors[:-1], k, last)
    forced, _ = mean_by_span(errors[-1].expand_as(k), k, last)
    return SelfFeeding(torch.tensor(last), error, forced, counts)
