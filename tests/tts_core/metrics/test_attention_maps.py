"""Recorded attention: rows sum to one, maps are those of one clip, and nothing stays recorded."""

import math

import torch

from tests.conftest import make_experiment, make_model
from tts_core.metrics.attention_maps import cross_attention_maps, recorded_attention


def test_recorded_rows_sum_to_one_and_nothing_stays_recorded(batch):
    model = make_model(make_experiment(), batch)
    with recorded_attention(model) as attentions:
        model(batch)
        for attention in attentions.values():
            torch.testing.assert_close(
                attention.weights.sum(dim=-1), torch.ones(attention.weights.shape[:-1])
            )
    assert all(
        attention.weights is None and not attention.record for attention in attentions.values()
    )


def test_maps_are_those_of_the_first_clip_without_padding(batch):
    maps = cross_attention_maps(make_model(make_experiment(n_decoder_layers=2), batch), batch)
    assert maps.shape == (2, 9, 9)
    torch.testing.assert_close(maps.sum(dim=-1), torch.ones(2, 9))
    assert math.isfinite(float(maps.min())) and float(maps.min()) >= 0
