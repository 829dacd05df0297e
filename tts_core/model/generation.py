"""Generation with a key/value cache: free-running over given durations, and full inference.

Shapes: B batch, N phonemes, T frames, M mel bins.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tts_core.errors import WorkbookError
from tts_core.model.duration import to_frames
from tts_core.model.modes import evaluating
from tts_core.model.tts import TTSModel
from tts_core.speech.batch import Batch, lengths_to_mask

LAYOUTS = ("train", "seed")


@dataclass(frozen=True)
class Generated:
    mel: Tensor  # (B, T, M) ln units
    lengths: Tensor  # (B,) frames
    stop_logits: Tensor  # (B, T)


def history_frames(past: Tensor, go_frame: Tensor, layout: str) -> Tensor:
    """Decoder input from which the next frame is predicted: past (B, t, M), go_frame (M,) -> (B, t
    + 1, M), model units.

    `train` is what training feeds: `[go, m0 … m(t-1)]`. `seed` is what the failing code fed: the go
    frame dropped and the last frame twice, `[m0 … m(t-1), m(t-1)]`; its first frame still comes
    from the go frame.
    """
    if layout == "train" or past.shape[1] == 0:
        first = go_frame.to(past).expand(len(past), 1, -1)
        return torch.cat([first, past], dim=1)
    return torch.cat([past, past[:, -1:]], dim=1)


@torch.no_grad()
def decode_frames(
    model: TTSModel,
    memory: Tensor,
    memory_mask: Tensor,
    *,
    layout: str | None = None,
    true_history: Tensor | None = None,
    own_from: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Predict one frame after another over memory (B, T, D), memory_mask (B, T) -> mel (B, T, M) ln
    units, stop (B, T).

    With `true_history` (B, T, M) in ln units the same code is fed the recording instead of its own
    output: in layout `train` that must equal teacher forcing, which is how layout parity is
    measured. With `own_from` (B,) as well, a row hears the recording before that frame and itself
    from there on.
    """
    layout = layout or model.config.generation_layout
    if layout not in LAYOUTS:
        raise WorkbookError(
            f"generation layout {layout!r} is unknown; use one of {', '.join(LAYOUTS)}"
        )
    n_frames = memory.shape[1]
    shape = (len(memory), n_frames, model.config.mel_dim)
    own = memory.new_zeros(shape)  # what was predicted, model units
    heard = memory.new_zeros(shape)  # what was fed back, model units
    truth = None if true_history is None else model.normaliser.normalise(true_history)
    # once, not at every frame
    mask = torch.zeros_like(memory_mask, dtype=memory.dtype).masked_fill(~memory_mask, -torch.inf)
    caches = model.decoder.start(memory, capacity=n_frames + 1)
    stops = []
    for t in range(n_frames):
        n_cached = caches[0].past.length  # frames of the history that need not be fed again
        recent = heard[:, max(n_cached - 1, 0) : t]
        fed = history_frames(recent, model.go_frame, layout)[:, n_cached - t - 1 :]
        fed = model.decoder_input(fed, memory[:, n_cached : t + 1])
        decoded = model.decoder.advance(fed, mask, caches)
        if layout == "seed":
            for cache in caches:
                # the repeated frame (or go) gives way to the next one
                cache.past.length -= 1
        own[:, t] = model.mel_projection_out(decoded[:, -1])
        heard[:, t] = _next_heard(own[:, t], truth, own_from, t)
        stops.append(model.stop_token_predictor(decoded[:, -1]))
    return model.normaliser.denormalise(own), torch.cat(stops, dim=1)


def _next_heard(own: Tensor, truth: Tensor | None, own_from: Tensor | None, t: int) -> Tensor:
    """What is fed back as frame t, (B, M): the model's `own` frame, or that of `truth` (B, T, M)
    before the frame `own_from` (B,) of its row.
    """
    if truth is None:
        return own
    if own_from is None:
        return truth[:, t]
    return torch.where((own_from <= t)[:, None], own, truth[:, t])


def free_run(
    model: TTSModel, batch: Batch, *, layout: str | None = None, true_history: bool = False
) -> Generated:
    """Free-running (FR): eval mode, ground-truth durations, exactly T self-fed frames, stop head
    ignored.
    """
    with evaluating(model):
        encoded = model.encode(batch.phonemes, batch.phoneme_mask)
        memory = model.expand(encoded, batch.durations, batch.mel.shape[1])
        mel, stop_logits = decode_frames(
            model,
            memory,
            batch.mel_mask,
            layout=layout,
            true_history=batch.mel if true_history else None,
        )
    return Generated(mel, batch.mel_lengths, stop_logits)


def infer(
    model: TTSModel,
    phonemes: Tensor,
    phoneme_lengths: Tensor,
    *,
    layout: str | None = None,
    max_frames: int = 4000,
) -> Generated:
    """Full inference: phoneme ids (B, N) alone; predicted durations give the memory, the stop head
    the end.

    A clip ends at the first frame whose stop probability exceeds one half, else with its memory.
    Raises WorkbookError where the predicted durations exceed `max_frames`.
    """
    mask = lengths_to_mask(phoneme_lengths, phonemes.shape[1])
    with evaluating(model):
        encoded = model.encode(phonemes, mask)
        durations = to_frames(model.duration_predictor(encoded, mask), mask)
        totals = durations.sum(dim=1)
        n_frames = int(totals.max())
        if n_frames > max_frames:
            raise WorkbookError(
                f"full inference: predicted durations add up to {n_frames} frames, more than"
                f" max_frames = {max_frames}; is the duration predictor trained, and in the log1p"
                " domain?"
            )
        memory = model.expand(encoded, durations, n_frames)
        memory_mask = lengths_to_mask(totals, n_frames)
        mel, stop_logits = decode_frames(model, memory, memory_mask, layout=layout)
    stopped = (stop_logits > 0) & memory_mask
    first_stop = torch.where(stopped.any(dim=1), stopped.int().argmax(dim=1) + 1, totals)
    return Generated(mel, torch.minimum(first_stop, totals), stop_logits)
