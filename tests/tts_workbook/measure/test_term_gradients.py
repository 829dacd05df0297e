"""With what weight a term enters the total: by its value, and by its gradient."""

import pytest

from tests.tts_workbook.diagnosis.tiny_subject import lab, losses
from tts_workbook.measure.term_gradients import gradient_weights, value_weights


def several_terms(model, batch):
    """The total holds the mel, a term of the memory and a detached one."""
    mel = losses(model, batch)["mel"]
    memory = model.encode(batch["text"]).square().mean()
    cut = model.out.weight.detach().square().mean()
    return {"mel": mel, "memory": memory, "cut": cut, "total": mel + 0.25 * memory + 3.0 * cut}


def test_a_detached_term_has_a_weight_in_the_value_and_none_in_the_gradient():
    here = lab(losses=several_terms)
    found = gradient_weights(here)
    assert found.weights == pytest.approx({"mel": 1.0, "memory": 0.25}, rel=1e-4)
    assert found.unshown < 1e-6
    assert value_weights(here) == pytest.approx({"mel": 1.0, "memory": 0.25, "cut": 3.0}, rel=1e-3)


def test_a_term_that_is_not_shown_is_a_share_of_the_gradient():
    def hidden(model, batch):
        terms = several_terms(model, batch)
        return {"memory": terms["memory"], "total": terms["total"]}

    here = lab(losses=hidden)
    gradients = here.gradients(here.build())
    found = gradient_weights(here)
    rest = {
        name: gradient - found.weights["memory"] * gradients["memory"].get(name, 0.0)
        for name, gradient in gradients["total"].items()
    }
    left = sum(float(tensor.square().sum()) for tensor in rest.values())
    whole = sum(float(tensor.square().sum()) for tensor in gradients["total"].values())
    assert found.unshown == pytest.approx(left / whole, rel=1e-4) and found.unshown > 0.1


def test_where_no_number_is_finite_there_are_no_weights():
    here = lab(losses=lambda model, batch: {"total": losses(model, batch)["total"] * float("nan")})
    found = gradient_weights(here)
    assert found.weights == {} and found.unshown == 0.0 and value_weights(here) == {}
