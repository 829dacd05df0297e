"""What a subject shows of its health, measured without asking the checks of the diagnosis.

Shapes: B batch, T frames, M mel bins, L samples.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from benchmarks.planted.harm import BARS
from tts_core.config import AudioConfig
from tts_core.model.modes import evaluating
from tts_core.speech.audio import log_mel, resample
from tts_workbook.lab.lab import Lab
from tts_workbook.measure.anatomy import anatomy, movement, with_frames_changed
from tts_workbook.measure.headline import headline
from tts_workbook.measure.intelligibility import stoi
from tts_workbook.subject.isolation import private_copy, unchanged_randomness, without_dropout
from tts_workbook.subject.subject import supplied
from tts_workbook.subject.tensor_math import tensors_norm
from tts_workbook.subject.training_step import all_parameters

Sound = tuple[np.ndarray, int]  # samples (L,), Hz

N_PADDED = 40  # frames of padding that are appended
QUIET = 0.02  # of the peak of a clip: below it lies silence


def signs(lab: Lab) -> dict[str, float]:
    """Every sign that the subject supplies the parts for; one that raises is infinite, which is
    harm if the twin's is not.
    """
    course = lab.course()
    found = {"mean TF L1 / best constant": course.outcome}
    numbers = headline(lab, lab.trained).named()
    found |= {name: value for name, value in numbers.items() if name in BARS}
    for name, fields, measure in MEASURES:
        if not lab.subject.has(*fields):
            continue
        try:
            found[name] = measure(lab)
        # a plant may break a part of the subject altogether: that is a sign too
        except Exception:
            found[name] = math.inf
    return {name: math.inf if math.isnan(value) else value for name, value in found.items()}


# --- the model ------------------------------------------------------------------------------------


def full_inference_off(lab: Lab) -> float:
    """Length of full inference against the clip's, the worst clip."""
    infer = supplied(lab.subject.infer, "infer")
    with unchanged_randomness(lab.seed), evaluating(lab.trained):
        mels = infer(lab.trained, lab.batch)
    pairs = zip(mels, lab.lengths, strict=False)
    return max(abs(len(mel) / int(length) - 1.0) for mel, length in pairs)


def padding_moves_prediction(lab: Lab) -> float:
    """Largest change of a valid frame, in standard deviations of the target."""
    padded = supplied(lab.subject.pad, "pad")(lab.batch, N_PADDED)
    model = lab.build()
    with without_dropout(model), unchanged_randomness(lab.seed), evaluating(model):
        of_padded = lab.predict(model, padded)[:, : lab.target.shape[1]]
        moved = of_padded - lab.predict(model)
    return float(moved.abs()[lab.mask].max() / lab.frames.std())


def padding_moves_loss(lab: Lab) -> float:
    """Relative change of the total."""
    padded = supplied(lab.subject.pad, "pad")(lab.batch, N_PADDED)
    model = lab.build()
    with without_dropout(model), unchanged_randomness(lab.seed), evaluating(model):
        short = float(lab.subject.losses(model, lab.batch)["total"])
        long = float(lab.subject.losses(model, padded)["total"])
    return abs(long - short) / (abs(short) + 1e-9)


def eval_forwards_differ(lab: Lab) -> float:
    """Largest difference of two predictions in eval mode under two seeds, in standard deviations of
    the target.
    """
    model = lab.build()
    mels = []
    for seed in (1, 2):
        with unchanged_randomness(seed), evaluating(model):
            mels.append(lab.subject.predict_mel(model, lab.batch))
    return float((mels[0] - mels[1]).abs().max() / lab.frames.std())


def true_history_off(lab: Lab) -> float:
    """The frame that generation makes after the true history against the teacher-forced one, in
    standard deviations of the target.
    """
    continue_from = supplied(lab.subject.continue_from, "continue_from")
    t = int(lab.lengths.min()) // 2
    with without_dropout(lab.trained), unchanged_randomness(lab.seed), evaluating(lab.trained):
        frame = continue_from(lab.trained, lab.batch, lab.target[:, :t])
    with without_dropout(lab.trained):
        wanted = lab.predict(lab.trained)[:, t]
    return float((frame - wanted).abs().max() / lab.frames.std())


def future_seen(lab: Lab) -> float:
    """How far frames up to t move when the history from t on is changed."""
    histories = list(anatomy(lab).histories)
    t = int(lab.lengths.min()) // 2
    if not histories:
        return 0.0
    with without_dropout(lab.model):
        as_it_is = lab.predict(lab.model)
        changed = with_frames_changed(lab, histories, slice(t, None))
        moved = movement(as_it_is, lab.predict(lab.model, changed), lab)
    return float(moved[:, : t + 1].max())


# --- training -------------------------------------------------------------------------------------


def still_parameters(lab: Lab) -> float:
    """Share of the weights that two steps leave as they were."""
    model = lab.build()
    train_step = lab.subject.train_step
    with unchanged_randomness(lab.seed):
        optimizer = lab.subject.make_optimizer(model)
        before = [parameter.detach().clone() for _, parameter in all_parameters(model)]
        for _ in range(2):
            if train_step is not None:
                train_step(model, optimizer, private_copy(lab.batch))
    after = [parameter for _, parameter in all_parameters(model)]
    pairs = zip(before, after, strict=True)
    still = sum(old.numel() for old, new in pairs if torch.equal(new, old))
    return still / sum(old.numel() for old in before)


def checkpoint_not_loaded(lab: Lab) -> float:
    """Share of the tensors of a fresh model that are not those of the checkpoint."""
    saved = lab.checkpoint_state
    own = lab.build().state_dict()
    loaded = sum(
        name in saved and torch.equal(own[name], saved[name].to(own[name])) for name in own
    )
    return 1.0 - loaded / len(own)


