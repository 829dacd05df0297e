"""What a model does, before any cause is asked for: does it learn, is it sound by itself, does it
read its text? Everybody who says it, says it from here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from tts_workbook.bars import Bar
from tts_workbook.faults.finding import as_json
from tts_workbook.faults.selection import DEAF_USE, HEARD_USE, SOUND
from tts_workbook.lab.short_run import LEARNT
from tts_workbook.measure.headline import Headline

Answer = Literal["yes", "no", "not judged"]
# why an answer is as it is: the number decided, the subject lacks a part, the number is none, or
# the model has not learnt enough for the question to mean something
Reason = Literal["", "generate", "shuffle_text", "not finite", "not learnt", "not measured"]

LEARNS, SOUNDS, READS = "learns teacher-forced", "sound free-running", "reads its text"
BELOW_COPY = Bar(
    0.9,
    control="times the error of copying the previous true frame: before a model is clearly below"
    " it, it may not need the text yet",
)


@dataclass(frozen=True)
class Judged:
    """One answer."""

    answer: Answer
    value: float | None = None  # what was measured; None where nothing was
    bar: float = math.nan  # what it is judged against
    reason: Reason = ""

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "answer": self.answer,
            "value": None if self.value is None else as_json(self.value),
            "bar": as_json(self.bar),
            "reason": self.reason,
        }


NOT_MEASURED = Judged("not judged", reason="not measured")


@dataclass(frozen=True)
class State:
    """The three answers."""

    learns: Judged = NOT_MEASURED  # teacher-forced L1 over the best constant, against the gate
    sound: Judged = NOT_MEASURED  # free-running L1 over the best constant
    reads: Judged = NOT_MEASURED  # text use

    @property
    def named(self) -> Mapping[str, Judged]:
        """By what people read."""
        return {LEARNS: self.learns, SOUNDS: self.sound, READS: self.reads}

    @property
    def fails(self) -> tuple[str, ...]:
        """The questions that are answered no."""
        return tuple(name for name, judged in self.named.items() if judged.answer == "no")

    @property
    def not_judged(self) -> tuple[str, ...]:
        """The questions that are not answered."""
        return tuple(name for name, judged in self.named.items() if judged.answer == "not judged")

    @property
    def well(self) -> bool:
        """It learns, and all else that could be judged is as it should be."""
        return self.learns.answer == "yes" and not self.fails

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {name: judged.to_dict() for name, judged in self.named.items()}

    def __str__(self) -> str:
        return " · ".join(f"{name}: {said(name, judged)}" for name, judged in self.named.items())


def judge_state(numbers: Headline) -> State:
    """Pure: the answers that the numbers give."""
    return State(_learns(numbers), _sound(numbers), _reads(numbers))


def _learns(numbers: Headline) -> Judged:
    value = numbers.teacher_forced
    if not math.isfinite(value):
        return Judged("no", value, LEARNT, "not finite")
    return Judged("yes" if value < LEARNT else "no", value, LEARNT)


def _sound(numbers: Headline) -> Judged:
    value = numbers.free_running
    if value is None:
        return Judged("not judged", reason="generate")
    if not math.isfinite(value):
        return Judged("no", value, SOUND, "not finite")
    return Judged("yes" if value < SOUND else "no", value, SOUND)


def _reads(numbers: Headline) -> Judged:
    value = numbers.text_use
    if value is None:
        return Judged("not judged", reason="shuffle_text")
    if not math.isfinite(value):
        return Judged("not judged", value, DEAF_USE, "not finite")
    if not numbers.teacher_forced < LEARNT:
        return Judged("not judged", value, DEAF_USE, "not learnt")
    if value >= HEARD_USE:
        return Judged("yes", value, DEAF_USE)
    # it may not need its text yet
    if not numbers.teacher_forced < BELOW_COPY * numbers.copied:
        return Judged("not judged", value, DEAF_USE, "not learnt")
    return Judged("yes" if value >= DEAF_USE else "no", value, DEAF_USE)


# --- sentences ------------------------------------------------------------------------------------

# name -> (what the number is, how a good one lies to the bar)
NUMBERS = {
    LEARNS: ("TF {:.2f} of the best constant", "below {:g}"),
    SOUNDS: ("FR {:.2f} of the best constant", "below {:g}"),
    READS: ("text use {:.3f}", "above {:g}"),
}


def said(name: str, judged: Judged) -> str:
    """An answer with its number and its bar, or with what is missing for it."""
    number, wanted = NUMBERS[name]
    shown = "" if judged.value is None else number.format(judged.value)
    match judged.reason:
        case "generate" | "shuffle_text":
            return f"not judged, supply Subject.{judged.reason}"
        case "not measured":
            return "not judged, there was no time to train"
        case "not learnt":
            return f"not judged, it has not learnt enough ({shown})"
        case "not finite":
            return f"{judged.answer}, the prediction is not finite"
    if judged.answer == "yes":
        return f"yes ({shown})"
    return f"{judged.answer} ({shown}, wanted {wanted.format(judged.bar)})"


DIAGNOSE = "run `tts-workbook diagnose`"


def advice(numbers: Headline) -> str:
    """What the state says to do next, in one sentence."""
    state = judge_state(numbers)
    tf, copied = numbers.teacher_forced, numbers.copied
    if state.learns.reason == "not finite":
        return f"the teacher-forced prediction is not finite: {DIAGNOSE}, area precision"
    if state.learns.answer == "no":
        return (
            f"teacher-forced L1 is {tf:.2f} of the best constant (a copy of the previous frame has"
            f" {copied:.2f}): it has not learnt this clip; {DIAGNOSE}"
        )
    if state.reads.answer == "no":
        return (
            f"text use is {numbers.text_use:.2f}: the text does not matter to it; teacher-forced L1"
            f" of {tf:.2f} (a copy of the previous frame has {copied:.2f}) comes from its history;"
            f" {DIAGNOSE}"
        )
    if state.sound.answer == "no":
        return (
            f"it predicts from the true history (TF {tf:.2f}) and not from its own"
            f" (FR {numbers.free_running:.2f}): look at the generation layout and at drift;"
            f" {DIAGNOSE}"
        )
    if state.sound.answer == "not judged":
        return (
            f"teacher-forced L1 is {tf:.2f} of the best constant; supply Subject.generate: only"
            " free-running error tells the rest"
        )
    learnt = (
        f"teacher-forced {tf:.2f} and free-running {numbers.free_running:.2f} of the best constant"
    )
    if state.reads.answer == "not judged":
        reads = said(READS, state.reads)
        return f"{learnt}: it has learnt this clip; whether it reads its text is {reads}"
    return f"{learnt}, text use {numbers.text_use:.2f}: it has learnt this clip"
