"""The numbers above every diagnosis: teacher-forced, free-running and text use, beside their
yardsticks.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from tts_core.metrics.baselines import copy_previous_l1
from tts_core.metrics.text_use import wrong_over_right
from tts_core.model.modes import evaluating
from tts_workbook.subject.isolation import unchanged_randomness, without_dropout
from tts_workbook.subject.opened import OpenSubject
from tts_workbook.subject.subject import supplied

question = "How good is a trained subject, teacher-forced, free-running and with the wrong text?"


TF, FR = "TF L1 / best constant", "FR L1 / best constant"
COPIED = "copy of the previous frame L1 / best constant"
TEXT_USE, FRAMES = "text use", "frames generated over frames wanted"


@dataclass(frozen=True)
class Headline:
    """Of a trained model. Errors are over the best constant; None: the subject lacks the part."""

    best_constant: float  # L1, in the target's unit
    copied: float  # of repeating the previous true frame
    teacher_forced: float
    free_running: float | None = None  # over the frames that both have
    frames: float | None = None  # generated, over those wanted
    text_use: float | None = None

    def named(self) -> dict[str, float]:
        """By what people read; what is unknown is left out, the right number of frames too."""
        numbers = {
            "best constant L1": self.best_constant,
            COPIED: self.copied,
            TF: self.teacher_forced,
        }
        if self.free_running is not None:
            numbers[FR] = self.free_running
        if self.frames is not None and self.frames != 1.0:
            numbers[FRAMES] = self.frames
        if self.text_use is not None:
            numbers[TEXT_USE] = self.text_use
        return numbers


def headline(opened: OpenSubject, model: torch.nn.Module) -> Headline:
    """TF, FR, text use and their yardsticks, as far as the subject supplies the parts."""
    subject = opened.subject
    mel = generated(opened, model) if subject.generate is not None else None
    return Headline(
        best_constant=opened.best_constant,
        copied=copy_previous(opened),
        teacher_forced=opened.error(opened.predict(model, field="mel")),
        free_running=None if mel is None else opened.error(mel),
        frames=None if mel is None else mel.shape[1] / opened.target.shape[1],
        text_use=None if subject.shuffle_text is None else text_use(opened, model),
    )


def heard(opened: OpenSubject, model: torch.nn.Module) -> torch.nn.Module:
    """The model that is listened to: the trained one, or what `Subject.judged` makes of it. A
    checkpoint is listened to as it is.
    """
    judged = opened.subject.judged
    if judged is None or opened.subject.checkpoint is not None:
        return model
    return judged(model)


def generated(opened: OpenSubject, model: torch.nn.Module) -> torch.Tensor:
    """(B, T', M) free-running, eval mode, from the same random state each time. Raises SubjectError
    where the subject does not generate.
    """
    generate = supplied(opened.subject.generate, "generate")
    with unchanged_randomness(opened.seed), evaluating(model):
        return generate(model, opened.batch).detach().float()


def text_use(opened: OpenSubject, model: torch.nn.Module) -> float:
    """TF L1 with the phonemes permuted (mean of 8 seeded permutations) over TF L1 with the right
    ones; 1.0: text ignored. Raises SubjectError where the subject does not shuffle its text.
    """
    shuffle_text = supplied(opened.subject.shuffle_text, "shuffle_text")

    def misread(generator: torch.Generator) -> float:
        shuffled = shuffle_text(opened.batch, generator)
        return opened.error(opened.predict(model, shuffled, "mel"))

    with without_dropout(model):
        right = opened.error(opened.predict(model, field="mel"))
        return wrong_over_right(right, misread).ratio


def copy_previous(opened: OpenSubject) -> float:
    """L1 of repeating the previous true frame, over the best constant."""
    return copy_previous_l1(opened.target, opened.mask) / opened.best_constant
