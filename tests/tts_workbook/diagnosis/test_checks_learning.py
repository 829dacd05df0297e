"""What only a paired run decides: each suspicion is confirmed on its fault and on none of the
faults that look like it.
"""

import functools

import pytest
import torch
from torch import nn

from tests.tts_workbook.diagnosis.test_observe import step_with
from tests.tts_workbook.diagnosis.tiny_speaker import (
    Branch,
    D,
    Gain,
    Positions,
    SelfAttention,
    Speaker,
    adam,
    blamed,
    findings,
    speaker_lab,
    spoken,
    with_parts,
)
from tests.tts_workbook.diagnosis.tiny_subject import Tiny, losses, subject
from tts_workbook.diagnosis.diagnosis_report import merged
from tts_workbook.faults.checks import learning
from tts_workbook.faults.suspect import Suspect
from tts_workbook.faults.suspects import suspects
from tts_workbook.lab.lab import Lab
from tts_workbook.lab.short_run import Change, Course

JUDGES = ("learning", "order")


def sgd_at(lr):
    return lambda model: torch.optim.SGD(model.parameters(), lr=lr)


def tiny_lab(**fields):
    return Lab(subject(**fields), steps=48)


def confirmed(bench, cause):
    """The finding of `cause`, the only one that is blamed: a paired run came out better by the
    margin.
    """
    found = findings(bench, *JUDGES)
    assert blamed(found) == {cause} and found[cause].level == "confirmed"
    evidence = found[cause].evidence
    assert evidence["mean TF L1 / best constant before"] - evidence["after"] > learning.MARGIN
    assert found[cause].strength > learning.MARGIN and found[cause].where
    assert len(found[cause].mended_by) == 1  # what the picture of the courses colours
    return found[cause]


def tried_in_vain(bench, cause):
    """Nothing is blamed, although `cause` was suspected and its change was run."""
    found = findings(bench, *JUDGES)
    assert not blamed(found)
    assert "as the one factor" in found[cause].experiment
    assert found[cause].evidence["gain in mean TF L1 / best constant"] < learning.MARGIN


@pytest.mark.parametrize(
    "bench",
    [tiny_lab, speaker_lab, functools.partial(speaker_lab, batch=spoken(1.0, 2.5))],
    ids=["tiny", "speaker", "not quite standardised"],
)
def test_nothing_is_suspected_of_a_model_that_learns(bench):
    bench = bench()
    assert not blamed(findings(bench, *JUDGES)) and list(bench.courses) == ["as it is"]


# --- learning rate, clip and decay: all leave the loss above the best constant, or on it ----------


def test_learning_rate_too_small():
    assert (
        "× 100"
        in confirmed(tiny_lab(make_optimizer=sgd_at(5e-4)), "optimizer.lr_too_small").experiment
    )


@pytest.mark.parametrize("lr, factor", [(5.0, "0.1"), (50.0, "0.01")])
def test_learning_rate_too_large(lr, factor):
    """Of the two doses the mildest that makes it learn, or that gains nearly as much."""
    assert (
        f"× {factor} "
        in confirmed(tiny_lab(make_optimizer=sgd_at(lr)), "optimizer.lr_too_large").experiment
    )


def dose(cause, gain, learnt, name):
    """A row of what was tried: its gain, the suspect, and the course it led to."""
    course = Course((1,), (0.1 if learnt else 0.9,), "", 0.0, 0.0, 0.0, 0.0, None)
    return gain, Suspect(cause, Change(name), {}), course


@pytest.mark.parametrize(
    "rows, wanted",
    [
        ([(0.2, False), (0.25, False)], 0),  # none learns: the mildest that gains nearly the most
        ([(0.1, False), (0.3, False)], 1),  # it does not
        ([(0.1, True), (0.5, True)], 0),  # it learns: no need for more
        ([(0.2, False), (0.1, True)], 1),  # only the stronger learns
        ([(-0.1, False), (-0.2, True)], 0),
    ],
)  # one that learns and loses is no remedy
def test_of_several_doses_the_mildest_that_does(rows, wanted):
    given = [
        dose("optimizer.lr_too_small", gain, learnt, str(number))
        for number, (gain, learnt) in enumerate(rows)
    ]
    assert learning._one_dose_each(
        [*given, other := dose("model.memory_scale", 0.1, False, "other")]
    ) == [given[wanted], other]


