"""AdamW, clip, clearing and the stop loss's precision: the parity, and the defect that would break
it.
"""

import dataclasses

import pytest
import torch

from tests.conftest import make_experiment, make_model
from tts_core.errors import WorkbookError
from tts_workbook.measure import optimizer_parity
from tts_workbook.measure.optimizer_parity import (
    adamw_error,
    gap_over_progress,
    measure_stop_precision,
    nudged,
    published_adamw,
    short_run,
    weight_difference,
)
from tts_workbook.measure.step_parity import without_clip


@pytest.fixture
def experiment():
    return make_experiment()


def test_zeros_and_none_train_alike_and_gradients_that_pile_up_do_not(batch, experiment):
    model = make_model(experiment, batch)
    none, zeros, piled = (
        short_run(model, batch, experiment, 3, way).model for way in ("none", "zeros", "nothing")
    )
    assert weight_difference(zeros, none) == 0.0 < 1e-4 < weight_difference(piled, none)
    assert all(parameter.grad is None for parameter in model.parameters())
    with pytest.raises(WorkbookError, match="clearing = 'later'"):
        short_run(model, batch, experiment, 1, "later")


def test_short_runs_start_alike_and_the_control_drifts_less_than_the_clip(batch, experiment):
    model = make_model(experiment, batch)
    run, free, control = (
        short_run(m, batch, e, 12)
        for m, e in (
            (model, experiment),
            (model, without_clip(experiment)),
            (nudged(model), experiment),
        )
    )
    assert run.mel[0] == free.mel[0] and run.gradient_norm[0] > 1.0 and len(run.mel) == 12
    assert (
        gap_over_progress(run, run)
        == 0.0
        < gap_over_progress(control, run)
        < gap_over_progress(free, run)
    )
    assert weight_difference(nudged(model), model) == pytest.approx(1e-6, rel=0.1)


def test_gap_is_counted_in_the_references_progress():
    def of(mel):
        return optimizer_parity.ShortRun(mel, [1.0] * len(mel), None)

    assert gap_over_progress(of([2.0, 1.5, 1.4]), of([2.0, 1.0, 1.2])) == pytest.approx(0.5)


def test_adamw_is_the_published_one_and_another_is_told_from_it(batch, experiment, monkeypatch):
    model = make_model(experiment, batch)
    assert adamw_error(model, batch, experiment) < 1e-4

    def coupled(weight, gradients, options):
        """The decay in the gradient: Adam, not AdamW."""
        decayed = [gradient + options.weight_decay * weight for gradient in gradients]
        return published_adamw(weight, decayed, dataclasses.replace(options, weight_decay=0.0))

    monkeypatch.setattr(optimizer_parity, "published_adamw", coupled)
    assert adamw_error(model, batch, experiment) > 1e-2


def test_published_adamw_by_hand():
    options = make_experiment(lr=0.1).optimizer
    moved = published_adamw(torch.tensor([2.0, -1.0]), [torch.tensor([0.5, -0.25])], options)
    assert moved.tolist() == pytest.approx([2.0 * 0.999 - 0.1, -0.999 + 0.1])


def test_the_stop_loss_in_sixteen_bits_differs_as_it_should(batch, experiment):
    model = make_model(experiment, batch)
    with torch.no_grad():  # a trained head: confident, so that the loss is a sum of small terms
        model.stop_token_predictor.weight.zero_()
        model.stop_token_predictor.bias.fill_(-3.0)
    found = {
        dtype: measure_stop_precision(model, batch, experiment, dtype)
        for dtype in (torch.float32, torch.bfloat16, torch.float16)
    }
    assert (
        found[torch.float32].loss_error,
        found[torch.float32].logit_gradient,
        found[torch.float32].whole_gradient,
    ) == (0, 0, 0)
    assert 0 < found[torch.float16].logit_gradient < found[torch.bfloat16].logit_gradient < 0.02
    # 2 last frames of 23
    per_frame = 2 / 23 * 3.0 + torch.nn.functional.softplus(torch.tensor(-3.0))
    assert found[torch.float32].fp32 == pytest.approx(float(per_frame), rel=1e-5)
    assert model.training


def test_a_stop_loss_without_weight_moves_no_gradient(batch, experiment):
    silent = dataclasses.replace(
        experiment, loss=dataclasses.replace(experiment.loss, stop_weight=0.0)
    )
    found = measure_stop_precision(make_model(experiment, batch), batch, silent, torch.bfloat16)
    assert found.whole_gradient == 0.0 < found.logit_gradient
