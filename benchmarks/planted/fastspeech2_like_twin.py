"""A small FastSpeech 2 as a clean Subject: text encoder, duration and pitch predictors, length
regulator, frame decoder (Ren et al. 2021; norms behind the sums, as in the public code).

It has no history and no stop head: lengths come from durations. What it is handed beside the text
is the pitch of every phoneme, true in training and predicted in generation.

Overfit of the clean twin, clips of 1.4 s, 150 steps, L1 over best constant (text use): two clips
with AdamW 0.12 (7.0), SGD 0.26 (3.3), Adam with dropout 0.3 and warm-up 0.20 (3.9), one clip tied,
frozen and in bf16 0.10 (11), four clips 0.15 (5.7). All pass the gate of 0.5 before step 100. A
diagnosis of 100 steps on clips of 0.9 s takes 4 to 9 s of one core.

Shapes: B batch, N phonemes, T frames, M mel bins, D width. Targets are standardised per bin.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.planted.side_inputs import PitchedBatch, PitchScale, carrying, with_pitch
from benchmarks.planted.transformer_blocks import (
    Block,
    Positions,
    Predictor,
    one_by_one,
    regulate,
    whole_frames,
)
from benchmarks.planted.twin_training import autocast, make_optimizer
from tts_core.model.modes import evaluating
from tts_core.speech.dataset import Clip
from tts_core.speech.phonemes import Vocabulary
from tts_workbook.faults.planting import Setting
from tts_workbook.subject.clip_batch import ClipBatch
from tts_workbook.subject.clip_data import ClipData, Parts, clipped_step
from tts_workbook.subject.subject import Subject

WIDTH = 64
N_MELS = 80
LEARNING_RATES = {"adamw": 3e-3, "adam": 3e-3, "sgd": 0.1}


@dataclass(frozen=True)
class Prediction:
    """What the model says of a batch."""

    mel: Tensor  # (B, T, M)
    log_durations: Tensor  # (B, N) log1p frames
    pitch: Tensor  # (B, N) standardised


class FastSpeech2(nn.Module):
    """Text encoder, two predictors, length regulator, frame decoder."""

    def __init__(self, n_symbols: int, dropout: float) -> None:
        super().__init__()
        self.embedding = nn.Embedding(n_symbols, WIDTH, padding_idx=0)
        self.text_positions = Positions(WIDTH)
        self.encoder = nn.ModuleList([Block(WIDTH, dropout)])
        self.duration_predictor = Predictor(WIDTH, dropout)
        self.pitch_predictor = Predictor(WIDTH, dropout)
        self.pitch_embedding = nn.Conv1d(1, WIDTH, 3, padding=1)
        self.frame_positions = Positions(WIDTH)
        self.decoder = nn.ModuleList([Block(WIDTH, dropout) for _ in range(2)])
        self.output = nn.Linear(WIDTH, N_MELS)

    def encode(self, phonemes: Tensor, mask: Tensor) -> Tensor:
        """(B, N), (B, N) True = phoneme -> (B, N, D)."""
        x = self.text_positions(self.embedding(phonemes))
        for block in self.encoder:
            x = block(x, mask)
        return x

    def add_pitch(self, encoded: Tensor, pitch: Tensor) -> Tensor:
        """(B, N, D), (B, N) -> (B, N, D)."""
        return encoded + self.pitch_embedding(pitch[:, None]).transpose(1, 2)

    def decode(self, expanded: Tensor, mask: Tensor) -> Tensor:
        """(B, T, D), (B, T) True = frame -> (B, T, M)."""
        x = self.frame_positions(expanded)
        for block in self.decoder:
            x = block(x, mask)
        return self.output(x)

    def forward(self, batch: PitchedBatch, own_pitch: bool = False) -> Prediction:
        """With true durations; with true pitch, or with what the model predicts (`own_pitch`)."""
        mask = batch.phoneme_mask
        encoded = self.encode(batch.phonemes, mask)
        pitch = self.pitch_predictor(encoded, mask)
        voiced = self.add_pitch(encoded, pitch if own_pitch else batch.pitch)
        expanded = regulate(voiced, batch.durations, batch.mel.shape[1])
        return Prediction(
            mel=self.decode(expanded, batch.mel_mask),
            log_durations=self.duration_predictor(encoded, mask),
            pitch=pitch,
        )

    def infer(self, phonemes: Tensor, mask: Tensor) -> Tensor:
        """Text alone in: (1, N), (1, N) -> (T', M), one frame or more."""
        encoded = self.encode(phonemes, mask)
        durations = whole_frames(self.duration_predictor(encoded, mask), least=0)
        if durations.sum() == 0:
            durations[:, 0] = 1
        voiced = self.add_pitch(encoded, self.pitch_predictor(encoded, mask))
        expanded = regulate(voiced, durations)
        every_frame = torch.ones(expanded.shape[:2], dtype=torch.bool)
        return self.decode(expanded, every_frame)[0]


def mean_square(prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Over what the mask (B, N) says is valid."""
    return (prediction.float() - target)[mask].square().mean()


@torch.no_grad()
def full_inference(model: Any, batch: ClipBatch) -> list[Tensor]:
    """Text alone in: (T', M) per clip."""
    mels = []
    with evaluating(model):
        for clip, positions, mask in one_by_one(batch.phoneme_lengths):
            mels.append(model.infer(batch.phonemes[clip, positions], mask))
    return mels


def build(
    setting: Setting,
    *,
    finish: Callable[[FastSpeech2], FastSpeech2] = lambda model: model,
    pitch: Callable[[Clip], Tensor] | None = None,
    log_durations: Callable[[Tensor], Tensor] = torch.log1p,
    **parts: Any,
) -> Subject:
    """The clean subject of `setting`. `finish` gets every fresh model (where structural plants are
    made), `pitch(clip)` gives the pitch of a clip's phonemes (N,), `log_durations` what the
    duration predictor learns of frames (B, N); `parts` are the keywords of `Parts`.
    """
    recipe = Parts(**parts)
    data = ClipData.of(setting.clips, setting.batch_size, setting.seed, recipe)
    of_clip = pitch or PitchScale.of(setting.clips)

    def pitched(batch: ClipBatch) -> PitchedBatch:
        return with_pitch(batch, of_clip)

    def build_model() -> FastSpeech2:
        model = FastSpeech2(Vocabulary.arpabet().get_vocab_size(), setting.dropout)
        if setting.tied:
            share_convolutions(model)
        if setting.frozen:
            model.embedding.requires_grad_(False)
        return finish(model).train()

    def losses(model: Any, batch: ClipBatch) -> Mapping[str, Tensor]:
        given = pitched(batch)
        target, lengths = data.target(given)
        with autocast(setting):
            said = model(given)
        mask = given.phoneme_mask
        mel = recipe.mel_loss(said.mel, target, lengths)
        duration = mean_square(said.log_durations, log_durations(given.durations.float()), mask)
        heard = mean_square(said.pitch, given.pitch, mask)
        total = mel + duration + heard
        return {"mel": mel, "duration": duration, "pitch": heard, "total": total}

    def predict_mel(model: Any, batch: ClipBatch) -> Tensor:
        return model(pitched(batch)).mel

    def generate(model: Any, batch: ClipBatch) -> Tensor:
        return model(pitched(batch), own_pitch=True).mel

    return Subject(
        build_model=build_model,
        losses=losses,
        make_optimizer=make_optimizer(setting, LEARNING_RATES),
        train_step=clipped_step(losses),
        predict_mel=predict_mel,
        generate=generate,
        infer=full_inference,
        frozen=("embedding",) if setting.frozen else (),
        **carrying(data.fields(), pitched),
    )


def share_convolutions(model: FastSpeech2) -> None:
    """The decoder's two blocks have one pair of convolutions."""
    first, second = model.decoder
    second.convolutions = first.convolutions
