"""Checks of the losses on a tiny speaker: each fault beside what only looks like it."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests.tts_workbook.diagnosis.tiny_speaker import (
    Speaker,
    adam,
    blamed,
    findings,
    speaker_lab,
    spoken,
    with_parts,
)
from tests.tts_workbook.diagnosis.tiny_subject import D, losses
from tests.tts_workbook.faults.judged import PAIRED
from tts_workbook.diagnosis.diagnosis_report import merged
from tts_workbook.faults.checks.registry import CHECKS


def measured(function):
    """The one term of a loss `function(prediction, target)`."""

    def terms(model, batch):
        mel = function(model(batch), batch["mel"])
        return {"mel": mel, "total": mel}

    return terms


def beside(function, weight=1.0, scale=1.0):
    """The mel and another term, `function(model, batch)`, in a total of another scale."""

    def terms(model, batch):
        mel, other = losses(model, batch)["mel"], function(model, batch)
        return {"mel": mel, "other": other, "total": (mel + weight * other) * scale}

    return terms


def loss_of(terms):
    return findings(speaker_lab(losses=terms), "losses")


WRONG = {
    "mean over time first": lambda mel, target: (mel.mean(1) - target.mean(1)).abs().mean(),
    "mean over bins first": lambda mel, target: (mel.mean(2) - target.mean(2)).abs().mean(),
    "every frame against every frame": (
        lambda mel, target: (mel[:, None] - target[:, :, None]).abs().mean()
    ),
    "every clip against every clip": lambda mel, target: (mel[:, None] - target).abs().mean(),
    "signs cancel": lambda mel, target: (mel - target).mean().abs(),
}
RIGHT = {
    "sum": lambda mel, target: (mel - target).abs().sum(),
    "squares": F.mse_loss,
    "Huber": F.smooth_l1_loss,
    "bins weighted": (
        lambda mel, target: ((mel - target).abs() * torch.tensor([1.0, 0.1, 3.0, 0.5])).mean()
    ),
    "logarithm": lambda mel, target: (1.0 + (mel - target).abs().mean()).log(),
    "frames and their differences": (
        lambda mel, target: F.l1_loss(mel, target) + F.l1_loss(mel.diff(1), target.diff(1))
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_loss_that_reduces_the_wrong_way(name):
    found = loss_of(measured(WRONG[name]))
    assert (
        blamed(found) == {"loss.wrong_reduction"}
        and found["loss.wrong_reduction"].level == "confirmed"
    )


@pytest.mark.parametrize("name", RIGHT)
def test_unusual_losses_are_silent(name):
    found = loss_of(measured(RIGHT[name]))
    assert not blamed(found) and found["loss.wrong_reduction"].level == "excluded"


def roughness(model, batch):
    return model(batch).diff(dim=1).abs().mean()


def critic(model, batch):
    """Wants frames of a size that the target's have not."""
    return (model(batch).square().mean() - 9.0).square()


@pytest.mark.parametrize("name", ["other", "l1"])
@pytest.mark.parametrize("function", [roughness, critic])
def test_what_is_beside_the_mel_need_not_be_smallest_at_the_target(function, name):
    """Also where no term is called after the mel: the one that makes most of the gradient has to be
    the distance.
    """

    def terms(model, batch):
        found = beside(function, 0.01)(model, batch)
        return (
            {
                (name if key == "mel" else key + " term" if key == "other" else key): value
                for key, value in found.items()
            }
            if name == "l1"
            else found
        )

    found = loss_of(terms)
    assert not blamed(found) and found["loss.wrong_reduction"].level == "excluded"


def test_a_critic_does_not_hide_a_learning_rate_that_is_too_small():
    bench = speaker_lab(losses=beside(critic, 0.01), make_optimizer=adam(1e-5))
    assert blamed(findings(bench, "losses", *PAIRED)) == {"optimizer.lr_too_small"}


OTHER = {
    "another clip's frames": lambda mel, target: F.l1_loss(mel, target.flip(0)),
    "another time": lambda mel, target: F.l1_loss(mel, target.roll(5, dims=1)),
    "another level": lambda mel, target: F.l1_loss(mel, target + 3.0),
    "the wrong sign": lambda mel, target: -F.l1_loss(mel, target),
}


@pytest.mark.parametrize("name", OTHER)
def test_a_loss_with_another_target_is_no_wrong_reduction(name):
    """Nothing says which of the two is meant; and what such a loss learns faster is no learning
    rate.
    """
    found = findings(speaker_lab(losses=measured(OTHER[name])), "losses", *PAIRED)
    assert not blamed(found) and found["loss.wrong_reduction"].level == "undecided"
    assert "next: " in found["loss.wrong_reduction"].experiment


def attention(model, batch):
    return (model.encode(batch["text"]) - 1.0).square().mean()


def test_a_clean_loss_is_answered_for_in_a_whole_report():
    """No check leaves "undecided" behind what another has excluded."""
    bench = speaker_lab()
    levels = {
        entry.cause: entry.level
        for entry in merged([entry for check in CHECKS for entry in check.findings(bench)])
    }
    assert (
        levels["loss.logged_not_optimised"]
        == levels["loss.wrong_reduction"]
        == levels["loss.detached"]
        == "excluded"
    )


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


# --- padding --------------------------------------------------------------------------------------


def pad(batch, n):
    return {
        **batch,
        "mel": F.pad(batch["mel"], (0, 0, 0, n)),
        "text": F.pad(batch["text"], (0, n // 2)),
        "padded": n,
    }


class Masked(Speaker):
    """Reads padded text, and mixes it in where `mixes`."""

    def __init__(self, mixes=False):
        super().__init__(mix=lambda: nn.Identity())
        self.mixes, self.tone = mixes, nn.Linear(D, D)

    def encode(self, text):
        memory = super().encode(text)
        counted = torch.ones_like(text) if self.mixes else text > 0
        return memory + self.tone(
            (memory * counted[..., None]).sum(1, keepdim=True) / counted.sum(1)[:, None, None]
        )


@pytest.mark.parametrize(
    "cause, kind, terms",
    [
        ("loss.padding_included", Masked, measured(F.l1_loss)),
        ("model.padding_mask", with_parts(Masked, mixes=True), losses),
        ("", Masked, losses),
    ],
)
def test_padding_in_the_loss_and_padding_in_the_model(cause, kind, terms):
    bench = speaker_lab(
        kind, batch=pad(spoken(), 4), losses=terms, pad=pad, symbols=lambda batch: [["a"] * 8] * 2
    )
    found = findings(bench, "losses")
    assert blamed(found) & {"loss.padding_included", "model.padding_mask"} == (
        {cause} if cause else set()
    )
