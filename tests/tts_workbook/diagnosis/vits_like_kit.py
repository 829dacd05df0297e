"""What the plants that both held-out architectures share must know of each."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass

from torch import Tensor, nn

from tests.tts_workbook.diagnosis.vits_like_data import SpeechBatch, SpeechData
from tests.tts_workbook.diagnosis.vits_like_tts import Losses, autocast, rate_of
from tts_workbook.faults.planting import Build, Setting
from tts_workbook.subject.subject import Subject


@dataclass(frozen=True)
class Kit:
    """An architecture as the plants see it."""

    build: Callable[..., Subject]  # (setting, data=, kind=, losses=)
    fresh: Callable[[Setting, SpeechData, type[nn.Module]], nn.Module]
    data: type[SpeechData]
    kind: type[nn.Module]
    terms: Callable[[nn.Module, SpeechBatch], dict[str, Tensor]]  # of the loss, without "total"
    weights: Mapping[str, float]  # of the terms
    main_terms: tuple[str, ...]  # those that make the mel
    parts: tuple[tuple[str, ...], ...]  # modules that a user may forget together
    rates: Mapping[str, float]  # by optimiser
    clip_norm: float

    def rate(self, setting: Setting) -> float:
        return rate_of(setting, self.rates)

    def total(self, terms: Mapping[str, Tensor], **weights: float) -> dict[str, Tensor]:
        """The terms and their weighted sum; `weights` replace some of the sound ones."""
        used = {**self.weights, **weights}
        parts = [weight * terms[name] for name, weight in used.items()]
        return {**terms, "total": sum(parts[1:], parts[0])}

    def losses(
        self,
        setting: Setting,
        change: Callable[[dict[str, Tensor]], dict[str, Tensor]] = lambda terms: terms,
        context: AbstractContextManager | None = None,
        **weights: float,
    ) -> Losses:
        """Losses whose terms go through `change`; `context` stands for the setting's autocast."""

        def losses(model: nn.Module, batch: SpeechBatch) -> dict[str, Tensor]:
            with context or autocast(setting):
                terms = self.terms(model, batch)
            return self.total(change(terms), **weights)

        return losses


Shared = Callable[[Kit, Setting], Subject]


def bound(kit: Kit, area: str, plants: Iterable[Shared]) -> dict[str, Build]:
    """Shared plants by catalogue id."""
    return {f"{area}.{plant.__name__}": functools.partial(plant, kit) for plant in plants}


def by_id(area: str, plants: Iterable[Callable[[Setting], Subject]]) -> dict[str, Build]:
    """An architecture's own plants by catalogue id."""
    return {f"{area}.{plant.__name__}": plant for plant in plants}
