"""Can it be understood? Word error rate by an offline recogniser, closed-set identification, STOI
and MCD.

A recogniser is a judge, not a listener: every rate stands beside that of the recording and of
copy-synthesis.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable

import numpy as np
from torch import Tensor

from tts_core.config import AudioConfig
from tts_core.errors import WorkbookError
from tts_core.speech.audio import griffin_lim
from tts_core.speech.bundled import bundled_voice
from tts_core.speech.dataset import Clip
from tts_core.speech.folder import scan_folder
from tts_workbook.corpus.pronunciations import english_dictionary
from tts_workbook.corpus.recogniser import recognise, recognise_one_of

question = "Can it be understood?"

# Griffin-Lim starts from random phases: word error rates are means over fixed seeds
N_PHASE_SEEDS = 8
STOI_OF_TOO_SHORT = 1e-5  # what pystoi answers where fewer than 30 of its frames are left


def normalise_words(text: str) -> str:
    """Lower case, letters and apostrophes only: what both sides of a word error rate go through."""
    return " ".join(re.findall(r"[a-z']+", text.lower()))


def word_error_rate(reference: str, hypothesis: str) -> float:
    """(substitutions + deletions + insertions) / words of the reference (jiwer); may exceed 1."""
    import jiwer

    reference = normalise_words(reference)
    if not reference:
        raise WorkbookError(
            "word error rate: the reference text holds no words; give the clip's transcript"
        )
    return float(jiwer.wer(reference, normalise_words(hypothesis)))


def mel_word_error_rate(
    log_mel: Tensor,
    audio: AudioConfig,
    text: str,
    n_seeds: int = N_PHASE_SEEDS,
    vocode: Callable[..., np.ndarray] = griffin_lim,
) -> tuple[float, list[str]]:
    """Mean word error rate of a log-mel (T, M) over fixed Griffin-Lim phase seeds, and the words
    heard with each.
    """
    heard = [
        recognise(vocode(log_mel, audio, phase_seed=seed), audio.sample_rate)
        for seed in range(n_seeds)
    ]
    return float(np.mean([word_error_rate(text, words) for words in heard])), heard


def identify_text(samples: np.ndarray, sample_rate: int, texts: dict[str, str]) -> str | None:
    """Closed-set identification: which of `texts` (id -> transcript) the recogniser picks for
    samples (L,), or None.

    The recogniser is held to a grammar with one alternative per text, so guessing scores 1 /
    len(texts). Every word must be in its dictionary (WorkbookError).
    """
    spoken = {normalise_words(text): name for name, text in texts.items()}
    heard = recognise_one_of(samples, sample_rate, list(spoken))
    return None if heard is None else spoken.get(heard)


def in_recogniser_dictionary(text: str) -> bool:
    """Whether every word of an English text is in the recogniser's own dictionary, which closed
    sets need.
    """
    return set(normalise_words(text).split()) <= english_dictionary().keys()


def bundled_texts(clip: Clip) -> dict[str, str]:
    """Clip id -> transcript of every bundled English clip, and of `clip`: the closed set of
    `identify_text`.
    """
    texts = {}
    for voice in ("librivox", "allison"):
        for entry in scan_folder(bundled_voice(voice)).entries:
            texts[entry.id] = entry.text
    texts[clip.id] = clip.text
    return texts


def mel_cepstrum(log_mel: Tensor, order: int = 13) -> np.ndarray:
    """(T, M) ln units -> (T, order): orthonormal DCT-II coefficients 1 … order; c0, the level, is
    left out.
    """
    from scipy.fft import dct

    return dct(log_mel.double().numpy(), type=2, norm="ortho", axis=1)[:, 1 : order + 1]


def mel_cepstral_distortion(log_mel: Tensor, reference: Tensor) -> float:
    """MCD in dB between two log-mels (T, M) of equal length, frame by frame, 13 coefficients
    without c0, no DTW.

    Kubichek 1993: 10 / ln 10 * sqrt(2 * sum of squared differences), mean over frames. Numbers
    compare only at the same rate, order and alignment: here the rate and the frames are those of
    the mel recipe.
    """
    if log_mel.shape != reference.shape:
        raise WorkbookError(
            f"MCD without DTW wants equal shapes, seen {tuple(log_mel.shape)} and"
            f" {tuple(reference.shape)}"
        )
    difference = mel_cepstrum(log_mel) - mel_cepstrum(reference)
    return float(10 / np.log(10) * np.sqrt(2 * np.square(difference).sum(axis=1)).mean())


def stoi(samples: np.ndarray, reference: np.ndarray, sample_rate: int) -> float:
    """Short-time objective intelligibility (Taal et al. 2011, pystoi) of time-aligned signals; 1 is
    perfect.

    Signals may differ by the few samples of a frame; more is an error, since STOI means nothing
    without alignment.
    """
    from pystoi import stoi as pystoi

    if abs(len(samples) - len(reference)) > 4096:
        raise WorkbookError(
            f"STOI wants time-aligned signals, seen {len(samples)} and {len(reference)} samples"
        )
    length = min(len(samples), len(reference))
    return float(pystoi(reference[:length], samples[:length], sample_rate))


def stoi_if_possible(samples: np.ndarray, rate: int, reference: np.ndarray, own_rate: int) -> float:
    """STOI of samples (L',) at `rate` against a reference (L,) at `own_rate`, Hz. NaN where the
    rates or the lengths do not allow one, or a sample is not finite.
    """
    samples, reference = np.asarray(samples), np.asarray(reference)
    if rate != own_rate or not np.isfinite(samples).all():
        return math.nan
    try:
        score = stoi(samples, reference, rate)
    except (WorkbookError, ValueError, RuntimeError):  # clips too short for it
        return math.nan
    return math.nan if score == STOI_OF_TOO_SHORT else score
