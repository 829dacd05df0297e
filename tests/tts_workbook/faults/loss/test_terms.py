"""loss.detached and loss.logged_not_optimised: what is shown is what is optimised."""

import pytest

from tests.tts_workbook.diagnosis.tiny_speaker import blamed, speaker_lab
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
