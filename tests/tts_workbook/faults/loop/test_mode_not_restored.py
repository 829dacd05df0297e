"""loop.mode_not_restored: training that goes on in evaluation mode, judging in training mode, and
what only looks like it.
"""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests.tts_workbook.diagnosis.test_observe import step_with
from tests.tts_workbook.diagnosis.tiny_subject import Tiny, lab
from tts_workbook.faults.examine import examine
from tts_workbook.faults.loop import mode_not_restored
from tts_workbook.faults.loop.mode_not_restored import (
    JudgedModes,
    StepModes,
    decide_judging,
    decide_steps,
)
from tts_workbook.faults.planting import Setting
from tts_workbook.faults.registry import CAUSES

CAUSE = CAUSES["loop.mode_not_restored"]
NONE = StepModes(8, (), False, (), 8, (), "", 0.0, 0.0)


@pytest.mark.parametrize(
    "numbers, expected",
    [
        (NONE, ("excluded", "", "training mode")),
        (
            replace(NONE, later=("a",), apart=0.3),
            ("confirmed", "train_step", "evaluation mode"),
        ),
        (
            replace(NONE, later=("a",), apart=1e-6, rounding=2e-7),
            ("excluded", "", "nothing depends on it"),
        ),
        (
            replace(NONE, at_once=("a",), everything=True, apart=0.3),
            ("confirmed", "train_step", "evaluation mode at once"),
        ),
        (replace(NONE, at_once=("a",), apart=0.3), ("question", "a", "a part evaluates")),
        (
            replace(NONE, left=("a",), left_by="generate", apart=0.3),
            ("question", "generate", "left by a part"),
        ),
        (
            replace(NONE, later=("a",), apart=float("nan")),
            ("excluded", "", "nothing depends on it"),
        ),
    ],
)
def test_the_ends_of_training(numbers, expected):
    decision = decide_steps(numbers)
    assert (decision.level, decision.where, decision.reason) == expected


@pytest.mark.parametrize(
    "numbers, expected",
    [
        (JudgedModes(("predict_mel",), "", (), False, 0.0, 0.0), None),
        (JudgedModes(("predict_mel",), "predict_mel", ("",), True, 1e-7, 1e-7), None),
        (JudgedModes(("predict_mel",), "predict_mel", ("",), True, 0.2, 1e-7), "confirmed"),
        (JudgedModes(("predict_mel",), "predict_mel", ("a",), False, 0.2, 1e-7), "question"),
    ],
)
def test_the_ends_of_judging(numbers, expected):
    decision = decide_judging(numbers)
    assert (decision.level if decision else None) == expected


def dropping():
    return Tiny(dropout=0.3)


def validating(every=1, restores="", parts=lambda model: model):
    """A train step that validates in evaluation mode behind every k-th update."""
    count = {"steps": 0}

    def step(model, optimizer, batch):
        if restores == "before":
            model.train()
        step_with()(model, optimizer, batch)
        count["steps"] += 1
        if count["steps"] % every == 0:
            parts(model).eval()
            with torch.no_grad():
                model(batch)
            if restores == "behind":
                model.train()

    return step


def found(step=None, build=dropping, **fields):
    return examine(CAUSE, lab(build=build, train_step=step, **fields))


@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize("parts", [lambda model: model, lambda model: model.encoder])
def test_a_validation_that_does_not_switch_back(every, parts):
    said = found(validating(every, parts=parts))
    assert said.level == "confirmed" and said.where == "train_step"
    assert said.evidence["at call"] == every + 1
    assert said.evidence["relative difference of the loss between the modes"] > 1e-3


def test_a_step_that_evaluates_from_the_start():
    def step(model, optimizer, batch):
        model.eval()
        step_with()(model, optimizer, batch)

    assert found(step).level == "confirmed"


class Frozen(Tiny):
    """An encoder whose weights are not trained."""

    def __init__(self):
        super().__init__(dropout=0.3)
        self.encoder.requires_grad_(False)


def encoder_evaluates(model, optimizer, batch):
    model.encoder.eval()
    step_with()(model, optimizer, batch)


LOOK_ALIKES = {
    "the workbook's step": dict(step=None),
    "switched back before the update": dict(step=validating(restores="before")),
    "switched back behind the validation": dict(step=validating(restores="behind")),
    "nothing depends on the mode": dict(step=validating(), build=Tiny),
    "a frozen part evaluates": dict(step=encoder_evaluates, build=Frozen),
}


@pytest.mark.parametrize("name", LOOK_ALIKES)
def test_look_alikes_are_excluded(name):
    assert found(**LOOK_ALIKES[name]).level == "excluded"


def test_a_trained_part_that_evaluates_is_a_question():
    said = found(encoder_evaluates)
    assert (said.level, said.where) == ("question", "encoder") and "Subject.frozen" in said.fix


def test_a_part_that_leaves_the_model_in_evaluation_mode_is_a_question():
    """The loop around the train step is not ours to see: it may switch back."""

    def generate(model, batch):
        return model.eval()(batch)

    said = found(generate=generate)
    assert (said.level, said.where) == ("question", "generate")
    assert found(validating(restores="before"), generate=generate).level == "excluded"


def test_judging_in_training_mode():
    def predict(model, batch):
        return model.train()(batch)

    bench = lab(build=dropping)
    bench.subject = replace(bench.subject, predict_mel=predict)
    said = examine(CAUSE, bench)
    assert (said.level, said.where) == ("confirmed", "predict_mel")
    assert said.evidence["move of a valid frame, target deviations"] > 0.01


class Prenet(nn.Module):
    """Drops when it is judged too, as Tacotron 2's does."""

    def forward(self, x):
        return F.dropout(x, 0.5, training=True)


class Stochastic(Tiny):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(16, 16), Prenet())


def test_a_prenet_that_always_drops_is_no_training_mode():
    assert found(build=Stochastic).level == "excluded"


def test_the_plant_is_found():
    clean = lab(build=dropping)
    for seed in range(3):
        planted = mode_not_restored.plant(lambda setting: clean.subject, Setting(seed))
        assert examine(CAUSE, type(clean)(planted, steps=16)).level == "confirmed"
