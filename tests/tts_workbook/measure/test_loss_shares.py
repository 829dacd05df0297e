"""Which loss pulls where, and what the update owes to it: exact where it can be exact."""

import dataclasses

import pytest
import torch

from tests.conftest import make_experiment, make_model
from tts_core.errors import WorkbookError
from tts_workbook.measure.gradients import term_gradients
from tts_workbook.measure.loss_shares import (
    CLIP,
    PAIRS,
    TERMS,
    ShadowAdamW,
    added,
    dot_product,
    measure_loss_shares,
    measure_updates_without,
    shares_of,
    weighted_gradients,
)
from tts_workbook.measure.step_parity import (
    measure_step,
    relative_error,
    with_dropout,
    without_clip,
)


def with_loss(experiment, **changes):
    return dataclasses.replace(experiment, loss=dataclasses.replace(experiment.loss, **changes))


@pytest.fixture
def experiment():
    return make_experiment()


def test_shares_of_a_reached_module_add_up_to_one(batch, experiment):
    shares = measure_loss_shares(make_model(experiment, batch), batch, experiment)
    for path in shares.norm["mel"]:
        assert sum(shares.share[term][path] for term in TERMS) == pytest.approx(1.0)
    assert {"text_embedding", "encoder.memory_norm", "mel_projection_in", "decoder.norm"} <= set(
        shares.shared
    )
    # one loss each
    assert not {"mel_projection_out", "duration_predictor", "stop_token_predictor"} & set(
        shares.shared
    )
    assert (
        shares.share["duration"]["mel_projection_in"] == 0.0
        and "mel_projection_in" not in shares.cosine["mel", "duration"]
    )


def test_weighted_gradients_add_up_to_that_of_the_total(batch, experiment):
    model = make_model(experiment, batch)
    total = term_gradients(model, batch, experiment, ("total",))["total"]
    whole = added(weighted_gradients(model, batch, experiment))
    assert relative_error(whole, total, list(total)) < 1e-6
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_global_clip_leaves_shares_and_cosines_exactly_as_they_were(batch, experiment):
    model = make_model(experiment, batch)
    gradients = weighted_gradients(model, batch, experiment)
    clipped = {
        term: {name: tensor * 2.0**-7 for name, tensor in tensors.items()}
        for term, tensors in gradients.items()
    }
    before, after = shares_of(model, gradients), shares_of(model, clipped)
    assert (
        after.share == before.share
        and after.norm["mel"]["decoder.norm"] == before.norm["mel"]["decoder.norm"] / 128
    )
    for pair in PAIRS:
        assert after.cosine[pair] == pytest.approx(before.cosine[pair], abs=1e-12)


def test_the_cosine_of_a_loss_with_itself_is_one_and_with_its_negative_minus_one(batch, experiment):
    model = make_model(experiment, batch)
    mel = weighted_gradients(model, batch, experiment)["mel"]
    shares = shares_of(
        model,
        {"mel": mel, "duration": mel, "stop": {name: -tensor for name, tensor in mel.items()}},
    )
    assert all(value == pytest.approx(1.0) for value in shares.cosine["mel", "duration"].values())
    assert all(value == pytest.approx(-1.0) for value in shares.cosine["mel", "stop"].values())
    assert dot_product(mel, mel, list(mel)) == pytest.approx(
        sum(float(t.double().square().sum()) for t in mel.values())
    )


def test_leaving_out_a_loss_of_weight_zero_changes_no_update(batch, experiment):
    experiment = with_loss(experiment, stop_weight=0.0)
    found = measure_updates_without(make_model(experiment, batch), batch, experiment, (1, 3))
    for step in (1, 3):
        assert set(found[step].change["stop"].values()) == {0.0}
        assert (
            found[step].size["stop"]["decoder.norm"] == 1.0
            and found[step].size["stop"]["stop_token_predictor"] == 0.0
        )
        # nothing else pulled there
        assert found[step].change["mel"]["decoder.norm"] == pytest.approx(1.0)


def test_what_the_duration_loss_does_to_the_decoder_it_does_through_the_clip(batch, experiment):
    """It does not reach the decoder; with a clip that bites, its norm still divides the decoder's
    gradients.
    """
    experiment = with_loss(experiment, duration_weight=100.0)
    model = make_model(experiment, batch)
    clipped = measure_updates_without(model, batch, experiment, (6,))[6]
    free = measure_updates_without(model, batch, without_clip(experiment), (6,))[6]
    assert clipped.change["duration"]["mel_projection_in"] > 1e-3
    assert (
        free.change["duration"]["mel_projection_in"]
        == 0.0
        < free.change["duration"]["text_embedding"]
    )
    assert (
        set(free.change[CLIP].values()) == {0.0}
        and clipped.change[CLIP]["mel_projection_in"] > 1e-3
    )


def test_the_first_update_has_the_size_of_the_learning_rate_whatever_is_left_out(batch, experiment):
    found = measure_updates_without(make_model(experiment, batch), batch, experiment, (1,))[1]
    assert found.size["duration"]["encoder.layers.0.feed_forward"] == pytest.approx(1.0, abs=0.02)
    assert found.change["duration"]["encoder.layers.0.feed_forward"] > 0.3


def test_the_shadow_update_is_the_optimisers_but_for_weight_decay(batch):
    experiment = make_experiment()
    experiment = dataclasses.replace(
        experiment, optimizer=dataclasses.replace(experiment.optimizer, weight_decay=0.0)
    )
    model = make_model(experiment, batch)
    step = measure_step(model, batch, experiment)
    shadow = ShadowAdamW(
        {name: p.detach() for name, p in model.named_parameters()}, experiment.optimizer
    )
    names = [name for name in step.update if not name.endswith("key.bias")]
    assert (
        relative_error(
            shadow.update(added(weighted_gradients(model, batch, experiment))), step.update, names
        )
        < 1e-2
    )


def test_updates_are_a_function_of_the_arguments_with_dropout_too(batch, experiment):
    model = with_dropout(make_model(experiment, batch), 0.3)
    first = measure_updates_without(model, batch, experiment, (2,))
    torch.manual_seed(77)
    assert measure_updates_without(model, batch, experiment, (2,)) == first


def test_steps_count_from_one(batch, experiment):
    for steps in ((), (0,)):
        with pytest.raises(WorkbookError, match="steps count from 1"):
            measure_updates_without(make_model(experiment, batch), batch, experiment, steps)
