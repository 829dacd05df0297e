"""What decides a training on a corpus (TrainConfig), what only decides how it is run (RunConfig),
and the flags of both.
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Sequence
from dataclasses import MISSING, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

from tts_core.config import ExperimentConfig, preset
from tts_core.errors import WorkbookError


def _flag(default: Any, meaning: str) -> Any:
    """A field with its meaning and unit, which is also the help of its flag."""
    return field(default=default, metadata={"help": meaning})


@dataclass(frozen=True)
class TrainConfig:
    """Everything but the data that decides the numbers: a run is continued with the same one
    only.
    """

    # A new field's default must be what was done before there was the field: older checkpoints are
    # taken to have it.

    preset: Literal["healthy", "no_norm", "seed"] = _flag(
        "healthy", "switches of the model and its mel recipe"
    )
    profile: Literal["smoke", "quick", "seed"] = _flag("quick", "size of the model")
    dropout: float | None = _flag(None, "share of units dropped; none: the profile's")
    history_dropout: float = _flag(
        0.0, "share of the fed-back frames hidden from the decoder, so that it must read its text"
    )
    decoder_adds_memory: bool = _flag(
        False,
        "add each frame's encoder output to the decoder's input: its text is there from the first"
        " step",
    )
    gradient_checkpointing: bool = _flag(
        False, "recompute activations in the backward pass; changes no number"
    )
    steps: int = _flag(20_000, "optimiser steps")
    batch_clips: int = _flag(
        32, "clips of one step at most, of all processes and micro-batches together"
    )
    pool_batches: int = _flag(
        50, "batches that are sorted by length together: more means less padding and less chance"
    )
    lr: float | None = _flag(None, "learning rate at the end of the warm-up; none: the profile's")
    warmup_steps: int = _flag(500, "steps over which the learning rate rises from zero")
    final_lr_share: float = _flag(
        0.05, "learning rate of the last step over the highest, on a half cosine"
    )
    weight_decay: float = _flag(0.01, "of AdamW, decoupled")
    clip_norm: float = _flag(1.0, "largest norm of the gradient")
    seed: int = _flag(0, "of weights, dropout and data order")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = _flag(
        "auto", "auto: the device's, bf16 on new CUDA, fp32 on CPU"
    )

    def __post_init__(self) -> None:
        for name in ("steps", "batch_clips", "pool_batches"):
            _require(self, name, getattr(self, name) >= 1, "1 or more")
        _require(
            self,
            "warmup_steps",
            0 <= self.warmup_steps < self.steps,
            f"0 or more, and below steps = {self.steps}",
        )
        _require(self, "final_lr_share", 0 <= self.final_lr_share <= 1, "between 0 and 1")
        _require(
            self, "lr", self.lr is None or 0 < self.lr < math.inf, "positive, for example 1e-3"
        )
        _require(self, "weight_decay", 0 <= self.weight_decay < math.inf, "zero or positive")
        _require(
            self, "clip_norm", 0 < self.clip_norm < math.inf, "finite and positive, for example 1.0"
        )
        _require(self, "seed", 0 <= self.seed < 2**31, "zero or positive, below 2**31")
        _require(self, "dropout", self.dropout is None or 0 <= self.dropout < 1, "in [0, 1)")
        _require(self, "history_dropout", 0 <= self.history_dropout <= 1, "between 0 and 1")

    def experiment(self, vocab_size: int) -> ExperimentConfig:
        """The whole configuration of model, recipe, losses and optimiser for `vocab_size`
        symbols.
        """
        base = preset(
            self.preset,
            vocab_size,
            self.profile,
            steps=self.steps,
            lr=self.lr,
            seed=self.seed,
            precision=self.precision,
        )
        model = replace(
            base.model,
            dropout=base.model.dropout if self.dropout is None else self.dropout,
            history_dropout=self.history_dropout,
            decoder_adds_memory=self.decoder_adds_memory,
            gradient_checkpointing=self.gradient_checkpointing,
        )
        optimizer = replace(
            base.optimizer, weight_decay=self.weight_decay, clip_norm=self.clip_norm
        )
        return replace(base, model=model, optimizer=optimizer)


@dataclass(frozen=True)
class RunConfig:
    """Where the data are, and how the training is run and watched: may change while the clips stay
    the same.
    """

    data: Path = field(
        metadata={"help": "corpus in LJSpeech layout: metadata.csv, wavs/, alignments/"}
    )
    language: str = _flag("auto", "of the transcripts: auto or a code such as en, ru")
    ids: Path | None = _flag(  # noqa: RUF009  # it makes a dataclasses.field
        None, "file with the ids to train on, one a line; none: train.txt of the data, else all"
    )
    held_out: Path | None = _flag(  # noqa: RUF009  # it makes a dataclasses.field
        None, "file with the ids to validate on; none: held_out.txt of the data, else some of all"
    )
    held_out_clips: int = _flag(16, "clips to hold out where no list says which")
    out: Path = _flag(  # noqa: RUF009  # it makes a dataclasses.field
        Path("runs/train"),
        "folder of checkpoint, logs and samples; a checkpoint there is continued",
    )
    cache: Path = _flag(  # noqa: RUF009  # it makes a dataclasses.field
        Path("runs/features"), "folder of computed features, shared by all runs and corpora"
    )
    device: Literal["auto", "cpu", "cuda"] = _flag("auto", "auto: cuda where there is one")
    micro_batches: int = _flag(
        1, "parts in which each process takes its share of a step: less memory, the same gradient"
    )
    workers: int = _flag(2, "processes that load ahead, for each training process; 0: none")
    threads: int | None = _flag(
        None, "CPU threads of each training process; none: torch's own choice"
    )
    log_every: int = _flag(10, "steps between two lines of train.jsonl")
    validate_every: int = _flag(1000, "steps between two validations")
    checkpoint_every: int = _flag(500, "steps between two checkpoints")
    sample_every: int = _flag(5000, "steps between two sets of audio, alignments and figures")
    validation_clips: int = _flag(16, "held-out clips to validate on, at most")
    sample_clips: int = _flag(2, "held-out clips to synthesise")
    figures: bool = _flag(
        True, "draw mels and alignments (needs the extra `notebooks`); arrays are written anyway"
    )
    tensorboard: bool = _flag(False, "write OUT/tensorboard too (needs the extra `tensorboard`)")

    def __post_init__(self) -> None:
        for name in (
            "micro_batches",
            "log_every",
            "validate_every",
            "checkpoint_every",
            "sample_every",
            "validation_clips",
            "sample_clips",
            "held_out_clips",
        ):
            _require(self, name, getattr(self, name) >= 1, "1 or more")
        _require(self, "workers", self.workers >= 0, "0 or more")
        _require(self, "threads", self.threads is None or self.threads >= 1, "1 or more")


def _require(config: Any, name: str, ok: bool, wanted: str) -> None:
    if not ok:
        raise WorkbookError(
            f"{type(config).__name__}.{name} (--{_dashed(name)}) = {getattr(config, name)!r}, but"
            f" it must be {wanted}"
        )


def _dashed(name: str) -> str:
    return name.replace("_", "-")


# --- flags ----------------------------------------------------------------------------------------


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> typing.NoReturn:
        raise WorkbookError(f"{message}; --help lists the flags with their meaning")


def _reader(kind: Any) -> Any:
    """What turns the text of a flag into a value of type `kind`; `none` is None where the type has
    it.
    """
    if not isinstance(kind, types.UnionType):
        return kind
    inner = next(part for part in typing.get_args(kind) if part is not types.NoneType)

    def read(text: str) -> Any:
        return None if text == "none" else inner(text)

    read.__name__ = inner.__name__  # argparse names it in "invalid float value"
    return read


def _add_flags(parser: _Parser, config: type) -> None:
    """One flag for each field of a configuration, with its default, its type and its meaning."""
    group = parser.add_argument_group(config.__name__, config.__doc__)
    kinds = typing.get_type_hints(config)
    for entry in dataclasses.fields(config):
        options = {"help": entry.metadata["help"]}
        if entry.default is MISSING:
            options["required"] = True
        else:
            options["default"] = entry.default
            if entry.default is not None:
                options["help"] += f" (default: {entry.default})"
        group.add_argument(f"--{_dashed(entry.name)}", **options, **_typed(kinds[entry.name]))


def _typed(kind: Any) -> dict[str, Any]:
    """How argparse reads a value of type `kind`."""
    if kind is bool:
        return {"action": argparse.BooleanOptionalAction}
    if typing.get_origin(kind) is Literal:
        return {"choices": typing.get_args(kind)}
    return {"type": _reader(kind), "metavar": "DIR" if kind is Path else "VALUE"}


def read_flags(arguments: Sequence[str] | None = None) -> tuple[TrainConfig, RunConfig]:
    """Both configurations from the command line (default: the process's own). Raises WorkbookError
    for unknown or ill-typed flags.
    """
    parser = _Parser(
        prog="python -m tts_core.training.train",
        allow_abbrev=False,
        description=(
            "Train on a corpus, in one process or under torchrun; the same command continues after"
            " a kill."
        ),
    )
    _add_flags(parser, RunConfig)
    _add_flags(parser, TrainConfig)
    values, unknown = parser.parse_known_args(arguments)
    if unknown:
        parser.error(_unknown_flag(unknown[0], list(vars(values))))
    return _build(TrainConfig, values), _build(RunConfig, values)


def _unknown_flag(given: str, names: list[str]) -> str:
    """The complaint about a flag that there is not, with the one that may have been meant."""
    flags = [f"--{_dashed(name)}" for name in names]
    near = difflib.get_close_matches(given.split("=")[0], flags, n=1)
    meant = f" (did you mean {near[0]}?)" if near else ""
    return f"there is no flag {given!r}{meant}"


Config = TypeVar("Config", TrainConfig, RunConfig)


def _build(config: type[Config], values: argparse.Namespace) -> Config:
    given = {entry.name: getattr(values, entry.name) for entry in dataclasses.fields(config)}
    return config(**given)
