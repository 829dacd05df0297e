"""The workbook's own model of any preset as a Subject like any other.

Shapes: B batch, N phonemes, T frames, M mel bins. Predictions and targets are in model units:
standardised per bin where the preset says so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from tts_core.config import AudioConfig, ExperimentConfig, LossConfig, ModelConfig
from tts_core.model.generation import free_run, history_frames, infer
from tts_core.model.modes import evaluating
from tts_core.model.tts import TTSModel, build_model
from tts_core.speech.audio import log_mel, resample
from tts_core.speech.batch import Batch
from tts_core.speech.dataset import Clip, with_recipe
from tts_core.training.losses import losses, masked_mse
from tts_core.training.precision import choose_precision
from tts_core.training.state import start_training
from tts_core.training.step import StepReport, train_step
from tts_workbook.subject.clip_batch import ClipBatch, bin_statistics
from tts_workbook.subject.clip_data import ClipData, Parts, clipped_step
from tts_workbook.subject.subject import Subject


def raw_statistics(mels: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Zeros and ones: targets stay as they are."""
    return torch.zeros(mels[0].shape[1]), torch.ones(mels[0].shape[1])


def true_targets(batch: ClipBatch) -> tuple[Tensor, Tensor]:
    """log1p of the frames of each phoneme (B, N), and 1 at each clip's last frame (B, T)."""
    frames = torch.arange(batch.mel.shape[1], device=batch.mel.device)
    last = frames == batch.mel_lengths[:, None] - 1
    return batch.durations.to(batch.mel).log1p(), last.to(batch.mel)


@dataclass(frozen=True, kw_only=True)
class PresetSubject(Subject):
    """The workbook's own model under the workbook's own losses and train step: a subject whose
    whole configuration is known.
    """

    experiment: ExperimentConfig


def preset_subject(
    experiment: ExperimentConfig, clips: Sequence[Clip], *, batch_size: int = 1, device: str = "cpu"
) -> PresetSubject:
    """The workbook's model of any preset, e.g. `preset("seed", ...)`, over `clips`, whose first
    `batch_size` are the batch.

    The clips' samples are analysed by the experiment's own recipe; `vocode` inverts the standard
    one, as the vocoder does that is to speak the mels. Targets are in model units: standardised
    where the preset says so, else raw ln units. Models and batch are on `device`.
    """
    audio = experiment.audio
    statistics = bin_statistics if experiment.model.standardise_targets else raw_statistics
    parts = Parts(
        statistics=statistics,
        extract=lambda samples, rate: log_mel(resample(samples, rate, audio.sample_rate), audio),
    )
    own_clips = [with_recipe(clip, audio) for clip in clips]
    data = ClipData.of(own_clips, batch_size, experiment.fit.seed, parts)

    def build_model() -> TTSModel:
        model = TTSModel(experiment.model, audio)
        model.normaliser.load_state_dict({"mean": data.mean, "std": data.std})
        return model.to(device).train()

    fields = data.fields()
    return own_subject(experiment, build_model, **{**fields, "batch": fields["batch"].to(device)})


def own_subject(
    experiment: ExperimentConfig, build_model: Callable[[], TTSModel], **data: Any
) -> PresetSubject:
    """The workbook's model under THE losses and THE train step, in the precision of the experiment;
    `data` are the fields of Subject that depend on the data, `batch` and `target_mel` among them.

    `losses` are computed without autocast, as an audit wants them.
    """
    device = data["batch"].mel.device
    precision = choose_precision(experiment.fit.precision, device)
    scaler = precision.scaler()

    def terms(model: Any, batch: Any) -> dict[str, Tensor]:
        found = losses(model, batch, experiment.loss)
        return {name: found[name] for name in ("mel", "duration", "stop", "total")}

    def optimizer(model: Any) -> torch.optim.Optimizer:
        return start_training(experiment, model, str(device)).optimizer

    def step(model: Any, optimizer: torch.optim.Optimizer, batch: Any) -> StepReport:
        clip_norm = experiment.optimizer.clip_norm
        return train_step(model, optimizer, batch, experiment.loss, precision, scaler, clip_norm)

    return PresetSubject(
        experiment=experiment,
        build_model=build_model,
        losses=terms,
        make_optimizer=optimizer,
        train_step=step,
        **OWN_GENERATION,
        **data,
    )


