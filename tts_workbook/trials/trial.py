"""A trial: one training, frozen before it starts, named by the hash of all that decides its result.

Two trials with the same digest give the same numbers on one kind of processor with one thread: the
digest covers the experiment, the sound and the phonemes of every clip, and how batches are made of
them. It does not cover where the clips lie, so a result may be looked up on another machine.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from tts_core.config import AudioConfig, ExperimentConfig, from_dict
from tts_core.errors import WorkbookError
from tts_core.speech.dataset import Clip, with_recipe
from tts_core.speech.phonemes import Vocabulary
from tts_core.training.precision import choose_precision, training_device
from tts_workbook.corpus.reading import read_corpus


@dataclass(frozen=True)
class ClipReference:
    """One clip by its folder and id, with the digest of its content: another recording under the
    same name is noticed.
    """

    root: str  # corpus folder
    id: str
    language: str
    content: str  # 12 hex digits over recording, phonemes and durations

    @classmethod
    def of(cls, clip: Clip) -> ClipReference:
        parts = [clip.sound, *clip.phonemes, *map(str, clip.durations)]
        content = hashlib.sha256(" ".join(parts).encode()).hexdigest()[:12]
        return cls(str(clip.path.parent.parent), clip.id, clip.language, content)


@dataclass(frozen=True)
class Trial:
    """One frozen training. Build it with `make_trial`."""

    experiment: ExperimentConfig
    clips: tuple[ClipReference, ...]
    symbols: tuple[str, ...]  # of the vocabulary, in the order of their ids
    # how often the whole batch is repeated (theory 1 of the findings)
    copies: int = 1
    # None: all clips at every step; else so many, drawn anew in every epoch
    batch_size: int | None = None
    listen: bool = False  # also measure STOI and word error rate
    name: str = ""  # of its arm, by which results are grouped; not part of the digest

    def __post_init__(self) -> None:
        if not self.clips:
            raise WorkbookError("a trial needs at least one clip")
        self._require_positive("copies", self.copies)
        if self.batch_size is None:
            return
        self._require_positive("batch_size", self.batch_size)
        if self.batch_size > len(self.clips):
            raise WorkbookError(
                f"trial {self.name!r}: batch_size = {self.batch_size}, but there are only "
                f"{len(self.clips)} clips; lower it or give more clips"
            )

    def _require_positive(self, field: str, value: int) -> None:
        if value < 1:
            raise WorkbookError(f"trial {self.name!r}: {field} = {value}, but it must be 1 or more")

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @property
    def digest(self) -> str:
        """16 hex digits."""
        values = self.to_dict()
        values.pop("name")
        values["clips"] = [clip.content for clip in self.clips]
        text = json.dumps(values, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def steps(self) -> int:
        return self.experiment.fit.steps

    def absolute(self) -> Trial:
        """The same trial with folders that mean the same in a process with another current
        folder.
        """
        clips = tuple(
            dataclasses.replace(clip, root=os.path.abspath(clip.root)) for clip in self.clips
        )
        return dataclasses.replace(self, clips=clips)


def make_trial(
    clips: Sequence[Clip],
    vocabulary: Vocabulary,
    experiment: ExperimentConfig,
    *,
    copies: int = 1,
    batch_size: int | None = None,
    listen: bool = False,
    name: str = "",
) -> Trial:
    """Freeze a training of `experiment` on `clips`, which `vocabulary` must be able to encode
    (WorkbookError).

    The precision `auto` becomes that of this machine's device: frozen means that nothing is left to
    be chosen.
    """
    for clip in clips:
        vocabulary.encode(clip.phonemes)
    # a name, which FitConfig checks
    precision: Any = choose_precision(experiment.fit.precision, training_device()).name
    frozen_fit = dataclasses.replace(experiment.fit, precision=precision)
    experiment = dataclasses.replace(experiment, fit=frozen_fit)
    if experiment.model.vocab_size != vocabulary.get_vocab_size():
        raise WorkbookError(
            f"trial {name!r}: the model has vocab_size = {experiment.model.vocab_size}, but the"
            f" vocabulary has {vocabulary.get_vocab_size()} symbols; build the experiment with the"
            " vocabulary's size"
        )
    return Trial(
        experiment,
        tuple(map(ClipReference.of, clips)),
        tuple(vocabulary.symbols),
        copies,
        batch_size,
        listen,
        name,
    )


def trial_from_dict(values: dict[str, Any]) -> Trial:
    """The inverse of `Trial.to_dict`, from JSON. Raises WorkbookError for keys that it does not
    know.
    """
    known = {field.name for field in dataclasses.fields(Trial)}
    unknown = sorted(set(values) - known)
    if unknown:
        raise WorkbookError(
            f"stored trial: unknown key {', '.join(unknown)}; known keys are"
            f" {', '.join(sorted(known))}"
        )
    typed = {
        **values,
        "experiment": from_dict(ExperimentConfig, values["experiment"]),
        "clips": tuple(ClipReference(**clip) for clip in values["clips"]),
        "symbols": tuple(values["symbols"]),
    }
    return Trial(**typed)


def load_clips(trial: Trial) -> tuple[list[Clip], Vocabulary]:
    """The trial's clips in its mel recipe and its vocabulary. Raises WorkbookError where a clip is
    no longer the same.
    """
    if any(map(_differs, trial.clips, _referenced(trial))):
        # a long-lived process may hold what has been corrected since
        _load_folder.cache_clear()
    vocabulary = Vocabulary(trial.symbols)
    clips = []
    for reference, clip in zip(trial.clips, _referenced(trial), strict=True):
        if clip is None or _differs(reference, clip):
            seen = "it cannot be loaded" if clip is None else "its sound, text or alignment changed"
            raise WorkbookError(
                f"{reference.root}: clip {reference.id} is not what trial {trial.name!r} was frozen"
                f" with: {seen}; make the trial anew"
            )
        encoded = dataclasses.replace(clip, phoneme_ids=vocabulary.encode(clip.phonemes))
        clips.append(with_recipe(encoded, trial.experiment.audio))
    return clips, vocabulary


def _referenced(trial: Trial) -> list[Clip | None]:
    """What lies where the trial's clips were, None where nothing can be loaded."""
    found = []
    for one in trial.clips:
        ids = tuple(other.id for other in trial.clips if other.root == one.root)
        found.append(_load_folder(one.root, one.language, ids).get(one.id))
    return found


def _differs(reference: ClipReference, clip: Clip | None) -> bool:
    return clip is None or ClipReference.of(clip).content != reference.content


@lru_cache(maxsize=4)
def _load_folder(root: str, language: str, ids: tuple[str, ...]) -> dict[str, Clip]:
    return {clip.id: clip for clip in read_corpus(root, AudioConfig(), language, ids=ids).clips}