def test_clip_too_tight_is_no_small_learning_rate():
    bench = tiny_lab(train_step=step_with(clip=1e-4))
    confirmed(bench, "optimizer.clip_too_tight")
    # no need to ask, for the clip's own change mends it
    assert not any("learning rate" in name for name in bench.courses)


def test_clip_below_the_eps_of_adam():
    confirmed(
        tiny_lab(train_step=step_with(clip=1e-10), make_optimizer=adam()),
        "optimizer.clip_too_tight",
    )


def test_a_clip_that_adam_undoes_is_silent():
    bench = tiny_lab(train_step=step_with(clip=1e-3), make_optimizer=adam())
    assert not blamed(findings(bench, *JUDGES)) and len(bench.courses) == 1


def test_no_step_is_no_small_learning_rate():
    def never(model, optimizer, batch):
        optimizer.zero_grad()
        losses(model, batch)["total"].backward()

    found = findings(tiny_lab(train_step=never), *JUDGES, "step")
    assert blamed(found) == {"loop.no_step"}


def test_swallowed_updates_come_before_the_learning_rate():
    """A larger rate mends 16-bit weights too: it is named after them."""
    bench = tiny_lab(
        build=lambda: Tiny().bfloat16(),
        make_optimizer=lambda model: torch.optim.Adam(model.parameters(), lr=3e-4),
    )
    found = findings(bench, *JUDGES, "precision")
    assert found["precision.low_precision_weights"].level == "confirmed"
    assert merged(found.values())[0].cause == "precision.low_precision_weights"


class HalfSpeaker(Speaker):
    """Reads fp32 frames with 16-bit weights."""

    def forward(self, batch):
        return super().forward({**batch, "mel": batch["mel"].bfloat16()})


def test_swallowed_updates_beside_another_fault_are_not_blamed_for_it():
    """Some updates of the 16-bit weights are lost, but with fp32 weights nothing more is learnt:
    the memory is too loud.
    """
    bench = speaker_lab(
        lambda: HalfSpeaker(memory=lambda: Gain(1000.0)).bfloat16(), make_optimizer=adam(0.002)
    )
    found = findings(bench, "precision")["precision.low_precision_weights"]
    assert (
        found.evidence["share of elements that a step changes"]
        < 0.7 * found.evidence["share in fp32"]
    )
    assert found.level == "undecided" and "nothing is gained" in found.experiment


def test_a_slow_subject_that_still_learns_is_given_time():
    """Above the line at the end of its course, below it after three times the steps: no learning
    rate is blamed.
    """
    bench = speaker_lab(make_optimizer=adam(0.002))
    assert not bench.course().learnt and bench.learns
    assert not blamed(findings(bench, *JUDGES)) and set(bench.courses) == {
        "as it is",
        "as it is, 3 times the steps",
    }


def test_weight_decay():
    """The memory is quiet and the text is given up: neither is blamed."""
    bench = speaker_lab(make_optimizer=adam(decay=20.0))
    confirmed(bench, "optimizer.weight_decay")
    assert findings(bench, "model")["model.text_ignored"].level == "undecided"


def test_weight_decay_that_only_later_holds_the_model_up():
    """It learns its batch, and then no further: without the decay a longer run does."""
    found = findings(speaker_lab(make_optimizer=adam(decay=1.1)), *JUDGES)
    assert (
        blamed(found) == {"optimizer.weight_decay"}
        and "3 times the steps" in found["optimizer.weight_decay"].experiment
    )


@pytest.mark.parametrize("twin, level", [(0.30, "confirmed"), (0.36, None)])
def test_a_late_decay_has_to_cost_the_margin(monkeypatch, twin, level):
    """The long course ends at 0.42 of the best constant; without the decay at `twin`."""
    bench = speaker_lab(make_optimizer=adam(decay=1.1))
    ends = {(): 0.45, ("long",): 0.42, ("decay 0", "long"): twin}
    monkeypatch.setattr(
        Lab,
        "course",
        lambda self, *changes, times=1: Course(
            (1,),
            (ends[(*(change.name for change in changes), *(["long"] if times > 1 else []))],),
            "",
            0.0,
            0.0,
            0.0,
            0.0,
            None,
        ),
    )
    found = learning._late(bench, [Suspect("optimizer.weight_decay", Change("decay 0"), {})], set())
    assert (found.level if found else None) == level


