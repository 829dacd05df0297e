"""Models of the library transformers as Subjects, in one line each, and as examples of an adapter.

    subject = speecht5(config, [ids], [mel])
    subject = fastspeech2_conformer(config, [ids], [mel], [durations], pitch=[p], energy=[e])

`ids` (N,) and `mel` (T, M) are tensors, one of each for a clip, in the units that the model is
trained with. A config gives models of random weights, nothing is downloaded; a model gives fresh
models of its config, and its own weights as `Subject.checkpoint`. The library is called, not
repeated: its shift, its masks, its losses, its generation.

Shapes: B batch, N text positions, T frames, M mel bins, r frames of a decoder step, S of a voice.
Needs the extra `transformers`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tts_core.errors import WorkbookError
from tts_core.model.modes import evaluating
from tts_workbook.subject.clip_batch import ClipBatch, ProsodyBatch, one_by_one
from tts_workbook.subject.clip_data import ClipData, MelLoss, clipped_step, mean_l1
from tts_workbook.subject.own_clips import (
    Audio,
    Optimizer,
    adamw,
    last_frames,
    own_clips,
    own_data,
    supplied_alone,
    told_clips,
)
from tts_workbook.subject.subject import Subject

IGNORED = -100.0  # what the library's losses leave out
LONGEST = 3  # full inference ends after this many times the clip

Terms = dict[str, Tensor]


# --- SpeechT5: encoder, autoregressive decoder with cross-attention, post-net ---------------------


def speecht5(
    model: Any,
    ids: Sequence[Tensor],
    mel: Sequence[Tensor],
    *,
    speaker: Tensor | None = None,
    audio: Audio | None = None,
    make_optimizer: Optimizer | None = None,
    device: str = "cpu",
) -> Subject:
    """A SpeechT5ForTextToSpeech, or a SpeechT5Config, over clips of ids (N,) and mels (T, M).

    `speaker` (S,) is the voice of every clip, `audio` (samples, Hz) of each.
    """
    build_model, checkpoint = _models(model, "SpeechT5ForTextToSpeech", device)
    data = own_data(own_clips(ids, mel, audio=audio))
    subject = SpeechT5(data, speaker).subject(build_model, make_optimizer or adamw())
    return supplied_alone(subject, device, checkpoint, durations=False, audio=audio is not None)


@dataclass(frozen=True)
class SpeechT5:
    """The functions of a Subject around SpeechT5ForTextToSpeech."""

    data: ClipData
    speaker: Tensor | None = None  # (S,); None: ones
    mel_loss: MelLoss | None = None  # None: the library's own total is optimised
    stops: Callable[[ClipBatch], Tensor] | None = None  # (B, T) where to stop; None: at the end
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext  # around the forward pass

    def text(self, model: Any, batch: ClipBatch) -> dict[str, Tensor]:
        """What training and generation read alike: ids and mask (B, N), voice (B, S)."""
        width = model.config.speaker_embedding_dim
        voice = torch.ones(width) if self.speaker is None else self.speaker
        return {
            "input_ids": batch.phonemes,
            "attention_mask": batch.phoneme_mask.long(),
            "speaker_embeddings": voice.to(batch.mel).expand(len(batch.mel), -1),
        }

    def labels(self, model: Any, batch: ClipBatch) -> Tensor:
        """The target (B, T, M) in whole decoder steps; the library shifts it for the decoder."""
        labels = _labels(self.data, batch)
        missing = -labels.shape[1] % model.config.reduction_factor
        return F.pad(labels, (0, 0, 0, missing), value=IGNORED)

    def forward(self, model: Any, batch: ClipBatch) -> tuple[Any, tuple[Tensor, Tensor, Tensor]]:
        """The library's output, and frames, mel (B, T, M) and stop logits (B, T) in whole steps."""
        with outputs_of(model.speech_decoder_postnet) as outputs:
            labels = self.labels(model, batch)
            output = model(**self.text(model, batch), labels=labels, use_cache=False)
        return output, outputs[0]

    def losses(self, model: Any, batch: ClipBatch) -> Terms:
        """The terms of the library's loss one by one, and its total."""
        with self.autocast():
            output, (frames, mel, logits) = self.forward(model, batch)
        criterion = self.criterion(model)
        valid = batch.mel_mask
        terms = _mel_terms(self.mel_loss or mean_l1, self.data, batch, mel, frames)
        logits = within(logits, batch).float()
        stops = (self.stops or last_frames)(batch)
        terms["stop"] = criterion.bce_criterion(logits[valid], stops[valid])
        if model.config.use_guided_attention_loss:
            heads = model.config.guided_attention_loss_num_heads
            attention = torch.cat([layer[:, :heads] for layer in output.cross_attentions], dim=1)
            r = model.config.reduction_factor
            steps = self.labels(model, batch)[:, r - 1 :: r, 0] != IGNORED
            terms["guided"] = criterion.attn_criterion(attention, batch.phoneme_mask, steps)
        return _with_total(terms, None if self.sums_itself else output.loss)

    @property
    def sums_itself(self) -> bool:
        """Whether a term differs from the library's, so that its total is not what is optimised."""
        return self.mel_loss is not None or self.stops is not None

    def criterion(self, model: Any) -> Any:
        """The library's loss."""
        from transformers.models.speecht5.modeling_speecht5 import SpeechT5SpectrogramLoss

        return SpeechT5SpectrogramLoss(model.config).to(model.device)

    def predict_mel(self, model: Any, batch: ClipBatch) -> Tensor:
        return within(self.forward(model, batch)[1][1], batch)

    def predict_frames(self, model: Any, batch: ClipBatch) -> Tensor:
        return within(self.forward(model, batch)[1][0], batch)

    def stop(self, model: Any, batch: ClipBatch) -> Tensor:
        return within(self.forward(model, batch)[1][2], batch).sigmoid()

    def generate(self, model: Any, batch: ClipBatch, n_frames: int | None = None) -> Tensor:
        """(B, T, M) by the library's generation, which is kept from stopping before T frames."""
        n_frames = batch.mel.shape[1] if n_frames is None else n_frames
        r = model.config.reduction_factor
        n_steps = math.ceil(n_frames / r)
        longest = (n_steps + 0.5) * r / batch.phonemes.shape[1]
        never = {"threshold": r + 1.0, "maxlenratio": longest, "return_output_lengths": True}
        with evaluating(model):
            mel, _ = model.generate_speech(**self.text(model, batch), **never)
        return mel[:, :n_frames]

    def continue_from(self, model: Any, batch: ClipBatch, history: Tensor) -> Tensor:
        """Frame t after `history` (B, t, M): generation, which takes the history for its own."""
        r, t = model.config.reduction_factor, history.shape[1]
        spoken = iter([history[:, k : k + r].flatten(1) for k in range(0, t - r + 1, r)])
        own = []

        def instead(module: nn.Module, inputs: tuple, output: Tensor) -> Tensor:
            own.append(output)
            return next(spoken, output)

        handle = model.speech_decoder_postnet.feat_out.register_forward_hook(instead)
        try:
            self.generate(model, batch, t + 1)
        finally:
            handle.remove()
        return own[-1].unflatten(1, (r, -1))[:, t % r]

    def infer(self, model: Any, batch: ClipBatch) -> list[Tensor]:
        """Text alone in, clip by clip: (T', M) each, ended by the stop head."""
        mels = []
        for clip in one_by_one(batch):
            longest = LONGEST * clip.mel.shape[1] / clip.phonemes.shape[1]
            with evaluating(model):
                mel = model.generate_speech(**self.text(model, clip), maxlenratio=longest)
            mels.append(mel)
        return mels

    def subject(self, build_model: Callable[[], nn.Module], make_optimizer: Optimizer) -> Subject:
        """All of it together; the pre-net's dropout never rests, by design."""
        return Subject(
            build_model=build_model,
            losses=self.losses,
            make_optimizer=make_optimizer,
            train_step=clipped_step(self.losses),
            predict_mel=self.predict_mel,
            predict_frames=self.predict_frames,
            generate=self.generate,
            continue_from=self.continue_from,
            stop=self.stop,
            infer=self.infer,
            stochastic=("speecht5.decoder.prenet",),
            **self.data.fields(),
        )


