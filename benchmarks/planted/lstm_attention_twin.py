"""An LSTM with location-sensitive attention as a clean Subject: two frames a step, a pre-net that
drops in every mode (meant: Shen et al. 2018), a post-net that looks ahead, a stop head, and a guide
that asks for a diagonal (Tachibana et al. 2018).

Overfit of the clean twin, clips of 0.7 s, teacher-forced L1 over best constant (free-running, text
use): after 100 steps two clips with AdamW 0.19 (0.29, 3.4), Adam with dropout 0.3 and warm-up 0.26
(0.32, 2.1), one clip tied, frozen and in bf16 0.15 (0.16, 2.5), four clips 0.18 (0.23, 3.7); after
160 steps one clip with SGD 0.14, which is 0.8 at step 60. All pass the gate of 0.5 before step 120.
A diagnosis of 100 steps takes 16 s of one core.

Shapes: B batch, N phonemes, T frames, R frames a step, S = ceil(T / R) steps of the decoder, M mel
bins, D width of the encoder, A width of the attention. Targets are standardised per bin. The model
knows no durations.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from benchmarks.planted.transformer_blocks import one_by_one
from benchmarks.planted.twin_training import autocast, make_optimizer
from tts_core.model.modes import evaluating
from tts_core.speech.batch import lengths_to_mask
from tts_core.speech.phonemes import Vocabulary
from tts_workbook.faults.planting import Setting
from tts_workbook.subject.clip_batch import ClipBatch
from tts_workbook.subject.clip_data import ClipData, Parts, clipped_step
from tts_workbook.subject.subject import Subject

N_MELS = 80
WIDTH = 64  # of the encoder
DECODER_WIDTH = 128
ATTENTION_WIDTH = 48
PRENET_WIDTH = 64
PRENET_DROPOUT = 0.5
REDUCTION = 2  # frames a step
LEARNING_RATES = {"adamw": 5e-3, "adam": 5e-3, "sgd": 0.3}
GATE_WEIGHT = 0.1
GUIDE_WEIGHT = 1.0
GUIDE_SPREAD = 0.3  # share of the clip that attention may stray from the diagonal


class TextEncoder(nn.Module):
    """Embedding, two convolutions, a bidirectional LSTM: (B, N) -> (B, N, D).

    `keeps_to_mask` is whether what stands beyond a text's end is zero before every convolution.
    """

    def __init__(self, n_symbols: int, dropout: float) -> None:
        super().__init__()
        self.embedding = nn.Embedding(n_symbols, WIDTH, padding_idx=0)
        self.convolutions = nn.ModuleList(nn.Conv1d(WIDTH, WIDTH, 5, padding=2) for _ in range(2))
        self.norms = nn.ModuleList(nn.LayerNorm(WIDTH) for _ in range(2))
        self.dropout = nn.Dropout(dropout)
        self.lstm = nn.LSTM(WIDTH, WIDTH // 2, batch_first=True, bidirectional=True)
        self.keeps_to_mask = True

    def forward(self, phonemes: Tensor, lengths: Tensor) -> Tensor:
        valid = lengths_to_mask(lengths, phonemes.shape[1])[..., None]
        x = self.embedding(phonemes)
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            seen = x * valid if self.keeps_to_mask else x
            hidden = norm(convolution(seen.transpose(1, 2)).transpose(1, 2))
            x = x + self.dropout(F.relu(hidden))
        # not every processor has a recurrent layer in half precision
        with torch.autocast(x.device.type, enabled=False):
            whole = x.float()
            packed = pack_padded_sequence(
                whole, lengths.cpu(), batch_first=True, enforce_sorted=False
            )
            encoded, _ = self.lstm(packed)
        return pad_packed_sequence(encoded, batch_first=True, total_length=phonemes.shape[1])[0]


class PreNet(nn.Module):
    """Two rectified layers with dropout in every mode: (B, M) -> (B, width)."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            [nn.Linear(N_MELS, PRENET_WIDTH), nn.Linear(PRENET_WIDTH, PRENET_WIDTH)]
        )

    def forward(self, frame: Tensor) -> Tensor:
        for layer in self.layers:
            frame = F.dropout(F.relu(layer(frame)), PRENET_DROPOUT, training=True)
        return frame


