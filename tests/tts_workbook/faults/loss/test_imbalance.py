"""loss.imbalance: a term that dominates, and heavy terms that do no harm."""

import pytest
from torch import nn

from tests.tts_workbook.diagnosis.tiny_speaker import (
    D,
    Speaker,
    blamed,
    findings,
    speaker_lab,
    with_parts,
)
from tests.tts_workbook.diagnosis.tiny_subject import losses
from tests.tts_workbook.faults.judged import JUDGES, confirmed, suspects_of, tried_in_vain
from tts_workbook.faults.loss.imbalance import Say, decide, measure


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
    assert decide(measure(bench)).level == ("confirmed" if weight > 1e4 else "excluded")
    assert any("the workbook's own step" in name for name in bench.courses) == (step == "own")
    assert (
        findings(bench, "loss.logged_not_optimised")["loss.logged_not_optimised"].level
        == "excluded"
    )


@pytest.mark.parametrize("weight", [1.0, 1e5])
def test_a_heavy_term_that_shares_no_parameters_is_silent(weight):
    bench = speaker_lab(with_parts(Pointing, shares=False), losses=weighted(weight))
    assert not suspects_of(bench, "loss.imbalance") and not blamed(findings(bench, *JUDGES))


def test_a_heavy_term_that_costs_little_is_tried_in_vain():
    """It wants of the output's offset what the mel can do without."""

    def terms(model, batch):
        mel, offset = losses(model, batch)["mel"], 300.0 * model.out.bias.square().sum()
        return {"mel": mel, "offset": offset, "total": mel + offset}

    bench = speaker_lab(losses=terms)
    assert suspects_of(bench, "loss.imbalance")
    tried_in_vain(bench, "loss.imbalance")


@pytest.mark.parametrize(
    "numbers, wanted",
    [
        (Say(), ("excluded", "", "not overwhelming")),
        (Say("stop", "mel", 1.0, 130.0), ("excluded", "", "not overwhelming")),
        (Say("stop", "mel", 1e5, 1e5, say=1e-5), ("confirmed", "losses['stop']", "mute")),
        # it harms nothing
        (
            Say("stop", "mel", 1e5, 1e5, say=1e-5, learns=True),
            ("question", "losses['stop']", "mute, and learns"),
        ),
        (Say("stop", "mel", 1e5, 1e5, say=0.1), ("excluded", "losses['stop']", "heard")),
    ],
)
def test_the_ends_of_the_say_of_the_mel(numbers, wanted):
    decision = decide(numbers)
    assert (decision.level, decision.where, decision.reason) == wanted
