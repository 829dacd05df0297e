"""A mis-specified subject gets an error that says which field, what was seen and what is wanted;
nothing of the caller's changes.
"""

import random
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks.planted import ours
from benchmarks.planted.architecture import draw_setting
from tts_workbook.lab.lab import Lab
from tts_workbook.subject.isolation import (
    mapped,
    private_copy,
    tensors_in,
    unchanged_randomness,
    without_dropout,
)
from tts_workbook.subject.subject import SubjectError, check_subject
from tts_workbook.subject.training_step import all_parameters


@pytest.fixture(scope="module")
def subject():
    return ours.build(draw_setting(0))


BROKEN = {
    "build_model": (lambda: "no model", "returned a str"),
    "losses": (lambda model, batch: {"mel": torch.zeros(())}, "total"),
    "make_optimizer": (lambda model: None, "NoneType"),
    "predict_mel": (lambda model, batch: torch.zeros(2, 3, 4), "(2, 3, 4)"),
    "target_mel": (lambda batch: torch.zeros(2, 3, 80), "pair of tensors"),
    "generate": (lambda model, batch: torch.zeros(2, 9), "(2, 9)"),
    "frozen": (("no_such_module",), "no_such_module"),
    "memory": ("nowhere", "nowhere"),
}


@pytest.mark.parametrize("field", BROKEN)
def test_the_error_names_the_field_and_what_was_seen(subject, field):
    value, seen = BROKEN[field]
    with pytest.raises(SubjectError, match=rf"Subject\.{field}") as error:
        check_subject(replace(subject, **{field: value}))
    assert seen in str(error.value) and "wanted" in str(error.value)


def test_the_laboratory_itself_refuses_a_target_without_lengths(subject):
    with pytest.raises(SubjectError, match=r"target_mel.*pair of tensors"):
        Lab(replace(subject, target_mel=lambda batch: torch.zeros(2, 3, 80)))


def test_lengths_beyond_the_frames_are_refused(subject):
    def transposed(batch):
        mel, lengths = subject.target_mel(batch)
        return mel.transpose(1, 2), lengths

    with pytest.raises(SubjectError, match="transpose"):
        check_subject(replace(subject, target_mel=transposed))


def test_an_exception_in_the_users_code_is_told_with_its_field(subject):
    def broken(model, batch):
        raise KeyError("mel_lengths")

    with pytest.raises(SubjectError, match=r"Subject\.predict_mel: raised KeyError"):
        check_subject(replace(subject, predict_mel=broken))


def test_targets_that_are_all_alike_have_no_yardstick(subject):
    def silent(batch):
        mel, lengths = subject.target_mel(batch)
        return torch.zeros_like(mel), lengths

    with pytest.raises(SubjectError, match="target_mel"):
        Lab(replace(subject, target_mel=silent))


def test_nothing_of_the_callers_changes(subject):
    before = [tensor.clone() for tensor in tensors_in(subject.batch)]
    only = subject.build_model()
    random.seed(5), np.random.seed(5), torch.manual_seed(5)
    states = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()
    kept = {name: parameter.detach().clone() for name, parameter in only.named_parameters()}
    # a careless user hands out the same model every time
    lab = Lab(replace(subject, build_model=lambda: only))
    lab.__dict__["n_steps"] = 3
    lab.course()
    assert all(torch.equal(parameter, kept[name]) for name, parameter in only.named_parameters())
    assert all(map(torch.equal, before, tensors_in(subject.batch)))
    assert random.getstate() == states[0] and (np.random.get_state()[1] == states[1]).all()
    assert torch.equal(torch.get_rng_state(), states[2])


@dataclass(frozen=True)
class Frozen:
    mel: torch.Tensor
    name: str


class Plain:
    def __init__(self):
        self.inside = [torch.ones(2), (torch.zeros(3), "text")]


@pytest.mark.parametrize(
    "batch",
    [
        {"a": torch.ones(2), "b": [torch.zeros(1)]},
        (torch.ones(1), 3),
        Frozen(torch.ones(2), "x"),
        Plain(),
    ],
    ids=["dict", "tuple", "frozen dataclass", "plain object"],
)
def test_copies_of_any_batch_share_no_tensor(batch):
    twin = private_copy(batch)
    assert type(twin) is type(batch) and len(tensors_in(twin)) == len(tensors_in(batch)) > 0
    for tensor in tensors_in(twin):
        tensor.add_(7)
    assert all(float(tensor.max()) <= 1 for tensor in tensors_in(batch))
    assert float(tensors_in(mapped(lambda tensor: tensor * 0 + 5, batch))[0].max()) == 5


def test_dropout_is_off_everywhere_inside_and_back_afterwards():
    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.module, self.rnn = nn.Dropout(0.5), nn.LSTM(8, 8, 2, dropout=0.5, batch_first=True)
            self.attention = nn.MultiheadAttention(8, 2, dropout=0.5, batch_first=True)

        def forward(self, x):
            x = nn.functional.dropout(self.module(x), 0.5, training=True)
            x = self.rnn(x)[0]
            x = self.attention(x, x, x, need_weights=False)[0]
            return nn.functional.scaled_dot_product_attention(x, x, x, dropout_p=0.5)

    model, x = Mixed().train(), torch.randn(2, 5, 8)
    with without_dropout(model):
        assert torch.equal(model(x), model(x))
    assert not torch.equal(model(x), model(x))
    assert model.module.p == model.rnn.dropout == model.attention.dropout == 0.5


def test_a_module_in_a_plain_list_is_found():
    class Hiding(nn.Module):
        def __init__(self):
            super().__init__()
            self.seen, self.layers = nn.Linear(2, 2), [nn.Linear(2, 2)]

    names = [name for name, _ in all_parameters(Hiding())]
    assert names[:2] == ["seen.weight", "seen.bias"] and names[2:] == [
        "layers.0.weight",
        "layers.0.bias",
    ]


def test_randomness_inside_starts_from_the_seed():
    with unchanged_randomness(3):
        first = torch.rand(2), random.random(), np.random.rand()
    with unchanged_randomness(3):
        second = torch.rand(2), random.random(), np.random.rand()
    assert torch.equal(first[0], second[0]) and first[1:] == second[1:]
