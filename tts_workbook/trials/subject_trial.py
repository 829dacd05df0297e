"""A trial of any Subject: its address, the hash of its source, and what is changed, as data.

Two trials with the same digest give the same numbers on one kind of processor with one thread, as
far as the subject's source says all: the digest covers the file that the address names and all that
it imports from its own folder, the changes, steps and seed. It does not cover where the files lie,
so a result may be looked up on another machine; nor data files, installed packages, and what
`importlib` brings in, which no reading of imports can see.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tts_core.errors import WorkbookError
from tts_workbook.lab.lab import N_JUDGED
from tts_workbook.lab.run_changes import lr_times, no_weight_decay
from tts_workbook.lab.short_run import Change
from tts_workbook.subject.addresses import absolute_address, short_address
from tts_workbook.subject.loading import hash_subject

KIND = "subject"  # of a stored trial; a preset's has none
SOURCE_DIGITS = 16  # of the source's hash


@dataclass(frozen=True)
class SubjectChanges:
    """What differs from the subject as it is; the defaults change nothing."""

    learning_rate_times: float = 1.0  # of the rate that each group has at each step
    weight_decay: float | None = None  # 0.0: none in any group; None: the subject's own

    def __post_init__(self) -> None:
        times = self.learning_rate_times
        if not (math.isfinite(times) and times > 0):
            raise WorkbookError(f"learning_rate_times = {times!r}, but it must be above zero")
        if self.weight_decay not in (None, 0.0):
            raise WorkbookError(
                f"weight_decay = {self.weight_decay!r}, but it can only be taken away (0.0) or left"
                " as it is (None)"
            )

    def to_dict(self) -> dict[str, float]:
        """What is changed: a field that changes nothing is left out."""
        changed = {}
        for one in dataclasses.fields(self):
            value = getattr(self, one.name)
            if value != one.default:
                changed[one.name] = float(value)
        return changed

    @property
    def of_the_run(self) -> tuple[Change, ...]:
        """The same as the laboratory takes it."""
        changes = []
        if self.learning_rate_times != 1.0:
            changes.append(lr_times(self.learning_rate_times))
        if self.weight_decay is not None:
            changes.append(no_weight_decay())
        return tuple(changes)

    @property
    def label(self) -> str:
        """For people: `learning rate × 10 + weight decay 0`, or `as it is`."""
        return " + ".join(change.name for change in self.of_the_run) or "as it is"


def changes_from_dict(values: dict[str, Any]) -> SubjectChanges:
    """The inverse of `SubjectChanges.to_dict`. Raises WorkbookError for keys that it does not
    know.
    """
    known = [one.name for one in dataclasses.fields(SubjectChanges)]
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise WorkbookError(
            f"unknown change {', '.join(unknown)}; known changes are {', '.join(known)}"
        )
    return SubjectChanges(**values)


@dataclass(frozen=True)
class SubjectTrial:
    """One frozen training of a subject by its own step. Build it with `make_subject_trial`."""

    address: str  # file.py:name or package.module:name
    source: str  # hash of the subject's files
    steps: int  # optimizer steps
    changes: SubjectChanges = field(default_factory=SubjectChanges)
    seed: int = 0
    name: str = ""  # of its arm, by which results are grouped; not part of the digest

    def __post_init__(self) -> None:
        if self.steps < N_JUDGED:
            raise WorkbookError(
                f"trial {self.name!r}: steps = {self.steps}, but its curve is judged {N_JUDGED}"
                " times: give it as many steps at least"
            )

    def to_dict(self) -> dict[str, Any]:
        values = dataclasses.asdict(self)
        return {"kind": KIND, **values, "changes": self.changes.to_dict()}

    @property
    def digest(self) -> str:
        """16 hex digits."""
        values = self.to_dict()
        values.pop("name")
        values["address"] = short_address(self.address)
        text = json.dumps(values, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def absolute(self) -> SubjectTrial:
        """The same trial with an address that means the same from another current folder."""
        return dataclasses.replace(self, address=absolute_address(self.address, Path.cwd()))


def make_subject_trial(
    address: str,
    steps: int,
    changes: SubjectChanges | None = None,
    *,
    seed: int = 0,
    name: str = "",
) -> SubjectTrial:
    """Freeze `steps` steps of the subject at `address` (a file against the current folder) as its
    source is now. Nothing of the subject is run.

    Raises WorkbookError where the address leads to no source file.
    """
    address = absolute_address(address, Path.cwd())
    source = subject_source(address)
    if source is None:
        raise WorkbookError(
            f"subject {address!r}: there is no such file or module here ({Path.cwd()}); write"
            " package.module:name or file.py:name"
        )
    return SubjectTrial(address, source, steps, changes or SubjectChanges(), seed, name)


def subject_trial_from_dict(values: dict[str, Any]) -> SubjectTrial:
    """The inverse of `SubjectTrial.to_dict`, from JSON. Raises WorkbookError for keys that it does
    not know.
    """
    values = {name: value for name, value in values.items() if name != "kind"}
    known = {one.name for one in dataclasses.fields(SubjectTrial)}
    unknown = sorted(set(values) - known)
    if unknown:
        raise WorkbookError(
            f"stored trial: unknown key {', '.join(unknown)}; known keys are"
            f" {', '.join(sorted(known))}"
        )
    return SubjectTrial(**{**values, "changes": changes_from_dict(values["changes"])})


def subject_source(address: str) -> str | None:
    """The hash of the source files behind `address` as they are now; None where there are none."""
    found = hash_subject(address, Path.cwd())
    return found["hash"][:SOURCE_DIGITS] if found["files"] else None


def check_source(trial: SubjectTrial) -> None:
    """Raises WorkbookError, naming the file and both hashes, where the subject is not here, or is
    not what the trial was frozen with.
    """
    place = trial.address.rpartition(":")[0]
    found = subject_source(trial.address)
    if found is None:
        raise WorkbookError(
            f"{place}: it is not here (no source instead of {trial.source}), and trial"
            f" {trial.name!r} takes its subject from it; copy or mount it here under the same path"
        )
    if found != trial.source:
        raise WorkbookError(
            f"{place}: its source (with what it imports from its folder) has the hash {found}"
            f" instead of {trial.source}, with which trial {trial.name!r} was frozen; bring the"
            " same files here, or make the trial anew"
        )
