"""Notebook 07 on a subject: what can be heard of it, and whether generation is fed what training
fed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from IPython.display import display

from tts_core.errors import WorkbookError
from tts_workbook.diagnosis.triage import Triage, triage
from tts_workbook.faults.generation.layout import nearest_frame, parity_table
from tts_workbook.lab.fed_as_trained import fed_as_trained
from tts_workbook.measure.copy_synthesis import compare_with_recording
from tts_workbook.measure.intelligibility import stoi
from tts_workbook.runner.display import intelligibility_figure, mels_figure, players
from tts_workbook.runner.notebook_rules.overfitting import UNIT
from tts_workbook.runner.own_training import CHECKPOINT
from tts_workbook.runner.subject_study.study import Study, StudyLab, Verdict, metric_name
from tts_workbook.runner.verdicts import Item

REASON = "it listens to our presets; what can be heard of your model is above"
# relative, of the teacher-forced error: what threads and libraries may change of the same weights
SAME_MODEL = 0.01
# STOI against copy-synthesis from which on audio counts as intelligible as the vocoder allows
SOUND = 0.9
COPY_CLAIM = (
    "its vocoder gives the recording back from the target mel: its STOI against the recording is at"
    " least 0.75"
)
COPY_BAR = 0.75
TOO_SHORT = 1e-5
HEARD_CLAIM = (
    "free-running, it is as intelligible as its own copy-synthesis (STOI against that of at least"
    " 0.9)"
)
FED_CLAIM = (
    "generation is fed what training fed: on the true history its code gives the teacher-forced"
    " frames"
)


def study(study: Study) -> Verdict:
    """The subject's own checkpoint, or the model that notebook 03 trained: numbers, mels, players,
    STOI, layout parity.
    """
    trained = study.book.upstream("03")
    own = study.subject.checkpoint is not None
    seed = trained["provenance"]["parameters"]["seed"]
    weights = study.subject.checkpoint if own else study.book.folder("checkpoints") / CHECKPOINT
    if not own and "teacher_forced" not in trained["metrics"]:
        return Verdict(
            "nothing can be heard: the training of notebook 03 broke and left no model.",
            {},
            tuple(_silent(study)),
        )
    judged = replace(study.subject, checkpoint=weights)
    found = triage(judged, seed)
    print(
        f"weights: {'the checkpoint of the subject' if own else 'those that notebook 03 trained'}\n"
        + "\n".join(f"{name}: {value:.4g}" for name, value in found.headline.items())
    )
    for name, reason in found.missing.items():
        print(
            f"{name}: {reason if reason.startswith('it failed') else f'not applicable: {reason}'}"
        )
    scores = {name: score for name, score in _stoi(found).items() if math.isfinite(score)}
    _draw(study, found, scores)
    _play(study, found)
    fed, note = None, ""
    if judged.has("continue_from"):
        fed, note = study.attempt(lambda: fed_as_trained(StudyLab(study.book, judged, seed)))
    items = [_restored(study, found, trained["metrics"])] if not own else []
    items += [_fed(study, fed, note), _copy(study, found), _heard(study, found, scores)]
    return Verdict(_answer(found, scores, fed), _metrics(found, scores, fed), tuple(items))


def _hop_seconds(found: Triage) -> float:
    """Seconds of a frame, from a sound and its mel; without a sound, frames stand for seconds."""
    for sound in ("recording", "copy-synthesis"):
        if sound in found.sounds:
            samples, rate = found.sounds[sound]
            return len(samples) / rate / len(found.mels["target"])
    return 1.0


def _stoi(found: Triage) -> dict[str, float]:
    """STOI of every vocoded mel against the copy-synthesis; NaN where lengths or rates differ, or
    the clip is too short.
    """
    if "copy-synthesis" not in found.sounds:
        return {}
    copy, rate = found.sounds["copy-synthesis"]
    return {
        name: _one_stoi(samples, own_rate, copy, rate)
        for name, (samples, own_rate) in found.sounds.items()
        if name not in ("recording", "copy-synthesis")
    }


def _one_stoi(samples: np.ndarray, own_rate: int, reference: np.ndarray, rate: int) -> float:
    if own_rate != rate or not np.isfinite(samples).all():
        return math.nan
    try:
        return _told(stoi(np.asarray(samples), np.asarray(reference), rate))
    except (WorkbookError, ValueError, RuntimeError):
        return math.nan


def _told(score: float) -> float:
    """pystoi says 1e-5 of a clip that is too short for it; that is no score."""
    return score if score > TOO_SHORT else math.nan


def _draw(study: Study, found: Triage, scores: Mapping[str, float]) -> None:
    hop = _hop_seconds(found)
    known = found.sounds.keys() & {"recording", "copy-synthesis"}
    notes = {name: f"STOI {scores[name]:.3f}" for name in found.mels if name in scores}
    mels = {name: np.nan_to_num(mel.cpu().numpy()) for name, mel in found.mels.items() if len(mel)}
    study.book.save_figure(
        mels_figure(
            mels,
            hop,
            f"{study.name}: the first clip",
            notes,
            colour_label="target units",
            x_label="time (s)" if known else "frame (no audio is supplied)",
        ),
        "subject_mels",
        "Target first, then the model fed with the true history, with itself, and on its own from"
        " the text alone, as far as the subject supplies them.",
    )
    if scores:
        study.book.save_figure(
            intelligibility_figure(
                {}, scores, f"{study.name}: through its own vocoder", order=list(scores)
            ),
            "subject_intelligibility",
            "STOI against the copy-synthesis of the target: 1 is as intelligible "
            "as this vocoder lets anything be.",
        )


def _play(study: Study, found: Triage) -> None:
    """Every sound at one gain, in the run folder and as players, a row per sample rate."""
    sounds = {
        name: (np.asarray(samples), rate)
        for name, (samples, rate) in found.sounds.items()
        if np.isfinite(samples).all()
    }
    loudest = max((1.0, *(float(np.abs(samples).max()) for samples, _ in sounds.values())))
    for name, (samples, rate) in sounds.items():
        study.book.save_audio(
            samples / loudest,
            rate,
            f"subject_{metric_name(name).lower()}",
            f"{name} (all clips share one gain, 1/{loudest:.2f})",
        )
    for rate in dict.fromkeys(rate for _, rate in sounds.values()):
        display(
            players(
                {name: samples / loudest for name, (samples, own) in sounds.items() if own == rate},
                rate,
            )
        )


# --- what was put to the test ---------------------------------------------------------------------


def _silent(study: Study) -> list[Item]:
    return [
        study.item(
            id,
            claim,
            "undecided",
            "a training of notebook 03 that does not break",
            n=0,
            provenance="notebook 03 left no model",
        )
        for id, claim in (("generation_fed_as_training", FED_CLAIM), ("understood", HEARD_CLAIM))
    ]


def _restored(study: Study, found: Triage, trained: Mapping[str, float]) -> Item:
    """Whether the saved weights are the model that notebook 03 judged: a state dict may lack a part
    of it.
    """
    now, then = found.headline["TF L1 / best constant"], trained["teacher_forced"]
    off = abs(now - then) / then
    return study.item(
        "weights_restored",
        "the state dict holds the whole model: loaded again, it has the error that notebook 03"
        " measured",
        "supported" if off <= SAME_MODEL else "refuted",
        "loading it in another process, with other threads",
        effect=off,
        unit="relative difference of the teacher-forced error",
        threshold=SAME_MODEL,
    )


def _fed(study: Study, fed, note: str) -> Item:
    if fed is None and not note:
        return study.absent_item("generation_fed_as_training", FED_CLAIM, "continue_from")
    if fed is None:
        return study.unmeasured("generation_fed_as_training", FED_CLAIM, note)
    print(
        "generation on the true history against teacher forcing, over the best constant: "
        + ", ".join(
            f"{name} {value if isinstance(value, str) else f'{value:.3g}'}"
            for name, value in parity_table(fed).items()
        )
    )
    verdict = (
        "supported"
        if fed.holds
        else "refuted"
        if fed.comparable and math.isfinite(fed.worst)
        else "undecided"
    )
    return study.item(
        "generation_fed_as_training",
        FED_CLAIM,
        verdict,
        "a frame, or another batch, at which the two part",
        effect=fed.worst,
        unit=f"largest difference of a frame, {UNIT}",
        n=len(fed.difference),
        unit_of_replication="frames of one batch",
        provenance=study.where
        + ("" if fed.nearest is None else f"; nearest: {nearest_frame(fed.nearest)}"),
    )


def _copy(study: Study, found: Triage) -> Item:
    if not study.subject.has("audio", "vocode"):
        return study.absent_item("copy_synthesis", COPY_CLAIM, "audio", "vocode")
    (copy, copy_rate), (recording, rate) = found.sounds["copy-synthesis"], found.sounds["recording"]
    beside = compare_with_recording(copy, copy_rate, recording, rate)
    print(
        f"copy-synthesis beside the recording: {beside.seconds:.3f} times as long, frequencies ×"
        f" {beside.frequency:.3f}, dynamics × {beside.slope:.2f}, STOI {beside.stoi:.3f}"
    )
    score = _told(beside.stoi)
    verdict = "undecided" if math.isnan(score) else "supported" if score >= COPY_BAR else "refuted"
    return study.item(
        "copy_synthesis",
        COPY_CLAIM,
        verdict,
        "listening to the pair; area data of `tts-workbook diagnose`",
        effect=score,
        unit="STOI against the recording",
        threshold=COPY_BAR,
        unit_of_replication="clip",
    )


def _heard(study: Study, found: Triage, scores: Mapping[str, float]) -> Item:
    if not study.subject.has("generate", "vocode"):
        return study.absent_item("understood", HEARD_CLAIM, "generate", "vocode")
    score = scores.get("free-running", math.nan)
    verdict = "undecided" if math.isnan(score) else "supported" if score >= SOUND else "refuted"
    return study.item(
        "understood",
        HEARD_CLAIM,
        verdict,
        "listening; other clips, or a longer training",
        effect=score,
        unit="STOI against copy-synthesis",
        threshold=SOUND,
        unit_of_replication="clip",
    )


def _answer(found: Triage, scores: Mapping[str, float], fed) -> str:
    heard = ", ".join(f"{name} {score:.3f}" for name, score in scores.items())
    layout = (
        ""
        if fed is None
        else (
            " Generation is fed what training fed."
            if fed.holds
            else (
                f" On the true history generation is {fed.worst:.2f} {UNIT} away from teacher"
                " forcing."
            )
        )
    )
    lacking = sorted(
        {reason.split("Subject.")[1] for reason in found.missing.values() if "Subject." in reason}
    )
    stoi_of = f" STOI against its copy-synthesis: {heard}." if heard else ""
    return f"{found.advice[0].upper()}{found.advice[1:]}.{stoi_of}{layout}" + (
        f" Not applicable without Subject.{', Subject.'.join(lacking)}." if lacking else ""
    )


def _metrics(found: Triage, scores: Mapping[str, float], fed) -> dict[str, float]:
    return {
        **{metric_name(name): value for name, value in found.headline.items()},
        **{metric_name(f"stoi {name}"): score for name, score in scores.items()},
        **(
            {}
            if fed is None
            else {"generation_difference": fed.worst, "generation_sensitivity": fed.sensitivity}
        ),
    }
