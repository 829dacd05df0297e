"""One judge for every version of a clip: the same vocoder, the same reference, the same phases, the
same recogniser.

Shapes: T frames of the clip, T' of the mel under judgement, M mel bins, L samples.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from tts_core.config import AudioConfig
from tts_core.speech.audio import griffin_lim
from tts_core.speech.dataset import Clip
from tts_workbook.measure.intelligibility import (
    N_PHASE_SEEDS,
    mel_cepstral_distortion,
    recognise,
    stoi,
    word_error_rate,
)
from tts_workbook.measure.time_warping import warp

question = "How good is a version of a clip, heard by one judge?"


@dataclass(frozen=True)
class Judged:
    """How one mel sounds. None stands for what does not apply; a mel too short for audio has no
    numbers at all.
    """

    mel: Tensor  # (T', M) ln units
    samples: np.ndarray | None  # (L,) with the first phase
    # against copy-synthesis; only where T' = T, so that frames are aligned
    stoi: float | None
    stoi_warped: float | None  # the same after time warping onto the recording
    # dB, frame by frame against the recording; only where T' = T, in the same recipe
    mcd: float | None
    # words recognised with each phase; empty where the recogniser does not apply
    heard: tuple[str, ...]
    rates: tuple[float, ...]  # word error rate with each phase

    def wer(self, n_phases: int | None = None) -> float | None:
        """Mean word error rate over the first `n_phases`, by default over all; None where none was
        measured.
        """
        rates = self.rates[:n_phases]
        return float(np.mean(rates)) if rates else None

    @property
    def says(self) -> str:
        """The words heard most often."""
        return max(self.heard, key=self.heard.count) if self.heard else ""


class Judge:
    """Judges mels of one clip. English clips are recognised, others judged by STOI and MCD
    alone.
    """

    def __init__(
        self, clip: Clip, audio: AudioConfig, vocode: Callable[..., np.ndarray] = griffin_lim
    ) -> None:
        self.clip, self.audio, self.vocode = clip, audio, vocode
        # the reference: no model can do better than this
        self.copy = vocode(clip.mel, audio, phase_seed=0)

    def __call__(
        self,
        mel: Tensor,
        n_phases: int = N_PHASE_SEEDS,
        *,
        recipe: AudioConfig | None = None,
        warped: bool = False,
    ) -> Judged:
        """Judge a mel (T', M) in the clip's recipe, or in another `recipe` of the same rate and
        hop.

        `n_phases` 0 leaves the recogniser out, which is what costs time; `warped` adds STOI after
        time warping.
        """
        recipe = recipe or self.audio
        if (len(mel) - 1) * recipe.hop_length <= recipe.n_fft // 2:
            return Judged(mel, None, None, None, None, (), ())
        samples = self.vocode(mel, recipe, phase_seed=0)
        aligned = len(mel) == len(self.clip.mel)
        n_phases = n_phases if self.clip.language == "en" else 0
        heard = [
            recognise(
                self.vocode(mel, recipe, phase_seed=phase) if phase else samples, recipe.sample_rate
            )
            for phase in range(n_phases)
        ]
        return Judged(
            mel,
            samples,
            stoi=self._stoi(samples) if aligned else None,
            stoi_warped=(
                self._stoi(self.vocode(warp(mel, self.clip.mel), recipe, phase_seed=0))
                if warped
                else None
            ),
            mcd=(
                mel_cepstral_distortion(mel, self.clip.mel)
                if aligned and recipe == self.audio
                else None
            ),
            heard=tuple(heard),
            rates=tuple(word_error_rate(self.clip.text, words) for words in heard),
        )

    def _stoi(self, samples: np.ndarray) -> float:
        return stoi(samples, self.copy, self.audio.sample_rate)


def ranked(judged: Mapping[str, Judged]) -> dict[str, float]:
    """Label -> STOI, worst first: after time warping where that was measured, else frame by frame;
    others are left out.
    """
    scores = {
        label: found.stoi if found.stoi_warped is None else found.stoi_warped
        for label, found in judged.items()
    }
    measured = {label: score for label, score in scores.items() if score is not None}
    return dict(sorted(measured.items(), key=lambda pair: pair[1]))


def ranking_lines(judged: Mapping[str, Judged], n_phases: int) -> list[str]:
    """One line of text per version, worst first: STOI, the same after warping, word error rate over
    `n_phases`.
    """
    lines = []
    for label in [*ranked(judged), *(label for label in judged if label not in ranked(judged))]:
        found, rate = judged[label], judged[label].wer(n_phases)
        numbers = {"STOI": found.stoi, "warped": found.stoi_warped, "WER": rate}
        cells = [
            f"{name} {'  -  ' if value is None else format(value, '.3f')}"
            for name, value in numbers.items()
        ]
        lines.append(f"{label:36s} " + "   ".join(cells))
    return lines
