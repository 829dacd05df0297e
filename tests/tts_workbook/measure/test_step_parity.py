"""One step made two ways: equal where it must be, and not equal where something is broken."""

import functools

import pytest
import torch

from tests.conftest import make_experiment, make_model
from tts_core.model import tts
from tts_workbook.measure.step_parity import (
    FLOORS,
    _rounded_weights,
    alternative_steps,
    compare_steps,
    direction,
    fp16_by_loss_scale,
    in_precision,
    measure_step,
    relative_error,
    rounding_floors,
    with_checkpointing,
    with_dropout,
    without_clip,
)


@pytest.fixture
def experiment():
    return make_experiment()


def test_error_and_cosine_of_known_tensors():
    a, b = (
        {"x": torch.tensor([3.0, 0.0]), "y": torch.tensor([0.0])},
        {
            "x": torch.tensor([0.0, 4.0]),
            "y": torch.tensor([0.0]),
        },
    )
    assert (
        relative_error(a, b, ["x", "y"]) == pytest.approx(5 / 4)
        and relative_error(a, a, ["x"]) == 0.0
    )
    assert direction(a, b, ["x"]) == pytest.approx(0.0) and direction(
        a, a, ["x", "y"]
    ) == pytest.approx(1.0)
    assert direction(a, b, ["y"]) == 0.0  # zeros have no direction
    # something instead of nothing
    assert relative_error(a, {"x": torch.zeros(2)}, ["x"]) > 1e100


def test_a_step_against_itself_differs_nowhere_and_the_model_stays(batch, experiment):
    model = make_model(experiment, batch)
    before = {name: p.clone() for name, p in model.named_parameters()}
    step, again = (measure_step(model, batch, experiment) for _ in range(2))
    found = compare_steps(model, step, again)
    assert (found.loss, found.gradient, found.update) == (0.0, 0.0, 0.0) and set(
        found.modules.values()
    ) == {0.0}
    assert all(
        torch.equal(p, before[name]) and p.grad is None for name, p in model.named_parameters()
    )
    assert min(float(update.abs().max()) for update in step.update.values()) > 0


def test_the_gradient_is_the_one_that_the_optimiser_got_clipped(batch, experiment):
    model = make_model(experiment, batch)
    free, clipped = (
        measure_step(model, batch, without_clip(experiment)),
        measure_step(model, batch, experiment),
    )
    size = sum(float(g.square().sum()) for g in clipped.gradient.values()) ** 0.5
    assert free.report.gradient_norm > 1.0 and size == pytest.approx(1.0, rel=1e-4)
    assert direction(free.gradient, clipped.gradient, list(free.gradient)) == pytest.approx(1.0)


def test_checkpointing_and_loss_scales_change_nothing(batch, experiment):
    found = alternative_steps(make_model(experiment, batch), batch, experiment)
    assert list(found) == [
        "checkpointing, dropout 0",
        "loss scale 1,024",
        "loss scale 65,536",
        "checkpointing, dropout 0.1",
    ]
    assert {(step.loss, step.gradient, step.update) for step in found.values()} == {(0.0, 0.0, 0.0)}


def test_checkpointing_that_forgets_the_random_state_is_caught(batch, experiment, monkeypatch):
    monkeypatch.setattr(
        tts, "checkpoint", functools.partial(tts.checkpoint, preserve_rng_state=False)
    )
    found = alternative_steps(make_model(experiment, batch), batch, experiment)
    assert (
        found["checkpointing, dropout 0"].gradient
        == 0.0
        < 0.01
        < found["checkpointing, dropout 0.1"].gradient
    )


def test_sixteen_bits_stay_near_their_rounding_floor_and_a_broken_module_does_not(
    batch, experiment
):
    model, plain = make_model(experiment, batch), without_clip(experiment)
    reference = measure_step(model, batch, in_precision(plain, "fp32"))
    for low, mantissa in (("bf16", 8), ("fp16", 11)):
        floors = rounding_floors(model, batch, plain, low)
        assert tuple(floors) == FLOORS
        assert 0.2 * 2.0**-mantissa < floors["gradient rounded"].gradient < 2.0**-mantissa
        step = compare_steps(model, measure_step(model, batch, in_precision(plain, low)), reference)
        assert (
            floors["gradient rounded"].gradient
            < step.gradient
            < 5 * floors["weights rounded"].gradient
        )
        assert 0 < step.loss < 0.02 and step.gradient_cosine > 0.99
    broken = make_model(experiment, batch)
    broken.decoder.layers[0].cross_attention.query.register_forward_hook(
        lambda module, inputs, output: 1.5 * output - 0.5 * output.detach()
    )
    found = compare_steps(
        model, measure_step(broken, batch, in_precision(plain, "fp32")), reference
    )
    assert (
        found.modules["decoder.layers.0.cross_attention"] > 0.05
        and found.modules["mel_projection_out"] < 1e-5
    )


def test_rounded_weights_fit_their_type_and_lie_within_one_step(batch, experiment):
    model = make_model(experiment, batch)
    draws = [_rounded_weights(model, torch.bfloat16, draw) for draw in (0, 1, 1)]
    for name, parameter in model.named_parameters():
        nearest, up_or_down, again = (draw.get_parameter(name).detach() for draw in draws)
        assert torch.equal(nearest, parameter.detach().bfloat16().float()) and torch.equal(
            up_or_down, again
        )
        assert torch.equal(up_or_down, up_or_down.bfloat16().float())
        assert ((up_or_down - parameter).abs() <= 2.0**-7 * parameter.abs() + 1e-30).all()
    assert any(
        not torch.equal(draws[0].get_parameter(name), draws[1].get_parameter(name))
        for name, _ in model.named_parameters()
    )


def test_a_rounded_gradient_moves_no_sign_and_so_no_first_update(batch, experiment):
    found = rounding_floors(make_model(experiment, batch), batch, without_clip(experiment), "bf16")
    assert found["gradient rounded"].update < 1e-3 < found["weights rounded"].update
    assert found["gradient rounded"].loss == 0.0 < found["output rounded"].loss


def test_an_overflow_is_said_and_small_scales_agree(batch, experiment):
    errors = fp16_by_loss_scale(
        make_model(experiment, batch), batch, without_clip(experiment), (2**8, 2**10, 2**40)
    )
    assert errors[2**40] is None and errors[2**8] == pytest.approx(errors[2**10], rel=0.2)
    assert 0 < errors[2**10] < 0.02


def test_dropout_and_checkpointing_are_set_on_a_copy(batch, experiment):
    model = make_model(experiment, batch)
    wet = with_dropout(model, 0.25)
    assert {module.p for module in wet.modules() if isinstance(module, torch.nn.Dropout)} == {0.25}
    assert (
        wet.decoder.layers[0].self_attention.dropout == 0.25
        and model.decoder.layers[0].self_attention.dropout == 0.0
    )
    assert (
        with_checkpointing(model, True).config.gradient_checkpointing
        and not model.config.gradient_checkpointing
    )
    a, b = measure_step(model, batch, experiment), measure_step(wet, batch, experiment)
    assert compare_steps(model, b, a).gradient > 0.01
    # dropout is the experiment's, not the caller's
    torch.manual_seed(99)
    assert compare_steps(model, measure_step(wet, batch, experiment), b).gradient == 0.0
