"""Configuration: presets differ in named switches only, and bad values are named."""

import dataclasses
import json

import pytest

from tts_core.config import (
    PRESETS,
    PROFILE_SIZES,
    SWITCHES,
    AudioConfig,
    ExperimentConfig,
    FitConfig,
    LossConfig,
    ModelConfig,
    OptimizerConfig,
    from_dict,
    preset,
)
from tts_core.errors import WorkbookError


@pytest.mark.parametrize("profile", PROFILE_SIZES)
def test_presets_differ_only_in_named_switches(profile):
    models = {name: dataclasses.asdict(preset(name, 40, profile).model) for name in PRESETS}
    for name in PRESETS:
        differing = {key for key in models[name] if models[name][key] != models["healthy"][key]}
        assert differing <= set(SWITCHES)
    assert {
        key for key in models["no_norm"] if models["no_norm"][key] != models["healthy"][key]
    } == {"memory_norm"}
    healthy, no_norm = preset("healthy", 40, profile), preset("no_norm", 40, profile)
    assert dataclasses.replace(no_norm, model=healthy.model) == healthy


def test_the_seed_preset_is_that_of_the_findings():
    experiment = preset("seed", 40, "seed")
    assert experiment.optimizer == OptimizerConfig(lr=7e-5, weight_decay=0.01, clip_norm=1.0)
    assert experiment.loss == LossConfig(
        duration_weight=1.0, stop_weight=0.1, stop_positive_weight=1.0
    )
    assert experiment.audio == AudioConfig.seed() and experiment.audio.silence == pytest.approx(
        -11.5
    )
    model = experiment.model
    assert (
        model.memory_norm,
        model.embedding_scale,
        model.standardise_targets,
        model.generation_layout,
    ) == (False, "sqrt_dim", False, "seed")


def test_round_trip_through_json_and_a_digest_that_sees_every_field():
    experiment = preset("seed", 40)
    assert from_dict(ExperimentConfig, json.loads(json.dumps(experiment.to_dict()))) == experiment
    changed = dataclasses.replace(
        experiment, optimizer=dataclasses.replace(experiment.optimizer, eps=1e-7)
    )
    assert changed.digest != experiment.digest == preset("seed", 40).digest


@pytest.mark.parametrize(
    "build, message",
    (
        (lambda: OptimizerConfig(lr=-1e-3), "lr = -0.001, but it must be positive"),
        (lambda: OptimizerConfig(lr=float("nan")), "lr = nan"),
        (lambda: OptimizerConfig(clip_norm=0.0), "clip_norm = 0.0"),
        (
            lambda: ModelConfig(vocab_size=10, hidden_dim=100, n_heads=3),
            r"hidden_dim = 100, but it must be divisible by n_heads = 3; try 99",
        ),
        (lambda: ModelConfig(vocab_size=0), "vocab_size = 0"),
        (
            lambda: ModelConfig(vocab_size=10, dropout=1.0),
            r"dropout = 1.0, but it must be in \[0, 1\)",
        ),
        (
            lambda: ModelConfig(vocab_size=10, go_frame="loud"),
            "go_frame = 'loud', but it must be one of 'zero', 'silence'",
        ),
        (
            lambda: AudioConfig(f_max=20_000.0),
            "f_max = 20000.0, but it must be .* at most half the sample rate",
        ),
        (
            lambda: AudioConfig(win_length=2048),
            "win_length = 2048, but it must be at most n_fft = 1024",
        ),
        (lambda: FitConfig(steps=0), "steps = 0"),
        (lambda: FitConfig(precision="fp8"), "precision = 'fp8'"),
        (lambda: LossConfig(stop_weight=-1.0), "stop_weight = -1.0"),
        (
            lambda: preset("helthy", 40),
            "preset = 'helthy', but it must be one of healthy, no_norm, seed",
        ),
        (lambda: preset("healthy", 40, "fast"), "profile = 'fast'"),
        (
            lambda: ExperimentConfig(model=ModelConfig(vocab_size=10, mel_dim=40)),
            "mel_dim = 40, but it must be AudioConfig.n_mels = 80",
        ),
        (
            lambda: from_dict(OptimizerConfig, {"learning_rate": 1e-3}, "my.json"),
            "my.json: unknown key learning_rate for OptimizerConfig; known keys are lr",
        ),
        (lambda: from_dict(ModelConfig, {}, "my.json"), "my.json: ModelConfig needs vocab_size"),
    ),
)
def test_bad_values_are_named_with_what_is_wanted(build, message):
    with pytest.raises(WorkbookError, match=message):
        build()
