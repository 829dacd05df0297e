"""What a plant spoils against its clean twin, measured without asking the checks: a plant that
spoils nothing is not scored.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Callable, Mapping

import numpy as np
import torch

from tts_core.config import AudioConfig
from tts_core.model.modes import evaluating
from tts_core.speech.audio import log_mel, resample
from tts_workbook.lab.lab import Lab
from tts_workbook.measure.anatomy import anatomy, movement, with_frames_changed
from tts_workbook.measure.headline import headline
from tts_workbook.measure.intelligibility import stoi
from tts_workbook.subject.isolation import private_copy, unchanged_randomness, without_dropout
from tts_workbook.subject.subject import Batch, Subject
from tts_workbook.subject.tensor_math import tensors_norm
from tts_workbook.subject.training_step import all_parameters

# sign -> how far it has to lie from the twin's to be harm (absolute), and the direction that is
# harm
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
# the twin itself has 0 of them
AGAINST_TWIN = ("clips with another text", "clips that the data does not hold")
N_BATCHES = 6  # of `Subject.batches` that are compared with the twin's


def signs(lab: Lab) -> dict[str, float]:
    """Every sign that the subject supplies the parts for; one that raises is infinite, which is
    harm if the twin's is not.
    """
    course = lab.course()
    found = {"mean TF L1 / best constant": course.outcome}
    found |= {name: value for name, value in headline(lab, lab.trained).items() if name in BARS}
    for name, fields, measure in MEASURES:
        if lab.subject.has(*fields):
            try:
                found[name] = measure(lab)
            # a plant may break a part of the subject altogether: that is a sign too
            except Exception:
                found[name] = math.inf
    return {name: value if not math.isnan(value) else math.inf for name, value in found.items()}


def against_twin(plant: Subject, twin: Subject) -> dict[str, float]:
    """What only a comparison of the two data sets shows, as shares of clips: the same audio with
    another text in the batch, and clips in `batches` whose frames are none of the twin's (of its
    own `batches` or its batch).
    """
    found = {}
    if plant.has("audio", "symbols") and twin.has("audio", "symbols"):
        texts = {
            _hash(samples): tuple(text)
            for (samples, _), text in zip(twin.audio(twin.batch), twin.symbols(twin.batch))
        }
        rows = [
            (texts.get(_hash(samples)), tuple(text))
            for (samples, _), text in zip(plant.audio(plant.batch), plant.symbols(plant.batch))
        ]
        found["clips with another text"] = sum(
            true is not None and true != text for true, text in rows
        ) / len(rows)
    if plant.has("batches") and twin.has("batches"):
        known = {
            frames
            for batch in (twin.batch, *_drawn(twin, 20 * N_BATCHES))
            for frames in _frames(twin, batch)
        }
        seen = [frames for batch in _drawn(plant, N_BATCHES) for frames in _frames(plant, batch)]
        # else every clip differs, and not in `batches`
        same_batch = _frames(plant, plant.batch) == _frames(twin, twin.batch)
        found["clips that the data does not hold"] = (
            sum(frames not in known for frames in seen) / len(seen) if same_batch else 0.0
        )
    return found


def _hash(samples) -> bytes:
    return hashlib.sha256(np.ascontiguousarray(samples).tobytes()).digest()


def _drawn(subject: Subject, n: int) -> list[Batch]:
    with unchanged_randomness(0):
        return [private_copy(batch) for batch in itertools.islice(subject.batches(), n)]


def _frames(subject: Subject, batch: Batch) -> list[bytes]:
    target, lengths = subject.target_mel(batch)
    return [
        _hash(row[:length].detach().cpu().numpy()) for row, length in zip(target, lengths.tolist())
    ]


def harm(plant: Mapping[str, float], twin: Mapping[str, float]) -> str:
    """The signs in which the plant is worse than its twin, in words; empty where there is none."""
    sound = {name: twin.get(name, 0.0 if name in AGAINST_TWIN else math.nan) for name in BARS}
    worse = [
        f"{name} {sound[name]:.3g} -> {plant[name]:.3g}"
        for name, (bar, direction) in BARS.items()
        if name in plant
        and math.isfinite(sound[name])
        and direction * (plant[name] - sound[name]) > bar
    ]
    return "; ".join(worse)


def _inference(lab: Lab) -> float:
    with unchanged_randomness(lab.seed), evaluating(lab.trained):
        mels = lab.subject.infer(lab.trained, lab.batch)
    return max(abs(len(mel) / int(length) - 1.0) for mel, length in zip(mels, lab.lengths))


def _padded(lab: Lab, loss: bool) -> float:
    padded, model = lab.subject.pad(lab.batch, 40), lab.build()
    with without_dropout(model), unchanged_randomness(lab.seed), evaluating(model):
        if loss:
            short, long = (
                float(lab.subject.losses(model, batch)["total"]) for batch in (lab.batch, padded)
            )
            return abs(long - short) / (abs(short) + 1e-9)
        moved = lab.predict(model, padded)[:, : lab.target.shape[1]] - lab.predict(model)
        return float(moved.abs()[lab.mask].max() / lab.frames.std())


def _repeated(lab: Lab) -> float:
    model, mels = lab.build(), []
    for seed in (1, 2):
        with unchanged_randomness(seed), evaluating(model):
            mels.append(lab.subject.predict_mel(model, lab.batch))
    return float((mels[0] - mels[1]).abs().max() / lab.frames.std())


def _history(lab: Lab) -> float:
    t = int(lab.lengths.min()) // 2
    with without_dropout(lab.trained), unchanged_randomness(lab.seed), evaluating(lab.trained):
        frame = lab.subject.continue_from(lab.trained, lab.batch, lab.target[:, :t])
    with without_dropout(lab.trained):
        wanted = lab.predict(lab.trained)[:, t]
    return float((frame - wanted).abs().max() / lab.frames.std())


def _durations(lab: Lab) -> float:
    rows = lab.subject.durations(lab.batch)
    return max(
        abs(float(sum(float(value) for value in row)) / int(length) - 1.0)
        for row, length in zip(rows, lab.lengths)
    )


def _features(lab: Lab) -> float:
    gaps = []
    for row, (samples, rate) in enumerate(lab.subject.audio(lab.batch)):
        mel, length = lab.subject.features(samples, rate), int(lab.lengths[row])
        if mel.shape[1] != lab.target.shape[2]:
            return math.inf
        shared = min(len(mel), length)
        gaps.append(float((mel[:shared] - lab.target[row, :shared]).abs().mean()))
    return max(gaps) / lab.best_constant


def _copies(lab: Lab) -> list[tuple[float, float]]:
    found = []
    for row, (samples, rate) in enumerate(lab.subject.audio(lab.batch)):
        copy, copied_rate = lab.subject.vocode(lab.target[row, : int(lab.lengths[row])])
        shared = min(len(copy), len(samples))
        found.append(
            (
                stoi(copy[:shared], samples[:shared], rate),
                abs(len(copy) / copied_rate / (len(samples) / rate) - 1.0),
            )
        )
    return found


def _spectra_off(lab: Lab) -> float:
    """Mean |difference| of the log-mels of copy and recording, ln units, whatever their overall
    levels are; the worst clip.
    """
    gaps = []
    for row, (samples, rate) in enumerate(lab.subject.audio(lab.batch)):
        copy, copied_rate = lab.subject.vocode(lab.target[row, : int(lab.lengths[row])])
        mels = [
            log_mel(resample(sound, hertz, AudioConfig().sample_rate), AudioConfig())
            for sound, hertz in ((samples, rate), (copy, copied_rate))
        ]
        shared = min(map(len, mels))
        gap = mels[1][:shared] - mels[0][:shared]
        gaps.append(float((gap - gap.median()).abs().mean()))
    return max(gaps)


def _moving(lab: Lab) -> float:
    model = lab.build()
    with unchanged_randomness(lab.seed):
        optimizer = lab.subject.make_optimizer(model)
        before = [parameter.detach().clone() for _, parameter in all_parameters(model)]
        for _ in range(2):
            if lab.subject.train_step is not None:
                lab.subject.train_step(model, optimizer, private_copy(lab.batch))
    still = sum(
        parameter.numel()
        for (_, parameter), old in zip(all_parameters(model), before)
        if torch.equal(parameter, old)
    )
    return still / sum(old.numel() for old in before)


def _loaded(lab: Lab) -> float:
    saved, own = lab.checkpoint_state, lab.build().state_dict()
    return 1.0 - sum(
        name in saved and torch.equal(own[name], saved[name].to(own[name])) for name in own
    ) / len(own)


def _merged_symbols(lab: Lab) -> float:
    parts = anatomy(lab)
    ids = next(call.inputs[0] for call in parts.calls if call.name == parts.embeddings[0])
    written = {symbol for row in lab.subject.symbols(lab.batch) for symbol in row}
    return 1.0 - min(1.0, len(ids.unique()) / len(written))


def _silence(lab: Lab) -> float:
    quiet = []
    for samples, _ in lab.subject.audio(lab.batch):
        loud = abs(samples) > 0.02 * abs(samples).max()
        quiet.append(1.0 - (len(loud) - loud.argmax() - loud[::-1].argmax()) / len(loud))
    return max(quiet)


def _seen(lab: Lab) -> float:
    histories, t = list(anatomy(lab).histories), int(lab.lengths.min()) // 2
    if not histories:
        return 0.0
    with without_dropout(lab.model):
        moved = movement(
            lab.predict(lab.model),
            lab.predict(lab.model, with_frames_changed(lab, histories, slice(t, None))),
            lab,
        )
    return float(moved[:, : t + 1].max())


def _gradient(lab: Lab) -> float:
    """Of k copies of every clip against one, at the loss: what an accumulation or a wrong mean
    changes.
    """
    model = lab.build()
    one, many = lab.gradient(model), lab.gradient(model, lab.subject.duplicate(lab.batch, 3))
    return tensors_norm([many[name] - one[name] for name in one if name in many]) / (
        tensors_norm(one.values()) + 1e-12
    )


MEASURES: tuple[tuple[str, tuple[str, ...], Callable[[Lab], float]], ...] = (
    ("frames of full inference off", ("infer",), _inference),
    ("padding moves the prediction", ("pad",), lambda lab: _padded(lab, loss=False)),
    ("padding moves the loss", ("pad",), lambda lab: _padded(lab, loss=True)),
    ("eval forwards differ", (), _repeated),
    ("generation from the true history off", ("continue_from",), _history),
    ("durations off", ("durations",), _durations),
    ("features off", ("audio", "features"), _features),
    (
        "copy-synthesis lost",
        ("audio", "vocode"),
        lambda lab: 1.0 - min(value for value, _ in _copies(lab)),
    ),
    (
        "copy-synthesis too long or short",
        ("audio", "vocode"),
        lambda lab: max(value for _, value in _copies(lab)),
    ),
    ("spectra of the copy off", ("audio", "vocode"), _spectra_off),
    ("parameters that do not move", (), _moving),
    ("checkpoint not loaded", ("checkpoint",), _loaded),
    ("symbols merged", ("symbols",), _merged_symbols),
    ("silence", ("audio",), _silence),
    ("future or own frame seen", (), _seen),
    ("gradient off", ("duplicate",), _gradient),
)
