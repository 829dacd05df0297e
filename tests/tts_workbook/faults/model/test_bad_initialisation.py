"""model.bad_initialisation: weights that saturate or starve, beside a custom initialisation that is
sound.
"""

import pytest
import torch
from torch import nn

from tests.tts_workbook.diagnosis.test_observe import step_with
from tests.tts_workbook.diagnosis.tiny_speaker import (
    Speaker,
    adam,
    blamed,
    findings,
    speaker_lab,
    with_parts,
)
from tests.tts_workbook.faults.judged import JUDGES, confirmed, sgd_at, suspects_of
from tts_workbook.faults.model._hearing import Hearing, Move
from tts_workbook.faults.model.bad_initialisation import decide
from tts_workbook.measure.initial_weights import common_size, odd_weights


class Drawn(Speaker):
    """The weights of some modules are 30 times too large."""

    def __init__(self, names):
        super().__init__()
        with torch.no_grad():
            for name in names:
                self.get_submodule(name).weight.mul_(30.0)


def test_weights_that_saturate():
    names = ("history", "mix.query", "mix.value", "encoder.0", "encoder.3")
    found = confirmed(speaker_lab(with_parts(Drawn, names=names)), "model.bad_initialisation")
    assert found.where in names and found.evidence["modules far from their default"] == len(names)


class Custom(Speaker):
    """Orthogonal weights, a quiet embedding, query and value tied: none of it the default, all of
    it sound.
    """

    def __init__(self):
        super().__init__()
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.orthogonal_(module.weight)
                nn.init.zeros_(module.bias)
        nn.init.normal_(self.text.weight, std=0.3)
        self.mix.value = self.mix.query


def test_a_custom_initialisation_that_learns_is_silent():
    bench = speaker_lab(Custom)
    assert not blamed(findings(bench, *JUDGES)) and list(bench.courses) == ["as it is"]


def test_a_custom_initialisation_is_not_blamed_for_a_decay():
    bench = speaker_lab(Custom, make_optimizer=adam(decay=20.0))
    assert suspects_of(bench, "model.bad_initialisation")
    confirmed(bench, "optimizer.weight_decay")


@pytest.mark.parametrize(
    "fields, cause",
    [
        (
            dict(train_step=step_with(clip=1e-5), make_optimizer=sgd_at(0.3)),
            "optimizer.clip_too_tight",
        ),
        (dict(make_optimizer=adam(1e-5)), "optimizer.lr_too_small"),
    ],
)
def test_default_weights_are_never_suspected(fields, cause):
    bench = speaker_lab(**fields)
    assert not suspects_of(bench, "model.bad_initialisation")
    confirmed(bench, cause)


DEAF, HEARING = Move(0.0, 1e-7), Move(0.5, 1e-7)


@pytest.mark.parametrize(
    "numbers, wanted",
    [
        (
            Hearing(DEAF, DEAF, redrawn=0.5, oddest="encoder.0"),
            ("confirmed", "encoder.0", "heard again"),
        ),
        # hardly heard after all
        (Hearing(DEAF, DEAF, redrawn=5e-6, oddest="encoder.0"), None),
        # training moves no weight: what starts at zero may be meant
        (Hearing(DEAF, DEAF, updated=False, redrawn=0.5, oddest="encoder.0"), None),
        (Hearing(DEAF, DEAF), None),  # no weight is of odd size
        (Hearing(DEAF, HEARING), None),
        (Hearing(HEARING, DEAF), None),
        (None, None),  # nothing reads text, or the prediction is not finite
    ],
)
def test_the_ends_of_hearing_again(numbers, wanted):
    decision = decide(numbers)
    assert (decision and (decision.level, decision.where, decision.reason)) == wanted


class Scheme(Speaker):
    """Every matrix starts at 0.02, whatever its width, as those of transformers do; with `spoilt`
    one of them is 30 times as large.
    """

    def __init__(self, spoilt=None):
        super().__init__()
        for weight in self.parameters():
            if weight.ndim > 1:
                nn.init.normal_(weight, std=0.02)
        if spoilt is not None:
            with torch.no_grad():
                self.get_submodule(spoilt).weight.mul_(30.0)


def test_a_scheme_of_the_whole_model_is_no_oddity_of_its_modules():
    assert common_size(Scheme()) == pytest.approx(0.02, rel=0.15)
    assert odd_weights(speaker_lab(Scheme)) == {}
    assert list(odd_weights(speaker_lab(with_parts(Scheme, spoilt="encoder.0")))) == ["encoder.0"]
    assert common_size(Speaker()) is None  # the defaults differ with the width
