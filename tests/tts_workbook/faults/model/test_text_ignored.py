"""model.text_ignored and model.encoder_detached: the text's way."""

import pytest
import torch
from torch import nn

from tests.tts_workbook.diagnosis.tiny_speaker import (
    Gain,
    Speaker,
    adam,
    blamed,
    findings,
    speaker_lab,
    spoken,
    with_parts,
)
from tests.tts_workbook.faults.judged import OF_THE_MODEL


def model_of(kind, **fields):
    return findings(speaker_lab(kind, **fields), *OF_THE_MODEL, "model.bad_initialisation")


class Scaled(Speaker):
    """The memory at another size."""

    def __init__(self, scale=0.0):
        super().__init__()
        self.scale = scale

    def encode(self, text):
        return self.scale * super().encode(text)


class Detached(Speaker):
    def encode(self, text):
        return super().encode(text).detach()


class Frozen(Speaker):
    """The text side is not trained."""

    def __init__(self):
        super().__init__()
        for part in (self.text, self.mix, self.encoder, self.memory):
            part.requires_grad_(False)


class Tied(Speaker):
    """Two layers of the encoder, and query and value, have the same weights."""

    def __init__(self):
        super().__init__()
        for one, other in ((self.encoder[0], self.encoder[3]), (self.mix.query, self.mix.value)):
            other.weight, other.bias = one.weight, one.bias


class Gated(Speaker):
    """The text enters through a gate that starts at zero, on purpose."""

    def __init__(self):
        super().__init__()
        self.gate = nn.Parameter(torch.zeros(1))

    def encode(self, text):
        return self.gate * super().encode(text)


class Small(Speaker):
    """All weights start at 0.02, as those of transformers do: its fresh model hardly hears."""

    def __init__(self):
        super().__init__()
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.02)


class Starved(Speaker):
    """Two layers in a row that begin at zero stay there."""

    def __init__(self):
        super().__init__()
        for index in (0, 3):
            for parameter in self.encoder[index].parameters():
                nn.init.zeros_(parameter)


def test_text_that_does_not_arrive():
    found = model_of(Scaled)
    assert (
        blamed(found) == {"model.text_ignored"} and found["model.text_ignored"].level == "confirmed"
    )


def test_an_encoder_without_gradient():
    found = model_of(Detached)
    assert (
        blamed(found) == {"model.encoder_detached"}
        and found["model.encoder_detached"].evidence["without gradient"] == 11.0
    )


def test_a_starved_encoder_is_its_initialisation_and_no_deafness():
    found = model_of(Starved)
    assert (
        found["model.bad_initialisation"].level == "confirmed"
        and found["model.bad_initialisation"].where == "encoder.0"
    )
    assert "model.text_ignored" not in blamed(found)


QUIET = {
    "quiet text": dict(kind=with_parts(Scaled, scale=0.02)),
    "one symbol only": dict(
        kind=Speaker, batch={**spoken(), "text": torch.ones(2, 8, dtype=torch.long)}
    ),
    "frozen, undeclared": dict(kind=Frozen),
    "tied": dict(kind=Tied),
    "a gate that starts at zero": dict(kind=Gated),
    "all weights small": dict(kind=Small),
    "frozen, declared": dict(kind=Frozen, frozen=("text", "mix", "encoder", "memory")),
    "decay": dict(kind=Speaker, make_optimizer=adam(decay=20.0)),
    "loud memory": dict(kind=with_parts(memory=lambda: Gain(100.0))),
}


@pytest.mark.parametrize("name", QUIET)
def test_silent_where_the_text_arrives_and_something_else_is_odd(name):
    assert not blamed(model_of(**QUIET[name]))
