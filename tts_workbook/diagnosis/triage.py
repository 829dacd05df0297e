"""A trained model on one batch, within a minute: what it does teacher-forced, free-running and by
itself, and how that sounds.

Shapes: B batch, T frames, M mel bins.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tts_core.errors import WorkbookError
from tts_core.model.modes import evaluating
from tts_workbook.diagnosis.subject_state import State, advice, judge_state
from tts_workbook.faults.finding import as_json
from tts_workbook.lab.lab import Lab
from tts_workbook.measure.headline import generated, headline
from tts_workbook.subject.isolation import unchanged_randomness
from tts_workbook.subject.subject import Subject, SubjectError, check_subject


@dataclass(frozen=True)
class Triage:
    """The numbers, mels and sounds of the first clip of the batch."""

    headline: Mapping[str, float]
    state: State  # does it learn, is it sound by itself, does it read its text
    # (T', M) in target units: target, teacher-forced, free-running …
    mels: Mapping[str, Tensor]
    # (samples, Hz) of the recording and of each mel
    sounds: Mapping[str, tuple[np.ndarray, int]]
    # what is not shown -> the part of the subject to supply
    missing: Mapping[str, str]
    advice: str  # one sentence from the numbers
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """JSON values: numbers, what is missing and the advice."""
        return {
            "state": self.state.to_dict(),
            "headline": {name: as_json(value) for name, value in self.headline.items()},
            "missing": dict(self.missing),
            "advice": self.advice,
            "seconds": round(self.seconds, 1),
        }


def triage(subject: Subject, seed: int = 0) -> Triage:
    """Judge the subject with its checkpoint's weights. Raises SubjectError where there is no
    checkpoint or it does not fit.
    """
    started = time.perf_counter()
    if subject.checkpoint is None:
        raise SubjectError(
            "checkpoint", "there is none", "a state dict or safetensors file (or --checkpoint FILE)"
        )
    with unchanged_randomness(seed):
        lab = Lab(subject, seed=seed)
        check_subject(replace(lab.subject, checkpoint=None))
        model, state = lab.build(), lab.checkpoint_state
        wanted = model.state_dict()
        if unfit := sorted(set(wanted) ^ set(state)) or [
            name for name in wanted if wanted[name].shape != state[name].shape
        ]:
            raise SubjectError(
                "checkpoint",
                f"{len(unfit)} tensors do not fit, {', '.join(unfit[:4])} among them",
                "the very names and shapes of build_model().state_dict(); `diagnose` says what of"
                " it loads",
            )
        found = headline(lab, lab.trained)
        mels, missing = _mels(lab, lab.trained)
        sounds = {}
        if subject.audio is not None:
            sounds["recording"] = subject.audio(lab.batch)[0]
        else:
            missing["recording"] = "supply Subject.audio"
        for name, mel in mels.items():
            if subject.vocode is None:
                missing[f"sound of {name}"] = "supply Subject.vocode"
            else:
                sounds["copy-synthesis" if name == "target" else name] = subject.vocode(mel)
    numbers = found.named()
    if len(mels.get("full inference", ())):
        numbers["frames of full inference over frames wanted"] = len(mels["full inference"]) / int(
            lab.lengths[0]
        )
    return Triage(
        headline=numbers,
        state=judge_state(found),
        mels=mels,
        sounds=sounds,
        missing=missing,
        advice=advice(found),
        seconds=time.perf_counter() - started,
    )


def _mels(lab: Lab, model: torch.nn.Module) -> tuple[dict[str, Tensor], dict[str, str]]:
    length = int(lab.lengths[0])
    mels = {
        "target": lab.target[0, :length],
        "teacher-forced": lab.predict(model, field="mel")[0, :length],
    }
    missing = {}
    if lab.subject.generate is not None:
        mels["free-running"] = generated(lab, model)[0, :length]
    else:
        missing["free-running"] = "supply Subject.generate"
    if lab.subject.infer is None:
        missing["full inference"] = "supply Subject.infer"
    else:
        try:
            with unchanged_randomness(lab.seed), evaluating(model):
                mels["full inference"] = lab.subject.infer(model, lab.batch)[0].detach().float()
        except WorkbookError as error:
            missing["full inference"] = f"it failed: {error}"
    return mels, missing
