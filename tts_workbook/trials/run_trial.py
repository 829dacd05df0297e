"""Run one frozen trial: train, record, judge. The one place where a trial becomes numbers.

A result is plain JSON: `measures` (flat name -> number or null), `curves`, the trial, and where it
was computed.
"""

from __future__ import annotations

import dataclasses
import datetime
import math
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from tts_core.config import AudioConfig, ExperimentConfig
from tts_core.errors import WorkbookError
from tts_core.metrics.baselines import best_constant_l1, copy_previous_l1
from tts_core.model.tts import TTSModel, build_model
from tts_core.speech.batch import Batch, collate, duplicate
from tts_core.speech.dataset import Clip
from tts_core.training.loop import BatchSource, fit
from tts_core.training.precision import training_device
from tts_core.training.state import start_training
from tts_core.training.step import StepReport
from tts_workbook.measure.activations import measure_scales
from tts_workbook.measure.listening import Judge
from tts_workbook.measure.trajectory import PLATEAU_BAND, Trajectory, record_trajectory
from tts_workbook.trials.preset_arm import Outcome, judge_model
from tts_workbook.trials.trial import Trial, load_clips, trial_from_dict

# so many steps in a row below the band: the loss has left the best-constant line
LEAVE_STEPS = 10
N_PHASES = 2  # Griffin-Lim phases per word error rate
MICRO_BATCH = 8  # clips that are padded to one length when a trial draws its batches
N_JUDGED = 8  # clips of a large batch that are judged free-running

OnStep = Callable[[int, StepReport], bool | None]


@dataclass(frozen=True)
class Result:
    """What one trial gave. Errors in ln units; "over constant" is divided by the best constant of
    the same frames.
    """

    trial: Trial
    measures: dict[str, float | None]  # see `MEASURES`; None where it does not exist
    curves: dict[str, list]
    # why the training stopped early; its curve then stays where it stood
    failed: str = ""
    provenance: dict = dataclasses.field(default_factory=dict)

    @property
    def digest(self) -> str:
        return self.trial.digest

    def to_dict(self) -> dict:
        return {"digest": self.digest, **dataclasses.asdict(self)}


MEASURES = {
    "outcome": "mean over the budget of mel L1 / best constant: the primary outcome",
    "best_constant": "ln units",
    "copy_previous": "ln units",
    "final_over_constant": "mean of the last tenth of the steps",
    "tf_l1": "ln units, eval mode",
    "fr_l1": "ln units, layout of training",
    "fr_l1_seed_layout": "ln units",
    "tf_over_constant": "",
    "fr_over_constant": "",
    "fr_seed_layout_over_constant": "",
    "text_use": "wrong text over right text",
    "leave_step": "first of 10 steps in a row below 0.95; None: not within the budget",
    "plateau_steps": "",
    "plateau_first": "",
    "plateau_share": "lowest share of variance across time in it",
    "memory_std": "after training",
    "attention_entropy": "of cross-attention, mean of the layers, 1 = uniform",
    "clipped_share": "share of the steps whose gradient was clipped",
    "seconds": "of training",
}


def result_from_dict(values: dict) -> Result:
    """The inverse of `Result.to_dict`. Raises WorkbookError when the stored digest is not that of
    the stored trial.
    """
    values = dict(values)
    digest = values.pop("digest", None)
    try:
        result = Result(**{**values, "trial": trial_from_dict(values["trial"])})
    except (TypeError, KeyError) as error:
        raise WorkbookError(
            f"not a trial's result: {error}; delete it and run the trial again"
        ) from error
    if digest != result.digest:
        raise WorkbookError(
            f"stored under digest {digest}, but its trial has {result.digest}: made by another"
            " version; delete it and run the trial again"
        )
    return result


def build_trial_model(trial: Trial, clips: Sequence[Clip]) -> TTSModel:
    """The trial's fresh model; tensors that two trials of one seed have in common start equal."""
    experiment = trial.experiment
    return build_model(
        experiment.model, experiment.audio, [clip.mel for clip in clips], experiment.fit.seed
    )


def batch_source(trial: Trial, clips: Sequence[Clip]) -> BatchSource:
    """What `fit` is fed: the one batch, or a function of the step that gives its micro-batches,
    drawn by the trial's seed alone.
    """
    silence = trial.experiment.audio.silence
    if trial.batch_size is None:
        return duplicate(collate(clips, silence), trial.copies)
    per_epoch = len(clips) // trial.batch_size

    def batch_of(step: int) -> list[Batch]:
        epoch, position = divmod(step, per_epoch)
        generator = torch.Generator().manual_seed(1_000_003 * trial.experiment.fit.seed + epoch)
        order = torch.randperm(len(clips), generator=generator).tolist()
        chosen = [
            clips[index]
            for index in order[position * trial.batch_size : (position + 1) * trial.batch_size]
        ]
        # micro-batches of like lengths: the same step, less padding
        chosen.sort(key=lambda clip: len(clip.mel))
        return [
            duplicate(collate(chosen[first : first + MICRO_BATCH], silence), trial.copies)
            for first in range(0, len(chosen), MICRO_BATCH)
        ]

    return batch_of


def leave_step(over_constant: Sequence[float], n: int = LEAVE_STEPS) -> int | None:
    """1-based first step of the first `n` in a row that lie below the band around the best
    constant, or None.
    """
    run = 0
    for step, value in enumerate(over_constant, start=1):
        run = run + 1 if value < 1 - PLATEAU_BAND else 0
        if run == n:
            return step - n + 1
    return None


