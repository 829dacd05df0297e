"""FastSpeech2Conformer of the library transformers as a clean Subject: random weights, reduced
dimensions, by the adapter that users have.

Shapes: B batch, N phonemes, T frames, M mel bins. Targets are standardised per bin, pitch and
energy over the clips. Convolutions look past the end of a text and of a clip, as the library's do.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from torch import nn

from benchmarks.planted.prosody import prosody_clips
from benchmarks.planted.twin_training import autocast, make_optimizer
from tts_core.speech.phonemes import Vocabulary
from tts_workbook.faults.planting import Setting
from tts_workbook.subject.clip_batch import ProsodyClip
from tts_workbook.subject.clip_data import ClipData, Parts, mean_l1
from tts_workbook.subject.subject import Subject
from tts_workbook.subject.transformers import FastSpeech2Conformer, library

SIZE = dict(
    hidden_size=64,
    encoder_layers=2,
    decoder_layers=2,
    encoder_linear_units=128,
    decoder_linear_units=128,
    decoder_kernel_size=7,
    speech_decoder_postnet_layers=2,
    speech_decoder_postnet_units=64,
    duration_predictor_channels=64,
    energy_predictor_channels=64,
    pitch_predictor_channels=64,
    pitch_predictor_layers=2,
)
DROPOUTS = (
    "encoder_dropout_rate",
    "encoder_positional_dropout_rate",
    "encoder_attention_dropout_rate",
    "decoder_dropout_rate",
    "decoder_positional_dropout_rate",
    "decoder_attention_dropout_rate",
    "duration_predictor_dropout_rate",
    "pitch_predictor_dropout",
    "energy_predictor_dropout",
    "speech_decoder_postnet_dropout",
)
LEARNING_RATES = {"adamw": 2e-3, "adam": 2e-3, "sgd": 0.02}


def config(setting: Setting, **changes: Any) -> Any:
    """The small configuration of a setting; `changes` are other fields of its config."""
    drop = dict.fromkeys(DROPOUTS, setting.dropout)
    vocabulary = Vocabulary.arpabet().get_vocab_size()
    fields = {"vocab_size": vocabulary, **SIZE, **drop, **changes}
    return library().FastSpeech2ConformerConfig(**fields)


def build(
    setting: Setting,
    *,
    finish: Callable[[Any], nn.Module] = lambda model: model,
    adapter: Callable[..., FastSpeech2Conformer] = FastSpeech2Conformer,
    changes: dict[str, Any] | None = None,
    told: Callable[[ProsodyClip], ProsodyClip] = lambda clip: clip,
    **parts: Any,
) -> Subject:
    """The clean subject of `setting`. `finish` gets every fresh model (where structural plants are
    made), `adapter` stands between model and Subject (where those of the data path are), `changes`
    are fields of the configuration, `told` gets every clip with its pitch and energy; `parts` are
    the keywords of `Parts`.
    """
    recipe = Parts(**parts)
    clips = [told(clip) for clip in prosody_clips(setting.clips)]
    data = ClipData.of(clips, setting.batch_size, setting.seed, recipe)
    small = config(setting, **(changes or {}))

    def build_model() -> nn.Module:
        model = library().FastSpeech2ConformerModel(small)
        if setting.tied:
            layers = model.encoder.conformer_layers
            layers[1] = layers[0]
        if setting.frozen:
            model.encoder.embed.requires_grad_(False)
        return finish(model).train()

    replaced = None if recipe.mel_loss is mean_l1 else recipe.mel_loss
    made = adapter(data, mel_loss=replaced, autocast=lambda: autocast(setting))
    subject = made.subject(build_model, make_optimizer(setting, LEARNING_RATES))
    return replace(subject, frozen=("encoder.embed",) if setting.frozen else ())