def in_layout(experiment: ExperimentConfig, batch: Batch, layout: str) -> PresetSubject:
    """The workbook's model over `batch` in ln units, whatever the preset learns, with a history
    that generation lays out as `layout` says.
    """

    def fresh_model() -> TTSModel:
        mels = [mel[:length] for mel, length in zip(batch.mel, batch.mel_lengths, strict=True)]
        model = build_model(experiment.model, experiment.audio, mels, experiment.fit.seed)
        return model.to(batch.mel.device)

    def generate(model: Any, batch: Any) -> Tensor:
        return free_run(model, batch, layout=layout).mel

    def continue_from(model: Any, batch: Any, history: Tensor) -> Tensor:
        fed = model.normaliser.normalise(history)
        return model.normaliser.denormalise(next_frame(model, batch, fed, layout=layout))

    subject = own_subject(
        experiment,
        fresh_model,
        batch=batch,
        target_mel=lambda batch: (batch.mel, batch.mel_lengths),
    )
    return replace(
        subject,
        predict_mel=lambda model, batch: model(batch).mel,
        generate=generate,
        continue_from=continue_from,
    )


def model_subject(
    data: ClipData,
    config: ModelConfig,
    weights: LossConfig,
    make_optimizer: Callable[[Any], torch.optim.Optimizer],
    *,
    audio: AudioConfig | None = None,
    targets: Callable[[ClipBatch], tuple[Tensor, Tensor]] = true_targets,
    finish: Callable[[TTSModel], TTSModel] = lambda model: model,
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> Subject:
    """The workbook's model of any configuration over the clips of `data`.

    `finish` gets every fresh model, `targets(batch)` are the durations (B, N) and stop frames
    (B, T) that are learnt, `autocast()` is entered around each forward pass of training.
    """
    parts = data.parts
    audio = audio or parts.audio

    def build_model() -> TTSModel:
        model = TTSModel(config, audio)
        model.normaliser.load_state_dict({"mean": data.mean, "std": data.std})
        return finish(model).train()

    def losses(model: Any, batch: Any) -> dict[str, Tensor]:
        with autocast():
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
        make_optimizer=make_optimizer,
        train_step=clipped_step(losses),
        **OWN_GENERATION,
        **data.fields(),
    )


@torch.no_grad()
def next_frame(
    model: TTSModel,
    batch: Batch,
    history: Tensor,
    feed: Callable = history_frames,
    layout: str | None = None,
) -> Tensor:
    """The frame after `history` (B, t, M) -> (B, M), model units, by the cached decoder that
    generation uses.

    `feed(history, go_frame, layout)` lays the history out as decoder input; `layout` overrides that
    of the model's configuration.
    """
    with evaluating(model):
        memory = model.expand(
            model.encode(batch.phonemes, batch.phoneme_mask), batch.durations, batch.mel.shape[1]
        )
        fed = feed(history, model.go_frame, layout or model.config.generation_layout)
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
    return [row[:length] for row, length in zip(mel, generated.lengths.tolist(), strict=True)]


# The fields of Subject that are the model's own, whatever it is trained with.
OWN_GENERATION: dict[str, Any] = dict(
    predict_mel=lambda model, batch: model(batch).model_mel,
    generate=lambda model, batch: model.normaliser.normalise(free_run(model, batch).mel),
    continue_from=next_frame,
    stop=lambda model, batch: model(batch).stop_logits.sigmoid(),
    infer=full_inference,
)
