"""The overfit test: one preset, one clip, trained with its trajectory recorded, judged
free-running.

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
from tts_core.speech.bundled import bundled_voice
from tts_core.speech.dataset import Clip, Corpus, with_recipe
from tts_core.speech.folder import read_id_list, scan_folder
from tts_core.speech.phonemes import Vocabulary
from tts_core.training.checkpoint import load_model
from tts_core.training.loop import fit
from tts_core.training.precision import training_device
from tts_core.training.state import start_training
from tts_core.training.step import StepReport
from tts_workbook.corpus.reading import read_corpus
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


def open_clip(root: Path | str, clip_id: str = "", language: str = "auto") -> tuple[Corpus, Clip]:
    """One clip of a folder without loading the others: `clip_id` (a unique end will do), else the
    folder's default.

    The corpus returned holds that clip alone. Without an id the first usable clip stands in for an
    unusable default.
    """
    audio = AudioConfig()
    if clip_id:
        corpus = read_corpus(root, audio, language, only=clip_id)
        return corpus, corpus.clips[0]
    folder = scan_folder(root, language)
    ids = [entry.id for entry in folder.entries]
    reasons = []
    # stable: the default first, then as listed
    for name in sorted(ids, key=lambda name: name != folder.default_id):
        try:
            corpus = read_corpus(root, audio, language, only=name)
        except WorkbookError as error:
            reasons.append(str(error))
        else:
            return corpus, corpus.clips[0]
    raise WorkbookError(
        f"{root}: no usable clip" + "".join(f"; {reason}" for reason in reasons[-5:])
    )


def several_clips(
    root: Path | str, clip: Clip, n: int, language: str = "auto"
) -> tuple[list[Clip], Vocabulary, str]:
    """Up to `n` distinct clips, `clip` first, the vocabulary that encodes them all, and where the
    others come from.

    They come from the clip's own folder; for English with fewer than `n` there, from the bundled
    training voice. Where the vocabulary depends on the clips loaded (other languages), all of them
    are encoded anew.
    """
    folders = [(Path(root), None)]
    if clip.language == "en":
        voice = bundled_voice("allison")
        folders.append((voice, read_id_list(voice / "train.txt")))
    clips, used = [clip], []
    for folder, ids in folders:
        if len(clips) < n:
            # some may be broken or known
            corpus = read_corpus(folder, AudioConfig(), language, ids=ids, limit=2 * n)
            new = _unlike(clips, corpus.clips)[: n - len(clips)]
            clips, used = clips + new, used + [corpus.name] * bool(new)
    vocabulary = Vocabulary.arpabet()
    if clip.language != "en":
        vocabulary = Vocabulary.from_symbols(
            symbol for member in clips for symbol in member.phonemes
        )
        clips = [
            dataclasses.replace(member, phoneme_ids=vocabulary.encode(member.phonemes))
            for member in clips
        ]
    return clips, vocabulary, " and ".join(used) or "nowhere: there are no others"


def _unlike(known: list[Clip], clips: list[Clip]) -> list[Clip]:
    """Those of `clips` whose sound is neither in `known` nor seen twice."""
    seen, new = {clip.sound for clip in known}, []
    for clip in clips:
        if clip.sound not in seen:
            seen.add(clip.sound)
            new.append(clip)
    return new


def snapshot_plan(steps: int) -> list[int]:
    """Steps at which to keep a mel: the first, then ever later ones, and the last."""
    return sorted({1, max(1, steps // 20), max(1, steps // 8), max(1, steps // 2), steps})


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
    experiment = preset(
        name,
        vocabulary.get_vocab_size(),
        profile,
        steps=steps,
        lr=lr,
        seed=seed,
        precision=precision,
    )
    experiment = dataclasses.replace(
        experiment,
        model=dataclasses.replace(experiment.model, gradient_checkpointing=gradient_checkpointing),
    )
    clips = [with_recipe(clip, experiment.audio) for clip in clips]
    for clip in clips:
        if list(vocabulary.encode(clip.phonemes)) != list(clip.phoneme_ids):
            raise WorkbookError(
                f"clip {clip.id}: its ids were made with another vocabulary and would be read as"
                " other phonemes; encode all clips with one, as `several_clips` does"
            )
    model = build_model(experiment.model, experiment.audio, [clip.mel for clip in clips], seed).to(
        device
    )
    return Arm(
        name,
        experiment,
        clips,
        vocabulary,
        collate(clips, experiment.audio.silence).to(device),
        model,
    )


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
    for name, wanted in (
        ("clips", [clip.id]),
        ("sounds", [clip.sound]),
        ("symbols", list(vocabulary.symbols)),
    ):
        if loaded.notes.get(name) != wanted:
            raise WorkbookError(
                f"{path}: trained with {name} {loaded.notes.get(name)}, wanted {wanted}; train it"
                " on this clip: tts-workbook run --only 03 with the same --data and --clip"
            )
    clip = with_recipe(clip, loaded.experiment.audio)
    device = device or training_device()
    return Arm(
        loaded.notes.get("preset", path.stem),
        loaded.experiment,
        [clip],
        vocabulary,
        collate([clip], loaded.experiment.audio.silence).to(device),
        loaded.model.to(device),
    )


@dataclass(frozen=True)
class Outcome:
    """How a trained arm does on its own clip, in eval mode."""

    gap: Gap  # teacher-forced and free-running in the layout of training
    seed_layout: Gap  # free-running in the seed's layout
    text_use: TextUse


def judge_model(model: TTSModel, batch: Batch, pause_id: int) -> Outcome:
    """Teacher-forced, free-running in both history layouts, and text use."""
    return Outcome(
        measure_gap(model, batch, "train"),
        measure_gap(model, batch, "seed"),
        measure_text_use(model, batch, pause_id),
    )


def judge_arm(arm: Arm) -> Outcome:
    """`judge_model` of an arm's own model on its own clips."""
    return judge_model(arm.model, arm.batch, arm.vocabulary.pause_id)