# --- FastSpeech2Conformer: durations, pitch and energy, length regulator, parallel decoder --------


def fastspeech2_conformer(
    model: Any,
    ids: Sequence[Tensor],
    mel: Sequence[Tensor],
    durations: Sequence[Tensor],
    *,
    pitch: Sequence[Tensor],
    energy: Sequence[Tensor],
    audio: Audio | None = None,
    make_optimizer: Optimizer | None = None,
    device: str = "cpu",
) -> Subject:
    """A FastSpeech2ConformerModel, or its config, over clips of ids (N,), mels (T, M), durations
    (N,) in frames, pitch and energy (N,) in the units of training, and audio (samples, Hz).
    """
    build_model, checkpoint = _models(model, "FastSpeech2ConformerModel", device)
    clips = told_clips(own_clips(ids, mel, durations, audio), pitch, energy)
    adapter = FastSpeech2Conformer(own_data(clips))
    subject = adapter.subject(build_model, make_optimizer or adamw())
    return supplied_alone(subject, device, checkpoint, durations=True, audio=audio is not None)


@dataclass(frozen=True)
class FastSpeech2Conformer:
    """The functions of a Subject around FastSpeech2ConformerModel; its clips are ProsodyClips."""

    data: ClipData
    mel_loss: MelLoss | None = None  # None: the library's own total is optimised
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext  # around the forward pass

    def forward(self, model: Any, batch: ProsodyBatch) -> tuple[Any, tuple[Tensor, Tensor]]:
        """The library's output with true durations, pitch and energy, and frames and mel (B, T, M)
        before and after the post-net; every part is in the mode that it is in.
        """
        with (
            teacher_forcing(model),
            lengthened(model.decoder, batch.mel.shape[1]),
            outputs_of(model.speech_decoder_postnet) as outputs,
        ):
            output = model(
                input_ids=batch.phonemes,
                attention_mask=batch.phoneme_mask.long(),
                spectrogram_labels=_labels(self.data, batch),
                duration_labels=batch.durations,
                pitch_labels=batch.pitch[..., None],
                energy_labels=batch.energy[..., None],
            )
        return output, outputs[0]

    def losses(self, model: Any, batch: ProsodyBatch) -> Terms:
        """The terms of the library's loss one by one, and its total."""
        with self.autocast():
            output, (frames, mel) = self.forward(model, batch)
        terms = _mel_terms(self.mel_loss or mean_l1, self.data, batch, mel, frames)
        valid = batch.phoneme_mask
        predicted = {
            "duration": (output.duration_outputs, batch.durations.float().log1p()),
            "pitch": (output.pitch_outputs[..., 0], batch.pitch),
            "energy": (output.energy_outputs[..., 0], batch.energy),
        }
        for name, (guess, truth) in predicted.items():
            terms[name] = F.mse_loss(guess[valid].float(), truth[valid])
        return _with_total(terms, None if self.mel_loss else output.loss)

    def predict_mel(self, model: Any, batch: ProsodyBatch) -> Tensor:
        return self.forward(model, batch)[1][1]

    def predict_frames(self, model: Any, batch: ProsodyBatch) -> Tensor:
        return self.forward(model, batch)[1][0]

    def generate(self, model: Any, batch: ClipBatch) -> Tensor:
        """(B, T, M) by the library's inference clip by clip, with its own pitch and energy and with
        the true durations.
        """
        mel = torch.zeros_like(batch.mel)
        for row, clip in enumerate(one_by_one(batch)):

            def true_durations(module: nn.Module, inputs: tuple, output: Tensor) -> Tensor:
                return clip.durations  # noqa: B023  removed before the next clip

            handle = model.duration_predictor.register_forward_hook(true_durations)
            try:
                spoken = self.speak(model, clip)
            finally:
                handle.remove()
            mel[row, : len(spoken)] = spoken
        return mel

    def infer(self, model: Any, batch: ClipBatch) -> list[Tensor]:
        """Text alone in, clip by clip: (T', M) each, as long as the predicted durations say."""
        return [self.speak(model, clip) for clip in one_by_one(batch)]

    def speak(self, model: Any, clip: ClipBatch) -> Tensor:
        """(T', M) of one clip by the library's inference."""
        with evaluating(model):
            return model(input_ids=clip.phonemes).spectrogram[0]

    def subject(self, build_model: Callable[[], nn.Module], make_optimizer: Optimizer) -> Subject:
        """All of it together."""
        return Subject(
            build_model=build_model,
            losses=self.losses,
            make_optimizer=make_optimizer,
            train_step=clipped_step(self.losses),
            predict_mel=self.predict_mel,
            predict_frames=self.predict_frames,
            generate=self.generate,
            infer=self.infer,
            **self.data.fields(),
        )


