"""What the studies share: the subject in its laboratory, how long it may train, and how findings
become a verdict.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from tts_workbook.lab.lab import N_JUDGED, Lab
from tts_workbook.lab.short_run import Change, Course
from tts_workbook.runner.notebook import Item, Notebook
from tts_workbook.subject.addresses import short_address
from tts_workbook.subject.isolation import unchanged_randomness
from tts_workbook.subject.loading import load_subject
from tts_workbook.subject.subject import Subject, check_subject

# profile -> budget of the laboratory
BUDGETS = {"smoke": "fast", "quick": "fast", "seed": "full"}
# of a training in profile smoke; others take what their budget's seconds allow
SMOKE_STEPS = 24
SUPPLY = {  # part of a subject -> what it has to be
    "generate": "(model, batch) -> (B, T', M), free-running",
    "shuffle_text": "(batch, generator) -> the batch with its phonemes permuted",
    "duplicate": "(batch, k) -> the batch with every clip k times",
    "pad": "(batch, n) -> the same clips with n more padded frames",
    "continue_from": (
        "(model, batch, history (B, t, M)) -> (B, M), frame t by the code path that generation uses"
    ),
    "audio": "(batch) -> (samples, Hz) of each clip",
    "vocode": "(mel (T, M) in target units) -> (samples, Hz)",
    "infer": "(model, batch) -> mels (T', M) at lengths of their own, one per clip",
}
Answer = TypeVar("Answer")


class StudyLab(Lab):
    """A laboratory whose trainings show how far they are, and log their curve."""

    def __init__(self, book: Notebook, subject: Subject, seed: int) -> None:
        p = book.parameters
        steps = p.steps or (SMOKE_STEPS if p.profile == "smoke" else None)
        super().__init__(subject, BUDGETS[p.profile], seed, self._log, steps)
        self.book = book

    def _run(
        self, changes: tuple[Change, ...], seed: int, n_steps: int, judged: int = N_JUDGED
    ) -> Course:
        if judged < N_JUDGED:  # a look at the pace
            return super()._run(changes, seed, n_steps, judged)
        label = f"training, {' + '.join(change.name for change in changes) or 'as it is'}"
        with self.book.progress(n_steps, label) as shown:
            watch = Change("watched", before_step=lambda number, *_: shown.update(number))
            return super()._run((*changes, watch), seed, n_steps, judged)

    def _log(self, name: str, course: Course) -> None:
        for step, value in zip(course.steps, course.tf):
            if math.isfinite(value):
                self.book.log_metrics({"run": name, "step": step, "tf_over_constant": value})


@dataclass(frozen=True)
class Verdict:
    """What a study found: an answer in sentences, numbers, and the claims that were put to the
    test.
    """

    answer: str
    metrics: Mapping[str, float] = field(default_factory=dict)
    items: tuple[Item, ...] = ()


@dataclass(frozen=True)
class Study:
    """A subject as one notebook studies it."""

    book: Notebook
    address: str
    subject: Subject
    lab: StudyLab

    @property
    def name(self) -> str:
        """The address without folders."""
        return short_address(self.address)

    @property
    def smoke(self) -> bool:
        return self.book.parameters.profile == "smoke"

    @property
    def where(self) -> str:
        """Where the numbers come from."""
        return (
            f"notebook {self.book.number}, {self.name}, profile {self.book.parameters.profile},"
            f" seed {self.lab.seed}"
        )

    def randomness(self) -> AbstractContextManager:
        """Random states inside start from the seed, and come out as they went in."""
        return unchanged_randomness(self.lab.seed)

    def missing(self, *fields: str) -> str:
        """What to supply of `fields`; empty where the subject has them all."""
        absent = [name for name in fields if not self.subject.has(name)]
        return (
            ""
            if not absent
            else "not applicable: supply "
            + " and ".join(f"Subject.{name} = {SUPPLY[name]}" for name in absent)
        )

    def item(self, id: str, claim: str, verdict: str, refuting: str, **facts: Any) -> Item:
        """An item of this run; `facts` may replace n, what was repeated, and the provenance."""
        facts = {"n": 1, "unit_of_replication": "seed", "provenance": self.where, **facts}
        facts |= {name: None for name in ("effect", "threshold") if not _finite(facts.get(name))}
        return Item(id=id, claim=claim, verdict=verdict, refuting_experiment=refuting, **facts)

    def absent_item(self, id: str, claim: str, *fields: str) -> Item:
        """The item of an experiment for which the subject lacks one of `fields` or more."""
        reason, absent = (
            self.missing(*fields),
            [name for name in fields if not self.subject.has(name)],
        )
        print(f"{id}: {reason}")
        return self.item(
            id,
            claim,
            "undecided",
            f"the experiment itself, with Subject.{' and Subject.'.join(absent)}",
            n=0,
            provenance=reason,
        )

    def unmeasured(self, id: str, claim: str, reason: str) -> Item:
        """The item of an experiment that could not be made to its end."""
        return self.item(
            id,
            claim,
            "undecided",
            "the experiment, once the subject's code allows it",
            n=0,
            provenance=reason,
        )

    def attempt(self, ask: Callable[[], Answer]) -> tuple[Answer | None, str]:
        """(what `ask` returns, ""), or (None, what was raised): the subject's code may raise
        anything, and the rest goes on.
        """
        try:
            return ask(), ""
        except Exception as error:
            reason = f"could not be measured: {type(error).__name__}: {error}"
            print(reason)
            return None, reason

    def conclude(self, found: Verdict) -> None:
        """Print the answer and write the verdict; numbers that are not finite are left out."""
        print(f"\n{found.answer}")
        metrics = {
            metric_name(name): value for name, value in found.metrics.items() if _finite(value)
        }
        self.book.verdict(f"{self.name}: {found.answer}", metrics, list(found.items))


def open_study(book: Notebook, address: str, seed: int | None = None) -> Study:
    """The subject at `address`, loaded from the working folder; the runner has checked its parts, a
    reader's kernel has not.
    """
    subject = load_subject(address)
    lab = StudyLab(book, subject, book.parameters.seed if seed is None else seed)
    if not book.under_runner:
        with unchanged_randomness(lab.seed):
            check_subject(lab.subject)
    return Study(book, address, subject, lab)


def metric_name(text: str) -> str:
    """`text` as letters, digits and underscores."""
    return re.sub(r"\W+", "_", text.replace("×", "x"), flags=re.ASCII).strip("_")


def _finite(value: Any) -> bool:
    return value is not None and math.isfinite(value)
