"""Duration predictor and length regulator (FastSpeech, Ren et al. 2019). Durations live in one
domain: log1p of frames.

Shapes: B batch, N phonemes, T frames, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tts_core.config import ModelConfig
from tts_core.errors import WorkbookError

MAX_FRAMES = 100_000  # per phoneme; beyond any speech, and within what an integer holds


class DurationPredictor(nn.Module):
    """Two convolutions over phonemes, then one number per phoneme: log1p of its frames."""

    def __init__(self, config: ModelConfig, kernel_size: int = 3) -> None:
        super().__init__()
        width = config.hidden_dim
        self.convolutions = nn.ModuleList(
            nn.Conv1d(width, width, kernel_size, padding=kernel_size // 2) for _ in range(2)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.dropout = nn.Dropout(config.dropout)
        self.output = nn.Linear(width, 1)
        # the findings' suspect: predicts e^1.79 - 1 = 5 frames
        if config.duration_initialisation == "seed_custom":
            with torch.no_grad():
                self.output.weight.mul_(0.01)
                self.output.bias.fill_(1.79)

    def forward(self, encoded: Tensor, mask: Tensor) -> Tensor:
        """encoded (B, N, D), mask (B, N) True = phoneme -> (B, N) log1p frames, 0 in padding."""
        x = encoded
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            # what pads the batch equals what pads the convolution
            x = x.masked_fill(~mask[..., None], 0.0)
            convolved = convolution(x.transpose(1, 2)).relu().transpose(1, 2)
            x = self.dropout(norm(convolved))
        log_durations: Tensor = self.output(x).squeeze(-1)
        return log_durations.masked_fill(~mask, 0.0)


def to_frames(log_durations: Tensor, mask: Tensor) -> Tensor:
    """Predicted log1p durations (B, N) -> whole frames (B, N), at least 1 per phoneme, 0 in
    padding.

    More than MAX_FRAMES per phoneme is cut to that many. Raises WorkbookError for NaN.
    """
    if torch.isnan(log_durations[mask]).any():
        raise WorkbookError(
            "predicted durations hold NaN: the duration predictor is broken; look for the first"
            " non-finite loss of its training"
        )
    frames = log_durations.float().expm1().round().clamp(min=1, max=MAX_FRAMES)
    return frames.long().masked_fill(~mask, 0)


def regulate_length(encoded: Tensor, durations: Tensor, n_frames: int) -> Tensor:
    """Repeat each phoneme for its frames: (B, N, D), (B, N) frames -> (B, n_frames, D), zero behind
    the last phoneme.
    """
    ends = durations.cumsum(dim=1)
    frames = torch.arange(n_frames, device=encoded.device).expand(len(ends), -1).contiguous()
    owner = torch.searchsorted(ends, frames, right=True)
    inside = owner < encoded.shape[1]
    owner = owner.clamp(max=encoded.shape[1] - 1)
    expanded = encoded.gather(1, owner[..., None].expand(-1, -1, encoded.shape[2]))
    return expanded * inside[..., None]
