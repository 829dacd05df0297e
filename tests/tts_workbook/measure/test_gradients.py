"""The single-step audit: complete, faithful, and able to see a dead path."""

import pytest
import torch

from tests.conftest import make_experiment, make_model
from tts_core.config import PRESETS
from tts_workbook.measure.gradients import (
    audit_step,
    audited_modules,
    gradient_norms,
    share_shift,
    text_share,
)


@pytest.mark.parametrize("name", PRESETS)
def test_audited_modules_own_every_parameter_once(name, batch):
    model = make_model(make_experiment(name), batch)
    owned = [parameter for names in audited_modules(model).values() for parameter in names]
    assert sorted(owned) == sorted(parameter for parameter, _ in model.named_parameters())


def test_norms_add_up_to_the_total_and_the_model_stays_as_it_was(batch):
    experiment = make_experiment()
    model = make_model(experiment, batch)
    before = {name: p.clone() for name, p in model.named_parameters()}
    audit = audit_step(model, batch, experiment)
    assert sum(norm**2 for norm in audit.gradient_norm.values()) ** 0.5 == pytest.approx(
        audit.total_gradient_norm, rel=1e-4
    )
    assert all(
        torch.equal(p, before[name]) and p.grad is None for name, p in model.named_parameters()
    )
    assert audit.unreached == []


def test_a_detached_encoder_is_seen_for_the_mel_loss_and_for_all(batch):
    experiment = make_experiment()
    model = make_model(experiment, batch)
    model.encoder.register_forward_hook(lambda module, inputs, output: output.detach())
    audit = audit_step(model, batch, experiment)
    assert (
        "text_embedding" in audit.unreached and "encoder.layers.0.self_attention" in audit.unreached
    )
    assert audit.mel_gradient_norm["decoder.layers.0.cross_attention"] > 0


def test_update_ratio_of_the_first_adamw_step_follows_the_learning_rate(batch):
    ratios = [
        audit_step(
            make_model(make_experiment(lr=lr), batch), batch, make_experiment(lr=lr)
        ).update_ratio["mel_projection_out"]
        for lr in (1e-3, 1e-5)
    ]
    assert ratios[0] / ratios[1] == pytest.approx(100, rel=0.05)


def test_the_stop_head_has_no_mel_gradient(batch):
    audit = audit_step(make_model(make_experiment(), batch), batch, make_experiment())
    assert (
        audit.mel_gradient_norm["stop_token_predictor"]
        == 0.0
        < audit.gradient_norm["stop_token_predictor"]
    )


def test_share_shift_is_blind_to_scale_and_sees_a_redistribution():
    a = {"x": 3.0, "y": 4.0}
    assert share_shift(a, {"x": 30.0, "y": 40.0}) == pytest.approx(1.0)
    assert share_shift(a, {"x": 4.0, "y": 3.0}) == pytest.approx(4 / 3)
    # an unreached module is not a ratio
    assert share_shift(a, {"x": 3.0, "y": 0.0}) == pytest.approx(1.0)


def test_text_share_is_the_part_of_the_squared_norm_on_the_text_side():
    norms = {"text_embedding": 3.0, "encoder.layers.0.self_attention": 0.0, "decoder.norm": 4.0}
    assert text_share(norms) == pytest.approx(0.36)
    assert text_share({"decoder.norm": 1.0}) == 0.0


def test_the_audited_step_runs_on_the_models_own_device(batch, monkeypatch):
    from tts_workbook.measure import gradients

    seen = []
    start, choose = gradients.start_training, gradients.choose_precision
    monkeypatch.setattr(
        gradients,
        "start_training",
        lambda e, m, device: (seen.append(device), start(e, m, device))[1],
    )
    monkeypatch.setattr(
        gradients,
        "choose_precision",
        lambda name, device: (seen.append(str(device)), choose(name, device))[1],
    )
    experiment = make_experiment()
    audit_step(make_model(experiment, batch), batch, experiment)
    assert seen == ["cpu", "cpu"]


def test_an_fp16_audit_outlives_the_first_overflows_of_the_loss_scaler(batch):
    import dataclasses

    experiment = make_experiment()
    fp16 = dataclasses.replace(
        experiment, fit=dataclasses.replace(experiment.fit, precision="fp16")
    )
    audit, reference = (audit_step(make_model(e, batch), batch, e) for e in (fp16, experiment))
    # norms are taken in fp32
    assert audit.total_gradient_norm == pytest.approx(reference.total_gradient_norm)
    # the step was made
    assert min(audit.update_ratio.values()) > 0


def test_gradient_norms_are_a_function_of_their_arguments_with_dropout_too(batch):
    experiment = make_experiment(dropout=0.4)
    model = make_model(experiment, batch).eval()
    torch.manual_seed(1)
    first = gradient_norms(model, batch, experiment, "mel")
    torch.manual_seed(2)
    assert gradient_norms(model, batch, experiment, "mel") == first and not model.training
