"""loop.no_step: the optimiser never steps, or what it does is undone."""

import pytest
import torch

from tests.tts_workbook.diagnosis.test_observe import step_with
from tests.tts_workbook.diagnosis.tiny_speaker import blamed
from tests.tts_workbook.diagnosis.tiny_speaker import findings as findings_of
from tests.tts_workbook.diagnosis.tiny_subject import Tiny, lab, losses, sgd
from tests.tts_workbook.faults.judged import JUDGES, tiny_lab
from tests.tts_workbook.faults.one_step import findings, only
from tests.tts_workbook.faults.train_steps import adamw


def never_steps(model, optimizer, batch):
    optimizer.zero_grad()
    losses(model, batch)["total"].backward()


def never_steps_or_zeroes(model, optimizer, batch):
    losses(model, batch)["total"].backward()


def zeroes_before_the_step(model, optimizer, batch):
    losses(model, batch)["total"].backward()
    optimizer.zero_grad(set_to_none=False)
    optimizer.step()


def without_gradients(model, optimizer, batch):
    optimizer.zero_grad()
    with torch.no_grad():
        total = losses(model, batch)["total"]
    total.requires_grad_().backward()
    optimizer.step()


def puts_weights_back(model, optimizer, batch):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    step_with()(model, optimizer, batch)
    model.load_state_dict(before)


@pytest.mark.parametrize(
    "step",
    [
        never_steps,
        never_steps_or_zeroes,
        zeroes_before_the_step,
        without_gradients,
        puts_weights_back,
    ],
)
def test_no_step(step):
    only(lab(train_step=step, make_optimizer=adamw), "loop.no_step")


def test_no_step_because_the_optimiser_holds_a_copy():
    finding = only(lab(make_optimizer=lambda model: sgd(Tiny())), "loop.no_step")
    assert finding.where == "make_optimizer"


def test_a_step_that_raises_is_not_blamed():
    def raising(model, optimizer, batch):
        raise ValueError("no such clip")

    found = findings(lab(train_step=raising))
    assert not {
        cause for cause, finding in found.items() if finding.level in ("confirmed", "suspected")
    }


def test_no_step_is_no_small_learning_rate():
    def never(model, optimizer, batch):
        optimizer.zero_grad()
        losses(model, batch)["total"].backward()

    found = findings_of(tiny_lab(train_step=never), *JUDGES, "loop.no_step")
    assert blamed(found) == {"loop.no_step"}
