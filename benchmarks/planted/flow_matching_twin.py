"""A small Matcha-TTS as a clean Subject: a text encoder whose projection, expanded by durations, is
the prior, and a conditional flow from noise to mel (Mehta et al. 2024), for several speakers.

It has no history and no stop head. What it is handed beside the text is a vector for the speaker.
The duration predictor reads the encoder without moving it, as published. `predict_mel` integrates
the flow from noise that is the same for a clip whatever it is padded to; the loss draws its noise
with the padded shape, as published.

Overfit of the clean twin, clips of 0.7 s, L1 over best constant (text use 3.0): two clips with
AdamW 0.41 after 120 steps; after 160 one clip with Adam and dropout 0.2 0.45, tied and with SGD
0.47. The gate of 0.5 is passed between steps 70 and 130. What is left is the flow's own noise: four
steps of integration from a temperature of 0.667. A diagnosis of 140 steps takes 7 to 20 s of one
core.

Shapes: B batch, N phonemes, T frames, M mel bins, D width, S speaker vector. Targets are
standardised per bin.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.planted.side_inputs import (
    SPEAKER_WIDTH,
    SpeakerBatch,
    carrying,
    speaker_vector,
    with_speakers,
)
from benchmarks.planted.transformer_blocks import (
    LONGEST,
    Block,
    Positions,
    Predictor,
    one_by_one,
    regulate,
    whole_frames,
)
from benchmarks.planted.twin_training import autocast, make_optimizer
from tts_core.model.modes import evaluating
from tts_core.speech.batch import lengths_to_mask
from tts_core.speech.dataset import Clip
from tts_core.speech.phonemes import Vocabulary
from tts_workbook.faults.planting import Setting
from tts_workbook.subject.clip_batch import ClipBatch
from tts_workbook.subject.clip_data import ClipData, Parts, clipped_step
from tts_workbook.subject.subject import Subject

WIDTH = 64
N_MELS = 80
TIME_WIDTH = 64
N_STEPS = 4  # of the integration
N_DRAWS = 4  # times of the flow that one step trains for each clip
TEMPERATURE = 0.667  # of the noise that generation starts from
LEARNING_RATES = {"adamw": 5e-3, "adam": 5e-3, "sgd": 0.5}

Noise = Callable[[Tensor], Tensor]  # prior (B, T, M) -> noise of its shape


def embedded_time(t: Tensor) -> Tensor:
    """(B,) in 0 … 1 -> (B, 64) sines and cosines."""
    rates = torch.exp(torch.linspace(0, 5, TIME_WIDTH // 2))
    angles = t[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1)


class ResidualLayer(nn.Module):
    """A gated, dilated convolution that is told the time (as in WaveNet): (B, D, T) -> (B, D,
    T).
    """

    def __init__(self, dilation: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        self.time = nn.Linear(TIME_WIDTH, WIDTH)
        self.dropout = nn.Dropout(dropout)
        self.convolution = nn.Conv1d(WIDTH, 2 * WIDTH, 3, padding=dilation, dilation=dilation)
        self.output = nn.Conv1d(WIDTH, WIDTH, 1)

    def forward(self, x: Tensor, time: Tensor, mask: Tensor) -> Tensor:
        """(B, D, T), (B, 64), (B, 1, T) True = frame."""
        hidden = self.norm(x.transpose(1, 2)).transpose(1, 2) + self.time(time)[..., None]
        value, gate = self.convolution(self.dropout(hidden) * mask).chunk(2, dim=1)
        return (x + self.output(value.tanh() * gate.sigmoid())) * mask


class VelocityField(nn.Module):
    """Where the flow goes from x at time t, given the prior."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.input = nn.Conv1d(2 * N_MELS, WIDTH, 1)
        self.time = nn.Sequential(
            nn.Linear(TIME_WIDTH, TIME_WIDTH), nn.SiLU(), nn.Linear(TIME_WIDTH, TIME_WIDTH)
        )
        self.layers = nn.ModuleList(ResidualLayer(dilation, dropout) for dilation in (1, 2, 4, 8))
        self.output = nn.Conv1d(WIDTH, N_MELS, 1)

    def forward(self, x: Tensor, prior: Tensor, t: Tensor, mask: Tensor) -> Tensor:
        """(B, T, M), (B, T, M), (B,), (B, T) True = frame -> (B, T, M)."""
        valid = mask[:, None]
        time = self.time(embedded_time(t))
        hidden = self.input(torch.cat([x, prior], dim=2).transpose(1, 2)) * valid
        for layer in self.layers:
            hidden = layer(hidden, time, valid)
        return (self.output(hidden) * valid).transpose(1, 2)


