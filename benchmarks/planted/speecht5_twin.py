"""SpeechT5 of the library transformers as a clean Subject: random weights, reduced dimensions, by
the adapter that users have.

Shapes: B batch, N phonemes, T frames, M mel bins. Targets are standardised per bin. Two frames a
decoder step. The pre-net draws dropout in eval mode by design and the post-net looks ahead; neither
is declared here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from torch import nn

from benchmarks.planted.twin_training import autocast, make_optimizer
from tts_core.speech.phonemes import Vocabulary
from tts_workbook.faults.planting import Setting
from tts_workbook.subject.clip_data import ClipData, Parts, mean_l1
from tts_workbook.subject.subject import Subject
from tts_workbook.subject.transformers import SpeechT5, library

SIZE = dict(
    hidden_size=96,
    encoder_layers=2,
    encoder_ffn_dim=192,
    encoder_attention_heads=2,
    decoder_layers=2,
    decoder_ffn_dim=192,
    decoder_attention_heads=2,
    speech_decoder_prenet_units=96,
    speech_decoder_postnet_units=64,
    speech_decoder_postnet_layers=2,
    speaker_embedding_dim=16,
    max_speech_positions=600,
    max_text_positions=200,
    # layers that are left out at random would be noise of another kind than the setting asks for
    encoder_layerdrop=0.0,
    decoder_layerdrop=0.0,
)
DROPOUTS = (
    "hidden_dropout",
    "activation_dropout",
    "attention_dropout",
    "positional_dropout",
    "speech_decoder_postnet_dropout",
)
LEARNING_RATES = {"adamw": 2e-3, "adam": 2e-3, "sgd": 0.05}


def config(setting: Setting, **changes: Any) -> Any:
    """The small configuration of a setting; `changes` are other fields of SpeechT5Config."""
    drop = dict.fromkeys(DROPOUTS, setting.dropout)
    vocabulary = Vocabulary.arpabet().get_vocab_size()
    fields = {"vocab_size": vocabulary, "pad_token_id": 0, **SIZE, **drop, **changes}
    return library().SpeechT5Config(**fields)


def build(
    setting: Setting,
    *,
    finish: Callable[[Any], nn.Module] = lambda model: model,
    adapter: Callable[..., SpeechT5] = SpeechT5,
    changes: dict[str, Any] | None = None,
    **parts: Any,
) -> Subject:
    """The clean subject of `setting`. `finish` gets every fresh model (where structural plants are
    made), `adapter` stands between model and Subject (where those of the data path are), `changes`
    are fields of the configuration; `parts` are the keywords of `Parts`.
    """
    recipe = Parts(**parts)
    data = ClipData.of(setting.clips, setting.batch_size, setting.seed, recipe)
    small = config(setting, **(changes or {}))

    def build_model() -> nn.Module:
        model = library().SpeechT5ForTextToSpeech(small)
        encoder = model.speecht5.encoder
        if setting.tied:
            layers = encoder.wrapped_encoder.layers
            layers[1] = layers[0]
        if setting.frozen:
            encoder.prenet.embed_tokens.requires_grad_(False)
        return finish(model).train()

    replaced = None if recipe.mel_loss is mean_l1 else recipe.mel_loss
    made = adapter(data, mel_loss=replaced, autocast=lambda: autocast(setting))
    subject = made.subject(build_model, make_optimizer(setting, LEARNING_RATES))
    frozen = ("speecht5.encoder.prenet.embed_tokens",) if setting.frozen else ()
    return replace(subject, stochastic=(), frozen=frozen)
