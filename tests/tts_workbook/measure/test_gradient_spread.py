"""Where a gradient lies: complete, faithful, and able to see a dead path."""

import dataclasses

import pytest
import torch

from tests.conftest import make_experiment, make_model
from tests.tts_workbook.diagnosis.tiny_subject import lab
from tests.tts_workbook.measure.own_subjects import own
from tts_core.config import PRESETS
from tts_workbook.measure.gradient_spread import (
    gradient_norms,
    share_shift,
    text_modules,
    text_share,
)
from tts_workbook.measure.module_audit import audit_modules
from tts_workbook.measure.module_groups import audited_modules, modules_of


@pytest.mark.parametrize("name", PRESETS)
def test_audited_modules_own_every_parameter_once(name, batch):
    model = make_model(make_experiment(name), batch)
    owned = [parameter for names in audited_modules(model).values() for parameter in names]
    assert sorted(owned) == sorted(parameter for parameter, _ in model.named_parameters())
    assert modules_of(model) == audited_modules(model)


def test_norms_add_up_to_the_total_and_the_model_stays_as_it_was(batch):
    opened = own(make_experiment(), batch)
    before = {name: p.clone() for name, p in opened.model.named_parameters()}
    audit = audit_modules(opened)
    norms = audit.norm["total"].values()
    assert sum(norm**2 for norm in norms) ** 0.5 == pytest.approx(audit.total_norm, rel=1e-4)
    assert all(
        torch.equal(p, before[name]) and p.grad is None
        for name, p in opened.model.named_parameters()
    )
    assert audit.unreached_modules == []


def test_a_detached_encoder_is_seen_for_the_mel_loss_and_for_all(batch):
    def detached(model):
        model.encoder.register_forward_hook(lambda module, inputs, output: output.detach())
        return model

    audit = audit_modules(own(make_experiment(), batch, change=detached))
    assert {"text_embedding", "encoder.layers.0.self_attention"} <= set(audit.unreached_modules)
    assert audit.mel_norm["decoder.layers.0.cross_attention"] > 0


def test_update_ratio_of_the_first_adamw_step_follows_the_learning_rate(batch):
    ratios = [
        audit_modules(own(make_experiment(lr=lr), batch)).update_ratio["mel_projection_out"]
        for lr in (1e-3, 1e-5)
    ]
    assert ratios[0] / ratios[1] == pytest.approx(100, rel=0.05)


def test_the_stop_head_has_no_mel_gradient(batch):
    audit = audit_modules(own(make_experiment(), batch))
    stop = "stop_token_predictor"
    assert audit.mel_norm[stop] == 0.0 < audit.norm["total"][stop]


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


def test_the_text_side_of_another_model_is_found_by_running_it(batch):
    assert text_modules(own(make_experiment(), batch)) == ("text_embedding", "encoder.")
    found = text_modules(lab())
    assert "text" in found and "out" not in found


def test_an_fp16_audit_outlives_the_first_overflows_of_the_loss_scaler(batch):
    experiment = make_experiment()
    fp16 = dataclasses.replace(
        experiment, fit=dataclasses.replace(experiment.fit, precision="fp16")
    )
    audit, reference = (audit_modules(own(e, batch)) for e in (fp16, experiment))
    # norms are taken in fp32
    assert audit.total_norm == pytest.approx(reference.total_norm)
    # the step was made
    assert min(audit.update_ratio.values()) > 0


def test_gradient_norms_are_a_function_of_their_arguments_with_dropout_too(batch):
    opened = own(make_experiment(dropout=0.4), batch)
    torch.manual_seed(1)
    first = gradient_norms(opened, opened.model, "mel")
    torch.manual_seed(2)
    assert gradient_norms(opened, opened.model, "mel") == first
