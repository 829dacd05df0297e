"""Small corpora and wav files, right and wrong ones."""

import shutil
import struct
from pathlib import Path

import numpy as np

LIBRIVOX = Path(__file__).resolve().parents[1] / "data_samples" / "librivox"
ID_0880 = "sense_and_sensibility_01_austen_64kb-0880"
ID_0930 = "sense_and_sensibility_01_austen_64kb-0930"
TEXT_0880 = "he was not an ill disposed young man"
RATE = 16_000


def tone(seconds: float = 1.0, rate: int = RATE, amplitude: float = 0.3) -> np.ndarray:
    """(L,) float32: a 220 Hz tone."""
    phase = 2 * np.pi * 220 * np.arange(round(seconds * rate)) / rate
    return (amplitude * np.sin(phase)).astype(np.float32)


def wav_bytes(
    samples: np.ndarray,
    rate: int = RATE,
    channels: int = 1,
    code: int = 1,
    declared: int | None = None,
) -> bytes:
    """A WAV file written by hand; `samples` int16 (code 1) or float32 (code 3), `declared`
    overrides the data size.
    """
    data, width = samples.tobytes(), samples.dtype.itemsize
    if declared is None:
        declared = len(data)
    frame = channels * width  # bytes of one sample of every channel
    per_second = (rate * frame) % 2**32
    layout = struct.pack("<HHIIHH", code, channels, rate, per_second, frame, 8 * width)
    chunks = [
        b"RIFF",
        struct.pack("<I", (declared + 36) % 2**32),
        b"WAVEfmt ",
        struct.pack("<I", len(layout)),
        layout,
        b"data",
        struct.pack("<I", declared),
        data,
    ]
    return b"".join(chunks)


def int16(samples: np.ndarray) -> np.ndarray:
    """Floats in [-1, 1] as 16-bit integers."""
    return (samples * 32_767).astype("<i2")


def make_corpus(root: Path, rows: str, *names: str, textgrids: bool = False) -> Path:
    """A corpus folder whose wavs/NAME.wav are copies of sentence 0880; `rows` is metadata.csv."""
    (root / "wavs").mkdir(parents=True)
    (root / "metadata.csv").write_text(rows, encoding="utf-8")
    for name in names:
        shutil.copyfile(LIBRIVOX / "wavs" / f"{ID_0880}.wav", root / "wavs" / f"{name}.wav")
        if textgrids:
            (root / "alignments").mkdir(exist_ok=True)
            shutil.copyfile(
                LIBRIVOX / "alignments" / f"{ID_0880}.TextGrid",
                root / "alignments" / f"{name}.TextGrid",
            )
    return root
