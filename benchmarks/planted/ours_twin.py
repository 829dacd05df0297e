"""The workbook's own model as a clean Subject: the benchmark's twin with 0.45 M parameters.

Overfit of the clean twin, two clips of 1.3 s, 200 steps, teacher-forced L1 over best constant
(free-running, text use): AdamW 0.10 (0.13, 3.1), Adam with dropout 0.3 0.29 (0.41, 1.03), SGD 0.21
(0.39, 1.8), bf16 autocast 0.10 (0.15, 3.0), one clip 0.07 (0.09, 3.3), eight clips 0.16 (0.51,
2.2), tied, frozen and warm-up 0.11 (0.16, 3.0). All pass the gate of 0.5 before step 100. A step of
two clips takes 31 ms on one core.

Shapes: B batch, N phonemes, T frames, M mel bins. Predictions and targets are in model units:
standardised per bin.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from torch import Tensor

from benchmarks.planted.twin_training import autocast, make_optimizer
from tts_core.config import LossConfig, ModelConfig
from tts_core.model.tts import TTSModel
from tts_core.speech.phonemes import Vocabulary
from tts_workbook.faults.planting import Setting
from tts_workbook.subject.clip_batch import ClipBatch
from tts_workbook.subject.clip_data import ClipData, Parts
from tts_workbook.subject.presets import model_subject, true_targets
from tts_workbook.subject.subject import Subject

SIZE: dict[str, Any] = dict(
    hidden_dim=96,
    n_heads=4,
    n_encoder_layers=2,
    n_decoder_layers=2,
    encoder_ff_dim=192,
    decoder_ff_dim=192,
)
LEARNING_RATES = {"adamw": 2e-3, "adam": 2e-3, "sgd": 0.1}


def build(
    setting: Setting,
    *,
    finish: Callable[[TTSModel], TTSModel] = lambda model: model,
    config: dict[str, Any] | None = None,
    targets: Callable[[ClipBatch], tuple[Tensor, Tensor]] = true_targets,
    **parts: Any,
) -> Subject:
    """The clean subject of `setting`. `finish` gets every fresh model (where structural plants are
    made), `config` changes the model's configuration, `targets(batch)` are the durations (B, N) and
    stop frames (B, T) that are learnt (default: log1p frames, one at the last frame), `parts` are
    the keywords of `Parts`.
    """
    switches = {**SIZE, "dropout": setting.dropout, **(config or {})}
    model_config = ModelConfig.healthy(Vocabulary.arpabet().get_vocab_size(), **switches)

    def finished(model: TTSModel) -> TTSModel:
        if setting.tied:
            model.decoder.layers[1].feed_forward = model.decoder.layers[0].feed_forward
        if setting.frozen:
            model.text_embedding.requires_grad_(False)
        return finish(model)

    data = ClipData.of(setting.clips, setting.batch_size, setting.seed, Parts(**parts))
    subject = model_subject(
        data,
        model_config,
        LossConfig(),
        make_optimizer(setting, LEARNING_RATES),
        targets=targets,
        finish=finished,
        autocast=lambda: autocast(setting),
    )
    return replace(subject, frozen=("text_embedding",) if setting.frozen else ())