# --- what both need -------------------------------------------------------------------------------


def library() -> Any:
    """The library transformers. Raises WorkbookError that names the extra where it is missing."""
    try:
        import transformers
    except ImportError as error:
        raise WorkbookError(
            "the library transformers is not installed; wanted: the extra of that name,"
            " pip install '.[transformers]'"
        ) from error
    return transformers


def within(rows: Tensor, batch: ClipBatch) -> Tensor:
    """(B, T' >= T, ...) -> (B, T, ...): without what the last decoder step says too much."""
    return rows[:, : batch.mel.shape[1]]


@contextmanager
def outputs_of(module: nn.Module) -> Iterator[list[Any]]:
    """What `module` returns while this lasts, call by call."""
    outputs: list[Any] = []
    handle = module.register_forward_hook(lambda module, inputs, output: outputs.append(output))
    try:
        yield outputs
    finally:
        handle.remove()


@contextmanager
def teacher_forcing(model: Any) -> Iterator[None]:
    """The library teacher-forces where `model.training` is set, and its duration predictor counts
    in logarithms there: set on these two alone, dropout and norms keep their mode.
    """
    switches = (model, model.duration_predictor)
    modes = [module.training for module in switches]
    for module in switches:
        module.training = True
    try:
        yield
    finally:
        for module, mode in zip(switches, modes, strict=True):
            module.training = mode


