"""What a mel recipe loses: a recording through it and back, with one and the same vocoder. Whether
a subject's own targets and vocoder give its recordings back is another question
(copy_synthesis.py).

Shapes: L samples, T frames, M mel bins.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor

from tts_core.config import AudioConfig
from tts_core.speech.audio import griffin_lim, log_mel
from tts_workbook.measure.intelligibility import stoi

question = "Of a recording, what does a mel recipe lose, whatever the model?"


@dataclass(frozen=True)
class ThroughRecipe:
    """A recording through one recipe and back."""

    mel: Tensor  # (T, M) ln units, in the recipe
    samples: np.ndarray  # (L',) what came back
    stoi: float  # against the recording
    at_ceiling: float  # share of the mel's values at the recipe's ceiling; 0 where it has none
    at_floor: float  # share at its floor


def recipes() -> dict[str, AudioConfig]:
    """The standard recipe, the seed's, and the seed's with nothing but its ceiling removed."""
    return {
        "standard": AudioConfig(),
        "seed's": AudioConfig.seed(),
        "ceiling-free seed's": replace(AudioConfig.seed(), log_ceiling=None),
    }


def through_recipe(
    samples: np.ndarray,
    recipe: AudioConfig,
    phase_seed: int = 0,
    vocode: Callable[..., np.ndarray] = griffin_lim,
) -> ThroughRecipe:
    """Samples (L,) at the recipe's rate -> log-mel -> samples again, with what was clamped on the
    way.
    """
    mel = log_mel(samples, recipe)
    back = vocode(mel, recipe, phase_seed=phase_seed)
    at_ceiling = 0.0
    if recipe.log_ceiling is not None:
        at_ceiling = float((mel >= recipe.log_ceiling).float().mean())
    at_floor = float((mel <= recipe.silence + 1e-4).float().mean())
    heard = stoi(back, samples, recipe.sample_rate)
    return ThroughRecipe(mel, back, heard, at_ceiling, at_floor)
