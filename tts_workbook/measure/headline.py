"""The numbers above every diagnosis: teacher-forced, free-running and text use, beside their
yardsticks.
"""

from __future__ import annotations

import torch

from tts_core.metrics.baselines import copy_previous_l1
from tts_core.metrics.text_use import wrong_over_right
from tts_core.model.modes import evaluating
from tts_workbook.subject.isolation import unchanged_randomness, without_dropout
from tts_workbook.subject.opened import OpenSubject
from tts_workbook.subject.subject import supplied

question = "How good is a trained subject, teacher-forced, free-running and with the wrong text?"


def headline(opened: OpenSubject, model: torch.nn.Module) -> dict[str, float]:
    """Of a trained model: TF, FR (over the best constant), text use and the baselines; what the
    subject does not supply is left out.

    FR is judged over the frames that both have, and its length stands beside it.
    """
    numbers = {
        "best constant L1": opened.best_constant,
        "copy of the previous frame L1 / best constant": copy_previous(opened),
        "TF L1 / best constant": opened.error(opened.predict(model, field="mel")),
    }
    if opened.subject.generate is not None:
        mel = generated(opened, model)
        numbers["FR L1 / best constant"] = opened.error(mel)
        if mel.shape[1] != opened.target.shape[1]:
            numbers["frames generated over frames wanted"] = mel.shape[1] / opened.target.shape[1]
    if opened.subject.shuffle_text is not None:
        numbers["text use"] = text_use(opened, model)
    return numbers


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
