"""The workbook's own model as a clean Subject: the benchmark's twin with 0.45 M parameters, and the
model of any preset.

Overfit of the clean twin, two clips of 1.3 s, 200 steps, teacher-forced L1 over best constant
(free-running, text use): AdamW 0.10 (0.13, 3.1), Adam with dropout 0.3 0.29 (0.41, 1.03), SGD 0.21
(0.39, 1.8), bf16 autocast 0.10 (0.15, 3.0), one clip 0.07 (0.09, 3.3), eight clips 0.16 (0.51,
2.2), tied, frozen and warm-up 0.11 (0.16, 3.0). All pass the gate of 0.5 before step 100. A step of
two clips takes 31 ms on one core.

Shapes: B batch, N phonemes, T frames, M mel bins. Predictions and targets are in model units:
standardised per bin.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from tts_core.config import AudioConfig, ExperimentConfig, LossConfig, ModelConfig
from tts_core.model.generation import free_run, history_frames, infer
from tts_core.model.modes import evaluating
from tts_core.model.tts import TTSModel
from tts_core.speech.audio import log_mel, resample
from tts_core.speech.dataset import Clip, with_recipe
from tts_core.speech.phonemes import Vocabulary
from tts_core.training.losses import masked_mse
from tts_workbook.planted.cases import Setting
from tts_workbook.planted.twin_parts import Data, Parts, autocast, make_optimizer, plain_step
from tts_workbook.subject.clip_batch import ClipBatch, bin_statistics
from tts_workbook.subject.subject import Subject

SIZE = dict(
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
    targets: Callable[[ClipBatch], tuple[Tensor, Tensor]] | None = None,
    **parts: Any,
) -> Subject:
    """The clean subject of `setting`. `finish` gets every fresh model (where structural plants are
    made), `config` changes the model's configuration, `targets(batch)` are the durations (B, N) and
    stop frames (B, T) that are learnt (default: log1p frames, one at the last frame), `parts` are
    the keywords of `Parts`.
    """
    model_config = ModelConfig.healthy(
        Vocabulary.arpabet().get_vocab_size(),
        **{**SIZE, "dropout": setting.dropout, **(config or {})},
    )
    return _subject(
        setting, Parts(**parts), model_config, LossConfig(), targets or true_targets, finish
    )


def workbook_subject(
    experiment: ExperimentConfig, clips: Sequence[Clip], *, batch_size: int = 1
) -> Subject:
    """The workbook's model of any preset, e.g. `preset("seed", ...)`, over `clips`, whose first
    `batch_size` are the batch.

    The clips' samples are analysed by the experiment's own recipe; `vocode` inverts the standard
    one, as the vocoder does that is to speak the mels. Targets are in model units: standardised
    where the preset says so, else raw ln units.
    """
    audio, options = experiment.audio, experiment.optimizer
    setting = Setting(
        seed=experiment.fit.seed,
        batch_size=batch_size,
        clips=tuple(with_recipe(clip, audio) for clip in clips),
    )
    statistics = bin_statistics if experiment.model.standardise_targets else raw_statistics
    parts = Parts(
        statistics=statistics,
        extract=lambda samples, rate: log_mel(resample(samples, rate, audio.sample_rate), audio),
    )
    subject = _subject(
        setting, parts, experiment.model, experiment.loss, true_targets, lambda model: model, audio
    )

    def optimizer(model: TTSModel) -> torch.optim.Optimizer:
        return torch.optim.AdamW(
            model.parameters(),
            lr=options.lr,
            weight_decay=options.weight_decay,
            betas=options.betas,
            eps=options.eps,
        )

    return replace(
        subject,
        make_optimizer=optimizer,
        train_step=plain_step(subject.losses, clip_norm=options.clip_norm),
    )


def raw_statistics(mels: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Zeros and ones: targets stay as they are."""
    return torch.zeros(mels[0].shape[1]), torch.ones(mels[0].shape[1])


def true_targets(batch: ClipBatch) -> tuple[Tensor, Tensor]:
    """log1p of the frames of each phoneme (B, N), and 1 at each clip's last frame (B, T)."""
    last = torch.arange(batch.mel.shape[1]) == batch.mel_lengths[:, None] - 1
    return batch.durations.to(batch.mel).log1p(), last.to(batch.mel)


def _subject(
    setting: Setting,
    parts: Parts,
    config: ModelConfig,
    weights: LossConfig,
    targets: Callable,
    finish: Callable,
    audio: AudioConfig | None = None,
) -> Subject:
    data = Data.of(setting, parts)
    audio = audio or parts.audio

    def build_model() -> TTSModel:
        model = TTSModel(config, audio)
        model.normaliser.mean.copy_(data.mean)
        model.normaliser.std.copy_(data.std)
        if setting.tied:
            model.decoder.layers[1].feed_forward = model.decoder.layers[0].feed_forward
        if setting.frozen:
            model.text_embedding.requires_grad_(False)
        return finish(model).train()

    def losses(model: TTSModel, batch: ClipBatch) -> dict[str, Tensor]:
        with autocast(setting):
            output = model(batch)
        target, lengths = data.target(batch)
        log_durations, last = targets(batch)
        duration, n_phonemes = masked_mse(
            output.log_durations, log_durations, batch.phoneme_lengths
        )
        stop = F.binary_cross_entropy_with_logits(
            output.stop_logits.float()[batch.mel_mask], last[batch.mel_mask]
        )
        terms = {
            "mel": parts.mel_loss(output.model_mel, target, lengths),
            "duration": duration / n_phonemes,
            "stop": stop,
        }
        total = (
            terms["mel"]
            + weights.duration_weight * terms["duration"]
            + weights.stop_weight * terms["stop"]
        )
        return {**terms, "total": total}

    return Subject(
        build_model=build_model,
        losses=losses,
        make_optimizer=make_optimizer(setting, LEARNING_RATES),
        train_step=plain_step(losses),
        predict_mel=lambda model, batch: model(batch).model_mel,
        generate=lambda model, batch: model.normaliser.normalise(free_run(model, batch).mel),
        continue_from=next_frame,
        stop=lambda model, batch: model(batch).stop_logits.sigmoid(),
        infer=full_inference,
        frozen=("text_embedding",) if setting.frozen else (),
        **data.fields(),
    )


@torch.no_grad()
def next_frame(
    model: TTSModel, batch: ClipBatch, history: Tensor, feed: Callable = history_frames
) -> Tensor:
    """The frame after `history` (B, t, M) -> (B, M), model units, by the cached decoder that
    generation uses.

    `feed(history, go_frame, layout)` lays the history out as decoder input.
    """
    with evaluating(model):
        memory = model.expand(
            model.encode(batch.phonemes, batch.phoneme_mask), batch.durations, batch.mel.shape[1]
        )
        fed = feed(history, model.go_frame, model.config.generation_layout)
        caches = model.decoder.start(memory, capacity=memory.shape[1] + 1)
        decoded = model.decoder.advance(
            model.decoder_input(fed, memory[:, : fed.shape[1]]), batch.mel_mask, caches
        )
        return model.mel_projection_out(decoded[:, -1])


def full_inference(model: TTSModel, batch: ClipBatch) -> list[Tensor]:
    """Text alone in: (T', M) per clip in model units, lengths by predicted durations and stop
    head.
    """
    generated = infer(model, batch.phonemes, batch.phoneme_lengths)
    mel = model.normaliser.normalise(generated.mel)
    return [row[:length] for row, length in zip(mel, generated.lengths.tolist())]
