"""Input-layout parity: generation code that is fed the true history must give the teacher-forced
output.
"""

from __future__ import annotations

from dataclasses import dataclass

from tts_core.metrics.free_running import mel_l1
from tts_core.model.generation import free_run
from tts_core.model.modes import evaluating
from tts_core.model.tts import TTSModel
from tts_core.speech.batch import Batch

question = "Does generation in a layout, fed the true history, give the teacher-forced output?"


@dataclass(frozen=True)
class LayoutParity:
    layout: str
    # largest |generation code on true history - teacher-forced|, ln units, valid frames
    max_difference: float
    mean_difference: float  # its mean
    true_history_l1: float  # error of the generation code on the true history, ln units


def measure_layout_parity(model: TTSModel, batch: Batch, layout: str) -> LayoutParity:
    """Compare generation in `layout`, fed the recording instead of itself, with teacher forcing
    (both in eval mode).
    """
    with evaluating(model):
        teacher_forced = model(batch).mel
    generated = free_run(model, batch, layout=layout, true_history=True).mel
    difference = (generated - teacher_forced).abs()[batch.mel_mask]
    return LayoutParity(
        layout, float(difference.max()), float(difference.mean()), mel_l1(generated, batch)
    )
