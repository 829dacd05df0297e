"""The VITS-like model with its data, losses, optimiser and step, behind the workbook's adapter.

Teacher forcing is the training pass: the posterior hears the mel that the decoder says. Text shows
in the divergence and in what is spoken from the prior. L1 over best constant after 100 steps of two
clips of 1 s: 0.16 to 0.28 teacher-forced, 0.19 to 0.47 spoken (SGD up to 0.62 of four clips).

Shapes: B batch, N symbols, T frames, M mel bins, Z latent channels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

import torch
from torch import Tensor, nn

from tests.tts_workbook.diagnosis.vits_like_data import Item, SpeechBatch, SpeechData, mask_of
from tests.tts_workbook.diagnosis.vits_like_model import VOICE, Latents, LatentSpeech
from tts_workbook.faults.planting import Setting
from tts_workbook.subject.subject import Subject

LR = {"adamw": 4e-3, "adam": 4e-3, "sgd": 0.1}
WEIGHTS = {"mel": 5.0, "kl": 0.5, "frames": 0.5}
CLIP_NORM = 5.0

Losses = Callable[[nn.Module, SpeechBatch], dict[str, Tensor]]
Step = Callable[[nn.Module, torch.optim.Optimizer, SpeechBatch], dict[str, float]]
MelError = Callable[[Tensor, Tensor, Tensor], Tensor]


class VoiceData(SpeechData):
    """The model is told the voice of each clip: its mean spectrum in 16 bands, of unit variance."""

    def conditioned(self, items: list[Item]) -> list[Item]:
        return [replace(item, conditions={"voice": self.voice(item.mel)}) for item in items]

    def voice(self, mel: Tensor) -> Tensor:
        """(T, M) in ln units -> (16,)."""
        bands = mel.mean(dim=0).view(VOICE, -1).mean(dim=1)
        return self.level(bands - bands.mean())

    def level(self, bands: Tensor) -> Tensor:
        return bands / bands.square().mean().sqrt()


# --- losses ---------------------------------------------------------------------------------------


def mel_error(mel: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """L1 over valid frames: (B, T, M) twice, (B, T)."""
    return (mel.float() - target)[mask].abs().mean()


def kl_error(made: Latents, mask: Tensor) -> Tensor:
    """Nats per frame and channel that the posterior knows beyond the prior, through the flow."""
    (_, log_q), (mean_p, log_p) = made.posterior, made.prior
    gap = (made.flowed - mean_p).square() * torch.exp(-2 * log_p)
    nats = (log_p - log_q - 0.5 + 0.5 * gap).mean(dim=1) - made.log_det / log_p.shape[1]
    return nats[mask].mean()


def frames_error(log_frames: Tensor, frames: Tensor, mask: Tensor) -> Tensor:
    """Squared error of ln(1 + frames) over valid symbols."""
    return (log_frames.float() - torch.log1p(frames.float()))[mask].square().mean()


def criterion(made: Latents, batch: SpeechBatch) -> dict[str, Tensor]:
    """The three terms."""
    mask = batch.frame_mask
    return {
        "mel": mel_error(made.mel, batch.mel, mask),
        "kl": kl_error(made, mask),
        "frames": frames_error(made.log_frames, batch.frames, batch.id_mask),
    }


def total(terms: Mapping[str, Tensor], weights: Mapping[str, float] = WEIGHTS) -> dict[str, Tensor]:
    """The terms and what is optimised."""
    weighted = [weight * terms[name] for name, weight in weights.items()]
    return {**terms, "total": torch.stack(weighted).sum()}


def autocast(setting: Setting) -> AbstractContextManager:
    return torch.autocast("cpu", torch.bfloat16) if setting.bf16 else nullcontext()


def losses_of(setting: Setting) -> Losses:
    """The losses of a setting."""

    def losses(model: nn.Module, batch: SpeechBatch) -> dict[str, Tensor]:
        with autocast(setting):
            made = model(batch)
        return total(criterion(made, batch))

    return losses


# --- optimiser and step ---------------------------------------------------------------------------


def rate_of(setting: Setting, rates: Mapping[str, float] = LR) -> float:
    return rates[setting.optimizer] if setting.lr is None else setting.lr


def optimiser_of(
    setting: Setting,
    parameters: list[nn.Parameter],
    lr: float,
    weight_decay: float | None = None,
    factor: Callable[[int], float] | None = None,
) -> torch.optim.Optimizer:
    """The setting's optimiser with its warm-up; `factor` of the step multiplies the rate."""
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    decay = weight_decay or 0.0
    optimizer: torch.optim.Optimizer
    if setting.optimizer == "sgd":
        optimizer = torch.optim.SGD(trained, lr=lr, momentum=0.9, weight_decay=decay)
    elif setting.optimizer == "adam":
        optimizer = torch.optim.Adam(trained, lr=lr, weight_decay=decay)
    else:
        decay = 0.01 if weight_decay is None else weight_decay
        optimizer = torch.optim.AdamW(trained, lr=lr, weight_decay=decay)
    if setting.warmup or factor:

        def scale(step: int) -> float:
            warm = min(1.0, (step + 1) / (setting.warmup + 1))
            return warm * (factor(step) if factor else 1.0)

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, scale)
        optimizer.register_step_post_hook(lambda *_: schedule.step())
    return optimizer


