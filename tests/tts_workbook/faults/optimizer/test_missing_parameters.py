"""optimizer.missing_parameters: what the optimiser does not hold, and what is frozen on purpose."""

import pytest
import torch

from tests.tts_workbook.diagnosis.test_observe import step_with
from tests.tts_workbook.diagnosis.tiny_subject import Tiny, lab
from tests.tts_workbook.faults.one_step import blamed, findings, only
from tts_workbook.faults.optimizer.missing_parameters import (
    LeftOut,
    SwitchedOff,
    Trained,
    decide,
)

CAUSE = "optimizer.missing_parameters"


def without(*names, lr=None):
    """An optimiser over all parameters but those of the modules `names`, or with those at `lr`."""

    def make(model):
        inside = [p for name, p in model.named_parameters() if name.split(".")[0] in names]
        others = [p for name, p in model.named_parameters() if name.split(".")[0] not in names]
        return torch.optim.SGD(
            [{"params": others}] + ([] if lr is None else [{"params": inside, "lr": lr}]), lr=0.05
        )

    return make


def adam_of_trained(model):
    return torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.02)


class Hidden(Tiny):
    """The output layer sits in a plain list."""

    def __init__(self):
        super().__init__()
        self.heads = [self._modules.pop("out")]

    @property
    def out(self):
        return self.heads[0]


class Off(Tiny):
    def __init__(self, *names):
        super().__init__()
        for name in names:
            getattr(self, name).requires_grad_(False)


@pytest.mark.parametrize(
    ("fields", "where"),
    [
        (dict(make_optimizer=without("encoder")), "encoder"),
        (dict(make_optimizer=without("out", lr=0.0)), "out"),
        (dict(build=Hidden), "heads.0"),
        (
            dict(build=lambda: Off("out", "history"), make_optimizer=adam_of_trained, n_steps=200),
            "",
        ),
    ],
    ids=["not in the optimiser", "learning rate 0", "not registered", "requires_grad off"],
)
def test_missing_parameters(fields, where):
    assert only(lab(**fields), CAUSE).where == where


def test_gradients_of_missing_parameters_that_nobody_zeroes_are_no_fault_of_their_own():
    """optimizer.zero_grad() leaves what it does not hold: those gradients grow, and no step uses
    them.
    """
    only(
        lab(train_step=step_with(), make_optimizer=without("out", "history", "encoder")),
        CAUSE,
    )


@pytest.mark.parametrize(
    "fields",
    [
        dict(build=lambda: Off("text"), frozen=("text",)),
        dict(make_optimizer=without("text"), frozen=("text.weight",)),
    ],
    ids=["requires_grad off", "not in the optimiser"],
)
def test_silent_on_declared_frozen(fields):
    assert not blamed(lab(**fields))


def test_a_fixed_table_is_asked_about_and_not_blamed():
    found = findings(lab(build=lambda: Off("text")))[CAUSE]
    assert (found.level, found.where) == ("question", "text.weight")
    assert "Subject.frozen" in found.fix


def test_a_second_optimiser_inside_the_step():
    """What moves is optimised, wherever its optimiser lives."""
    others = {}

    def step(model, optimizer, batch):
        other = others.setdefault(id(model), torch.optim.SGD(model.encoder.parameters(), lr=0.05))
        step_with()(model, optimizer, batch)
        other.step()
        other.zero_grad()

    assert not blamed(lab(train_step=step, make_optimizer=without("encoder")))


LEFT = LeftOut(share=0.2, gradient_share=0.5, n_unregistered=0, n_idle=0)


def trained(missing=(), off=(), holds=True, steps=True, **more):
    return Trained(9, missing, off, holds, steps, **more)


@pytest.mark.parametrize(
    "numbers, wanted",
    [
        (trained(), ("excluded", "", 0.0, "all trained")),
        (trained(("a.b",), holds=False), ("excluded", "", 0.0, "holds none")),
        (trained(("a.b", "a.c"), left_out=LEFT), ("confirmed", "a", 0.5, "left out")),
        (trained(("a.b", "c.d"), left_out=LEFT), ("confirmed", "a.b", 0.5, "left out")),
        (
            trained(("a.b",), steps=False, left_out=LEFT),
            ("suspected", "a.b", 0.5, "left out, no step seen"),
        ),
        (
            trained(off=("a.b",), switched_off=SwitchedOff(1.0, 0.5, False, 0.01)),
            ("confirmed", "a.b", 0.5, "switched off"),
        ),
        (  # it learns its batch all the same
            trained(off=("a.b",), switched_off=SwitchedOff(0.75, 0.5, True, 0.01)),
            ("question", "a.b", 0.25, "frozen"),
        ),
        (  # nor is a gain that rounding makes too
            trained(off=("a.b",), switched_off=SwitchedOff(1.0, 0.75, False, 0.125)),
            ("question", "a.b", 0.25, "frozen"),
        ),
        (
            trained(off=("a.b",), switched_off=SwitchedOff(0.5, 0.75, False, 0.01)),
            ("question", "a.b", 0.0, "frozen"),
        ),
    ],
)
def test_the_ends_of_what_is_trained(numbers, wanted):
    decision = decide(numbers)
    assert (decision.level, decision.where, decision.strength, decision.reason) == wanted
