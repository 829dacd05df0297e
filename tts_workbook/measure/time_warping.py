"""Speech whose timing is off, brought onto the time axis of the recording: dynamic time warping
(Sakoe and Chiba 1978).

STOI and frame-by-frame MCD blame a sound that comes 50 ms late as if it were wrong. Warped, the
same numbers judge what was said and not when. They flatter garbage a little, since the warp picks
its best frames: give both. Shapes: T frames of the recording, T' of the other mel, M mel bins.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from tts_core.errors import WorkbookError
from tts_workbook.measure.intelligibility import mel_cepstrum

question = "What would a sound be worth if its timing were right?"


def warping_path(log_mel: Tensor, reference: Tensor) -> np.ndarray:
    """Pairs (P, 2) of frames (of `log_mel` (T', M), of `reference` (T, M)), both rising, from both
    starts to both ends.

    The cost of a pair is the Euclidean distance of 13 mel-cepstral coefficients, level left out;
    steps are one frame of either or of both.
    """
    are_mels = log_mel.ndim == 2 and reference.ndim == 2
    if not are_mels or log_mel.shape[1] != reference.shape[1] or not len(log_mel):
        raise WorkbookError(
            f"time warping wants two log-mels with as many bins, seen {tuple(log_mel.shape)} and "
            f"{tuple(reference.shape)}"
        )
    from librosa.sequence import dtw

    mine = torch.from_numpy(mel_cepstrum(log_mel))
    theirs = torch.from_numpy(mel_cepstrum(reference))
    cost = torch.cdist(mine, theirs)
    _, path = dtw(C=cost.numpy())  # from the ends to the starts
    return path[::-1]


def warp(log_mel: Tensor, reference: Tensor) -> Tensor:
    """`log_mel` (T', M) on the time axis of `reference` (T, M) -> (T, M): the mean of the frames
    paired with each.
    """
    path = torch.from_numpy(warping_path(log_mel, reference).copy())
    mine, theirs = path[:, 0], path[:, 1]
    warped = log_mel.new_zeros(reference.shape).index_add_(0, theirs, log_mel[mine])
    return warped / torch.bincount(theirs, minlength=len(reference))[:, None]
