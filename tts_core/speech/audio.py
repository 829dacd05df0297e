"""Audio in and out: wav files, resampling, log-mels and their inverse.

Shape letters: L samples, T frames, M mel bins, F linear frequency bins. `load_wav` is the only door
for audio: what it lets through is mono, finite, not silent, of a plausible rate and length, and as
long as its header says; everything else is a WorkbookError with the remedy in words.
"""

from __future__ import annotations

import contextlib
import functools
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from secrets import token_hex
from typing import NamedTuple

import numpy as np
import soundfile
import torch
import torchaudio
from torch import Tensor

from tts_core.config import AudioConfig
from tts_core.errors import WorkbookError

MIN_SECONDS, MAX_SECONDS = 0.2, 60.0  # of a clip
MIN_RATE, MAX_RATE = 8_000, 192_000  # Hz
# Hz; the rates of recorders (11,025 22,050 44,100 48,000 ...) are its multiples
RATE_STEP = 25
SILENCE_PEAK = 1e-4  # full scale 1.0; about three steps of 16-bit audio
CLIPPING_LEVEL = 0.999  # |sample| at or above this is at full scale
MAX_CLIPPED_SHARE = 0.10  # of all samples; a model would learn the distortion
MAX_CHUNKS = 1000  # of a RIFF file; more is damage
SAMPLE_BYTES = {"PCM_U8": 1, "PCM_16": 2, "PCM_24": 3, "PCM_32": 4, "FLOAT": 4, "DOUBLE": 8}


class WavInfo(NamedTuple):
    rate: int  # Hz
    channels: int
    n_samples: int  # per channel
    encoding: str  # soundfile's subtype, e.g. PCM_16

    @property
    def seconds(self) -> float:
        return self.n_samples / self.rate


def _require(ok: bool, path: Path | str, complaint: str) -> None:
    if not ok:
        raise WorkbookError(f"{path}: {complaint}")


# --- wav files ------------------------------------------------------------------------------------


def _audio_bytes(path: Path) -> tuple[int, int]:
    """(bytes of audio the header declares, bytes of audio the file holds), by walking the RIFF
    chunks.
    """
    size = path.stat().st_size
    found: tuple[int, int] | None = None
    with path.open("rb") as file:
        head = file.read(12)
        _require(
            head[:4] == b"RIFF" and head[8:] == b"WAVE",
            path,
            f"not a WAV file (it begins with {head!r}); convert it with `ffmpeg -i IN -c:a"
            " pcm_s16le OUT.wav`",
        )
        for _ in range(MAX_CHUNKS):
            chunk = file.read(8)
            if len(chunk) < 8:
                break
            name, declared = struct.unpack("<4sI", chunk)
            held = min(declared, size - file.tell())
            plausible = held == declared and name.isascii() and name.decode().isprintable()
            _require(
                found is None or plausible,
                path,
                "the header lies about the length: what follows the audio is no "
                "chunk; export the file again, or mend the header with `ffmpeg -i IN.wav OUT.wav`",
            )
            if name == b"data" and found is None:
                found = (declared, held)
            file.seek(declared + declared % 2, os.SEEK_CUR)
    if found is None:
        raise WorkbookError(
            f"{path}: a WAV header without audio (no data chunk); truncated, export it again"
        )
    return found


