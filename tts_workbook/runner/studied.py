"""The subjects of a notebook, opened by one function: presets over the clips of the data folder,
any other by its address; and measurements of each that say what is missing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from tts_core.config import PRESETS
from tts_core.errors import WorkbookError
from tts_core.speech.dataset import Clip
from tts_core.speech.phonemes import Vocabulary
from tts_core.training.precision import training_device
from tts_workbook.lab.lab import Lab
from tts_workbook.runner.notebook import Notebook
from tts_workbook.runner.parameters import Parameters
from tts_workbook.subject.addresses import short_address
from tts_workbook.subject.isolation import unchanged_randomness
from tts_workbook.subject.loading import load_subject
from tts_workbook.subject.opened import OpenSubject
from tts_workbook.subject.presets import PresetSubject, preset_subject
from tts_workbook.subject.subject import check_subject
from tts_workbook.trials.clip_choice import open_clip, several_clips
from tts_workbook.trials.preset_arm import preset_experiment
from tts_workbook.trials.subject_sweep import subject_sweep_trials
from tts_workbook.trials.subject_trial import SubjectChanges, SubjectTrial

# profile -> budget of the laboratory
BUDGETS = {"smoke": "fast", "quick": "fast", "seed": "full"}
# of a training of a model of the user's in profile smoke; otherwise the budget's seconds decide
SMOKE_STEPS = 24

Value = TypeVar("Value")


class Measured(dict[str, Value]):
    """Name of a subject -> what was measured of it; `lacking` says why the others are absent."""

    def __init__(self) -> None:
        super().__init__()
        self.lacking: dict[str, str] = {}


@dataclass(frozen=True)
class Studied:
    """What a notebook shows side by side, by name: presets by theirs, others by their address
    without its folder.
    """

    parameters: Parameters
    subjects: Mapping[str, Lab]
    clips: Sequence[Clip]  # distinct ones for the presets, the chosen one first; may be empty
    vocabulary: Vocabulary | None  # that encodes them; None without presets
    addresses: Mapping[str, str]  # of the models of the user's
    folder: Path  # where the command was started: their modules and files are looked for there

    @property
    def presets(self) -> dict[str, Lab]:
        """Those among the subjects that are the workbook's own."""
        return {name: one for name, one in self.subjects.items() if is_preset(one)}

    @property
    def others(self) -> dict[str, Lab]:
        """Models of the user's."""
        return {name: one for name, one in self.subjects.items() if not is_preset(one)}

    def name_of(self, opened: OpenSubject) -> str:
        """Under which name a subject is shown."""
        return next(name for name, one in self.subjects.items() if one is opened)

    @property
    def where(self) -> str:
        """What the numbers were measured on, for the provenance of an item."""
        p = self.parameters
        on = [*(clip.id for clip in self.clips[:1]), *self.others]
        return f"{', '.join(on)}, profile {p.profile}, seed {p.seed}"

    def at_home(self) -> AbstractContextManager[None]:
        """Inside, the working folder is that of the command."""
        return contextlib.chdir(self.folder)

    def sweep_trials(self, name: str, cells: Sequence[SubjectChanges]) -> list[SubjectTrial]:
        """One frozen trial of a model of the user's per cell, as many steps as its laboratory
        allows.
        """
        steps, seed = self.subjects[name].n_steps, self.parameters.seed
        with self.at_home():
            return subject_sweep_trials(self.addresses[name], cells, steps, seed)

    def over(self, clips: Sequence[Clip], *names: str, **changes: Any) -> dict[str, Lab]:
        """Presets over other clips, all of them the batch: those of the study, or `names`;
        `changes` replaces parameters such as the seed.
        """
        wanted = names or tuple(self.presets)
        if not wanted:
            return {}
        return {
            name: open_preset(name, self.parameters, clips, self.vocabulary, **changes)
            for name in wanted
        }


def is_preset(opened: OpenSubject) -> bool:
    """Whether it is the workbook's own model under the workbook's own step."""
    return isinstance(opened.subject, PresetSubject)


