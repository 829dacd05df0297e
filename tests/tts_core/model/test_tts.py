"""Invariants of the model under study, for every preset."""

import dataclasses

import pytest
import torch

from tests.conftest import make_batch, make_experiment, make_model
from tts_core.config import PRESETS, ModelConfig, preset
from tts_core.errors import WorkbookError
from tts_core.model.decoder import shift_right
from tts_core.model.modes import evaluating
from tts_core.model.tts import TTSModel
from tts_core.speech.batch import duplicate, pad_frames
from tts_core.training.losses import losses

presets = pytest.mark.parametrize("name", PRESETS)


def test_shift_right_puts_the_go_frame_first():
    mel, go = torch.randn(2, 4, 3), torch.tensor([7.0, 8.0, 9.0])
    shifted = shift_right(mel, go)
    assert shifted[:, 0].tolist() == [[7.0, 8.0, 9.0]] * 2
    torch.testing.assert_close(shifted[:, 1:], mel[:, :-1])


@presets
def test_perturbing_a_frame_moves_nothing_at_or_before_it(name, batch):
    model = make_model(make_experiment(name), batch).eval()
    changed = batch.mel.clone()
    changed[:, 5] += 10.0
    with torch.no_grad():
        before, after = model(batch), model(dataclasses.replace(batch, mel=changed))
    torch.testing.assert_close(before.mel[:, :6], after.mel[:, :6], rtol=0, atol=0)
    # and later frames do see it
    assert (before.mel[:, 6:9] - after.mel[:, 6:9]).abs().max() > 1e-4


@presets
def test_padding_changes_neither_loss_nor_gradient(name, batch):
    experiment = make_experiment(name, dropout=0.0)
    model = make_model(experiment, batch).double()
    batch = dataclasses.replace(batch, mel=batch.mel.double())
    results = [loss_and_gradient(model, b, experiment) for b in (batch, pad_frames(batch, 6))]
    assert_same(results[0], results[1], 1e-9)


@presets
@pytest.mark.parametrize("k", (2, 5))
def test_duplicating_the_batch_changes_neither_loss_nor_gradient(name, k, batch):
    experiment = make_experiment(name, dropout=0.0)
    model = make_model(experiment, batch).double()
    batch = dataclasses.replace(batch, mel=batch.mel.double())
    results = [loss_and_gradient(model, b, experiment) for b in (batch, duplicate(batch, k))]
    assert_same(results[0], results[1], 1e-9)


def test_checkpointing_changes_no_number(batch):
    results = []
    for flag in (False, True):
        experiment = make_experiment(gradient_checkpointing=flag, dropout=0.2)
        model = make_model(experiment, batch)
        torch.manual_seed(5)
        results.append(loss_and_gradient(model, batch, experiment))
    assert_same(results[0], results[1], 0.0)


@presets
def test_every_parameter_has_a_gradient(name, batch):
    experiment = make_experiment(name)
    _, gradients = loss_and_gradient(make_model(experiment, batch), batch, experiment)
    # softmax is blind to a constant in all keys, so key biases have no gradient beyond rounding
    dead = [
        p
        for p, g in gradients.items()
        if g is None or (not p.endswith("key.bias") and float(g.abs().max()) == 0.0)
    ]
    assert dead == []


def test_eval_is_deterministic_and_leaves_modes_alone(batch):
    model = make_model(make_experiment(dropout=0.3), batch)
    model.decoder.norm.eval()
    with evaluating(model):
        torch.testing.assert_close(model(batch).mel, model(batch).mel, rtol=0, atol=0)
    assert model.training and not model.decoder.norm.training
    # dropout is alive in training mode
    assert not torch.equal(model(batch).mel, model(batch).mel)


def test_same_seed_same_weights_and_arms_share_what_they_have_in_common(batch):
    healthy, no_norm = (make_model(make_experiment(name), batch) for name in ("healthy", "no_norm"))
    shared = dict(no_norm.named_parameters())
    assert all(
        torch.equal(p, shared[name]) for name, p in healthy.named_parameters() if name in shared
    )
    only_healthy = [name for name, _ in healthy.named_parameters() if name not in shared]
    assert only_healthy == ["encoder.memory_norm.weight", "encoder.memory_norm.bias"]


def test_memory_norm_brings_the_memory_to_unit_scale():
    long = make_batch([[3] * 30])
    widths = dict(hidden_dim=192, n_heads=4, encoder_ff_dim=64)
    with torch.no_grad():
        scales = {
            name: float(make_model(make_experiment(name, **widths), long)(long).memory.std())
            for name in ("healthy", "no_norm")
        }
    assert 1.0 < scales["healthy"] < 1.5  # LayerNorm (1.0) plus positions (0.7)
    assert 10 < scales["no_norm"] < 18  # sqrt(192) = 13.9