def wav_info(path: Path | str) -> WavInfo:
    """Read and check the header only: kind, rate, channels, length, and that the file holds what
    the header declares.

    Raises WorkbookError naming the file, the value seen and the remedy.
    """
    path = Path(path)
    _require(path.is_file(), path, "no such audio file")
    _require(
        path.stat().st_size > 0, path, "the file is empty (0 bytes); export or download it again"
    )
    declared, held = _audio_bytes(path)
    _require(
        held == declared,
        path,
        f"the header declares {declared:,} bytes of audio, the file holds {held:,}: it is"
        " truncated, or the header lies; export it again, or mend the header with `ffmpeg -i"
        " IN.wav OUT.wav`",
    )
    try:
        header = soundfile.info(str(path))
    except (soundfile.SoundFileError, RuntimeError, ValueError) as error:
        raise WorkbookError(
            f"{path}: the WAV header cannot be read ({error}); export the file again"
        ) from error
    info = WavInfo(header.samplerate, header.channels, header.frames, header.subtype)
    _require(
        MIN_RATE <= info.rate <= MAX_RATE and info.rate % RATE_STEP == 0,
        path,
        f"sample rate {info.rate:,} Hz, but recorders use {MIN_RATE:,} to {MAX_RATE:,} in steps of"
        f" {RATE_STEP}: a damaged header, or resample with `ffmpeg -i IN.wav -ar 22050 OUT.wav`",
    )
    _require(
        info.channels == 1,
        path,
        f"{info.channels} channels, but speech must be mono; mix down with "
        "`ffmpeg -i IN.wav -ac 1 OUT.wav`, or keep the better channel",
    )
    _require(
        info.encoding in SAMPLE_BYTES,
        path,
        f"compressed WAV ({info.encoding}); convert it with `ffmpeg -i IN.wav -c:a pcm_s16le"
        " OUT.wav`",
    )
    _require(
        info.n_samples == declared // SAMPLE_BYTES[info.encoding],
        path,
        f"the header lies about the length: {declared:,} bytes are not {info.n_samples:,} samples"
        f" of {info.encoding}; export the file again",
    )
    remedy = "cut it into sentences" if info.seconds > 1 else "record it again or leave it out"
    _require(
        MIN_SECONDS <= info.seconds <= MAX_SECONDS,
        path,
        f"{info.seconds:.2f} s long, but a clip is {MIN_SECONDS} to {MAX_SECONDS:.0f} s; {remedy}",
    )
    return info


def read_wav(path: Path | str) -> tuple[np.ndarray, int]:
    """Samples (L,) float32 at the file's own rate, and that rate in Hz, after every check. Raises
    WorkbookError.
    """
    info = wav_info(path)
    try:
        samples, rate = soundfile.read(str(path), dtype="float32")
    except (soundfile.SoundFileError, RuntimeError, ValueError) as error:
        raise WorkbookError(
            f"{path}: the audio cannot be decoded ({error}); export the file again"
        ) from error
    _require(
        samples.shape == (info.n_samples,),
        path,
        f"the header promises {info.n_samples:,} samples, {len(samples):,} can be read; export the"
        " file again",
    )
    broken = np.count_nonzero(~np.isfinite(samples))
    _require(
        broken == 0,
        path,
        f"{broken:,} samples are NaN or infinite; export the file again as 16-bit PCM",
    )
    peak = np.abs(samples).max()
    _require(
        peak >= SILENCE_PEAK,
        path,
        f"silent (peak {peak:.1e} of full scale); record it again or leave it out",
    )
    clipped = clipped_share(samples)
    _require(
        clipped <= MAX_CLIPPED_SHARE,
        path,
        f"{clipped:.0%} of the samples are clipped at full scale (accepted: "
        f"{MAX_CLIPPED_SHARE:.0%}); record it again at a lower level, scaling does not repair it",
    )
    return samples, rate


def load_wav(path: Path | str, sample_rate: int = 22_050) -> np.ndarray:
    """Mono float32 samples (L,) at `sample_rate` Hz, full scale 1.0. The only door for audio;
    raises WorkbookError.
    """
    samples, rate = read_wav(path)
    return resample(samples, rate, sample_rate)


def clipped_share(samples: np.ndarray) -> float:
    """Share of samples (L,) at full scale, 0 to 1."""
    return float(np.mean(np.abs(samples) >= CLIPPING_LEVEL))


def resample(samples: np.ndarray, from_rate: int, to_rate: int) -> np.ndarray:
    """Band-limited sinc interpolation (torchaudio): (L,) at `from_rate` Hz -> (ceil(L * to_rate /
    from_rate),).
    """
    if from_rate == to_rate:
        return samples
    recorded = torch.from_numpy(samples)
    resampled: Tensor = torchaudio.functional.resample(recorded, from_rate, to_rate)
    return resampled.numpy()


