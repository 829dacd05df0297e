"""The numbers above every diagnosis: teacher-forced, free-running and text use, beside their
yardsticks.
"""

from __future__ import annotations

import torch

from tts_core.metrics.text_use import N_PERMUTATIONS
from tts_core.model.modes import evaluating
from tts_workbook.lab.isolation import unchanged_randomness, without_dropout
from tts_workbook.lab.lab import Lab


def headline(lab: Lab) -> dict[str, float]:
    """TF, FR (over the best constant), text use and the baselines; what the subject does not supply
    is left out.

    FR is judged over the frames that both have, and its length stands beside it.
    """
    model = lab.trained
    numbers = {
        "best constant L1": lab.best_constant,
        "copy of the previous frame L1 / best constant": copy_previous(lab),
        "TF L1 / best constant": lab.error(lab.predict(model, field="mel")),
    }
    if lab.subject.generate is not None:
        mel = generated(lab, model)
        numbers["FR L1 / best constant"] = lab.error(mel)
        if mel.shape[1] != lab.target.shape[1]:
            numbers["frames generated over frames wanted"] = mel.shape[1] / lab.target.shape[1]
    if lab.subject.shuffle_text is not None:
        numbers["text use"] = text_use(lab, model)
    return numbers


def generated(lab: Lab, model: torch.nn.Module) -> torch.Tensor:
    """(B, T', M) free-running, eval mode, from the same random state each time."""
    with unchanged_randomness(lab.seed), evaluating(model):
        return lab.subject.generate(model, lab.batch).detach().float()


def text_use(lab: Lab, model: torch.nn.Module) -> float:
    """TF L1 with the phonemes permuted (mean of 8 seeded permutations) over TF L1 with the right
    ones; 1.0: text ignored.
    """
    with without_dropout(model):
        right = lab.error(lab.predict(model, field="mel"))
        wrong = [
            lab.error(
                lab.predict(
                    model,
                    lab.subject.shuffle_text(lab.batch, torch.Generator().manual_seed(seed)),
                    "mel",
                )
            )
            for seed in range(N_PERMUTATIONS)
        ]
    return sum(wrong) / len(wrong) / right


def copy_previous(lab: Lab) -> float:
    """L1 of repeating the previous true frame, over the best constant."""
    both = lab.mask[:, 1:]
    return float((lab.target[:, 1:] - lab.target[:, :-1]).abs()[both].mean()) / lab.best_constant