class Attention(nn.Module):
    """Location-sensitive attention (Chorowski et al. 2015)."""

    def __init__(self) -> None:
        super().__init__()
        self.query = nn.Linear(DECODER_WIDTH, ATTENTION_WIDTH, bias=False)
        self.key = nn.Linear(WIDTH, ATTENTION_WIDTH, bias=False)
        self.location = nn.Conv1d(2, ATTENTION_WIDTH, 15, padding=7, bias=False)
        self.energy = nn.Linear(ATTENTION_WIDTH, 1, bias=False)

    def forward(self, query: Tensor, memory: Tensor, mask: Tensor, past: Tensor) -> Tensor:
        """(B, D'), (B, N, D), (B, N) True = phoneme, (B, 2, N) weights of the last step and their
        sum so far -> weights (B, N).
        """
        located = self.location(past).transpose(1, 2)
        hidden = torch.tanh(self.query(query)[:, None] + self.key(memory) + located)
        return self.masked(self.energy(hidden).squeeze(-1), mask).softmax(dim=-1)

    def masked(self, energies: Tensor, mask: Tensor) -> Tensor:
        """(B, N), (B, N) -> (B, N) with nothing left for what is no phoneme."""
        return energies.masked_fill(~mask, -torch.inf)


@dataclass(frozen=True)
class State:
    """What the decoder remembers."""

    attention_cell: tuple[Tensor, Tensor]  # (B, D') hidden and cell
    decoder_cell: tuple[Tensor, Tensor]  # (B, D') hidden and cell
    context: Tensor  # (B, D)
    weights: Tensor  # (B, N) attention of the last step
    summed: Tensor  # (B, N) and of all steps so far


class Decoder(nn.Module):
    """Two LSTM cells around the attention; R frames and R stop logits a step."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.prenet = PreNet()
        self.attention = Attention()
        self.attention_cell = nn.LSTMCell(PRENET_WIDTH + WIDTH, DECODER_WIDTH)
        self.decoder_cell = nn.LSTMCell(DECODER_WIDTH + WIDTH, DECODER_WIDTH)
        self.dropout = nn.Dropout(dropout)
        self.frames = nn.Linear(DECODER_WIDTH + WIDTH, REDUCTION * N_MELS)
        self.gate = nn.Linear(DECODER_WIDTH + WIDTH, REDUCTION)

    def start(self, memory: Tensor) -> State:
        """Before the first step."""
        n_clips, n_phonemes, width = memory.shape

        def zeros(size: int) -> Tensor:
            return memory.new_zeros(n_clips, size)

        return State(
            attention_cell=(zeros(DECODER_WIDTH), zeros(DECODER_WIDTH)),
            decoder_cell=(zeros(DECODER_WIDTH), zeros(DECODER_WIDTH)),
            context=zeros(width),
            weights=zeros(n_phonemes),
            summed=zeros(n_phonemes),
        )

    def forward(
        self, frame: Tensor, memory: Tensor, mask: Tensor, state: State
    ) -> tuple[Tensor, Tensor, State]:
        """One step: (B, M) the frame before -> frames (B, R, M), stop logits (B, R), state."""
        entered = torch.cat([self.prenet(frame), state.context], dim=1)
        attention_cell = self.attention_cell(entered, state.attention_cell)
        query = self.dropout(attention_cell[0])
        past = torch.stack([state.weights, state.summed], dim=1)
        weights = self.attention(query, memory, mask, past)
        context = (weights[:, None] @ memory).squeeze(1)
        decoder_cell = self.decoder_cell(torch.cat([query, context], dim=1), state.decoder_cell)
        hidden = torch.cat([self.dropout(decoder_cell[0]), context], dim=1)
        frames = self.frames(hidden).view(-1, REDUCTION, N_MELS)
        kept = State(attention_cell, decoder_cell, context, weights, state.summed + weights)
        return frames, self.gate(hidden), kept


class PostNet(nn.Module):
    """What is added to the frames, from five frames around each: (B, T, M), (B, T) -> (B, T, M)."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv1d(N_MELS, WIDTH, 5, padding=2)
        self.second = nn.Conv1d(WIDTH, N_MELS, 5, padding=2)

    def forward(self, frames: Tensor, mask: Tensor) -> Tensor:
        valid = mask[:, None]
        hidden = torch.tanh(self.first(frames.transpose(1, 2) * valid))
        return self.second(hidden * valid).transpose(1, 2)


