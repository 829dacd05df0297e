"""The arms of the investigation: what is changed against which base, by name. Each arm becomes
trials over clips and seeds.

Four bases: `findings` is the failing model under the optimiser of the findings (7e-5), `failing`
the same model at a learning rate that trains it to the end within the budget, `sound` the repaired
model, `full` the failing model at the findings' own size. A change names the configuration it
belongs to: `model.memory_norm`, `optimizer.lr`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tts_core.config import SEED_LR, AudioConfig, ExperimentConfig, preset
from tts_core.errors import WorkbookError
from tts_core.speech.dataset import Clip
from tts_core.speech.phonemes import Vocabulary
from tts_workbook.trials.trial import Trial, make_trial

HEALTHY_MEMORY_STD = 1 / 13.9  # what brings the memory of width 192 without a norm to unit scale


@dataclass(frozen=True)
class Base:
    """A preset at a size."""

    preset: str
    profile: str
    steps: int
    lr: float
    precision: str = "fp32"


STUDY_BASES = {
    "findings": Base("seed", "quick", 400, SEED_LR),
    "failing": Base("seed", "quick", 250, 1e-3),
    "sound": Base("healthy", "quick", 250, 1e-3),
    "full": Base("seed", "seed", 800, SEED_LR, "bf16"),  # as the findings trained
}


@dataclass(frozen=True)
class ArmSpec:
    """One arm: `changes` against `base`; `copies` of the batch; `batch_size` clips a step out of
    all given.
    """

    base: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    copies: int = 1
    batch_size: int | None = None
    steps: int | None = None  # None: the base's
    listen: bool = False
    against: str = ""  # the arm it is compared with; empty: the study's first


def change(experiment: ExperimentConfig, changes: Mapping[str, Any]) -> ExperimentConfig:
    """The experiment with `section.field` replaced, for example `model.memory_norm`; `audio`
    replaces the whole recipe.

    Raises WorkbookError for a name that no configuration has.
    """
    for name, value in changes.items():
        if name == "audio":
            audio = AudioConfig.seed() if value == "seed" else AudioConfig()
            experiment = dataclasses.replace(experiment, audio=audio)
            continue
        section, _, key = name.partition(".")
        config: Any = getattr(experiment, section, None)
        fields = dataclasses.fields(config) if dataclasses.is_dataclass(config) else ()
        if key not in {one.name for one in fields}:
            raise WorkbookError(
                f"change {name!r}: no such field; write section.field, for example"
                " model.memory_norm"
            )
        changed: dict[str, Any] = {section: dataclasses.replace(config, **{key: value})}
        experiment = dataclasses.replace(experiment, **changed)
    return experiment


def experiment_of(spec: ArmSpec, vocab_size: int, seed: int) -> ExperimentConfig:
    """The configuration of one arm and seed."""
    base = STUDY_BASES[spec.base]
    experiment = preset(
        base.preset,
        vocab_size,
        base.profile,
        steps=spec.steps or base.steps,
        lr=base.lr,
        seed=seed,
        precision=base.precision,
    )
    return change(experiment, spec.changes)


def trial_of(
    name: str, spec: ArmSpec, clips: Sequence[Clip], vocabulary: Vocabulary, seed: int
) -> Trial:
    """The frozen trial of one arm on `clips` with `seed`."""
    experiment = experiment_of(spec, vocabulary.get_vocab_size(), seed)
    return make_trial(
        clips,
        vocabulary,
        experiment,
        copies=spec.copies,
        batch_size=spec.batch_size,
        listen=spec.listen,
        name=name,
    )


# --- repairs and breaks: every named switch, one at a time ----------------------------------------

# switches of which nobody knows in advance which side is the repair
NEITHER_WAY: dict[str, dict[str, Any]] = {
    "go_frame": {"model.go_frame": "silence"},
    "mel_input": {"model.mel_input": "prenet"},
    "mel_input_scale": {"model.mel_input_scale": 192**0.5},
    "history_dropout": {"model.history_dropout": 0.5},
    "decoder_adds_memory": {"model.decoder_adds_memory": True},
    "memory_positions": {"model.memory_positions": False},
}
REPAIRS: dict[str, dict[str, Any]] = {
    "memory_norm": {"model.memory_norm": True},
    "embedding_scale": {"model.embedding_scale": "unit"},
    "standardise_targets": {"model.standardise_targets": True},
    "mel_recipe": {"audio": "standard"},
    "memory_scale": {"model.memory_scale": HEALTHY_MEMORY_STD},
    **NEITHER_WAY,
}
BREAKS: dict[str, dict[str, Any]] = {
    "memory_norm": {"model.memory_norm": False},
    "standardise_targets": {"model.standardise_targets": False},
    "mel_recipe": {"audio": "seed"},
    "duration_initialisation": {"model.duration_initialisation": "seed_custom"},
    "learning_rate": {"optimizer.lr": SEED_LR},
    "dropout": {"model.dropout": 0.1},
    **NEITHER_WAY,
}
# What the findings suspect, each as the one thing changed in the findings' own configuration.
# Without dropout copies of the batch change no number at all (notebook 04 holds that to 1e-9), so
# theory 1 is put to the test with dropout, as it was there.
THEORIES: dict[str, ArmSpec] = {
    "dropout": ArmSpec("findings", {"model.dropout": 0.1}, steps=200),
    "theory_1_four_copies": ArmSpec(
        "findings", {"model.dropout": 0.1}, copies=4, steps=200, against="dropout"
    ),
    "theory_2_custom_initialisation": ArmSpec(
        "findings", {"model.duration_initialisation": "seed_custom"}
    ),
    "theory_3_lr_4e-4": ArmSpec("findings", {"optimizer.lr": 4e-4}),
    "theory_3_lr_5e-4": ArmSpec("findings", {"optimizer.lr": 5e-4}),
    "theory_4_no_weight_decay": ArmSpec("findings", {"optimizer.weight_decay": 0.0}),
    "theory_5_half_the_frames_hidden": ArmSpec("findings", {"model.history_dropout": 0.5}),
    "difference_no_clipping": ArmSpec("findings", {"optimizer.clip_norm": None}),
    "difference_bf16": ArmSpec("findings", {"fit.precision": "bf16"}),
    "memory_norm": ArmSpec("findings", {"model.memory_norm": True}),
}
