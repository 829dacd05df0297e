"""Which loss pulls where, and what the update owes to it: exact where it can be exact."""

import dataclasses

import pytest
import torch

from tests.conftest import make_experiment
from tests.tts_workbook.diagnosis.tiny_subject import lab
from tests.tts_workbook.measure.own_subjects import own
from tts_core.errors import WorkbookError
from tts_workbook.measure.module_audit import audit_modules, cosines, shares
from tts_workbook.measure.module_groups import module_norms, modules_of
from tts_workbook.measure.step_parity import measure_step, relative_error, without_clip
from tts_workbook.measure.supply import NotMeasured
from tts_workbook.measure.term_gradients import term_gradients
from tts_workbook.measure.updates_without import (
    CLIP,
    ShadowOptimizer,
    added,
    measure_updates_without,
    weighted_gradients,
)
from tts_workbook.subject.tensor_math import dot_product

TERMS = ("mel", "duration", "stop")
WEIGHTS = {"mel": 1.0, "duration": 1.0, "stop": 0.1}


def with_loss(experiment, **changes):
    return dataclasses.replace(experiment, loss=dataclasses.replace(experiment.loss, **changes))


@pytest.fixture
def experiment():
    return make_experiment()


def test_shares_of_a_reached_module_add_up_to_one(batch, experiment):
    found = audit_modules(own(experiment, batch))
    for path in found.norm["mel"]:
        assert sum(found.share[term][path] for term in TERMS) == pytest.approx(1.0)
    assert {"text_embedding", "encoder.memory_norm", "mel_projection_in", "decoder.norm"} <= set(
        found.shared
    )
    # one loss each
    assert not {"mel_projection_out", "duration_predictor", "stop_token_predictor"} & set(
        found.shared
    )
    assert (
        found.share["duration"]["mel_projection_in"] == 0.0
        and "mel_projection_in" not in found.cosine["mel", "duration"]
    )


def test_weighted_gradients_add_up_to_that_of_the_total(batch, experiment):
    opened = own(experiment, batch)
    total = term_gradients(opened)["total"]
    whole = added(list(weighted_gradients(opened, opened.model, WEIGHTS).values()))
    assert relative_error(whole, total, list(total)) < 1e-6
    assert all(parameter.grad is None for parameter in opened.model.parameters())


def test_a_global_clip_leaves_shares_and_cosines_exactly_as_they_were(batch, experiment):
    opened = own(experiment, batch)
    modules, gradients = modules_of(opened.model), term_gradients(opened)
    clipped = {
        term: {name: tensor * 2.0**-7 for name, tensor in tensors.items()}
        for term, tensors in gradients.items()
    }
    norms, clipped_norms = (
        {term: module_norms(modules, found[term]) for term in found}
        for found in (gradients, clipped)
    )
    assert shares(clipped_norms, WEIGHTS) == shares(norms, WEIGHTS)
    assert clipped_norms["mel"]["decoder.norm"] == norms["mel"]["decoder.norm"] / 128
    before, after = cosines(modules, gradients), cosines(modules, clipped)
    for pair in before:
        assert after[pair] == pytest.approx(before[pair], abs=1e-12)


def test_the_cosine_of_a_loss_with_itself_is_one_and_with_its_negative_minus_one(batch, experiment):
    opened = own(experiment, batch)
    mel = term_gradients(opened)["mel"]
    negative = {name: -tensor for name, tensor in mel.items()}
    found = cosines(modules_of(opened.model), {"mel": mel, "duration": mel, "stop": negative})
    assert all(value == pytest.approx(1.0) for value in found["mel", "duration"].values())
    assert all(value == pytest.approx(-1.0) for value in found["mel", "stop"].values())
    assert dot_product(mel, mel, list(mel)) == pytest.approx(
        sum(float(t.double().square().sum()) for t in mel.values())
    )


def test_zeros_have_no_direction_and_so_no_cosine(batch, experiment):
    opened = own(experiment, batch)
    mel = term_gradients(opened)["mel"]
    nothing = {name: torch.zeros_like(tensor) for name, tensor in mel.items()}
    assert cosines(modules_of(opened.model), {"mel": mel, "stop": nothing}) == {("mel", "stop"): {}}


def test_leaving_out_a_loss_of_weight_zero_changes_no_update(batch, experiment):
    experiment = with_loss(experiment, stop_weight=0.0)
    found = measure_updates_without(own(experiment, batch), (1, 3))
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
    clipped = measure_updates_without(own(experiment, batch), (6,))[6]
    free = measure_updates_without(own(without_clip(experiment), batch), (6,))[6]
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
    found = measure_updates_without(own(experiment, batch), (1,))[1]
    assert found.size["duration"]["encoder.layers.0.feed_forward"] == pytest.approx(1.0, abs=0.02)
    assert found.change["duration"]["encoder.layers.0.feed_forward"] > 0.3


def test_the_shadow_update_is_the_optimisers_but_for_weight_decay(batch):
    experiment = make_experiment()
    experiment = dataclasses.replace(
        experiment, optimizer=dataclasses.replace(experiment.optimizer, weight_decay=0.0)
    )
    opened = own(experiment, batch)
    step = measure_step(opened.model, batch, experiment)
    shadow = ShadowOptimizer(opened, experiment.optimizer.clip_norm)
    names = [name for name in step.update if not name.endswith("key.bias")]
    gradients = weighted_gradients(opened, opened.model, WEIGHTS)
    found = shadow.update(added(list(gradients.values())))
    assert relative_error(found, step.update, names) < 1e-2


def test_updates_are_a_function_of_the_arguments_with_dropout_too(batch):
    experiment = make_experiment(dropout=0.3)
    first = measure_updates_without(own(experiment, batch), (2,))
    torch.manual_seed(77)
    assert measure_updates_without(own(experiment, batch), (2,)) == first


def test_steps_count_from_one(batch, experiment):
    for steps in ((), (0,)):
        with pytest.raises(WorkbookError, match="steps count from 1"):
            measure_updates_without(own(experiment, batch), steps)


def test_a_subject_with_one_loss_has_none_to_leave_out():
    with pytest.raises(NotMeasured, match="supply a second loss"):
        measure_updates_without(lab())


def test_a_loss_of_another_model_is_left_out_by_the_weight_that_it_has_in_the_total():
    from tests.tts_workbook.measure.test_module_audit import two_terms

    found = measure_updates_without(lab(losses=two_terms), (1, 2))[2]
    assert set(found.change) == {"mel", "memory", CLIP}
    # the memory's loss does not reach the output layer, and SGD keeps no moments
    assert found.size["memory"]["out"] > 0.9 and found.change["mel"]["out"] == pytest.approx(1.0)