@dataclass(frozen=True)
class Prediction:
    """What the model says of a batch."""

    frames: Tensor  # (B, T, M) before the post-net
    mel: Tensor  # (B, T, M)
    gates: Tensor  # (B, T) logits
    attention: Tensor  # (B, S, N)


class LSTMAttention(nn.Module):
    """Encoder, decoder and post-net."""

    def __init__(self, n_symbols: int, dropout: float) -> None:
        super().__init__()
        self.encoder = TextEncoder(n_symbols, dropout)
        self.decoder = Decoder(dropout)
        self.postnet = PostNet()

    def refine(self, frames: Tensor, mask: Tensor) -> Tensor:
        return frames + self.postnet(frames, mask)

    def forward(self, batch: ClipBatch, fed: Tensor | None) -> Prediction:
        """`fed` (B, S, M) is what the decoder hears before each step; None: its own frames."""
        memory = self.encoder(batch.phonemes, batch.phoneme_lengths)
        mask = batch.phoneme_mask
        n_frames = batch.mel.shape[1]
        state = self.decoder.start(memory)
        heard = memory.new_zeros(len(memory), N_MELS)
        frames, gates, weights = [], [], []
        for step in range(n_steps(n_frames)):
            if fed is not None:
                heard = fed[:, step]
            made, gate, state = self.decoder(heard, memory, mask, state)
            heard = made[:, -1]
            frames.append(made)
            gates.append(gate)
            weights.append(state.weights)
        raw = torch.cat(frames, dim=1)[:, :n_frames]
        return Prediction(
            frames=raw,
            mel=self.refine(raw, batch.mel_mask),
            gates=torch.cat(gates, dim=1)[:, :n_frames],
            attention=torch.stack(weights, dim=1),
        )