def test_standardised_model_speaks_ln_units(batch):
    model = make_model(make_experiment(), batch)
    frames = torch.cat([mel[:n] for mel, n in zip(batch.mel, batch.mel_lengths, strict=True)])
    normal = model.normaliser.normalise(frames)
    torch.testing.assert_close(normal.mean(dim=0), torch.zeros(80), atol=1e-4, rtol=0)
    torch.testing.assert_close(model.normaliser.denormalise(normal), frames, atol=1e-4, rtol=1e-4)
    raw = make_model(make_experiment("seed"), batch)
    assert torch.equal(raw.normaliser.normalise(frames), frames)


def test_seed_preset_has_the_size_of_the_findings():
    config = ModelConfig.seed(vocab_size=44)
    assert (
        config.hidden_dim,
        config.n_encoder_layers,
        config.n_decoder_layers,
        config.n_heads,
        config.encoder_ff_dim,
        config.decoder_ff_dim,
        config.mel_dim,
    ) == (512, 6, 6, 8, 2048, 2048, 80)
    assert preset("seed", 44, "seed").model == config
    with torch.device("meta"):
        model = TTSModel(config, preset("seed", 44, "seed").audio)
    assert 40e6 < sum(p.numel() for p in model.parameters()) < 50e6


def test_mel_dim_of_another_recipe_is_refused():
    experiment = make_experiment()
    with pytest.raises(WorkbookError, match=r"mel_dim = 80.*n_mels = 40"):
        TTSModel(experiment.model, dataclasses.replace(experiment.audio, n_mels=40))


def loss_and_gradient(model, batch, experiment):
    model.zero_grad(set_to_none=True)
    total = losses(model, batch, experiment.loss)["total"]
    total.backward()
    return total.detach(), {name: p.grad for name, p in model.named_parameters()}


def assert_same(a, b, tolerance):
    torch.testing.assert_close(a[0], b[0], rtol=tolerance, atol=0)
    for name, gradient in a[1].items():
        scale = float(gradient.norm())
        assert float((gradient - b[1][name]).norm()) <= tolerance * max(scale, 1e-6), name


@presets
def test_a_clip_says_the_same_alone_and_beside_a_longer_one(name, batch):
    """Padding of phonemes and of frames at once: nothing of the longer clip reaches the shorter."""
    model = make_model(make_experiment(name, dropout=0.0), batch)
    alone = dataclasses.replace(
        batch,
        phonemes=batch.phonemes[:1, :3],
        phoneme_lengths=batch.phoneme_lengths[:1],
        durations=batch.durations[:1, :3],
        mel=batch.mel[:1, :9],
        mel_lengths=batch.mel_lengths[:1],
        ids=("clip0",),
    )
    with evaluating(model):
        together, single = model(batch), model(alone)
    torch.testing.assert_close(together.mel[:1, :9], single.mel, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(
        together.log_durations[:1, :3], single.log_durations, rtol=1e-4, atol=1e-4
    )
    torch.testing.assert_close(
        together.stop_logits[:1, :9], single.stop_logits, rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("decoder_adds_memory", [False, True])
def test_keys_by_phoneme_are_keys_by_frame(decoder_adds_memory):
    """Without frame positions a phoneme's frames share one key: the same output and gradient, from
    as many keys as phonemes.
    """
    batch = make_batch([[2, 3, 0, 4], [5, 1, 4, 4, 2]], dtype=torch.float64)
    model = make_model(
        make_experiment(memory_positions=False, decoder_adds_memory=decoder_adds_memory), batch
    ).double()
    n_keys, gradients, outputs = [], [], []
    for layer in model.decoder.layers:
        layer.cross_attention.register_forward_pre_hook(
            lambda _, args: n_keys.append(args[1].shape[2])
        )
    # a recorded attention is asked for its weight on every frame
    for record in (False, True):
        for layer in model.decoder.layers:
            layer.cross_attention.record = record
        output = model(batch)
        outputs.append(output.mel[batch.mel_mask])
        model.zero_grad()
        losses(model, batch)["total"].backward()
        gradients.append([parameter.grad.clone() for parameter in model.parameters()])
    assert set(n_keys[:2]) == {batch.phonemes.shape[1]} and set(n_keys[2:]) == {batch.mel.shape[1]}
    torch.testing.assert_close(outputs[0], outputs[1])
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, atol=1e-9, rtol=1e-6)


@pytest.mark.parametrize(
    "changes, by_phoneme",
    [
        (dict(memory_positions=False), True),
        (dict(memory_positions=True), False),
        (dict(memory_positions=False, dropout=0.2), False),
    ],
)
def test_keys_are_taken_by_phoneme_only_where_that_changes_nothing(batch, changes, by_phoneme):
    model = make_model(make_experiment(**changes), batch)
    seen = []
    model.decoder.layers[0].cross_attention.register_forward_pre_hook(
        lambda _, args: seen.append(args[1].shape[2])
    )
    model(batch), model.eval()(batch)
    frames, phonemes = batch.mel.shape[1], batch.phonemes.shape[1]
    assert seen == [
        phonemes if by_phoneme else frames,
        frames if changes["memory_positions"] else phonemes,
    ]
