"""Corpora of very short clips with TextGrids, made in milliseconds: for training tests, and by the
thousand for benchmarks.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile

PHONES = ("HH", "AA", "S", "IY", "N", "OW")
TEXTGRID = """File type = "ooTextFile"
Object class = "TextGrid"

0
{end}
<exists>
1
"IntervalTier"
"phones"
0
{end}
{count}
"""


def make_tiny_corpus(
    root: Path,
    n_clips: int,
    rate: int = 22_050,
    seconds: tuple[float, float] = (0.25, 0.6),
    seed: int = 0,
) -> Path:
    """`n_clips` clips c00000 … of noise shaped by 3 to 6 phonemes, each phoneme with its own pitch;
    lengths differ.
    """
    generator = np.random.default_rng(seed)
    for folder in ("wavs", "alignments"):
        (root / folder).mkdir(parents=True)
    rows = []
    for index in range(n_clips):
        name = f"c{index:05d}"
        n_samples = round(generator.uniform(*seconds) * rate)
        count = int(generator.integers(3, 7))
        phones = generator.integers(0, len(PHONES), count)
        ends = np.round(np.linspace(0, n_samples / rate, count + 1), 6)
        pitch = np.repeat(110.0 * (2 + phones), -(-n_samples // count))[:n_samples]
        samples = 0.3 * np.sin(
            2 * np.pi * np.cumsum(pitch) / rate
        ) + 0.02 * generator.standard_normal(n_samples)
        soundfile.write(root / "wavs" / f"{name}.wav", samples, rate, subtype="PCM_16")
        intervals = "".join(
            f'{ends[i]}\n{ends[i + 1]}\n"{PHONES[phone]}"\n' for i, phone in enumerate(phones)
        )
        (root / "alignments" / f"{name}.TextGrid").write_text(
            TEXTGRID.format(end=ends[-1], count=count) + intervals
        )
        rows.append(f"{name}|he saw no one {index}|he saw no one")
    (root / "metadata.csv").write_text("\n".join(rows) + "\n")
    (root / "language.txt").write_text("en\n")
    return root