def outcome(over_constant: Sequence[float], steps: int) -> float:
    """Mean of mel L1 / best constant over the whole budget; steps that were not made count as the
    last one made, or 1.
    """
    if not over_constant:
        return 1.0
    missing = steps - len(over_constant)
    return (
        (sum(over_constant) + missing * max(1.0, over_constant[-1])) / steps
        if missing
        else sum(over_constant) / steps
    )


def run_trial(trial: Trial, on_step: OnStep | None = None, device: str | None = None) -> Result:
    """Train and judge. A training that becomes non-finite gives a result with `failed` set; other
    errors are raised.
    """
    began, device = time.perf_counter(), device or training_device()
    clips, vocabulary = load_clips(trial)
    model = build_trial_model(trial, clips).to(device)
    silence = trial.experiment.audio.silence
    watched = collate(clips[:N_JUDGED], silence).to(device)
    constant = best_constant_l1(torch.cat([clip.mel for clip in clips]))
    trajectory, record = record_trajectory(
        model, watched, share_every=10, best_constant=constant, also=on_step
    )
    training = start_training(trial.experiment, model, device)
    started, failed = time.perf_counter(), ""
    try:
        fit(training, batch_source(trial, clips), on_step=record)
    except WorkbookError as error:
        failed = str(error)
    measures = {
        "seconds": time.perf_counter() - started,
        **curve_measures(trajectory, trial.experiment),
    }
    if not failed:
        measures |= judge(model, watched, clips[:N_JUDGED], vocabulary.pause_id, constant, trial)
        failed = (
            ""
            if math.isfinite(measures["tf_l1"])
            else "the last step made the model's output non-finite"
        )
    # clips, training and judging
    where = {**_where(device), "trial_seconds": _plain(time.perf_counter() - began)}
    return Result(
        trial,
        {name: _plain(value) for name, value in measures.items()},
        _thin(trajectory),
        failed,
        where,
    )


def curve_measures(trajectory: Trajectory, experiment: ExperimentConfig) -> dict[str, float | None]:
    """What the curve alone says."""
    ratios, steps = trajectory.over_constant, experiment.fit.steps
    length, first = trajectory.plateau
    tail = ratios[-max(1, steps // 10) :]
    clip = experiment.optimizer.clip_norm
    norms = trajectory.gradient_norm
    return {
        "outcome": outcome(ratios, steps),
        "best_constant": trajectory.best_constant,
        "final_over_constant": sum(tail) / len(tail) if tail else None,
        "leave_step": leave_step(ratios),
        "plateau_steps": length,
        "plateau_first": first if length else None,
        "plateau_share": trajectory.plateau_share,
        "clipped_share": (
            sum(norm > clip for norm in norms) / len(norms) if clip and norms else None
        ),
    }


def judge(
    model: TTSModel,
    batch: Batch,
    clips: Sequence[Clip],
    pause_id: int,
    constant: float,
    trial: Trial,
) -> dict[str, float]:
    """Teacher-forced and free-running error in both layouts, text use, scale of the memory; sound
    where asked for.
    """
    found, scales = judge_model(model, batch, pause_id), measure_scales(model, batch)
    measures = {
        "copy_previous": sum(copy_previous_l1(clip.mel) for clip in clips) / len(clips),
        "tf_l1": found.gap.tf_l1,
        "fr_l1": found.gap.fr_l1,
        "fr_l1_seed_layout": found.seed_layout.fr_l1,
        "text_use": found.text_use.ratio,
        "memory_std": scales.std["memory"],
        "attention_entropy": sum(entropy := scales.cross_attention_entropy.values()) / len(entropy),
    }
    for name in ("tf_l1", "fr_l1", "fr_l1_seed_layout"):
        measures[name.replace("_l1", "") + "_over_constant"] = measures[name] / constant
    return measures | (listen(found, clips[0], trial.experiment.audio) if trial.listen else {})


def listen(found: Outcome, clip: Clip, audio: AudioConfig) -> dict[str, float]:
    """STOI against copy-synthesis and word error rate of both layouts, beside the word error rate
    of copy-synthesis.
    """
    judge_sound = Judge(clip, audio)
    heard = {
        "": judge_sound(found.gap.fr_mel[0, : len(clip.mel)], N_PHASES),
        "_seed_layout": judge_sound(found.seed_layout.fr_mel[0, : len(clip.mel)], N_PHASES),
    }
    measures = {f"stoi{suffix}": one.stoi for suffix, one in heard.items()}
    if clip.language == "en":
        measures |= {f"wer{suffix}": one.wer() for suffix, one in heard.items()}
        measures["wer_copy"] = judge_sound(clip.mel, N_PHASES).wer()
    return measures


def _thin(trajectory: Trajectory) -> dict[str, list]:
    """The curves for storing: every step's ratio to four digits, the rest where it was measured and
    is a number.
    """
    measured = [
        (step, float(f"{share:.3g}"))
        for step, share in zip(trajectory.share_steps, trajectory.shares)
        # after a step that broke the model there is none, and JSON has no NaN
        if math.isfinite(share)
    ]
    return {
        "over_constant": [round(value, 4) for value in trajectory.over_constant],
        "gradient_norm": [float(f"{value:.3g}") for value in trajectory.gradient_norm],
        "share_steps": [step for step, _ in measured],
        "shares": [share for _, share in measured],
    }


def _plain(value: float | None) -> float | None:
    """Six digits, which JSON can hold; what is not finite does not exist."""
    return float(f"{float(value):.6g}") if value is not None and math.isfinite(value) else None


def _where(device: str) -> dict[str, str]:
    flushed = float(torch.tensor(1e-40) * 1.0) == 0.0
    return {
        "device": device,
        "threads": torch.get_num_threads(),
        "denormals": "flushed" if flushed else "kept",
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "date": datetime.date.today().isoformat(),
    }