def open_subjects(book: Notebook, presets: Sequence[str], n_clips: int = 1) -> Studied:
    """What the parameter `subjects` names, or `presets`, in that order.

    Presets are built at the size of the profile over the chosen clip, with up to `n_clips` distinct
    ones at hand; what their folder warns of is printed. Other subjects bring their own batch; their
    code runs in the folder where the command was started. Raises WorkbookError for an address that
    leads nowhere, SubjectError for a part that is not what it should be.
    """
    p = book.parameters
    names = p.subjects.split(",") if p.subjects else list(presets)
    clips: list[Clip] = []
    vocabulary = None
    if any(name in PRESETS for name in names):
        corpus, clip = open_clip(p.data, p.clip, p.language)
        book.alignment = clip.alignment
        for warning in corpus.warnings:
            print("WARNING:", warning)
        clips, vocabulary = [clip], corpus.vocabulary
        print(f"presets on one clip: {clip.id}")
        if n_clips > 1:
            clips, vocabulary, source = several_clips(p.data, clip, n_clips, p.language)
            print(f"{len(clips)} distinct clips from {source}")
    subjects: dict[str, Lab] = {}
    for name in names:
        if name in PRESETS:
            subjects[name] = open_preset(name, p, clips[:1], vocabulary)
        else:
            subjects[short_address(name)] = open_address(book, name)
    for name, opened in subjects.items():
        n_weights = sum(parameter.numel() for parameter in opened.model.parameters())
        n_frames = int(opened.lengths.sum())
        print(f"{name}: {n_weights:,} weights, {n_frames} valid frames")
    addresses = {short_address(name): name for name in names if name not in PRESETS}
    return Studied(p, subjects, clips, vocabulary, addresses, book.started_in)


def open_preset(
    name: str,
    parameters: Parameters,
    clips: Sequence[Clip],
    vocabulary: Vocabulary | None,
    **changes: Any,
) -> Lab:
    """The preset over `clips`, all of them its batch; `changes` replaces parameters."""
    if vocabulary is None:
        raise WorkbookError(f"preset {name}: its clips were not opened")
    options = {
        "profile": parameters.profile,
        "steps": parameters.steps,
        "lr": parameters.lr,
        "seed": parameters.seed,
        "precision": parameters.precision,
        "gradient_checkpointing": parameters.gradient_checkpointing,
        **changes,
    }
    experiment = preset_experiment(name, vocabulary, **options)
    subject = preset_subject(experiment, clips, batch_size=len(clips), device=training_device())
    return Lab(subject, BUDGETS[options["profile"]], options["seed"])


def open_address(book: Notebook, address: str) -> Lab:
    """A model of the user's. The runner has checked its parts, a reader's kernel has not."""
    p = book.parameters
    with contextlib.chdir(book.started_in):
        subject = load_subject(address)
        steps = p.steps or (SMOKE_STEPS if p.profile == "smoke" else None)
        lab = Lab(subject, BUDGETS[p.profile], p.seed, steps=steps)
        if not book.under_runner:
            with unchanged_randomness(lab.seed):
                check_subject(lab.subject)
    return lab


def measure_each(
    subjects: Mapping[str, Lab], measure: Callable[[Lab], Value], what: str
) -> Measured[Value]:
    """Name -> what `measure` gives. A subject that cannot give it is told with what to supply, and
    is not in the result: "NAME: WHAT: not judged: supply …".

    The code of a model of the user's may raise anything, which is told too, and the rest goes on;
    that a preset raises is an error of ours.
    """
    found: Measured[Value] = Measured()
    for name, opened in subjects.items():
        try:
            found[name] = measure(opened)
        except WorkbookError as reason:
            found.lacking[name] = str(reason)
        except Exception as error:
            if is_preset(opened):
                raise
            found.lacking[name] = f"{type(error).__name__}: {error}"
        if name in found.lacking:
            print(f"{name}: {what}: not judged: {found.lacking[name]}")
    return found
