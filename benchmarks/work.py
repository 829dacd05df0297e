"""The work of one train step, counted: operations of its matrix products and bytes that its
optimiser moves.

A multiply-add is two operations; a backward pass of a product is two products of its size. Shapes:
B batch, N phonemes, T frames, M mel bins, D width, F width of the feed-forward layers.
"""

from __future__ import annotations

from dataclasses import dataclass

from tts_core.config import ModelConfig

FORWARD_AND_BACKWARD = 3  # of each product: its own, and one for either factor's gradient
# over the parameters, 4 bytes each: reads weight, gradient and both moments, writes all but the
# gradient
ADAMW_PASSES = 7
OTHER_PASSES = 2  # the gradient written by backward, and read for its norm


@dataclass(frozen=True)
class Work:
    """Of one step over a padded batch."""

    linear: float  # operations of projections, feed-forward layers and convolutions
    # operations of attention scores and of what they weigh; the causal half only, where there is
    # one
    attention: float
    parameter_bytes: float

    @property
    def operations(self) -> float:
        return self.linear + self.attention


def work(
    config: ModelConfig, n_parameters: int, batch: int, n_phonemes: int, n_frames: int
) -> Work:
    """The work of one step of our model on `batch` clips padded to `n_phonemes` and `n_frames`,
    keys of the memory once per frame.
    """
    width, phonemes, frames = config.hidden_dim, batch * n_phonemes, batch * n_frames
    encoder_layer = phonemes * (4 * width**2 + 2 * width * config.encoder_ff_dim)
    encoder = config.n_encoder_layers * encoder_layer
    durations = phonemes * (2 * 3 * width**2 + width)
    decoder_layer = frames * (8 * width**2 + 2 * width * config.decoder_ff_dim)
    decoder = config.n_decoder_layers * decoder_layer
    ends = frames * (2 * config.mel_dim * width + width)
    encoder_scores = config.n_encoder_layers * phonemes * n_phonemes * 2 * width
    # self-attention: the half that is not masked; cross-attention: all of it
    decoder_scores = config.n_decoder_layers * frames * n_frames * (1 + 2) * width
    return Work(
        2 * FORWARD_AND_BACKWARD * (encoder + durations + decoder + ends),
        2 * FORWARD_AND_BACKWARD * (encoder_scores + decoder_scores),
        4.0 * (ADAMW_PASSES + OTHER_PASSES) * n_parameters,
    )
