"""Text use: wrong text must hurt. 1.0 means that the decoder ignores the text."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from tts_core.metrics.free_running import mel_l1
from tts_core.model.modes import evaluating
from tts_core.model.tts import TTSModel
from tts_core.speech.batch import Batch, permute_phonemes

N_PERMUTATIONS = 8


@dataclass(frozen=True)
class TextUse:
    """How much worse the model does on the wrong text."""

    tf_l1: float  # teacher-forced L1 with the right text, ln units
    shuffled_tf_l1: float  # mean over the permutations
    ratio: float  # shuffled over right


def measure_text_use(
    model: TTSModel, batch: Batch, pause_id: int, n_permutations: int = N_PERMUTATIONS
) -> TextUse:
    """Teacher-forced L1 with phoneme ids permuted among non-pause positions, over the L1 with the
    right ones.

    Durations stay in place; the permutations are seeded 0 … n-1, so the number is a function of
    model and batch.
    """
    wrong = []
    with evaluating(model):
        right = mel_l1(model(batch).mel, batch)
        for seed in range(n_permutations):
            generator = torch.Generator().manual_seed(seed)
            misread = permute_phonemes(batch, pause_id, generator)
            wrong.append(mel_l1(model(misread).mel, batch))
    mean = sum(wrong) / len(wrong)
    return TextUse(right, mean, mean / right)