def step_of(losses: Losses, clip_norm: float = CLIP_NORM) -> Step:
    """Zero, losses, backward, clip, step."""

    def step(
        model: nn.Module, optimizer: torch.optim.Optimizer, batch: SpeechBatch
    ) -> dict[str, float]:
        optimizer.zero_grad()
        terms = losses(model, batch)
        terms["total"].backward()
        nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
        optimizer.step()
        return numbers(terms)

    return step


def numbers(terms: Mapping[str, Tensor]) -> dict[str, float]:
    return {name: float(term.detach()) for name, term in terms.items()}


# --- the adapter ----------------------------------------------------------------------------------


def fresh(setting: Setting, kind: type[LatentSpeech] = LatentSpeech) -> LatentSpeech:
    model = kind(dropout=setting.dropout, tied=setting.tied)
    if setting.frozen:
        model.text.symbols.requires_grad_(False)
    return model


def build(
    setting: Setting,
    data: SpeechData | None = None,
    kind: type[LatentSpeech] = LatentSpeech,
    losses: Losses | None = None,
) -> Subject:
    """The clean subject of a setting; a plant hands over other data, another kind of model or other
    losses, or replaces fields.
    """
    corpus = data or VoiceData(setting)
    objective = losses or losses_of(setting)

    def make_optimizer(model: nn.Module) -> torch.optim.Optimizer:
        return optimiser_of(setting, list(model.parameters()), rate_of(setting))

    def predict_mel(model: LatentSpeech, batch: SpeechBatch) -> Tensor:
        return model(batch).mel

    @torch.no_grad()
    def generate(model: LatentSpeech, batch: SpeechBatch) -> Tensor:
        return model.speak(corpus.asked(batch), batch.mel.shape[1])

    @torch.no_grad()
    def infer(model: LatentSpeech, batch: SpeechBatch) -> list[Tensor]:
        asked = corpus.asked(batch)
        counts = model.count_frames(model.predict_frames(model.read(asked), asked.id_mask))
        counts = counts * mask_of(asked.n_ids, counts.shape[1])
        lengths = counts.sum(dim=1).tolist()
        mel = model.speak(replace(asked, frames=counts), max(lengths))
        return [row[:length] for row, length in zip(mel, lengths, strict=True)]

    return Subject(
        build_model=lambda: fresh(setting, kind),
        losses=objective,
        make_optimizer=make_optimizer,
        train_step=step_of(objective),
        predict_mel=predict_mel,
        generate=generate,
        infer=infer,
        memory="text",
        frozen=("text.symbols",) if setting.frozen else (),
        stochastic=("noise",),
        **corpus.fields(),
    )