def gradient_off(lab: Lab) -> float:
    """Of k copies of every clip against one, at the loss: what an accumulation or a wrong mean
    changes.
    """
    model = lab.build()
    copies = supplied(lab.subject.duplicate, "duplicate")(lab.batch, 3)
    one = lab.gradient(model)
    many = lab.gradient(model, copies)
    gap = tensors_norm([many[name] - one[name] for name in one if name in many])
    return gap / (tensors_norm(one.values()) + 1e-12)


# --- the data -------------------------------------------------------------------------------------


def durations_off(lab: Lab) -> float:
    """Sum of the durations against the frames, the worst clip."""
    rows = supplied(lab.subject.durations, "durations")(lab.batch)
    gaps = []
    for row, length in zip(rows, lab.lengths, strict=False):
        total = sum(float(value) for value in row)
        gaps.append(abs(total / int(length) - 1.0))
    return max(gaps)


def features_off(lab: Lab) -> float:
    """Mean |difference| of today's features and the target, over the best constant; the worst
    clip.
    """
    features = supplied(lab.subject.features, "features")
    gaps = []
    for row, (samples, rate) in enumerate(_recordings(lab)):
        mel = features(samples, rate)
        if mel.shape[1] != lab.target.shape[2]:
            return math.inf
        shared = min(len(mel), int(lab.lengths[row]))
        gaps.append(float((mel[:shared] - lab.target[row, :shared]).abs().mean()))
    return max(gaps) / lab.best_constant


def symbols_merged(lab: Lab) -> float:
    """Share of the written symbols that have no id of their own in the batch."""
    parts = anatomy(lab)
    ids = next(call.inputs[0] for call in parts.calls if call.name == parts.embeddings[0])
    rows = supplied(lab.subject.symbols, "symbols")(lab.batch)
    written = set(itertools.chain.from_iterable(rows))
    return 1.0 - min(1.0, len(ids.unique()) / len(written))


def silence(lab: Lab) -> float:
    """Share of a recording that is silence before and behind speech, the worst clip."""
    quiet = []
    for samples, _ in _recordings(lab):
        loud = abs(samples) > QUIET * abs(samples).max()
        spoken = len(loud) - loud.argmax() - loud[::-1].argmax()
        quiet.append(1.0 - spoken / len(loud))
    return max(quiet)


def _recordings(lab: Lab) -> Sequence[Sound]:
    return supplied(lab.subject.audio, "audio")(lab.batch)


# --- copy-synthesis -------------------------------------------------------------------------------


def copy_lost(lab: Lab) -> float:
    """1 - intelligibility (STOI) of the copy, the worst clip."""
    heard = []
    for (samples, rate), (copy, _) in _copies(lab):
        shared = min(len(copy), len(samples))
        heard.append(stoi(copy[:shared], samples[:shared], rate))
    return 1.0 - min(heard)


def copy_length_off(lab: Lab) -> float:
    """Seconds of the copy against those of the recording, the worst clip."""
    gaps = []
    for (samples, rate), (copy, copied_rate) in _copies(lab):
        seconds = len(copy) / copied_rate
        gaps.append(abs(seconds / (len(samples) / rate) - 1.0))
    return max(gaps)


def spectra_off(lab: Lab) -> float:
    """Mean |difference| of the log-mels of copy and recording, ln units, whatever their overall
    levels are; the worst clip.
    """
    gaps = []
    for recording, copy in _copies(lab):
        true_mel = _standard_mel(*recording)
        copied_mel = _standard_mel(*copy)
        shared = min(len(true_mel), len(copied_mel))
        gap = copied_mel[:shared] - true_mel[:shared]
        gaps.append(float((gap - gap.median()).abs().mean()))
    return max(gaps)


def _copies(lab: Lab) -> list[tuple[Sound, Sound]]:
    """Each recording of the batch, and the sound that the subject's vocoder makes of its target."""
    vocode = supplied(lab.subject.vocode, "vocode")
    pairs = []
    for row, recording in enumerate(_recordings(lab)):
        valid = lab.target[row, : int(lab.lengths[row])]
        pairs.append((recording, vocode(valid)))
    return pairs


def _standard_mel(samples: np.ndarray, rate: int) -> Tensor:
    """(T, M) in the standard recipe, ln units."""
    audio = AudioConfig()
    return log_mel(resample(samples, rate, audio.sample_rate), audio)


# name, the parts of the subject that it takes, how it is measured
MEASURES: tuple[tuple[str, tuple[str, ...], Callable[[Lab], float]], ...] = (
    ("frames of full inference off", ("infer",), full_inference_off),
    ("padding moves the prediction", ("pad",), padding_moves_prediction),
    ("padding moves the loss", ("pad",), padding_moves_loss),
    ("eval forwards differ", (), eval_forwards_differ),
    ("generation from the true history off", ("continue_from",), true_history_off),
    ("durations off", ("durations",), durations_off),
    ("features off", ("audio", "features"), features_off),
    ("copy-synthesis lost", ("audio", "vocode"), copy_lost),
    ("copy-synthesis too long or short", ("audio", "vocode"), copy_length_off),
    ("spectra of the copy off", ("audio", "vocode"), spectra_off),
    ("parameters that do not move", (), still_parameters),
    ("checkpoint not loaded", ("checkpoint",), checkpoint_not_loaded),
    ("symbols merged", ("symbols",), symbols_merged),
    ("silence", ("audio",), silence),
    ("future or own frame seen", (), future_seen),
    ("gradient off", ("duplicate",), gradient_off),
)
