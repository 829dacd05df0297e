"""A preset bound to clips, trained with its trajectory recorded, judged free-running.

An `Arm` is what notebooks compare: arms of one comparison share clip, steps, seed and (unless said)
learning rate.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tts_core.config import AudioConfig, ExperimentConfig, preset
from tts_core.errors import WorkbookError
from tts_core.metrics.free_running import Gap, measure_gap
from tts_core.metrics.text_use import TextUse, measure_text_use
from tts_core.model.tts import TTSModel, build_model
from tts_core.speech.batch import Batch, collate
from tts_core.speech.dataset import Clip, with_recipe
from tts_core.speech.phonemes import Vocabulary
from tts_core.training.checkpoint import load_model
from tts_core.training.loop import fit
from tts_core.training.precision import training_device
from tts_core.training.state import start_training
from tts_core.training.step import StepReport
from tts_workbook.measure.trajectory import Trajectory, record_trajectory


@dataclass
class Arm:
    """A preset bound to clips: the clips in the preset's own mel recipe, the batch and the model on
    one device.
    """

    name: str
    experiment: ExperimentConfig
    clips: list[Clip]
    vocabulary: Vocabulary
    batch: Batch
    model: TTSModel

    @property
    def clip(self) -> Clip:
        """The first clip, the only one of an overfit test."""
        return self.clips[0]

    @property
    def recipe(self) -> str:
        """Name of its mel recipe."""
        return "seed" if self.experiment.audio == AudioConfig.seed() else "standard"


def snapshot_plan(steps: int) -> list[int]:
    """Steps at which to keep a mel: the first, then ever later ones, and the last."""
    return sorted({1, max(1, steps // 20), max(1, steps // 8), max(1, steps // 2), steps})


def preset_experiment(
    name: str,
    vocabulary: Vocabulary,
    profile: str = "quick",
    *,
    steps: int | None = None,
    lr: float | None = None,
    seed: int = 0,
    precision: str = "auto",
    gradient_checkpointing: bool = False,
) -> ExperimentConfig:
    """The preset `name` (healthy, no_norm or seed) at the size of `profile`, for the symbols of
    `vocabulary`.

    `lr` None is the preset's own: 7e-5 for `seed`, the profile's for the others.
    """
    experiment = preset(
        name,
        vocabulary.get_vocab_size(),
        profile,
        steps=steps,
        lr=lr,
        seed=seed,
        precision=precision,
    )
    model = dataclasses.replace(experiment.model, gradient_checkpointing=gradient_checkpointing)
    return dataclasses.replace(experiment, model=model)


def build_arm(
    name: str,
    clips: Sequence[Clip],
    vocabulary: Vocabulary,
    profile: str = "quick",
    *,
    steps: int | None = None,
    lr: float | None = None,
    seed: int = 0,
    precision: str = "auto",
    gradient_checkpointing: bool = False,
    device: str | None = None,
) -> Arm:
    """The preset `name` (healthy, no_norm or seed) at the size of `profile`, fresh, over `clips`.

    `lr` None is the preset's own: 7e-5 for `seed`, the profile's for the others.
    """
    device = device or training_device()
    experiment = preset_experiment(
        name,
        vocabulary,
        profile,
        steps=steps,
        lr=lr,
        seed=seed,
        precision=precision,
        gradient_checkpointing=gradient_checkpointing,
    )
    clips = [with_recipe(clip, experiment.audio) for clip in clips]
    for clip in clips:
        if list(vocabulary.encode(clip.phonemes)) != list(clip.phoneme_ids):
            raise WorkbookError(
                f"clip {clip.id}: its ids were made with another vocabulary and would be read as"
                " other phonemes; encode all clips with one, as `several_clips` does"
            )
    mels = [clip.mel for clip in clips]
    model = build_model(experiment.model, experiment.audio, mels, seed).to(device)
    batch = collate(clips, experiment.audio.silence).to(device)
    return Arm(name, experiment, clips, vocabulary, batch, model)


def train_arm(
    arm: Arm,
    *,
    share_every: int = 10,
    snapshot_steps: Sequence[int] = (),
    checkpoint: Path | None = None,
    on_step: Callable[[int, StepReport], bool | None] | None = None,
) -> Trajectory:
    """Train `arm.model` for the experiment's steps and return what happened; `on_step` may stop it
    by returning True.

    The checkpoint carries the clip's id and the vocabulary, so that `load_model` knows what it can
    be asked to say.
    """
    trajectory, record = record_trajectory(
        arm.model, arm.batch, share_every=share_every, snapshot_steps=snapshot_steps, also=on_step
    )
    training = start_training(arm.experiment, arm.model, str(arm.batch.mel.device))
    training.notes = {
        "preset": arm.name,
        "clips": list(arm.batch.ids),
        "sounds": [clip.sound for clip in arm.clips],
        "symbols": list(arm.vocabulary.symbols),
    }
    fit(training, arm.batch, on_step=record, checkpoint=checkpoint)
    return trajectory


def load_arm(path: Path, clip: Clip, vocabulary: Vocabulary, device: str | None = None) -> Arm:
    """The arm whose checkpoint is at `path`, ready to be judged on `clip`.

    Raises WorkbookError where the checkpoint was trained on another clip or with other symbols: its
    model could not say this clip, and would be blamed for it.
    """
    loaded = load_model(path)
    asked = {"clips": [clip.id], "sounds": [clip.sound], "symbols": list(vocabulary.symbols)}
    for name, wanted in asked.items():
        if loaded.notes.get(name) != wanted:
            raise WorkbookError(
                f"{path}: trained with {name} {loaded.notes.get(name)}, wanted {wanted}; train it"
                " on this clip: tts-workbook run --only 03 with the same --data and --clip"
            )
    clip = with_recipe(clip, loaded.experiment.audio)
    device = device or training_device()
    name = loaded.notes.get("preset", path.stem)
    batch = collate([clip], loaded.experiment.audio.silence).to(device)
    return Arm(name, loaded.experiment, [clip], vocabulary, batch, loaded.model.to(device))


@dataclass(frozen=True)
class ModelJudgement:
    """How a trained arm does on its own clip, in eval mode."""

    gap: Gap  # teacher-forced and free-running in the layout of training
    seed_layout: Gap  # free-running in the seed's layout
    text_use: TextUse


def judge_model(model: TTSModel, batch: Batch, pause_id: int) -> ModelJudgement:
    """Teacher-forced, free-running in both history layouts, and text use."""
    return ModelJudgement(
        measure_gap(model, batch, "train"),
        measure_gap(model, batch, "seed"),
        measure_text_use(model, batch, pause_id),
    )


def judge_arm(arm: Arm) -> ModelJudgement:
    """`judge_model` of an arm's own model on its own clips."""
    return judge_model(arm.model, arm.batch, arm.vocabulary.pause_id)
