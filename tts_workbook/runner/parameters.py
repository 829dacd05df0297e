"""The workbook's parameters: one typed schema for every door.

Doors: the command line (`--profile`, `-p name=value`), the environment (`TTS_WORKBOOK_<NAME>`) and
the notebook's cell tagged `parameters`. A value means the same through each: text is read by the
field's own reader, so `lr=1e-3` is a float and `gradient_checkpointing=false` is False everywhere;
an unknown name or an ill-typed value is a WorkbookError before anything runs. Explicit beats
environment beats notebook cell beats default.

No settings library stands here: none reads a notebook's cell, none says in one sentence which door
a value came through, what was meant and what would be right, and an empty text that stands for the
default would have to be written against each of them.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
import math
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tts_core.config import PRESETS
from tts_core.errors import WorkbookError
from tts_workbook.subject.addresses import WANTED, absolute_address, is_address

ENVIRONMENT_PREFIX = "TTS_WORKBOOK_"
PROFILES = ("smoke", "quick", "seed")
PRECISIONS = ("auto", "fp32", "bf16", "fp16")
# as in trials/executors.py, which the command line need not load
EXECUTORS = ("auto", "inline", "workers", "dask")


# --- readers: (value, or text that stands for it) -> value; they raise ValueError(what is wanted) -


def _did_you_mean(name: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=cutoff)
    return f" (did you mean {near[0]}?)" if near else ""


def _choice(*choices: str) -> Callable[[Any], str]:
    def read(value: Any) -> str:
        if value not in choices:
            raise ValueError("one of " + ", ".join(choices) + _did_you_mean(str(value), choices))
        return value

    return read


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("text")
    return value


def _language(value: Any) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"auto|[a-z]{2,3}(-[A-Za-z0-9]+)*", value):
        raise ValueError("auto or a language code such as en or ru")
    return value


def _path(value: Any) -> str:
    if not isinstance(value, str | Path) or "\0" in str(value):
        raise ValueError("a path")
    return str(value)


def _address(value: Any) -> str:
    if isinstance(value, str) and is_address(value):
        return value
    raise ValueError(WANTED)


def _subjects(value: Any) -> str:
    """Addresses and names of presets with commas between, without spaces."""
    wanted = f"{', '.join(PRESETS)} or {WANTED}, several with commas between"
    if not isinstance(value, str):
        raise ValueError(wanted)
    names = [name.strip() for name in value.split(",")]
    if not all(name in PRESETS or is_address(name) for name in names):
        raise ValueError(wanted)
    if len(set(names)) < len(names):
        raise ValueError("each subject once")
    return ",".join(names)


def _scheduler(value: Any) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"([a-z]+://)?[^\s/]+:\d+", value):
        raise ValueError("the address of a Dask scheduler, for example tcp://10.0.0.5:8786")
    return value


def _integer(minimum: int) -> Callable[[Any], int]:
    def read(value: Any) -> int:
        if isinstance(value, str) and re.fullmatch(r"\s*[+-]?\d{1,18}\s*", value):
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
            raise ValueError(f"a whole number, at least {minimum}, for example {max(minimum, 500)}")
        return value

    return read


def _positive_float(value: Any) -> float:
    wanted = "a finite number above zero, for example 1e-3"
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(wanted)
    try:
        number = float(value)
    except ValueError:
        raise ValueError(wanted) from None
    if not math.isfinite(number) or number <= 0:
        raise ValueError(wanted)
    return number


def _boolean(value: Any) -> bool:
    words = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    word = ""
    if isinstance(value, str):
        word = value.strip().lower()
    elif isinstance(value, bool | int):
        word = str(int(value))
    if word not in words:
        raise ValueError("true or false (also 1, 0, yes, no)")
    return words[word]


@dataclass(frozen=True)
class Field:
    """What the doors know of one parameter."""

    name: str
    read: Callable[[Any], Any]
    # what an empty or absent value stands for; "" for paths, which depend on the door
    default: Any
    help: str  # one line with the unit
    option: str = ""  # what its own option of the command takes, in capitals; "": -p alone
    is_path: bool = False
    # False: what it points to has a hash of its own (data), or does not matter (out)
    in_key: bool = True
    of_presets: bool = False  # a subject brings its own


def _parameter(read: Callable[[Any], Any], default: Any, help: str, **facts: Any) -> Any:
    """A field of `Parameters` that carries what its `Field` is made of."""
    schema = {"read": read, "default": default, "help": help, **facts}
    return dataclasses.field(default=default, metadata=schema)


def _place(help: str) -> dict[str, Any]:
    """The schema of a folder that has to be settled before there are `Parameters`."""
    return {
        "read": _path,
        "default": "",
        "help": help,
        "option": "DIR",
        "is_path": True,
        "in_key": False,
    }


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """Every parameter, checked; paths are absolute. This is the schema: `FIELDS` is read off it."""

    profile: str = _parameter(
        _choice(*PROFILES),
        "quick",
        "size and budget: smoke (seconds), quick (minutes), seed (the findings' size)",
        option="|".join(PROFILES),
    )
    data: Path = dataclasses.field(
        metadata={
            **_place("folder in LJSpeech layout; default: the bundled data_samples/librivox"),
            "of_presets": True,
        }
    )
    clip: str = _parameter(
        _text,
        "",
        "id of the clip, or a unique end of it; default: the corpus default",
        option="ID",
        of_presets=True,
    )
    out: Path = dataclasses.field(
        metadata=_place("run folder; default: runs/latest, in JupyterLab runs/lab")
    )
    seed: int = _parameter(_integer(0), 0, "of weights, dropout and data order")
    steps: int | None = _parameter(_integer(1), None, "optimiser steps; default: the profile's")
    lr: float | None = _parameter(
        _positive_float, None, "learning rate; default: the profile's", of_presets=True
    )
    precision: str = _parameter(
        _choice(*PRECISIONS), "auto", "auto, fp32, bf16 or fp16", of_presets=True
    )
    gradient_checkpointing: bool = _parameter(
        _boolean, False, "recompute activations in the backward pass", of_presets=True
    )
    threads: int | None = _parameter(
        _integer(1),
        None,
        "CPU threads; default: torch's own choice. The count changes the last bits",
    )
    language: str = _parameter(
        _language, "auto", "of the transcripts: auto or a code such as en, ru", of_presets=True
    )
    executor: str = _parameter(
        _choice(*EXECUTORS),
        "auto",
        "where the trials of a sweep run: inline (one after the other), workers (one-thread"
        " processes side by side), dask (Dask distributed), auto. The numbers are the same",
        option="|".join(EXECUTORS),
        in_key=False,
        of_presets=True,
    )
    scheduler: str = _parameter(
        _scheduler,
        "",
        "with executor dask: address of its scheduler; default: a cluster on this machine",
        option="ADDRESS",
        in_key=False,
        of_presets=True,
    )
    vocoder: str = _parameter(
        _path,
        "",
        "folder of a Vocos checkpoint (config.yaml, *.safetensors) for notebook 07 to listen"
        " through beside Griffin-Lim; default: none",
        is_path=True,
        of_presets=True,
    )
    subject: str = _parameter(
        _address,
        "",
        f"your own model, {WANTED}: the notebooks that take it then study that; default: our"
        " presets",
        option="pkg.module:name",
    )
    subjects: str = _parameter(
        _subjects,
        "",
        "what is studied side by side, with commas between: presets (healthy, no_norm, seed)"
        f" and models of yours ({WANTED}); default: the notebook's presets",
    )

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, in the order of the schema."""
        values = {name: getattr(self, name) for name in FIELDS}
        return {
            name: str(value) if FIELDS[name].is_path else value for name, value in values.items()
        }

    @property
    def digest(self) -> str:
        """Hash of what decides the numbers (the data has a hash of its own), 12 hex digits."""
        values = {name: value for name, value in self.to_dict().items() if FIELDS[name].in_key}
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:12]


