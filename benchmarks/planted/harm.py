"""What a plant spoils against its clean twin: one that spoils nothing is masked, and not scored."""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Mapping

import numpy as np

from tts_workbook.subject.isolation import private_copy, unchanged_randomness
from tts_workbook.subject.subject import Batch, Subject, supplied

# sign -> how far it has to lie from the twin's to be harm (absolute), and which direction is harm
BARS: dict[str, tuple[float, int]] = {
    "mean TF L1 / best constant": (0.05, 1),
    "TF L1 / best constant": (0.05, 1),
    "FR L1 / best constant": (0.10, 1),
    "text use": (0.10, -1),
    "frames of full inference off": (0.2, 1),
    "padding moves the prediction": (0.01, 1),
    "padding moves the loss": (0.01, 1),
    "eval forwards differ": (0.01, 1),
    "generation from the true history off": (0.01, 1),
    "durations off": (0.005, 1),
    "features off": (0.05, 1),
    "copy-synthesis lost": (0.1, 1),
    "copy-synthesis too long or short": (0.05, 1),
    "spectra of the copy off": (0.3, 1),
    "parameters that do not move": (0.02, 1),
    "checkpoint not loaded": (0.02, 1),
    "symbols merged": (0.1, 1),
    "silence": (0.1, 1),
    "future or own frame seen": (0.01, 1),
    "gradient off": (0.05, 1),
    "clips with another text": (0.1, 1),
    "clips that the data does not hold": (0.1, 1),
}
# signs of a comparison with the twin, which has 0 of them itself
AGAINST_TWIN = ("clips with another text", "clips that the data does not hold")
N_BATCHES = 6  # of `Subject.batches` that are compared with the twin's
N_BATCHES_OF_TWIN = 20 * N_BATCHES  # enough to have drawn all of its clips


def harm(plant: Mapping[str, float], twin: Mapping[str, float]) -> str:
    """The signs in which the plant is worse than its twin, in words; empty where there is none."""
    worse = []
    for name, (bar, direction) in BARS.items():
        sound = twin.get(name, 0.0 if name in AGAINST_TWIN else math.nan)
        if name not in plant or not math.isfinite(sound):
            continue
        if direction * (plant[name] - sound) > bar:
            worse.append(f"{name} {sound:.3g} -> {plant[name]:.3g}")
    return "; ".join(worse)


def against_twin(plant: Subject, twin: Subject) -> dict[str, float]:
    """What only a comparison of the two data sets shows, as shares of clips: the same audio with
    another text in the batch, and clips in `batches` whose frames are none of the twin's (of its
    own `batches` or its batch).
    """
    found = {}
    if plant.has("audio", "symbols") and twin.has("audio", "symbols"):
        found["clips with another text"] = _with_another_text(plant, twin)
    if plant.has("batches") and twin.has("batches"):
        found["clips that the data does not hold"] = _not_held(plant, twin)
    return found


def _with_another_text(plant: Subject, twin: Subject) -> float:
    """Share of the plant's clips whose recording has another text in the twin's batch."""
    texts = dict(_spoken(twin))
    clips = _spoken(plant)
    mispaired = [recording in texts and texts[recording] != text for recording, text in clips]
    return sum(mispaired) / len(mispaired)


def _spoken(subject: Subject) -> list[tuple[bytes, tuple[str, ...]]]:
    """Hash of the recording, and the text, of each clip of the batch."""
    audio = supplied(subject.audio, "audio")(subject.batch)
    symbols = supplied(subject.symbols, "symbols")(subject.batch)
    clips = zip(audio, symbols, strict=False)
    return [(_hash(samples), tuple(text)) for (samples, _), text in clips]


def _not_held(plant: Subject, twin: Subject) -> float:
    """Share of the clips that the plant's `batches` draw which are none of the twin's; 0 where the
    batch itself differs: then every clip does, and that is no matter of `batches`.
    """
    if _frames(plant, plant.batch) != _frames(twin, twin.batch):
        return 0.0
    known: set[bytes] = set()
    for batch in (twin.batch, *_drawn(twin, N_BATCHES_OF_TWIN)):
        known.update(_frames(twin, batch))
    seen: list[bytes] = []
    for batch in _drawn(plant, N_BATCHES):
        seen.extend(_frames(plant, batch))
    return sum(frames not in known for frames in seen) / len(seen)


def _drawn(subject: Subject, n: int) -> list[Batch]:
    batches = supplied(subject.batches, "batches")
    with unchanged_randomness(0):
        return [private_copy(batch) for batch in itertools.islice(batches(), n)]


def _frames(subject: Subject, batch: Batch) -> list[bytes]:
    """Hash of the valid frames of each clip."""
    target, lengths = subject.target_mel(batch)
    valid = [row[:length] for row, length in zip(target, lengths.tolist(), strict=True)]
    return [_hash(frames.detach().cpu().numpy()) for frames in valid]


def _hash(values: np.ndarray) -> bytes:
    return hashlib.sha256(np.ascontiguousarray(values).tobytes()).digest()
