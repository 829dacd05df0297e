"""torchaudio's Tacotron 2 as a clean Subject: random weights, reduced dimensions, through its
public modules only.

Overfit of the clean twin with AdamW, teacher-forced L1 over best constant in eval mode: two clips
of 1.3 s 1.27, 0.73, 0.51 and 0.34 after 50, 100, 150 and 200 steps (free-running 0.84). Clips of
0.7 s after 200 steps: two 0.25 to 0.31, SGD 0.43, Adam with dropout 0.3 and warm-up 0.39, one clip
tied, frozen and in bf16 0.29, four 0.32. The gate of 0.5 is passed between steps 100 and 200. Text
use stays at 1.0: alignments take longer than this, so what needs them cannot be seen here. A step
of two clips takes 0.17 s (1.3 s long) or 0.09 s (0.7 s) on one core, nearly all of it the loop over
frames.

Shapes: B batch, N phonemes, T frames, M mel bins, D width of the encoder. Targets are standardised
per bin. The model knows no durations; its pre-net draws dropout in eval mode by design.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from torch import Tensor
from torchaudio.models import Tacotron2

from benchmarks.planted.twin_training import autocast, make_optimizer
from tts_core.speech.phonemes import Vocabulary
from tts_workbook.faults.planting import Setting
from tts_workbook.subject.clip_batch import ClipBatch
from tts_workbook.subject.clip_data import ClipData, Parts
from tts_workbook.subject.own_clips import last_frames
from tts_workbook.subject.subject import Subject
from tts_workbook.subject.torchaudio import TorchaudioTacotron2

SIZE = dict(
    symbol_embedding_dim=64,
    encoder_embedding_dim=64,
    encoder_n_convolution=2,
    encoder_kernel_size=5,
    attention_rnn_dim=96,
    attention_hidden_dim=32,
    attention_location_n_filter=8,
    attention_location_kernel_size=15,
    decoder_rnn_dim=128,
    prenet_dim=128,
    postnet_n_convolution=2,
    postnet_kernel_size=5,
    postnet_embedding_dim=64,
)
LEARNING_RATES = {"adamw": 8e-3, "adam": 8e-3, "sgd": 0.1}
GATE_WEIGHT = 0.1


def build(
    setting: Setting,
    *,
    finish: Callable[[Tacotron2], Tacotron2] = lambda model: model,
    history: Callable[[Tensor], Tensor] = lambda target: target,
    gate_target: Callable[[ClipBatch], Tensor] = last_frames,
    **parts: Any,
) -> Subject:
    """The clean subject of `setting`. `finish` gets every fresh model (where structural plants are
    made), `history` is what teacher forcing feeds for a target (B, T, M), `gate_target` when to
    stop (B, T); `parts` are the keywords of `Parts`.
    """
    recipe = Parts(**parts)
    data = ClipData.of(setting.clips, setting.batch_size, setting.seed, recipe)

    def build_model() -> Tacotron2:
        model = Tacotron2(
            n_symbol=Vocabulary.arpabet().get_vocab_size(),
            n_mels=recipe.audio.n_mels,
            attention_dropout=setting.dropout,
            decoder_dropout=setting.dropout,
            **SIZE,
        )
        if setting.tied:
            model.encoder.convolutions[1] = model.encoder.convolutions[0]
        if setting.frozen:
            model.embedding.requires_grad_(False)
        return finish(model).train()

    adapter = TorchaudioTacotron2(
        data,
        mel_loss=recipe.mel_loss,
        history=history,
        gate_target=gate_target,
        gate_weight=GATE_WEIGHT,
        autocast=lambda: autocast(setting),
    )
    subject = adapter.subject(build_model, make_optimizer(setting, LEARNING_RATES))
    return replace(subject, frozen=("embedding",) if setting.frozen else ())
