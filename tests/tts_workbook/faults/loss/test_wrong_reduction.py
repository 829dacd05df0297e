"""loss.wrong_reduction, beside what only looks like it."""

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
    with_parts,
)
from tests.tts_workbook.diagnosis.tiny_subject import D, M
from tests.tts_workbook.faults.judged import OF_THE_LOSS, PAIRED
from tests.tts_workbook.faults.loss.tiny_losses import beside, loss_of, measured

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
    assert blamed(findings(bench, *OF_THE_LOSS, *PAIRED)) == {"optimizer.lr_too_small"}


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
    found = findings(speaker_lab(losses=measured(OTHER[name])), *OF_THE_LOSS, *PAIRED)
    assert not blamed(found) and found["loss.wrong_reduction"].level == "undecided"
    assert "next: " in found["loss.wrong_reduction"].experiment


class TwoAtOnce(Speaker):
    """Gives two frames with one call of its output, all steps at once or one after another."""

    def __init__(self, stepwise=False):
        super().__init__()
        self.stepwise, self.pair = stepwise, nn.Linear(2 * D, 2 * M)

    def forward(self, batch):
        said = self.history(F.pad(batch["mel"], (0, 0, 2, -2)))
        hidden = (said + self.encode(batch["text"]).repeat_interleave(2, dim=1)).tanh()
        steps = hidden.unflatten(1, (-1, 2)).flatten(2)
        if not self.stepwise:
            return self.pair(steps).unflatten(2, (2, M)).flatten(1, 2)
        pairs = [self.pair(step) for step in steps.unbind(1)]
        return torch.stack(pairs, dim=1).unflatten(2, (2, M)).flatten(1, 2)


@pytest.mark.parametrize("stepwise", [False, True])
def test_a_model_that_gives_two_frames_at_once_is_asked_too(stepwise):
    build = with_parts(TwoAtOnce, stepwise=stepwise)
    cause = "loss.wrong_reduction"
    wrong = measured(WRONG["mean over time first"])
    assert findings(speaker_lab(build), cause)[cause].level == "excluded"
    assert findings(speaker_lab(build, losses=wrong), cause)[cause].level == "confirmed"


def likelihood(mel, target):
    """Gaussian, of width 0.5: least at the target, and not zero there."""
    return ((mel - target) / 0.5).square().mean() / 2 + 0.23


def test_a_likelihood_has_a_loss_of_the_target_itself():
    found = loss_of(measured(likelihood))
    assert not blamed(found) and found["loss.wrong_reduction"].level == "excluded"


def test_clips_that_are_compared_with_one_another_are_seen_by_exchanging_them():
    found = loss_of(measured(WRONG["every clip against every clip"]))["loss.wrong_reduction"]
    assert found.evidence["of its clips exchanged"] == pytest.approx(
        found.evidence["of the target"], rel=1e-3
    )
