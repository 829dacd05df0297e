"""The token language model with its data, losses, optimiser and step, behind the adapter.

L1 over best constant after 80 steps of clips of 1 s: 0.24 to 0.31 teacher-forced, which is what the
quantiser leaves; spoken, 0.24 to 0.4 of two clips, up to 1.0 of eight with dropout. Two clips are
known by heart: wrong text shows in the loss (2.5 times as high), hardly in what is spoken.

Shapes: B batch, N symbols, T frames, M mel bins, G bands, K codes of a band.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.tts_workbook.diagnosis.token_lm_model import (
    LONGEST,
    VOICES,
    Spoken,
    TokenLM,
    codebook_of,
)
from tests.tts_workbook.diagnosis.vits_like_data import Item, SpeechBatch, SpeechData, split
from tests.tts_workbook.diagnosis.vits_like_tts import (
    Losses,
    autocast,
    optimiser_of,
    rate_of,
    step_of,
)
from tts_core.speech.dataset import Clip
from tts_workbook.faults.planting import Setting
from tts_workbook.subject.subject import Subject

LR = {"adamw": 2e-3, "adam": 2e-3, "sgd": 0.3}
WEIGHTS = {"first": 0.1, "rest": 0.9, "guide": 0.5}
CLIP_NORM = 1.0
SLANT = 0.2  # width of the guide's diagonal, as a share of the clip


class TokenData(SpeechData):
    """The model is told the number of the speaker and the rate of speech, ln frames per symbol,
    standardised. Mels become codes by a codebook of all clips.
    """

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self.codebook = codebook_of(torch.cat([self.scale(item.mel) for item in self.items]))

    def speaker(self, clip: Clip) -> int:
        """1 to 3; 0 is nobody."""
        return 1 + sum(clip.path.parent.name.encode()) % (VOICES - 1)

    def conditioned(self, items: list[Item]) -> list[Item]:
        rates = torch.stack([self.pace(item) for item in items])
        rates = self.level(rates)
        speakers = [self.speaker(clip) for clip in self.setting.clips]
        told = []
        for item, rate, speaker in zip(items, rates, speakers, strict=True):
            conditions = {"rate": rate, "speaker": torch.tensor(speaker)}
            told.append(replace(item, conditions=conditions))
        return told

    def pace(self, item: Item) -> Tensor:
        return torch.tensor(len(item.mel) / len(item.ids)).log()

    def level(self, rates: Tensor) -> Tensor:
        return (rates - rates.mean()) / rates.std()


# --- losses ---------------------------------------------------------------------------------------


def targets_of(codes: Tensor, n_frames: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Codes (B, T, G) -> classes of the first band (B, T + 1) with the end (number K) behind the
    last frame, and of the other bands (B, T, G - 1); -100 where nothing is to be said.
    """
    filled = codes.masked_fill(~mask[..., None], -100)
    first = F.pad(filled[..., 0], (0, 1), value=-100)
    first = first.scatter(1, n_frames[:, None], END)
    return first, filled[..., 1:]


END = 32