class FlowMatching(nn.Module):
    """Text encoder, prior, duration predictor and flow."""

    def __init__(self, n_symbols: int, dropout: float) -> None:
        super().__init__()
        self.embedding = nn.Embedding(n_symbols, WIDTH, padding_idx=0)
        self.positions = Positions(WIDTH)
        self.speaker = nn.Linear(SPEAKER_WIDTH, WIDTH)
        self.encoder = nn.ModuleList(Block(WIDTH, dropout) for _ in range(2))
        self.prior = nn.Linear(WIDTH, N_MELS)
        self.duration_predictor = Predictor(WIDTH, dropout)
        self.velocity = VelocityField(dropout)

    def encode(self, phonemes: Tensor, mask: Tensor, speakers: Tensor) -> Tensor:
        """(B, N), (B, N) True = phoneme, (B, S) -> (B, N, D)."""
        x = self.positions(self.embedding(phonemes)) + self.speaker(speakers)[:, None]
        for block in self.encoder:
            x = block(x, mask)
        return x

    def forward(self, batch: SpeakerBatch) -> tuple[Tensor, Tensor]:
        """Prior (B, T, M) over the true durations, and log1p durations (B, N)."""
        mask = batch.phoneme_mask
        encoded = self.encode(batch.phonemes, mask, batch.speakers)
        prior = regulate(self.prior(encoded), batch.durations, batch.mel.shape[1])
        return prior, self.duration_predictor(encoded.detach(), mask)

    def integrate(self, prior: Tensor, mask: Tensor, noise: Tensor) -> Tensor:
        """From noise (B, T, M) at time 0 to a mel (B, T, M) at time 1, by Euler's method."""
        x = TEMPERATURE * noise
        for step in range(N_STEPS):
            t = torch.full((len(x),), step / N_STEPS)
            x = x + self.velocity(x, prior, t, mask) / N_STEPS
        return x

    def infer(self, phonemes: Tensor, mask: Tensor, speakers: Tensor, noise: Noise) -> Tensor:
        """Text alone in: (1, N), (1, N), (1, S) -> (T', M)."""
        encoded = self.encode(phonemes, mask, speakers)
        durations = whole_frames(self.duration_predictor(encoded, mask), least=1)
        prior = regulate(self.prior(encoded), durations)
        every_frame = torch.ones(prior.shape[:2], dtype=torch.bool)
        return self.integrate(prior, every_frame, noise(prior))[0]


def still_noise(prior: Tensor) -> Tensor:
    """The same for every clip, whatever it is padded to."""
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randn(LONGEST, prior.shape[2], generator=generator)[: prior.shape[1]]
    return drawn.expand_as(prior)


def fresh_noise(prior: Tensor) -> Tensor:
    """Drawn anew at every call, with the padded shape, as Grad-TTS, VITS and Matcha-TTS do."""
    return torch.randn_like(prior)


def mean_square(prediction: Tensor, target: Tensor, lengths: Tensor) -> Tensor:
    """Over valid frames: the loss of a flow, whose optimum is a mean."""
    mask = lengths_to_mask(lengths, prediction.shape[1])
    return (prediction.float() - target)[mask].square().mean()


def build(
    setting: Setting,
    *,
    finish: Callable[[FlowMatching], FlowMatching] = lambda model: model,
    vector: Callable[[Clip], Tensor] = speaker_vector,
    log_durations: Callable[[Tensor], Tensor] = torch.log1p,
    noise: Noise = still_noise,
    backwards: bool = False,
    **parts: Any,
) -> Subject:
    """The clean subject of `setting`. `finish` gets every fresh model (where structural plants are
    made), `vector(clip)` gives the speaker's vector (S,), `log_durations` what the duration
    predictor learns of frames (B, N), `noise` what generation starts from; `backwards` learns the
    flow from mel to noise; `parts` are the keywords of `Parts`.
    """
    recipe = Parts(**{"mel_loss": mean_square, **parts})
    data = ClipData.of(setting.clips, setting.batch_size, setting.seed, recipe)

    def spoken_by(batch: ClipBatch) -> SpeakerBatch:
        return with_speakers(batch, vector)

    def build_model() -> FlowMatching:
        model = FlowMatching(Vocabulary.arpabet().get_vocab_size(), setting.dropout)
        if setting.tied:
            first, second = model.encoder
            second.convolutions = first.convolutions
        if setting.frozen:
            model.embedding.requires_grad_(False)
        return finish(model).train()

    def losses(model: Any, batch: ClipBatch) -> Mapping[str, Tensor]:
        given = spoken_by(batch)
        target, lengths = data.target(given)
        with autocast(setting):
            prior, said = model(given)
        # every clip at several times of the flow: one alone is a noisy gradient for a short run
        prior_, target_ = prior.repeat(N_DRAWS, 1, 1), target.repeat(N_DRAWS, 1, 1)
        mask_, lengths_ = given.mel_mask.repeat(N_DRAWS, 1), lengths.repeat(N_DRAWS)
        t, drawn = torch.rand(len(target_)), torch.randn_like(target_)
        between = (1 - t)[:, None, None] * drawn + t[:, None, None] * target_
        direction = drawn - target_ if backwards else target_ - drawn
        with autocast(setting):
            velocity = model.velocity(between, prior_, t, mask_)
        flow = recipe.mel_loss(velocity, direction, lengths_)
        of_prior = recipe.mel_loss(prior, target, lengths)
        mask = given.phoneme_mask
        off = said.float() - log_durations(given.durations.float())
        duration = off[mask].square().mean()
        total = flow + of_prior + duration
        return {"flow": flow, "prior": of_prior, "duration": duration, "total": total}

    def predict_mel(model: Any, batch: ClipBatch) -> Tensor:
        given = spoken_by(batch)
        prior, _ = model(given)
        return model.integrate(prior, given.mel_mask, noise(prior))

    @torch.no_grad()
    def infer(model: Any, batch: ClipBatch) -> list[Tensor]:
        given = spoken_by(batch)
        mels = []
        with evaluating(model):
            for clip, positions, mask in one_by_one(given.phoneme_lengths):
                phonemes = given.phonemes[clip, positions]
                mels.append(model.infer(phonemes, mask, given.speakers[clip], noise))
        return mels

    return Subject(
        build_model=build_model,
        losses=losses,
        make_optimizer=make_optimizer(setting, LEARNING_RATES),
        train_step=clipped_step(losses),
        predict_mel=predict_mel,
        generate=predict_mel,
        infer=infer,
        frozen=("embedding",) if setting.frozen else (),
        **carrying(data.fields(), spoken_by),
    )
