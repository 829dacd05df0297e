"""Cross-attention against the memory's scale, the mel path, and the pairs that rule on both."""

import math
from itertools import pairwise

import pytest
import torch

from tests.conftest import make_batch, make_experiment, make_model
from tests.tts_workbook.measure.own_subjects import own
from tts_workbook.measure.mel_path import (
    dead_tensors,
    gradient_of_a_still_decoder,
    mel_path_norms,
    thinnest,
)
from tts_workbook.measure.memory_response import (
    cross_attention_state,
    layer_curves,
    memory_scale_response,
    with_memory_scale,
)
from tts_workbook.measure.scale_pairs import columns, measure_scale_pair
from tts_workbook.measure.term_gradients import term_gradients


def test_logits_grow_and_entropy_falls_with_the_memory(batch):
    experiment = make_experiment("no_norm", n_decoder_layers=2, memory_positions=False)
    states = memory_scale_response(
        make_model(experiment, batch), batch, experiment, (0.25, 1.0, 4.0)
    )
    for small, large in pairwise(states):
        assert large.memory_std == pytest.approx(4 * small.memory_std, rel=1e-5)
        # keys are linear in the memory
        assert large.logit_std[0] == pytest.approx(4 * small.logit_std[0], rel=1e-4)
        assert large.logit_max[0] > small.logit_max[0] and large.entropy[0] < small.entropy[0]
        assert large.over_stream[0] > small.over_stream[0]
    assert [state.factor for state in states] == [0.25, 1.0, 4.0]
    assert all(
        len(series) == 2
        for state in states
        for series in (state.logit_std, state.entropy, *state.gradient.values())
    )
    assert layer_curves(states, 1)["key_gradient"] == [state.gradient["key"][1] for state in states]


def test_the_state_is_that_of_autograd_and_leaves_the_model_alone(batch):
    experiment = make_experiment("seed")
    model = make_model(experiment, batch)
    state = cross_attention_state(model, batch, experiment)
    # smoke has no dropout: the same function
    expected = term_gradients(own(experiment, batch))["mel"]
    for part in ("query", "key", "value", "output"):
        name = f"decoder.layers.0.cross_attention.{part}.weight"
        assert state.gradient[part] == pytest.approx([float(expected[name].norm())], rel=1e-4)
    assert state.text_gradient == pytest.approx(
        float(expected["text_embedding.weight"].norm()), rel=1e-4
    )
    assert model.training and all(p.grad is None for p in model.parameters())
    assert not any(
        getattr(module, "record", False) or module._forward_hooks or module._forward_pre_hooks
        for module in model.modules()
    )


def test_padding_changes_no_number_of_the_state():
    one, two = make_batch([[2, 3, 4]]), make_batch([[2, 3, 4], [5, 9, 4]])
    experiment = make_experiment()
    model = make_model(experiment, one)
    alone = cross_attention_state(model, one, experiment)
    from dataclasses import replace

    padded = replace(
        two,
        **{
            name: getattr(two, name)[:1]
            for name in ("phonemes", "phoneme_lengths", "durations", "mel", "mel_lengths")
        },
        ids=("a",),
    )
    beside = cross_attention_state(model, padded, experiment)
    assert padded.mel.shape[1] > one.mel.shape[1]
    assert (beside.logit_std, beside.entropy) == (
        pytest.approx(alone.logit_std, rel=1e-4),
        pytest.approx(alone.entropy, rel=1e-4),
    )
    assert beside.memory_std == pytest.approx(alone.memory_std, rel=1e-4)


def test_every_tensor_of_the_mel_path_is_there_and_a_dead_one_is_seen(batch):
    experiment = make_experiment()
    model = make_model(experiment, batch)
    norms = mel_path_norms(own(experiment, batch))
    wanted = [
        name
        for name, _ in model.named_parameters()
        if name.startswith(("mel_projection", "decoder")) and not name.endswith("key.bias")
    ]
    assert sorted(norms) == sorted(wanted) and dead_tensors(norms) == []

    def detached(model):
        model.decoder.layers[0].cross_attention.register_forward_hook(
            lambda module, inputs, output: output.detach()
        )
        return model

    dead = dead_tensors(mel_path_norms(own(experiment, batch, change=detached)))
    assert dead and all(name.startswith("decoder.layers.0.cross_attention") for name in dead)
    assert dead_tensors({"a": math.nan, "b": math.inf, "c": 1.0}) == ["a", "b"]


def test_the_thinnest_matrix_is_found_whatever_the_scale_of_the_targets():
    sound = {"a.weight": 3.0, "b.weight": 4.0, "a_norm.weight": 1.0, "b.bias": 1.0}
    assert thinnest({name: 10 * norm for name, norm in sound.items()}, sound)[1] == pytest.approx(
        1.0
    )
    sick = {**sound, "a.weight": 0.3, "a_norm.weight": 1e-9}
    assert thinnest(sick, sound) == ("a.weight", pytest.approx(0.3 / math.hypot(0.3, 4) / 0.6))


def test_the_gradient_of_a_decoder_that_stands_still_at_the_medians_cancels(batch):
    opened = own(make_experiment(), batch)
    model = opened.model
    found = gradient_of_a_still_decoder(opened, (1.0, 0.2, 0.0))
    assert found[0.0] < found[0.2] < found[1.0] and found[0.0] < 0.3 * found[1.0]
    before = model.mel_projection_out.bias.clone()
    assert torch.equal(model.mel_projection_out.bias, before) and not model.decoder._forward_hooks


def test_a_pair_of_likes_differs_nowhere_and_the_scale_shows_in_the_sick_one(batch):
    experiment, sick = make_experiment(hidden_dim=64), make_experiment("no_norm", hidden_dim=64)
    sound = own(experiment, batch)
    model = sound.model
    state = cross_attention_state(model, batch, experiment)
    same = measure_scale_pair(sound, sound)
    assert (same.text_beside_sound, same.thinnest) == (0.0, 0.0) and same.drowned == pytest.approx(
        math.log10(state.over_stream[0])
    )
    pair = measure_scale_pair(sound, own(sick, batch))
    # its memory has nearly scale 1 already
    assert same.coarsened == pytest.approx(0.0, abs=0.3)
    assert (
        pair.sharpened > 0.1 and pair.drowned > same.drowned and pair.thinnest < 0 < pair.regained
    )
    assert columns([same, pair])["sharpened"] == [same.sharpened, pair.sharpened]


def test_a_memory_scale_is_set_on_a_copy(batch):
    experiment = make_experiment()
    model = make_model(experiment, batch)
    assert (
        with_memory_scale(model, 0.5).config.memory_scale == 0.5
        and model.config.memory_scale == 1.0
    )
