"""Faults that are there before the first step: raw targets, a dominating term, odd initialisations,
dropout that keeps its p.
"""

import pytest
import torch
from torch import nn

from tests.tts_workbook.diagnosis.test_checks_learning import (
    JUDGES,
    confirmed,
    sgd_at,
    tried_in_vain,
)
from tests.tts_workbook.diagnosis.test_observe import step_with
from tests.tts_workbook.diagnosis.tiny_speaker import (
    D,
    Speaker,
    adam,
    blamed,
    findings,
    speaker_lab,
    spoken,
    with_parts,
)
from tests.tts_workbook.diagnosis.tiny_subject import losses
from tts_workbook.faults.suspects import suspects

# --- data.unnormalised_target ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "mean, deviation", [(-5.0, 2.0), (0.0, 0.05)], ids=["raw log-mels", "quiet"]
)
def test_raw_targets(mean, deviation):
    confirmed(speaker_lab(batch=spoken(mean, deviation)), "data.unnormalised_target")


class Told(Speaker):
    """Knows the mean of its raw targets: it takes it from the history and begins at it."""

    def __init__(self):
        super().__init__()
        nn.init.constant_(self.out.bias, -5.0)

    def forward(self, batch):
        return super().forward({**batch, "mel": batch["mel"] + 5.0})


def test_raw_targets_that_the_model_standardises_itself_are_silent():
    tried_in_vain(speaker_lab(Told, batch=spoken(-5.0)), "data.unnormalised_target")


@pytest.mark.parametrize(
    "make_optimizer, cause",
    [(adam(1e-5), "optimizer.lr_too_small"), (adam(decay=20.0), "optimizer.weight_decay")],
)
def test_standardised_targets_are_not_blamed_for_what_keeps_them_from_being_learnt(
    make_optimizer, cause
):
    confirmed(speaker_lab(make_optimizer=make_optimizer, batch=spoken(1.0, 2.0)), cause)


# --- loss.imbalance -------------------------------------------------------------------------------


class Pointing(Speaker):
    """A second head that says the number of each symbol: from the memory, or from an embedding of
    its own.
    """

    def __init__(self, shares=True):
        super().__init__()
        self.shares, self.own, self.head = shares, nn.Embedding(12, D), nn.Linear(D, 1)

    def numbers(self, text):
        return self.head(self.encode(text) if self.shares else self.own(text))[..., 0]


def weighted(weight):
    def terms(model, batch):
        mel, number = (
            losses(model, batch)["mel"],
            (model.numbers(batch["text"]) - batch["text"]).abs().mean(),
        )
        return {"mel": mel, "number": weight * number, "total": mel + weight * number}

    return terms


@pytest.mark.parametrize("weight, step", [(1e3, "own"), (1e5, "")])
def test_a_term_that_dominates(weight, step):
    """Also where the step has its losses inside: both sides of the paired run then take the
    workbook's own step.
    """
    terms = weighted(weight)

    def own(model, optimizer, batch):
        optimizer.zero_grad()
        terms(model, batch)["total"].backward()
        optimizer.step()

    bench = speaker_lab(Pointing, losses=terms, train_step=own if step else None)
    assert confirmed(bench, "loss.imbalance").where == "losses['number']"
    assert findings(bench, "balance")["loss.imbalance"].level == (
        "confirmed" if weight > 1e4 else "excluded"
    )
    assert any("the workbook's own step" in name for name in bench.courses) == (step == "own")
    assert findings(bench, "losses")["loss.logged_not_optimised"].level == "excluded"


@pytest.mark.parametrize("weight", [1.0, 1e5])
def test_a_heavy_term_that_shares_no_parameters_is_silent(weight):
    bench = speaker_lab(with_parts(Pointing, shares=False), losses=weighted(weight))
    assert not suspects_of(bench, "loss.imbalance") and not blamed(
        findings(bench, *JUDGES, "balance")
    )


def test_a_heavy_term_that_costs_little_is_tried_in_vain():
    """It wants of the output's offset what the mel can do without."""

    def terms(model, batch):
        mel, offset = losses(model, batch)["mel"], 300.0 * model.out.bias.square().sum()
        return {"mel": mel, "offset": offset, "total": mel + offset}

    bench = speaker_lab(losses=terms)
    assert suspects_of(bench, "loss.imbalance")
    tried_in_vain(bench, "loss.imbalance")


def suspects_of(bench, cause):
    return [suspect for suspect in suspects(bench) if suspect.cause == cause]


# --- model.bad_initialisation ---------------------------------------------------------------------


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


# --- model.dropout_always_on: p means keep --------------------------------------------------------


def test_dropout_that_keeps_its_p():
    found = confirmed(speaker_lab(with_parts(dropout=0.9)), "model.dropout_always_on")
    assert found.evidence["largest share dropped in training"] == 0.9


def test_an_ordinary_dropout_is_silent():
    bench = speaker_lab(with_parts(dropout=0.3))
    assert not suspects_of(bench, "model.dropout_always_on") and not blamed(
        findings(bench, *JUDGES, "model")
    )


class Aside(nn.Module):
    """Most of a small branch is dropped, on purpose."""

    def __init__(self):
        super().__init__()
        self.drop, self.linear = nn.Dropout(0.9), nn.Linear(D, D)

    def forward(self, x):
        return x + 0.01 * self.drop(self.linear(x))


def test_a_heavy_dropout_that_does_no_harm_is_silent():
    bench = speaker_lab(with_parts(layers=lambda: [Aside()]))
    found = findings(bench, *JUDGES, "model")
    assert not blamed(found) and "dropout off" in bench.courses