def decayed(model):
    """A strong decay on one matrix, whose size the norm behind it takes away."""
    inside = model.encoder[3].weight
    others = [parameter for parameter in model.parameters() if parameter is not inside]
    return torch.optim.AdamW(
        [{"params": others, "weight_decay": 0.0}, {"params": [inside], "weight_decay": 2.0}],
        lr=0.01,
    )


def test_a_visible_decay_that_does_no_harm_is_silent():
    bench = speaker_lab(make_optimizer=decayed)
    assert [suspect.cause for suspect in suspects(bench) if suspect.always] == [
        "optimizer.weight_decay"
    ]
    tried_in_vain(bench, "optimizer.weight_decay")


# --- the memory, a growing stack, positions -------------------------------------------------------


def test_memory_scale():
    """Far above unit scale, beside a decay that can be seen and does no harm."""
    bench = speaker_lab(with_parts(memory=lambda: Gain(100.0)), make_optimizer=adam(decay=0.5))
    assert confirmed(bench, "model.memory_scale").where == "memory"


class Multiplied(Speaker):
    """The memory's own module is quiet; code behind it multiplies."""

    def encode(self, text):
        return 100.0 * super().encode(text)


def test_a_memory_that_bare_code_makes_loud():
    found = confirmed(speaker_lab(Multiplied), "model.memory_scale")
    assert found.where == "memory" and found.evidence["RMS of the memory"] == pytest.approx(
        1.0, abs=0.01
    )
    assert found.evidence["multiplied behind that module by"] == pytest.approx(100.0, rel=0.01)


def test_a_loud_memory_that_the_decoder_turns_down_is_silent():
    class Louder(Speaker):
        def encode(self, text):
            return super().encode(text) / 30.0

    tried_in_vain(speaker_lab(with_parts(Louder, memory=lambda: Gain(30.0))), "model.memory_scale")


def stack(gain, norm=False, last=False):
    return lambda: [*(Branch(gain, norm) for _ in range(3)), *([nn.LayerNorm(D)] if last else [])]


def test_norm_runaway():
    found = confirmed(speaker_lab(with_parts(layers=stack(30.0))), "model.norm_runaway")
    assert found.where == "layers" and found.evidence["RMS of the last layer over the first"] > 4.0


@pytest.mark.parametrize(
    "layers",
    [stack(1.0), stack(1.0, norm=True), stack(10.0, norm=True, last=True)],
    ids=["plain", "pre-norm", "pre-norm, amplified, norm behind"],
)
def test_sound_stacks_are_silent(layers):
    assert not blamed(findings(speaker_lab(with_parts(layers=layers)), *JUDGES))


def test_a_growing_stack_with_a_norm_behind_it_is_tried_in_vain():
    tried_in_vain(speaker_lab(with_parts(layers=stack(10.0, last=True))), "model.norm_runaway")


def test_positions_that_drown_the_text():
    assert (
        confirmed(
            speaker_lab(with_parts(positions=lambda: Positions(50.0))), "model.positions"
        ).where
        == "positions"
    )


def test_positions_that_are_missing():
    found = findings(speaker_lab(with_parts(positions=nn.Identity)), *JUDGES)
    assert blamed(found) == {"model.positions"} and found["model.positions"].level == "confirmed"
    assert found["model.positions"].evidence["text side: order noticed"] < 1e-4


class Convolution(nn.Conv1d):
    def forward(self, x):
        return super().forward(x.transpose(1, 2)).transpose(1, 2)


class Recurrent(nn.GRU):
    def forward(self, x):
        return super().forward(x)[0]


ORDERED = {
    "positions": dict(mix=SelfAttention),
    "loud positions": dict(positions=lambda: Positions(4.0)),
    "a convolution": dict(positions=nn.Identity, mix=lambda: Convolution(D, D, 3, padding=1)),
    "a recurrence": dict(positions=nn.Identity, mix=lambda: Recurrent(D, D, batch_first=True)),
    "no place mixed": dict(positions=nn.Identity, mix=nn.Identity),
}


@pytest.mark.parametrize("name", ORDERED)
def test_silent_where_order_is_known_or_nothing_is_mixed(name):
    found = findings(speaker_lab(with_parts(**ORDERED[name])), *JUDGES)
    assert not blamed(found) and found["model.positions"].level == "excluded"
