"""Run one frozen trial of a preset: train, record, judge."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

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
from tts_workbook.trials.preset_arm import ModelJudgement, judge_model
from tts_workbook.trials.trial import Trial, load_clips
from tts_workbook.trials.trial_result import TrialResult
from tts_workbook.trials.where_computed import where_computed

# so many steps in a row below the band: the loss has left the best-constant line
LEAVE_STEPS = 10
N_PHASES = 2  # Griffin-Lim phases per word error rate
MICRO_BATCH = 8  # clips that are padded to one length when a trial draws its batches
N_JUDGED_CLIPS = 8  # of a large batch, which are judged free-running

OnStep = Callable[[int, StepReport], bool | None]


def build_trial_model(trial: Trial, clips: Sequence[Clip]) -> TTSModel:
    """The trial's fresh model; tensors that two trials of one seed have in common start equal."""
    experiment = trial.experiment
    mels = [clip.mel for clip in clips]
    return build_model(experiment.model, experiment.audio, mels, experiment.fit.seed)


def batch_source(trial: Trial, clips: Sequence[Clip]) -> BatchSource:
    """What `fit` is fed: the one batch, or a function of the step that gives its micro-batches,
    drawn by the trial's seed alone.
    """
    silence = trial.experiment.audio.silence
    batch_size = trial.batch_size
    if batch_size is None:
        return duplicate(collate(clips, silence), trial.copies)
    per_epoch = len(clips) // batch_size

    def batch_of(step: int) -> list[Batch]:
        epoch, position = divmod(step, per_epoch)
        generator = torch.Generator().manual_seed(1_000_003 * trial.experiment.fit.seed + epoch)
        order = torch.randperm(len(clips), generator=generator).tolist()
        drawn = order[position * batch_size : (position + 1) * batch_size]
        # micro-batches of like lengths: the same step, less padding
        chosen = sorted((clips[index] for index in drawn), key=lambda clip: len(clip.mel))
        parts = [
            chosen[first : first + MICRO_BATCH] for first in range(0, len(chosen), MICRO_BATCH)
        ]
        return [duplicate(collate(part, silence), trial.copies) for part in parts]

    return batch_of


def leave_step(over_constant: Sequence[float], n: int = LEAVE_STEPS) -> int | None:
    """1-based first step of the first `n` in a row that lie below the band around the best
    constant, or None.
    """
    in_a_row = 0
    for step, value in enumerate(over_constant, start=1):
        in_a_row = in_a_row + 1 if value < 1 - PLATEAU_BAND else 0
        if in_a_row == n:
            return step - n + 1
    return None


def outcome(over_constant: Sequence[float], steps: int) -> float:
    """Mean of mel L1 / best constant over the whole budget; steps that were not made count as the
    last one made, or 1.
    """
    if not over_constant:
        return 1.0
    total = sum(over_constant)
    missing = steps - len(over_constant)
    if missing:
        total = total + missing * max(1.0, over_constant[-1])
    return total / steps


def run_preset_trial(
    trial: Trial, on_step: OnStep | None = None, device: str | None = None
) -> TrialResult[Trial]:
    """Train and judge. A training that becomes non-finite gives a result with `failed` set; other
    errors are raised.
    """
    began = time.perf_counter()
    device = device or training_device()
    clips, vocabulary = load_clips(trial)
    judged = clips[:N_JUDGED_CLIPS]
    model = build_trial_model(trial, clips).to(device)
    watched = collate(judged, trial.experiment.audio.silence).to(device)
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
    measures: dict[str, float | None] = {"seconds": time.perf_counter() - started}
    measures |= curve_measures(trajectory, trial.experiment)
    if not failed:
        measures |= judged_measures(model, watched, judged, vocabulary.pause_id, constant, trial)
        if six_digits(measures["tf_l1"]) is None:
            failed = "the last step made the model's output non-finite"
    # clips, training and judging
    trial_seconds = six_digits(time.perf_counter() - began)
    return TrialResult(
        trial,
        {name: six_digits(value) for name, value in measures.items()},
        _thin(trajectory),
        failed,
        {**where_computed(device), "trial_seconds": trial_seconds},
    )


def curve_measures(trajectory: Trajectory, experiment: ExperimentConfig) -> dict[str, float | None]:
    """What the curve alone says."""
    ratios, steps = trajectory.over_constant, experiment.fit.steps
    length, first = trajectory.plateau
    tail = ratios[-max(1, steps // 10) :]
    clip = experiment.optimizer.clip_norm
    norms = trajectory.gradient_norm
    clipped_share = None
    if clip and norms:
        clipped_share = sum(norm > clip for norm in norms) / len(norms)
    return {
        "outcome": outcome(ratios, steps),
        "best_constant": trajectory.best_constant,
        "final_over_constant": sum(tail) / len(tail) if tail else None,
        "leave_step": leave_step(ratios),
        "plateau_steps": length,
        "plateau_first": first if length else None,
        "plateau_share": trajectory.plateau_share,
        "clipped_share": clipped_share,
    }


def judged_measures(
    model: TTSModel,
    batch: Batch,
    clips: Sequence[Clip],
    pause_id: int,
    constant: float,
    trial: Trial,
) -> dict[str, float | None]:
    """Teacher-forced and free-running error in both layouts, text use, scale of the memory; sound
    where asked for.
    """
    found, scales = judge_model(model, batch, pause_id), measure_scales(model, batch)
    entropies = scales.cross_attention_entropy.values()
    measures: dict[str, float | None] = {
        "copy_previous": sum(copy_previous_l1(clip.mel) for clip in clips) / len(clips),
        "tf_l1": found.gap.tf_l1,
        "fr_l1": found.gap.fr_l1,
        "fr_l1_seed_layout": found.seed_layout.fr_l1,
        "text_use": found.text_use.ratio,
        "memory_std": scales.std["memory"],
        "attention_entropy": sum(entropies) / len(entropies),
        "tf_over_constant": found.gap.tf_l1 / constant,
        "fr_over_constant": found.gap.fr_l1 / constant,
        "fr_seed_layout_over_constant": found.seed_layout.fr_l1 / constant,
    }
    if trial.listen:
        measures |= listen(found, clips[0], trial.experiment.audio)
    return measures


def listen(found: ModelJudgement, clip: Clip, audio: AudioConfig) -> dict[str, float | None]:
    """STOI against copy-synthesis and word error rate of both layouts, beside the word error rate
    of copy-synthesis.
    """
    judge_sound = Judge(clip, audio)
    n_frames = len(clip.mel)
    heard = {
        "": judge_sound(found.gap.fr_mel[0, :n_frames], N_PHASES),
        "_seed_layout": judge_sound(found.seed_layout.fr_mel[0, :n_frames], N_PHASES),
    }
    measures: dict[str, float | None] = {f"stoi{suffix}": one.stoi for suffix, one in heard.items()}
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
        for step, share in zip(trajectory.share_steps, trajectory.shares, strict=True)
        # after a step that broke the model there is none, and JSON has no NaN
        if math.isfinite(share)
    ]
    return {
        "over_constant": [round(value, 4) for value in trajectory.over_constant],
        "gradient_norm": [float(f"{value:.3g}") for value in trajectory.gradient_norm],
        "share_steps": [step for step, _ in measured],
        "shares": [share for _, share in measured],
    }


def six_digits(value: float | None) -> float | None:
    """Six digits, which JSON can hold; what is not finite does not exist."""
    if value is None or not math.isfinite(value):
        return None
    return float(f"{float(value):.6g}")