def band_errors(spoken: Spoken, first: Tensor, rest: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy of the first band with the end, and of the others (nats)."""
    with_end = torch.cat([spoken.logits[:, :, 0], spoken.end[..., None]], dim=2).float()
    others = spoken.logits[:, :-1, 1:].float()
    return (
        F.cross_entropy(with_end.flatten(0, 1), first.flatten()),
        F.cross_entropy(others.flatten(0, 2), rest.flatten()),
    )


def guide(n_symbols: Tensor, n_frames: Tensor, like: Tensor) -> Tensor:
    """Cost (B, T + 1, N) of looking away from the diagonal (Tachibana et al. 2018)."""
    symbol = (torch.arange(like.shape[2], device=like.device) + 0.5) / n_symbols[:, None]
    frame = (torch.arange(like.shape[1], device=like.device) + 0.5) / (n_frames[:, None] + 1)
    apart = frame[:, :, None] - symbol[:, None]
    return 1 - torch.exp(-(apart**2) / (2 * SLANT**2))


def guide_error(glance: Tensor, cost: Tensor, batch: SpeechBatch) -> Tensor:
    """Mean cost of what is looked at, over valid frames."""
    symbols = glance.float() * batch.id_mask[:, None]
    spent = (symbols * cost).sum(dim=2)[:, :-1]
    return spent[batch.frame_mask].mean()


def criterion(spoken: Spoken, codes: Tensor, batch: SpeechBatch) -> dict[str, Tensor]:
    """The three terms."""
    first, rest = band_errors(spoken, *targets_of(codes, batch.n_frames, batch.frame_mask))
    cost = guide(batch.n_ids, batch.n_frames, spoken.glance)
    return {"first": first, "rest": rest, "guide": guide_error(spoken.glance, cost, batch)}


def total(terms: Mapping[str, Tensor], weights: Mapping[str, float] = WEIGHTS) -> dict[str, Tensor]:
    """The terms and what is optimised."""
    weighted = [weight * terms[name] for name, weight in weights.items()]
    return {**terms, "total": torch.stack(weighted).sum()}


def losses_of(setting: Setting) -> Losses:
    """The losses of a setting."""

    def losses(model: nn.Module, batch: SpeechBatch) -> dict[str, Tensor]:
        with autocast(setting):
            spoken = model(batch)
        return total(criterion(spoken, model.quantise(batch.mel), batch))

    return losses


# --- the adapter ----------------------------------------------------------------------------------


def fresh(setting: Setting, codebook: Tensor, kind: type[TokenLM] = TokenLM) -> TokenLM:
    model = kind(codebook, dropout=setting.dropout, tied=setting.tied)
    if setting.frozen:
        model.text.symbols.requires_grad_(False)
    return model


def build(
    setting: Setting,
    data: TokenData | None = None,
    kind: type[TokenLM] = TokenLM,
    losses: Losses | None = None,
) -> Subject:
    """The clean subject of a setting; a plant hands over other data, another kind of model or other
    losses, or replaces fields.
    """
    corpus = data or TokenData(setting)
    objective = losses or losses_of(setting)

    def make_optimizer(model: nn.Module) -> torch.optim.Optimizer:
        return optimiser_of(setting, list(model.parameters()), rate_of(setting, LR))

    def predict_mel(model: TokenLM, batch: SpeechBatch) -> Tensor:
        return model.expect(model(batch).logits[:, :-1])

    def stop(model: TokenLM, batch: SpeechBatch) -> Tensor:
        spoken = model(batch)
        return model.ended(spoken.logits, spoken.end)[:, 1:]

    @torch.no_grad()
    def generate(model: TokenLM, batch: SpeechBatch) -> Tensor:
        return model.speak(corpus.asked(batch), batch.mel.shape[1])

    @torch.no_grad()
    def continue_from(model: TokenLM, batch: SpeechBatch, history: Tensor) -> Tensor:
        return model.speak(corpus.asked(batch), history.shape[1] + 1, history)[:, -1]

    @torch.no_grad()
    def infer(model: TokenLM, batch: SpeechBatch) -> list[Tensor]:
        spoken = []
        for one in split(batch):
            asked = corpus.asked(one)
            spoken.append(model.speak(asked, LONGEST * int(asked.n_ids), stop=True)[0])
        return spoken

    return Subject(
        build_model=lambda: fresh(setting, corpus.codebook, kind),
        losses=objective,
        make_optimizer=make_optimizer,
        train_step=step_of(objective, CLIP_NORM),
        predict_mel=predict_mel,
        generate=generate,
        continue_from=continue_from,
        stop=stop,
        infer=infer,
        memory="text",
        frozen=("text.symbols",) if setting.frozen else (),
        **corpus.fields(),
    )
