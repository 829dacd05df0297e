"""Text use: wrong text must hurt. 1.0 means that the decoder ignores the text."""

from __future__ import annotations

from collections.abc import Callable
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

    tf_l1: float  # teacher-forced L1 with the right text, in the unit of the mel
    shuffled_tf_l1: float  # mean over the permutations
    ratio: float  # shuffled over right


def wrong_over_right(
    right: float,
    error_of: Callable[[torch.Generator], float],
    n_permutations: int = N_PERMUTATIONS,
) -> TextUse:
    """Text use of any model: `right` is its error with the right text, `error_of(generator)` that
    with the text permuted as the generator draws. Generators are seeded 0 … n-1.
    """
    generators = [torch.Generator().manual_seed(seed) for seed in range(n_permutations)]
    wrong = sum(error_of(generator) for generator in generators) / n_permutations
    return TextUse(right, wrong, wrong / right)


def measure_text_use(
    model: TTSModel, batch: Batch, pause_id: int, n_permutations: int = N_PERMUTATIONS
) -> TextUse:
    """Teacher-forced L1 with phoneme ids permuted among non-pause positions, over the L1 with the
    right ones.

    Durations stay in place, and the number is a function of model and batch. In ln units.
    """

    def misread(generator: torch.Generator) -> float:
        permuted = permute_phonemes(batch, pause_id, generator)
        return mel_l1(model(permuted).mel, batch)

    with evaluating(model):
        right = mel_l1(model(batch).mel, batch)
        return wrong_over_right(right, misread, n_permutations)
