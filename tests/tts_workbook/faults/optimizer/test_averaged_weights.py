"""optimizer.averaged_weights: averages that lag, wherever they live, and that do not."""

import copy
import functools
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from tests.tts_workbook.diagnosis.test_observe import step_with
from tests.tts_workbook.diagnosis.tiny_speaker import Speaker, blamed, findings, speaker_lab
from tests.tts_workbook.faults.judged import JUDGES
from tts_workbook.faults.optimizer.averaged_weights import (
    Averaged,
    Heard,
    JudgedWith,
    averaging,
    decide,
    decide_heard,
    judged_with,
    plant,
)
from tts_workbook.faults.planting import Setting
from tts_workbook.faults.selection import Accepted, OneFactor
from tts_workbook.faults.suspect import Suspect
from tts_workbook.lab.lab import Lab
from tts_workbook.lab.short_run import Change, Course

CAUSE = "optimizer.averaged_weights"
STEPS = 48


def average(decay):
    def make(model):
        averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay))
        averaged.n_averaged += 1
        return averaged

    return make


def outside(decay):
    """The average is an object of the train step's own."""
    return Lab(averaging(speaker_lab().subject, average(decay)), steps=STEPS)


class WithAverage(Speaker):
    """The average is a module inside the model, used where it is not trained."""

    def __init__(self):
        super().__init__()
        self.average = copy.deepcopy(Speaker()).requires_grad_(False)
        self.average.load_state_dict(self.weights())

    def weights(self):
        return {k: v for k, v in self.state_dict().items() if not k.startswith("average.")}

    def forward(self, batch):
        return super().forward(batch) if self.training else self.average(batch)


def inside(decay):
    def step(model, optimizer, batch):
        step_with()(model, optimizer, batch)
        weights = model.weights()
        with torch.no_grad():
            for name, value in model.average.state_dict().items():
                value.lerp_(weights[name], 1 - decay)

    return speaker_lab(WithAverage, train_step=step, steps=STEPS)


def swapped_in(decay):
    """The average is a list of tensors, copied into the model while it predicts."""
    shadows = {}

    def step(model, optimizer, batch):
        kept = shadows.setdefault(id(model), [p.detach().clone() for p in model.parameters()])
        step_with()(model, optimizer, batch)
        for shadow, parameter in zip(kept, model.parameters(), strict=True):
            shadow.lerp_(parameter.detach(), 1 - decay)

    def predict_mel(model, batch):
        raw = [p.detach().clone() for p in model.parameters()]
        kept = shadows.get(id(model), raw)
        try:
            for parameter, shadow in zip(model.parameters(), kept, strict=True):
                parameter.data.copy_(shadow)
            return model(batch)
        finally:
            for parameter, value in zip(model.parameters(), raw, strict=True):
                parameter.data.copy_(value)

    bench = speaker_lab(train_step=step, steps=STEPS)
    return Lab(replace(bench.subject, predict_mel=predict_mel), steps=STEPS)


@pytest.mark.parametrize("kind", [outside, inside, swapped_in])
def test_an_average_that_lags_is_what_is_blamed(kind):
    bench = kind(0.999)
    found = findings(bench, CAUSE, *JUDGES)
    assert blamed(found) == {CAUSE} and found[CAUSE].level == "confirmed"
    assert found[CAUSE].evidence["last TF L1 / best constant before"] > 0.9
    assert found[CAUSE].evidence["last after"] < 0.5
    assert 0.8 < judged_with(bench).behind < 1.0


@pytest.mark.parametrize("kind", [outside, inside, swapped_in])
def test_an_average_that_has_caught_up_is_silent(kind):
    bench = kind(0.5)
    assert not blamed(findings(bench, CAUSE, *JUDGES))
    seen = judged_with(bench)
    assert seen.n_other > 0 and seen.behind < 0.1


def test_the_trained_weights_are_put_back_after_a_judgement():
    bench = swapped_in(0.999)
    course = bench.course()
    before = copy.deepcopy(course.model.state_dict())
    judged_with(bench)
    assert all(
        torch.equal(value, before[name]) for name, value in course.model.state_dict().items()
    )
    assert all(isinstance(p, nn.Parameter) and p.requires_grad for p in course.model.parameters())
    assert not torch.nn.modules.module._global_forward_pre_hooks


def test_without_an_average_there_is_nothing_to_ask():
    bench = speaker_lab(steps=STEPS)
    found = findings(bench, CAUSE)[CAUSE]
    assert found.level == "excluded" and judged_with(bench).n_other == 0


@pytest.mark.parametrize("decay, level", [(0.999, "confirmed"), (0.5, "excluded")])
def test_the_model_that_is_heard_is_asked_for(decay, level):
    """`predict_mel` uses the trained weights: only Subject.judged tells of the others."""
    averages = {}

    def step(model, optimizer, batch):
        averaged = averages.setdefault(id(model), average(decay)(model))
        step_with()(model, optimizer, batch)
        averaged.update_parameters(model)

    bench = speaker_lab(train_step=step, judged=lambda model: averages[id(model)].module)
    found = findings(bench, CAUSE)[CAUSE]
    assert (found.level, found.where) == (level, "judged" if level == "confirmed" else "")


def test_a_planted_average_lags():
    clean = speaker_lab().subject
    bench = Lab(plant(lambda setting: clean, Setting(0)), steps=STEPS)
    assert findings(bench, CAUSE)[CAUSE].level == "confirmed"


SUSPECT = Suspect(CAUSE, Change("trained_weights"), {}, "predict_mel")
COURSE = Course((1,), (1.0,), "", 0.0, 0.0, 0.0, 0.0, None)
MENDS = OneFactor(Accepted(SUSPECT, 0.3, (), COURSE, COURSE), None, True, 0.1)
VAIN = OneFactor(None, None, False, 1.0)
seen_with = functools.partial(JudgedWith, unpaired=(), behind=0.5)


@pytest.mark.parametrize(
    "seen, raw, wanted",
    [
        (seen_with(3, 9), MENDS, ("confirmed", "lags")),
        (seen_with(0, 0), VAIN, ("undecided", "not seen")),
        (seen_with(3, 0, unpaired=("Other",)), VAIN, ("undecided", "unpaired")),
        (seen_with(3, 9), VAIN, ("excluded", "caught up")),
        (seen_with(3, 0), VAIN, ("excluded", "the trained ones")),
    ],
)
def test_the_ends(seen, raw, wanted):
    decision = decide(Averaged(seen, raw))
    assert (decision.level, decision.reason) == wanted


@pytest.mark.parametrize(
    "trained, judged, wanted",
    [
        (0.3, 0.9, ("confirmed", "lags")),
        (0.3, 0.35, ("excluded", "caught up")),
        (0.3, float("nan"), ("undecided", "not finite")),
    ],
)
def test_the_ends_of_what_is_heard(trained, judged, wanted):
    decision = decide_heard(Heard(trained, judged))
    assert (decision.level, decision.reason) == wanted
