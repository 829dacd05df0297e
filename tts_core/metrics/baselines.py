"""Trivial baselines: every mel loss stands beside what needs no text, or no learning at all.

Shapes: B clips, T frames, M mel bins. All errors are mean absolute differences in the units of the
mel (ln units).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

AR_ORDER = 3


def best_constant_l1(mel: Tensor) -> float:
    """L1 of the best prediction that ignores its input: one constant per bin, the median over the
    frames of (T, M).
    """
    constant = mel.quantile(0.5, dim=0)
    return float((mel - constant).abs().mean())


def copy_previous_l1(mel: Tensor, mask: Tensor | None = None) -> float:
    """L1 of repeating the previous true frame of (T, M), or of (B, T, M) over the frames that
    `mask` (B, T) holds valid; the first frame of a clip has none and is left out.
    """
    steps = (mel[..., 1:, :] - mel[..., :-1, :]).abs()
    if mask is not None:
        steps = steps[mask[..., 1:]]
    return float(steps.mean())


@dataclass(frozen=True)
class LinearAutoregression:
    """Per-bin linear prediction of a frame from the `order` frames before it, without any text."""

    coefficients: Tensor  # (order + 1, M): newest frame first, then the intercept

    @classmethod
    def fit(cls, mels: list[Tensor], order: int = AR_ORDER) -> LinearAutoregression:
        """Least squares, each bin by itself, over all clips (T, M); the first frame repeats
        backwards.
        """
        past = torch.cat([_history(mel, order) for mel in mels])  # (frames, order, M)
        ones = torch.ones_like(past[:, :1])
        rows = torch.cat([past, ones], dim=1).permute(2, 0, 1)  # (M, frames, order + 1)
        target = torch.cat(mels).T[..., None]  # (M, frames, 1)
        found = torch.linalg.lstsq(rows.double(), target.double()).solution  # (M, order + 1, 1)
        return cls(found[..., 0].T)

    def teacher_forced(self, mel: Tensor) -> Tensor:
        """(T, M) -> (T, M) each frame predicted from the true frames before it."""
        weights, intercept = self.coefficients[:-1], self.coefficients[-1]
        past = _history(mel, len(weights)).double()  # (T, order, M)
        return ((past * weights).sum(dim=1) + intercept).float()

    def free_running(self, mel: Tensor) -> Tensor:
        """(T, M) -> (T, M) predicted from its own output; only the first frame of `mel` is read."""
        weights, intercept = self.coefficients[:-1], self.coefficients[-1]
        past = [mel[0].double()] * len(weights)
        frames = []
        for _ in range(len(mel)):
            frame = (torch.stack(past) * weights).sum(dim=0) + intercept
            past = [frame, *past[:-1]]
            frames.append(frame)
        return torch.stack(frames).float()


def _history(mel: Tensor, order: int) -> Tensor:
    """(T, M) -> (T, order, M): the frames before each frame, newest first; the first frame repeats
    backwards.
    """
    padded = torch.cat([mel[:1].expand(order, -1), mel])
    shifted = [padded[order - lag : len(padded) - lag] for lag in range(1, order + 1)]
    return torch.stack(shifted, dim=1)


def trivial_baselines(mel: Tensor, corpus: list[Tensor] | None = None) -> dict[str, float]:
    """L1 of each baseline on `mel` (T, M).

    `best_constant` is the per-bin median over the clip's frames, the best prediction that ignores
    its input; `copy_previous` repeats the last true frame; `ar3` is a linear autoregression fitted
    on `corpus` (default: the clip itself), teacher-forced, and `ar3_free_running` the same fed its
    own output.
    """
    model = LinearAutoregression.fit(corpus or [mel])
    return {
        "best_constant": best_constant_l1(mel),
        "copy_previous": copy_previous_l1(mel),
        "ar3": float((model.teacher_forced(mel) - mel).abs().mean()),
        "ar3_free_running": float((model.free_running(mel) - mel).abs().mean()),
    }
