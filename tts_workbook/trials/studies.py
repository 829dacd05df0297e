"""The studies behind the rulings: which arms, on which clips, with which seeds. `make evidence`
runs them and records them.

A ruling study has two clips of two voices and four seeds: eight pairs per factor, every arm
compared with the study's base under the same clip, seed, initial tensors, data order and dropout
stream.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tts_core.config import AudioConfig
from tts_core.speech.bundled import bundled_voice
from tts_core.speech.dataset import Clip
from tts_core.speech.folder import read_id_list
from tts_core.speech.phonemes import Vocabulary
from tts_workbook.corpus.reading import read_corpus
from tts_workbook.trials.dose_study import dose_arms
from tts_workbook.trials.study_arms import BREAKS, REPAIRS, THEORIES, ArmSpec, trial_of
from tts_workbook.trials.trial import Trial

# One read sentence and one telephone prompt, both decoded well by the recogniser. The findings'
# clip had 24 phonemes, 164 frames.
PAIR_CLIPS = (
    ("librivox", "sense_and_sensibility_01_austen_64kb-0930"),
    ("allison", "queue-thankyou"),
)
SMALL_CLIP = PAIR_CLIPS[1:]
N_DISTINCT = 32  # clips of a batch, as in the findings' real training
N_SINGLE = 8  # single clips of the same voice beside such a batch
MIN_CORPUS = 500  # prompts: fewer say nothing about "in real training the loss goes down"
MAX_PROMPT_SECONDS = 8.0  # of a prompt in the corpus: a batch is padded to its longest


@dataclass(frozen=True)
class Study:
    """Arms by name (the first is the base of every comparison), clips and seeds."""

    name: str
    question: str
    arms: dict[str, ArmSpec]
    clips: tuple[tuple[str, str], ...] = PAIR_CLIPS
    seeds: tuple[int, ...] = (0, 1, 2, 3)

    @property
    def base(self) -> str:
        return next(iter(self.arms))


def _breaking_arms() -> dict[str, ArmSpec]:
    """A sound model with one switch broken; without the memory norm it is also listened to."""
    return {
        name: ArmSpec("sound", changes, listen=name == "memory_norm")
        for name, changes in BREAKS.items()
    }


BOTH = {"model.memory_norm": True, "model.standardise_targets": True}
NEITHER = {"model.memory_norm": False, "model.standardise_targets": False}
_STUDIES = (
    Study(
        "theories",
        "Which of the findings' suspects matters in the findings' own configuration?",
        {"base": ArmSpec("findings"), **THEORIES},
    ),
    Study(
        "breaks",
        "Which single defect breaks a sound model?",
        {
            "base": ArmSpec("sound", listen=True),
            **_breaking_arms(),
            "memory_norm and standardise_targets": ArmSpec("sound", NEITHER),
        },
    ),
    Study(
        "repairs",
        "Which single repair mends the failing model?",
        {
            "base": ArmSpec("failing"),
            **{name: ArmSpec("failing", changes) for name, changes in REPAIRS.items()},
            "memory_norm and standardise_targets": ArmSpec("failing", BOTH),
        },
    ),
    Study(
        "seed_size",
        "Memory norm and target standardisation at the findings' own size: where does it stick?",
        {
            "base": ArmSpec("full"),
            "memory_norm": ArmSpec("full", {"model.memory_norm": True}),
            "standardise_targets": ArmSpec("full", {"model.standardise_targets": True}),
            "memory_norm and standardise_targets": ArmSpec("full", BOTH),
        },
        clips=SMALL_CLIP,
        seeds=(0, 1, 2),
    ),
    Study(
        "dose",
        "How long does the loss stay at the best-constant line, against scale, learning rate,"
        " dropout, precision?",
        dose_arms(),
        clips=SMALL_CLIP,
        seeds=(0, 1, 2),
    ),
)
STUDIES = {study.name: study for study in _STUDIES}
IN_BF16 = {"fit.precision": "bf16"}  # as the findings trained
BATCH_ARMS = {
    "single": ArmSpec("findings", IN_BF16),
    "distinct": ArmSpec("findings", IN_BF16, batch_size=N_DISTINCT, steps=300),
    "corpus": ArmSpec("findings", IN_BF16, batch_size=N_DISTINCT),
}


def study_trials(study: Study) -> Iterator[tuple[str, Trial]]:
    """(arm, trial) of a study: seed by seed, so that a run cut short leaves whole pairs."""
    for seed in study.seeds:
        for voice, clip_id in study.clips:
            corpus = read_corpus(bundled_voice(voice), AudioConfig(), only=clip_id)
            for arm, spec in study.arms.items():
                yield arm, trial_of(arm, spec, corpus.clips, corpus.vocabulary, seed)


def batch_trials(corpus_root: Path | None) -> Iterator[tuple[str, Trial]]:
    """(arm, trial) of the study of batches: single clips, 32 distinct ones at once, and a whole
    corpus where one is given.
    """
    voice, vocabulary = bundled_voice("allison"), Vocabulary.arpabet()
    sets = {
        name: load_clips_of(voice, read_id_list(voice / f"{name}.txt"))
        for name in ("train", "held_out")
    }
    for clip in sets["train"][:N_SINGLE]:
        yield "single", trial_of("single", BATCH_ARMS["single"], [clip], vocabulary, 0)
    for seed in (0, 1):
        for clips in sets.values():
            yield (
                "distinct",
                trial_of("distinct", BATCH_ARMS["distinct"], clips[:N_DISTINCT], vocabulary, seed),
            )
    if corpus_root is not None:
        clips = [
            clip
            for clip in load_clips_of(corpus_root, None)
            if len(clip.samples) <= MAX_PROMPT_SECONDS * clip.sample_rate
        ]
        for seed in (0, 1):
            yield "corpus", trial_of("corpus", BATCH_ARMS["corpus"], clips, vocabulary, seed)


def load_clips_of(root: Path, ids: list[str] | None) -> list[Clip]:
    """The usable clips of a folder in the standard recipe."""
    return read_corpus(root, AudioConfig(), ids=ids).clips
