"""Interventions reach a tensor wherever a module puts it, and say whether they acted."""

import dataclasses
from collections import namedtuple

import pytest
import torch
from torch import nn
from transformers.modeling_outputs import BaseModelOutput, Seq2SeqSpectrogramOutput

from tts_workbook.subject.interventions import HeldNoise
from tts_workbook.subject.module_calls import (
    change_inputs,
    change_output,
    output_changed,
    outputs_changed,
    replaced_first,
    text_embeddings,
    trace,
)

Pair = namedtuple("Pair", "lengths hidden")


@dataclasses.dataclass(frozen=True)
class Encoded:
    lengths: torch.Tensor
    hidden: torch.Tensor


def hidden():
    return torch.arange(6.0).view(2, 3)


LENGTHS = torch.tensor([3, 2])
GIVEN = {
    "bare": (hidden, lambda out: out),
    "tuple": (lambda: (LENGTHS, hidden()), lambda out: out[1]),
    "list": (lambda: [None, hidden()], lambda out: out[1]),
    "named tuple": (lambda: Pair(LENGTHS, hidden()), lambda out: out.hidden),
    "mapping": (lambda: {"lengths": LENGTHS, "hidden": hidden()}, lambda out: out["hidden"]),
    "dataclass": (lambda: Encoded(LENGTHS, hidden()), lambda out: out.hidden),
    "nested": (
        lambda: ({"deep": [Encoded(LENGTHS, hidden())]},),
        lambda out: out[0]["deep"][0].hidden,
    ),
    "transformers": (
        lambda: BaseModelOutput(last_hidden_state=hidden()),
        lambda out: out["last_hidden_state"] if out.last_hidden_state is out[0] else None,
    ),
    # a loss is no sequence: it is passed over
    "transformers, loss first": (
        lambda: Seq2SeqSpectrogramOutput(loss=torch.tensor(1.0), spectrogram=hidden()),
        lambda out: out.spectrogram,
    ),
}


@pytest.mark.parametrize("name", GIVEN)
def test_the_first_tensor_is_reached_wherever_it_stands(name):
    make, read = GIVEN[name]
    given = make()
    changed = replaced_first(given, lambda tensor: tensor + 1)
    assert type(changed) is type(given)
    assert torch.equal(read(changed), hidden() + 1) and torch.equal(read(given), hidden())


def test_a_tensor_that_stands_twice_is_changed_twice():
    state = hidden()
    changed = replaced_first(
        BaseModelOutput(last_hidden_state=state, hidden_states=(hidden(), state)),
        lambda tensor: tensor + 1,
    )
    assert changed.hidden_states[-1] is changed.last_hidden_state
    assert torch.equal(changed.hidden_states[0], hidden())


class Model(nn.Module):
    """Calls `inner` and never `idle`."""

    def __init__(self):
        super().__init__()
        self.inner, self.idle = nn.Linear(3, 3), nn.Linear(3, 3)

    def forward(self, x, cache):
        cache.append(1)
        return self.inner(x)


def test_an_intervention_knows_whether_it_acted():
    model, x = Model(), hidden()
    with outputs_changed((m, lambda t: t + 1) for m in (model.inner, model.idle)) as made:
        model(x, [])
    assert [(one.n_calls, one.acted) for one in made] == [(1, True), (0, False)]
    with output_changed(model.inner, lambda tensor: tensor.clone()) as same:
        model(x, [])
    assert same.n_calls == 1 and not same.acted
    made = change_output(model.inner, torch.zeros_like)
    assert not model(x, []).any()
    made.remove()
    assert model(x, []).any()


def test_inputs_are_changed_by_their_place_and_what_is_filled_in_place_stays_the_same():
    model, cache = Model(), []
    with torch.no_grad():
        made = change_inputs(model, (0,), torch.zeros_like)
        assert torch.equal(model(hidden(), cache=cache), model.inner.bias.expand(2, 3))
    assert made.acted and cache == [1]


class Reading(nn.Module):
    """Embeds text, places, distances between places, and a speaker."""

    def __init__(self):
        super().__init__()
        names = ("text", "places", "distances", "speaker")
        self.tables = nn.ModuleDict({name: nn.Embedding(12, 4) for name in names})

    def forward(self, text, speaker):
        place = torch.arange(text.shape[1])
        self.tables["places"](place[None])
        self.tables["distances"](place[None] - place[:, None] + 5)
        self.tables["speaker"](speaker)
        return self.tables["text"](text)


def test_the_text_is_told_from_places_distances_and_speakers():
    model, text = Reading(), torch.tensor([[3, 1, 4, 1], [5, 9, 2, 6]])
    calls = trace(model, lambda: model(text, torch.tensor([4, 7])))
    assert text_embeddings(model, calls) == ["tables.text"]


def drawn(n):
    """Noise of every kind in a shape that is `n` long."""
    gaussian = torch.randn(2, n, 3, generator=torch.Generator().manual_seed(1))
    kept = torch.bernoulli(torch.full((2, n), 0.7))
    filled = torch.empty(2, n).uniform_(-1.0, 1.0)
    return gaussian, torch.rand_like(gaussian), torch.normal(gaussian, 0.1), kept, filled


def test_noise_that_is_held_still_does_not_hang_on_the_padded_length():
    with HeldNoise():
        short = drawn(5)
    with HeldNoise():
        long = drawn(9)
    for a, b in zip(short, long, strict=True):
        assert torch.equal(a, b[:, :5])
    with HeldNoise():
        many, flat = torch.randn(300, 200), torch.rand(60_000)
    assert abs(float(many.mean())) < 0.02 and float(many.std()) == pytest.approx(1.0, abs=0.02)
    neighbours = (many[:, 1:] * many[:, :-1]).mean(), (many[1:] * many[:-1]).mean()
    assert max(abs(float(value)) for value in neighbours) < 0.02
    assert float(flat.min()) > 0.0 and float(flat.max()) < 1.0
    assert float(flat.std()) == pytest.approx(12**-0.5, abs=0.01)


def test_noise_that_cannot_be_held_still_is_named():
    with HeldNoise() as noise:
        torch.multinomial(torch.ones(4), 2)
    assert noise.not_held == {"multinomial"}