FIELDS = {
    field.name: Field(name=field.name, **field.metadata) for field in dataclasses.fields(Parameters)
}


def read_value(name: str, value: Any, where: str) -> Any:
    """`value` in the type of field `name`; an empty text (and None) is the field's default. Raises
    WorkbookError.
    """
    field = FIELDS.get(name)
    if field is None:
        hint = _did_you_mean(name, FIELDS, cutoff=0.5)
        raise WorkbookError(
            f"{where}: there is no parameter {name!r}{hint}; there are {', '.join(FIELDS)}"
        )
    text = value.strip().lower() if isinstance(value, str) else None
    if value is None or text == "" or (text == "none" and field.default is None):
        return field.default
    try:
        return field.read(value)
    except ValueError as error:
        raise WorkbookError(f"{where}: {name} = {value!r}, but it must be {error}") from None


def read_assignments(pairs: list[str], where: str = "-p") -> dict[str, str]:
    """`["lr=1e-3", ...]` -> {"lr": "1e-3"}; names are checked, and giving one twice is an error."""
    values: dict[str, str] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name.strip():
            raise WorkbookError(f"{where} {pair!r}: write name=value, for example {where} lr=1e-3")
        name = name.strip()
        read_value(name, text, f"{where} {pair}")
        if name in values:
            raise WorkbookError(
                f"{where}: {name} is given twice, as {values[name]!r} and {text!r}; keep one"
            )
        values[name] = text
    return values