@contextlib.contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place on success and vanishes on failure: no
    half-written file.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # a process number is not unique on a shared disk
    temporary = path.with_name(f".{path.name}.{token_hex(8)}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def save_wav(path: Path | str, samples: np.ndarray, sample_rate: int) -> None:
    """Write samples (L,) as 16-bit PCM, atomically; what exceeds full scale is clipped. Refuses NaN
    and infinity.
    """
    samples = np.asarray(samples, dtype=np.float32)
    broken = np.count_nonzero(~np.isfinite(samples))
    _require(
        samples.ndim == 1 and broken == 0,
        path,
        f"refusing to write audio of shape {samples.shape} with {broken} "
        "non-finite samples; it must be (L,) and finite",
    )
    # what read_wav divides by again
    integers = (samples * 32_768).round().clip(-32_768, 32_767).astype(np.int16)
    with atomic_path(path) as temporary:
        soundfile.write(str(temporary), integers, sample_rate, subtype="PCM_16", format="WAV")


# --- log-mels -------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=16)  # keyed on the whole recipe
def _mel_transform(config: AudioConfig) -> torchaudio.transforms.MelSpectrogram:
    return torchaudio.transforms.MelSpectrogram(
        sample_rate=config.sample_rate,
        n_fft=config.n_fft,
        win_length=config.win_length,
        hop_length=config.hop_length,
        f_min=config.f_min,
        f_max=config.f_max,
        n_mels=config.n_mels,
        power=config.power,
        center=True,
        pad_mode="reflect",
        mel_scale=config.mel_scale,
        norm=None if config.mel_norm == "none" else config.mel_norm,
    )


def log_mel(samples: np.ndarray | Tensor, config: AudioConfig) -> Tensor:
    """Log-mel spectrogram: (L,) at config.sample_rate -> (T, M) float32 in ln units, T = 1 + L //
    hop_length.

    Equals librosa's `feature.melspectrogram(pad_mode="reflect")` within 1e-5 in linear magnitude.
    Raises WorkbookError for fewer samples than the reflected half window needs.
    """
    samples = torch.as_tensor(samples, dtype=torch.float32)
    _require(
        samples.ndim == 1 and len(samples) > config.n_fft // 2,
        "log_mel",
        f"samples of shape {tuple(samples.shape)}, but it needs (L,) with L > n_fft / 2 ="
        f" {config.n_fft // 2}",
    )
    energies: Tensor = _mel_transform(config)(samples).T
    mel = energies.clamp(min=config.log_floor).log()
    if config.log_ceiling is not None:
        mel = mel.clamp(max=config.log_ceiling)
    return mel


def mel_to_magnitude(log_mel: Tensor, config: AudioConfig, n_iterations: int = 100) -> Tensor:
    """Linear magnitudes (F, T), F = n_fft // 2 + 1, whose log-mel in the recipe of `config` is
    `log_mel` (T, M).

    Non-negative least squares by multiplicative updates (Lee and Seung 2001), started from the
    transposed filterbank. What the recipe's floor and ceiling cut off is lost.
    """
    filters: Tensor = _mel_transform(config).mel_scale.fb  # (F, M)
    energies = log_mel.detach().float().cpu().exp().T  # (M, T)
    target = filters @ energies  # (F, T)
    estimate = target.clamp(min=1e-10)
    for _ in range(n_iterations):
        estimate = estimate * target / (filters @ (filters.T @ estimate) + 1e-12)
    return estimate if config.power == 1.0 else estimate.sqrt()


def griffin_lim(
    log_mel: Tensor,
    config: AudioConfig,
    n_iterations: int = 60,
    momentum: float = 0.99,
    phase_seed: int = 0,
) -> np.ndarray:
    """Copy-synthesis without a trained vocoder: log-mel (T, M) in ln units -> samples (L,), L = (T
    - 1) * hop_length.

    Fast Griffin-Lim (Perraudin et al. 2013; torchaudio) from random phases drawn with `phase_seed`;
    the global random state is left as it was. Raises WorkbookError for a mel that is not finite or
    shorter than one window.
    """
    length = (log_mel.shape[0] - 1) * config.hop_length
    _require(
        length > config.n_fft // 2 and bool(log_mel.isfinite().all()),
        "griffin_lim",
        f"a log-mel of shape {tuple(log_mel.shape)} with {int((~log_mel.isfinite()).sum())}"
        " non-finite values; it must be finite and longer than half a window",
    )
    magnitude = mel_to_magnitude(log_mel, config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(phase_seed)
        samples: Tensor = torchaudio.functional.griffinlim(
            magnitude,
            window=torch.hann_window(config.win_length),
            n_fft=config.n_fft,
            hop_length=config.hop_length,
            win_length=config.win_length,
            power=1.0,
            n_iter=n_iterations,
            momentum=momentum,
            length=length,
            rand_init=True,
        )
    return samples.numpy()
