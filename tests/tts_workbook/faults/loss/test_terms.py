"""loss.detached and loss.logged_not_optimised: what is shown is what is optimised."""

import pytest
from torch import nn

from tests.tts_workbook.diagnosis.tiny_speaker import Speaker, blamed, findings, speaker_lab
from tests.tts_workbook.diagnosis.tiny_subject import losses
from tests.tts_workbook.faults.loss.tiny_losses import beside, loss_of
from tts_workbook.faults.examine import examine
from tts_workbook.faults.registry import CAUSES


def attention(model, batch):
    return (model.encode(batch["text"]) - 1.0).square().mean()


def test_a_clean_loss_is_answered_for_in_a_whole_report():
    """No experiment leaves "undecided" behind what another has excluded."""
    bench = speaker_lab()
    for cause in ("loss.logged_not_optimised", "loss.wrong_reduction", "loss.detached"):
        assert examine(CAUSES[cause], bench).level == "excluded"


def test_a_term_without_a_gradient_and_one_that_is_left_out():
    def detached(model, batch):
        mel, guide = losses(model, batch)["mel"].detach(), attention(model, batch)
        return {"mel": mel, "guide": guide, "total": mel + guide}

    def left_out(model, batch):
        return {
            "mel": losses(model, batch)["mel"],
            "guide": attention(model, batch),
            "total": attention(model, batch),
        }

    assert blamed(loss_of(detached)) == {"loss.detached"} and blamed(loss_of(left_out)) == {
        "loss.logged_not_optimised"
    }


SHOWN = {
    "a figure that is only shown": beside(
        lambda model, batch: (model(batch).detach() - batch["mel"]).square().mean(), 0.0
    ),
    "a light term": beside(attention, 1e-3),
    "a term that dominates": beside(attention, 1e3),
    "one that dominates a total of unit scale": beside(attention, 3e3, 1 / 3e3),
}


@pytest.mark.parametrize("name", SHOWN)
def test_silent_on_terms_that_are_optimised_or_meant_to_be_shown(name):
    found = loss_of(SHOWN[name])
    assert (
        not blamed(found)
        and found["loss.detached"].level == found["loss.logged_not_optimised"].level == "excluded"
    )


def test_a_total_that_holds_what_losses_does_not_list_is_a_question():
    """As a ready model's own loss does: guided attention, a stop loss, a second mel."""

    def unlisted(model, batch):
        mel = losses(model, batch)["mel"]
        return {"mel": mel, "total": mel + attention(model, batch)}

    found = loss_of(unlisted)
    said = found["loss.logged_not_optimised"]
    assert not blamed(found) and said.level == "question" and "Subject.losses" in said.fix
    assert said.evidence["share of total's gradient that no term explains"] > 0.2


def test_an_unlisted_part_that_keeps_a_subject_from_learning_is_confirmed():
    def unlisted(model, batch):
        mel = losses(model, batch)["mel"]
        return {"mel": mel, "total": mel + 300.0 * (model(batch).square()).mean()}

    found = loss_of(unlisted)["loss.logged_not_optimised"]
    assert found.level == "confirmed" and "listed terms" in found.experiment
    assert found.evidence["last TF L1 / best constant as it is"] > 0.9


def test_a_step_that_leaves_the_mel_out_is_confirmed():
    def terms(model, batch):
        mel, guide = losses(model, batch)["mel"], attention(model, batch)
        return {"mel": mel, "guide": guide, "total": mel + guide}

    def step(model, optimizer, batch):
        optimizer.zero_grad()
        found = terms(model, batch)
        (found["guide"] + 1e-5 * found["mel"]).backward()
        optimizer.step()

    found = findings(speaker_lab(losses=terms, train_step=step), "loss.logged_not_optimised")
    assert blamed(found) == {"loss.logged_not_optimised"}
    assert found["loss.logged_not_optimised"].where == "train_step"


def test_a_part_that_is_frozen_is_a_question():
    """A stop head that nobody trains: its term has no gradient, on purpose or not."""

    class Stopping(Speaker):
        def __init__(self):
            super().__init__()
            self.stop = nn.Linear(4, 1)
            self.stop.requires_grad_(False)

    def terms(model, batch):
        mel = losses(model, batch)["mel"]
        stop = model.stop(batch["mel"]).square().mean()
        return {"mel": mel, "stop": stop, "total": mel + stop}

    found = findings(speaker_lab(Stopping, losses=terms), "loss.detached")["loss.detached"]
    assert found.level == "question" and found.where == "losses['stop']"
    assert "Subject.frozen" in found.fix