def read_given(
    explicit: Mapping[str, Any], environment: Mapping[str, str], base: Path
) -> dict[str, Any]:
    """What the caller said, typed: explicit values, then `TTS_WORKBOOK_<NAME>`; paths resolve
    against `base`.

    Only names that were given (and not left empty) are in the result, so that a notebook's own
    default can follow.
    """
    given: dict[str, Any] = {}
    for key, text in environment.items():
        if key.startswith(ENVIRONMENT_PREFIX):
            name = key.removeprefix(ENVIRONMENT_PREFIX).lower()
            value = read_value(name, text, f"environment variable {key}")
            if text.strip():
                given[name] = value
    for name, value in explicit.items():
        typed = read_value(name, value, "command line")
        if value is not None and str(value).strip():
            given[name] = typed
    return {name: _placed(name, value, base) for name, value in given.items()}


def settle(
    given: Mapping[str, Any], cell: Mapping[str, Any], default_out: Path, base: Path, where: str
) -> Parameters:
    """The parameters of one notebook: what was given, else what its cell says, else the schema's
    default.

    `base` resolves relative paths of the cell. Raises WorkbookError naming `where` for an unknown
    or ill-typed value.
    """
    values = {name: field.default for name, field in FIELDS.items()}
    values |= {name: read_value(name, value, where) for name, value in cell.items()}
    values |= given
    values["data"] = _resolve(values["data"], base) if values["data"] else bundled_data()
    values["out"] = _resolve(values["out"], base) if values["out"] else default_out
    values |= {
        name: _placed(name, values[name], base) for name in ("vocoder", "subject", "subjects")
    }
    if values["scheduler"] and values["executor"] != "dask":
        raise WorkbookError(
            f"{where}: scheduler = {values['scheduler']!r} goes with executor = 'dask' alone, but"
            f" executor is {values['executor']!r}"
        )
    return Parameters(**values)


def settle_in_notebook(cell: Mapping[str, Any], environment: Mapping[str, str]) -> Parameters:
    """For JupyterLab and nbval: a cell value that is not the default wins, else the environment,
    else the default.

    Relative paths resolve against the repository root, wherever the kernel was started.
    """
    root = repository_root()
    where = "the notebook's parameters cell"
    changed = {
        name: value
        for name, value in cell.items()
        if read_value(name, value, where) != FIELDS[name].default
    }
    given = {**read_given({}, environment, root), **read_given(changed, {}, root)}
    return settle(given, {}, root / "runs" / "lab", root, where)


def repository_root() -> Path:
    """The checkout that holds this package; the current folder when the package was installed
    without one.
    """
    root = Path(__file__).resolve().parents[2]
    return root if (root / "notebooks").is_dir() else Path.cwd()


def bundled_data() -> Path:
    """The folder of the voice that comes with the repository."""
    return repository_root() / "data_samples" / "librivox"


def _placed(name: str, value: Any, base: Path) -> Any:
    """A path, or the file in a subject's address, made absolute; any other value as it is."""
    if not value:
        return value
    if name == "subject":
        return absolute_address(value, base)
    if name == "subjects":
        return ",".join(absolute_address(one, base) for one in value.split(","))
    return str(_resolve(value, base)) if FIELDS[name].is_path else value


def _resolve(path: str | Path, base: Path) -> Path:
    """Absolute, without following links; a leading ~/ is the home folder."""
    return Path(os.path.abspath(base / os.path.expanduser(path)))