def n_steps(n_frames: int) -> int:
    """S: steps of the decoder that give T frames or more."""
    return -(-n_frames // REDUCTION)


def last_of_the_step_before(target: Tensor) -> Tensor:
    """(B, T, M) -> (B, S, M): what is fed before each step, the last frame of the one before."""
    go = target.new_zeros(len(target), 1, target.shape[2])
    return torch.cat([go, target[:, REDUCTION - 1 :: REDUCTION]], dim=1)[
        :, : n_steps(target.shape[1])
    ]


def next_frame(model: Any, batch: ClipBatch, history: Tensor) -> Tensor:
    """The frame after `history` (B, t, M) -> (B, M), before the post-net, step by step as
    generation goes.
    """
    n_known = history.shape[1]
    memory = model.encoder(batch.phonemes, batch.phoneme_lengths)
    state = model.decoder.start(memory)
    heard = history.new_zeros(len(memory), N_MELS)
    for step in range(n_known // REDUCTION + 1):
        frames, _, state = model.decoder(heard, memory, batch.phoneme_mask, state)
        last = (step + 1) * REDUCTION - 1
        if last < n_known:
            heard = history[:, last]
    return frames[:, n_known % REDUCTION]


@torch.no_grad()
def full_inference(model: Any, batch: ClipBatch) -> list[Tensor]:
    """Text alone in: (T', M) per clip, ended by the gate or after three times the longest clip."""
    longest = 3 * batch.mel.shape[1]
    mels = []
    with evaluating(model):
        for clip, positions, mask in one_by_one(batch.phoneme_lengths):
            memory = model.encoder(batch.phonemes[clip, positions], batch.phoneme_lengths[clip])
            frames = spoken(model.decoder, memory, mask, longest)
            every_frame = torch.ones(frames.shape[:2], dtype=torch.bool)
            mels.append(model.refine(frames, every_frame)[0])
    return mels


def spoken(decoder: Decoder, memory: Tensor, mask: Tensor, longest: int) -> Tensor:
    """(1, N, D), (1, N) -> (1, T', M): until the gate opens, `longest` frames at most."""
    state = decoder.start(memory)
    heard = memory.new_zeros(1, N_MELS)
    frames = []
    for _ in range(n_steps(longest)):
        made, gates, state = decoder(heard, memory, mask, state)
        heard = made[:, -1]
        frames.append(made)
        if bool((gates.sigmoid() > 0.5).any()):
            break
    return torch.cat(frames, dim=1)


def last_frames(batch: ClipBatch) -> Tensor:
    """(B, T) 1 at each clip's last frame."""
    return (torch.arange(batch.mel.shape[1]) == batch.mel_lengths[:, None] - 1).float()


# --- the guide ------------------------------------------------------------------------------------


def steps_of_clips(batch: ClipBatch) -> Tensor:
    """(B,) steps that the decoder takes for each clip."""
    return (batch.mel_lengths + REDUCTION - 1) // REDUCTION


def guide(attention: Tensor, n_phonemes: Tensor, steps: Tensor) -> Tensor:
    """Mean attention (B, S, N) off the diagonal, for texts of (B,) phonemes and clips of (B,)
    steps; 0 where all of it lies on the diagonal.
    """
    costs = []
    for weights, n, s in zip(attention, n_phonemes.tolist(), steps.tolist(), strict=True):
        own = weights[:s, :n]
        along_text = torch.arange(own.shape[1]) / n
        along_clip = torch.arange(own.shape[0])[:, None] / s
        distance = (along_text - along_clip) / GUIDE_SPREAD
        costs.append((own * (1 - torch.exp(-(distance**2) / 2))).sum(dim=1))
    return torch.cat(costs).mean()


def build(
    setting: Setting,
    *,
    finish: Callable[[LSTMAttention], LSTMAttention] = lambda model: model,
    feed: Callable[[Tensor], Tensor] = last_of_the_step_before,
    gate_target: Callable[[ClipBatch], Tensor] = last_frames,
    guide_steps: Callable[[ClipBatch], Tensor] = steps_of_clips,
    **parts: Any,
) -> Subject:
    """The clean subject of `setting`. `finish` gets every fresh model (where structural plants are
    made), `feed` is what teacher forcing feeds for a target (B, T, M), `gate_target` when to stop
    (B, T), `guide_steps` how long the guide believes each clip to be (B,); `parts` are the keywords
    of `Parts`.
    """
    recipe = Parts(**parts)
    data = ClipData.of(setting.clips, setting.batch_size, setting.seed, recipe)

    def build_model() -> LSTMAttention:
        model = LSTMAttention(Vocabulary.arpabet().get_vocab_size(), setting.dropout)
        if setting.tied:
            model.encoder.convolutions[1] = model.encoder.convolutions[0]
        if setting.frozen:
            model.encoder.embedding.requires_grad_(False)
        return finish(model).train()

    def teacher_forced(model: Any, batch: ClipBatch) -> Prediction:
        return model(batch, feed(data.target(batch)[0]))

    def losses(model: Any, batch: ClipBatch) -> Mapping[str, Tensor]:
        target, lengths = data.target(batch)
        with autocast(setting):
            said = teacher_forced(model, batch)
        mask = batch.mel_mask
        mel = recipe.mel_loss(said.mel, target, lengths)
        frames = recipe.mel_loss(said.frames, target, lengths)
        gate = F.binary_cross_entropy_with_logits(
            said.gates.float()[mask], gate_target(batch)[mask]
        )
        guided = guide(said.attention.float(), batch.phoneme_lengths, guide_steps(batch))
        total = mel + frames + GATE_WEIGHT * gate + GUIDE_WEIGHT * guided
        return {"mel": mel, "frames": frames, "gate": gate, "guide": guided, "total": total}

    @torch.no_grad()
    def generate(model: Any, batch: ClipBatch) -> Tensor:
        return model(batch, None).mel

    return Subject(
        build_model=build_model,
        losses=losses,
        make_optimizer=make_optimizer(setting, LEARNING_RATES),
        train_step=clipped_step(losses),
        predict_mel=lambda model, batch: teacher_forced(model, batch).mel,
        predict_frames=lambda model, batch: teacher_forced(model, batch).frames,
        generate=generate,
        continue_from=torch.no_grad()(next_frame),
        stop=lambda model, batch: teacher_forced(model, batch).gates.sigmoid(),
        infer=full_inference,
        frozen=("encoder.embedding",) if setting.frozen else (),
        stochastic=("decoder.prenet",),
        **data.fields(),
    )
