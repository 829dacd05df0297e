"""5,000 mutated WAV and TextGrid files: each is loaded within the limits or refused with a
WorkbookError.
"""

import signal
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.corpora import ID_0930, LIBRIVOX, int16, tone, wav_bytes
from tts_core.errors import WorkbookError
from tts_core.speech.alignment import read_textgrid
from tts_core.speech.audio import MAX_SECONDS, MIN_SECONDS, load_wav, wav_info

N_FILES = 2_500  # of each kind
BATCH = 100  # files under one alarm
SECONDS_PER_BATCH = 60  # a hang, not a speed, is what this catches
NUMBERS = [0, 1, 2, 3, 7, 16, 255, 256, 2**15, 22_051, 48_000, 2**31 - 1, 2**31, 2**32 - 1]
TOKENS = [
    "-1",
    "0",
    "1e999",
    "nan",
    "inf",
    "-0.5",
    '"',
    "",
    "\n",
    "9" * 400,
    "<exists>",
    "IntervalTier",
    "TextTier",
    "size = 99999",
    "intervals [1]:",
    "xmin = 5",
    "\x00",
    "é",
    'text = "AH"',
]


def change_bytes(rng: np.random.Generator, content: bytes) -> bytes:
    """One to four random edits: flips, cuts, repeats, garbage; three in four hit the header, the
    first 60 bytes.
    """
    data = bytearray(content)
    for _ in range(rng.integers(1, 5)):
        at = int(rng.integers(60) if rng.random() < 0.75 else rng.integers(max(len(data), 1)))
        kind = rng.integers(6)
        if kind == 0 and at < len(data):
            data[at] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            data[at : at + 4] = int(rng.choice(NUMBERS)).to_bytes(4, "little")
        elif kind == 2:
            data[at : at + 2] = int(rng.choice(NUMBERS) % 2**16).to_bytes(2, "little")
        elif kind == 3:
            del data[at : at + int(rng.integers(1, 2000))]
        elif kind == 4:
            data[at:at] = rng.bytes(int(rng.integers(1, 200)))
        else:
            data = data[:at] if rng.random() < 0.2 else data + data[at : at + 1000]
    return bytes(data)


def change_text(rng: np.random.Generator, content: bytes) -> bytes:
    """One to four random edits of lines: deleted, repeated, swapped, replaced, cut, or a byte
    flipped.
    """
    lines = content.split(b"\n")
    for _ in range(rng.integers(1, 5)):
        i, j = (int(k) for k in rng.integers(len(lines), size=2))
        kind, token = rng.integers(7), str(rng.choice(TOKENS)).encode()
        if kind == 0 and len(lines) > 1:
            del lines[i]
        elif kind == 1:
            lines.insert(i, lines[j])
        elif kind == 2:
            lines[i], lines[j] = lines[j], lines[i]
        elif kind == 3:
            lines[i] = lines[i].split(b"=")[0] + b"= " + token
        elif kind == 4:
            lines[i] = token
        elif kind == 5 and rng.random() < 0.3:
            lines = lines[: max(i, 1)]
        else:
            line = bytearray(lines[i] or b" ")
            line[int(rng.integers(len(line)))] = int(rng.integers(32, 130))
            lines[i] = bytes(line)
    return b"\n".join(lines)


def outcomes(
    path: Path,
    seeds: list[bytes],
    change: Callable,
    load: Callable[[Path], None],
    seed: int,
    seconds: int = SECONDS_PER_BATCH,
) -> Counter:
    """Mutate and load N_FILES files under an alarm; any exception but WorkbookError escapes and
    fails the test.
    """
    rng = np.random.default_rng(seed)
    found: Counter = Counter()

    def give_up(*_):
        pytest.fail(f"a batch of {BATCH} files took over {seconds} s; the last one is {path}")

    previous = signal.signal(signal.SIGALRM, give_up)
    try:
        for number in range(N_FILES):
            if number % BATCH == 0:
                signal.alarm(seconds)
            path.write_bytes(change(rng, seeds[number % len(seeds)]))
            try:
                load(path)
                found["loaded"] += 1
            except WorkbookError as error:
                assert str(error).startswith(str(path))
                found["refused"] += 1
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)
    return found


def load_within_limits(path: Path) -> None:
    samples = load_wav(path)
    info = wav_info(path)
    assert 8_000 <= info.rate <= 192_000 and MIN_SECONDS <= info.seconds <= MAX_SECONDS
    assert samples.ndim == 1 and samples.dtype == np.float32 and np.isfinite(samples).all()
    assert abs(len(samples) - info.seconds * 22_050) <= 1


def read_within_limits(path: Path) -> None:
    alignment = read_textgrid(path, seconds=3.29)
    boundaries = [0.0, *(phone.end for phone in alignment.phones)]
    assert [phone.start for phone in alignment.phones] == boundaries[:-1] and boundaries[
        -1
    ] == alignment.end == 3.29
    assert all(np.diff(boundaries) > 0)


def test_mutated_wav_files(tmp_path):
    seeds = [
        wav_bytes(int16(tone(0.5))),
        wav_bytes(tone(0.4), code=3),
        wav_bytes(int16(tone(0.3, 8_000)), rate=8_000),
        wav_bytes(np.repeat(int16(tone(0.3)), 2), channels=2),
    ]
    found = outcomes(tmp_path / "mutant.wav", seeds, change_bytes, load_within_limits, seed=1)
    assert found["loaded"] > 100 and found["refused"] > 1_000, found


def test_mutated_textgrids(tmp_path):
    long_format = (LIBRIVOX / "alignments" / f"{ID_0930}.TextGrid").read_bytes()
    phones = read_textgrid(LIBRIVOX / "alignments" / f"{ID_0930}.TextGrid").phones
    short = [
        'File type = "ooTextFile"',
        'Object class = "TextGrid"',
        "",
        "0",
        "3.29",
        "<exists>",
        "1",
        '"IntervalTier"',
        '"phones"',
        "0",
        "3.29",
        str(len(phones)),
        *(f'{start}\n{end}\n"{label}"' for start, end, label in phones),
    ]
    with warnings.catch_warnings(action="ignore"):
        found = outcomes(
            tmp_path / "mutant.TextGrid",
            [long_format, "\n".join(short).encode()],
            change_text,
            read_within_limits,
            seed=2,
        )
    assert found["loaded"] > 100 and found["refused"] > 1_000, found


def hang(path: Path) -> None:
    try:
        while True:
            pass
    except Exception as error:  # as greedy as the one around the TextGrid parser
        raise WorkbookError(f"{path}: {error}") from error


@pytest.mark.parametrize(
    ("load", "seen"), [(lambda path: 1 / 0, ZeroDivisionError), (hang, pytest.fail.Exception)]
)
def test_the_harness_sees_other_exceptions_and_hangs(load, seen, tmp_path):
    with pytest.raises(seen):
        outcomes(tmp_path / "x.wav", [b"RIFF" * 20], change_bytes, load, seed=3, seconds=1)