@contextmanager
def lengthened(decoder: nn.Module, n_frames: int) -> Iterator[None]:
    """The decoder hears zeros up to `n_frames`, as beside a longer clip in the batch."""

    def hear(module: nn.Module, inputs: tuple) -> tuple:
        frames = inputs[0]
        return (F.pad(frames, (0, 0, 0, n_frames - frames.shape[1])), *inputs[1:])

    handle = decoder.register_forward_pre_hook(hear)
    try:
        yield
    finally:
        handle.remove()


def _labels(data: ClipData, batch: ClipBatch) -> Tensor:
    """The target (B, T, M), and what the library leaves out where no frame is."""
    target, _ = data.target(batch)
    return target.masked_fill(~batch.mel_mask[..., None], IGNORED)


def _mel_terms(
    mel_loss: MelLoss, data: ClipData, batch: ClipBatch, mel: Tensor, frames: Tensor
) -> Terms:
    """The distance of both predictions from the target."""
    target, lengths = data.target(batch)
    parts = {"mel": mel, "frames": frames}
    return {
        name: mel_loss(within(part, batch).float(), target, lengths) for name, part in parts.items()
    }


def _with_total(terms: Terms, total: Tensor | None) -> Terms:
    """The terms with their sum, or with the total that is given."""
    return {**terms, "total": torch.stack(list(terms.values())).sum() if total is None else total}


def _models(model: Any, kind: str, device: str) -> tuple[Callable[[], nn.Module], Any]:
    """What builds fresh models, and the weights that are given, if any."""
    made = getattr(library(), kind)
    given = isinstance(model, nn.Module)
    if not given and not isinstance(model, made.config_class):
        raise WorkbookError(
            f"a {type(model).__name__}; wanted: a {kind} or a {made.config_class.__name__}"
        )
    config = model.config if given else model
    cls = type(model) if given else made
    checkpoint = dict(model.state_dict()) if given else None
    return lambda: cls(config).to(device).train(), checkpoint
