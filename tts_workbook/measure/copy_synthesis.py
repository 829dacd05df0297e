"""A target through the vocoder beside its recording: length, frequency scale and dynamics, whatever
the recipe is.

Shapes: L samples, F points of a logarithmic frequency axis, C columns in time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tts_workbook.measure.intelligibility import stoi_if_possible
from tts_workbook.subject.subject import SubjectError

question = "Do a subject's targets and vocoder give its recordings back: length, pitch, dynamics?"

COLUMNS = 100  # both signals are laid over as many, whatever their length
LOWEST, HIGHEST = 150.0, 4500.0  # Hz, where speech has its formants
N_FREQUENCIES = 200  # points of the logarithmic axis between them
WINDOW = 0.046  # seconds of a spectrum, about
LEAST_SAMPLES = 2048  # of a copy
# ln units below the peak that dynamics are judged in: 50 dB
RANGE = math.log(10 ** (50 / 20))
# frequency scales that are tried, 1 % apart
RATIOS = np.exp(np.linspace(-math.log(3.1), math.log(3.1), 227))


@dataclass(frozen=True)
class CopyComparison:
    """A copy beside its recording."""

    seconds: float  # of the copy over those of the recording
    # scale of the copy's spectrum that fits best; 1 where the pitch and formants are right
    frequency: float
    match: float  # correlation of the log-spectra at that scale
    match_at_one: float  # and as they are
    # dynamics of the copy over the recording's, both in ln units; 1 where power and base are right
    slope: float
    # mean absolute difference of the log-spectra after their levels are made equal, ln units
    distance: float
    stoi: float  # NaN where the lengths differ or the clip is too short for it


def compare_with_recording(
    copy: np.ndarray, copy_rate: int, recording: np.ndarray, rate: int
) -> CopyComparison:
    """Copy (L',) and recording (L,), each at its own rate in Hz. Raises SubjectError for a copy
    that is empty or not finite.
    """
    copy, recording = np.asarray(copy, np.float32), np.asarray(recording, np.float32)
    if not _can_be_heard(copy):
        raise SubjectError(
            "vocode",
            f"samples of shape {copy.shape}, finite: {bool(np.isfinite(copy).all())}",
            "finite samples (L,) of the target's length, not all zero",
        )
    wanted_spectrum, got_spectrum = _spectrum(recording, rate), _spectrum(copy, copy_rate)
    highest = min(HIGHEST, 0.45 * min(rate, copy_rate))
    grid = np.exp(np.linspace(math.log(LOWEST), math.log(highest), N_FREQUENCIES))
    wanted = _on_grid(wanted_spectrum, rate, grid)
    matches = [
        _correlation(wanted, _on_grid(got_spectrum, copy_rate, grid * ratio)) for ratio in RATIOS
    ]
    best = int(np.argmax(matches))
    got = _on_grid(got_spectrum, copy_rate, grid)
    slope, distance = _dynamics(wanted, got)
    return CopyComparison(
        seconds=len(copy) / copy_rate / (len(recording) / rate),
        frequency=float(RATIOS[best]),
        match=matches[best],
        match_at_one=_correlation(wanted, got),
        slope=slope,
        distance=distance,
        stoi=_stoi(copy, copy_rate, recording, rate),
    )


def _can_be_heard(copy: np.ndarray) -> bool:
    if copy.ndim != 1 or len(copy) < LEAST_SAMPLES or not np.isfinite(copy).all():
        return False
    return bool(np.abs(copy).max() > 0)


def _spectrum(samples: np.ndarray, rate: int) -> np.ndarray:
    """(L,) -> (bins, C) log-magnitudes over windows of about 46 ms."""
    window = 2 ** round(math.log2(WINDOW * rate))
    hop = max(1, len(samples) // COLUMNS)
    spectrum = torch.stft(
        torch.from_numpy(samples),
        window,
        hop,
        window=torch.hann_window(window),
        return_complex=True,
        pad_mode="constant",
    ).abs()[:, :COLUMNS]
    return (spectrum + 1e-5 * spectrum.max()).log().numpy()


def _on_grid(spectrum: np.ndarray, rate: int, grid: np.ndarray) -> np.ndarray:
    """(bins, C) -> (F, C) at the frequencies of `grid`, Hz."""
    position = np.clip(grid / (rate / 2) * (len(spectrum) - 1), 0, len(spectrum) - 1.001)
    low = position.astype(int)
    share = (position - low)[:, None]
    return spectrum[low] * (1 - share) + spectrum[low + 1] * share


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    width = min(a.shape[1], b.shape[1])
    a, b = a[:, :width] - a[:, :width].mean(), b[:, :width] - b[:, :width].mean()
    size = np.sqrt((a * a).sum() * (b * b).sum())
    return float((a * b).sum() / (size + 1e-12))


def _dynamics(wanted: np.ndarray, got: np.ndarray) -> tuple[float, float]:
    """Slope of the copy's log-spectrum over the recording's, and their distance, where the
    recording is not near its floor.
    """
    width = min(wanted.shape[1], got.shape[1])
    wanted, got = wanted[:, :width], got[:, :width]
    heard = wanted > wanted.max() - RANGE
    a, b = wanted[heard] - wanted[heard].mean(), got[heard] - got[heard].mean()
    return float((a * b).sum() / (a * a).sum()), float(np.abs(a - b).mean())


def _stoi(copy: np.ndarray, copy_rate: int, recording: np.ndarray, rate: int) -> float:
    allowed = min(4096, 0.03 * len(recording))
    if abs(len(copy) - len(recording)) > allowed:
        return math.nan
    return stoi_if_possible(copy, copy_rate, recording, rate)


def line_per_bin(given: Tensor, wanted: Tensor) -> tuple[float, Tensor, float]:
    """One slope for all bins and an offset (M,) per bin that take `given` (T, M) to `wanted` (T,
    M), where `given` is louder than its bin's median (floors bend the rest), and the share of
    variance that they explain there.
    """
    length = min(len(given), len(wanted))
    given, wanted = given[:length].double(), wanted[:length].double()
    loud = given > given.quantile(0.5, dim=0)
    count = loud.sum(dim=0).clamp(min=1)
    means = [(mel * loud).sum(dim=0) / count for mel in (given, wanted)]
    a, b = (given - means[0]) * loud, (wanted - means[1]) * loud
    slope = float((a * b).sum() / a.square().sum().clamp(min=1e-12))
    explained = 1 - float((b - slope * a).square().sum() / b.square().sum().clamp(min=1e-12))
    return slope, (means[1] - slope * means[0]).float(), explained
