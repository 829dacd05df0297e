"""Faults of the GRU subject that the catalogue got once the model was held out no longer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

from benchmarks.planted.gru_twin import SYMBOLS, adapt, losses_of, mask_of
from benchmarks.planted.plants import generic_plants
from tts_workbook.faults.planting import Setting
from tts_workbook.subject.subject import Subject, supplied


def front_end(setting: Setting) -> Subject:
    """Generation numbers the characters in another order (drawn)."""
    subject = adapt(setting)
    order = torch.randperm(len(SYMBOLS) - 1, generator=torch.Generator().manual_seed(setting.seed))
    table = torch.cat([torch.zeros(1, dtype=torch.long), 1 + order])

    def of_other_ids(part: Callable) -> Callable:
        def generating(model: nn.Module, batch: dict, *rest: Tensor):
            return part(model, batch | {"txt": table[batch["txt"]]}, *rest)

        return generating

    return replace(
        subject,
        generate=of_other_ids(supplied(subject.generate, "generate")),
        continue_from=of_other_ids(supplied(subject.continue_from, "continue_from")),
        infer=of_other_ids(supplied(subject.infer, "infer")),
    )


def half_range(setting: Setting) -> Subject:
    """A distance of frame norms in fp16 with 1e-9 under the root, which rounds to zero: at padded
    frames the root has no gradient.
    """
    setting = replace(setting, bf16=False)

    def losses(model: nn.Module, batch: dict) -> dict[str, Tensor]:
        terms = losses_of(setting, model, batch)
        mask = mask_of(batch["mel_len"], batch["mels"].shape[2])

        def norms(mels: Tensor) -> Tensor:
            valid = (mels * mask[:, None]).half()
            return (valid.square().mean(dim=1) + 1e-9).sqrt()

        off = (norms(model(batch)["mels"]) - norms(batch["mels"])).abs()
        norm = off[mask].float().mean()
        return terms | {"norm": norm, "total": terms["total"] + norm}

    return adapt(setting, losses=losses)


LATER = {
    **generic_plants(adapt, only=("loop.mode_not_restored", "optimizer.schedule")),
    "data.front_end": front_end,
    "precision.half_range": half_range,
}

NONSENSE = {
    "data.conditioning": "nothing but the text is handed to the model beside its history",
    "data.side_input": "characters and whole numbers of frames go in: they are always finite",
    "loss.auxiliary_geometry": "no term of its losses guides the attention",
}
