"""model.memory_scale: a memory far above unit scale, made so by its module or by bare code behind
it.
"""

import dataclasses

import pytest
import torch
from torch import nn

from tests.tts_workbook.diagnosis.tiny_speaker import (
    Gain,
    Speaker,
    adam,
    speaker_lab,
    with_parts,
)
from tests.tts_workbook.faults.judged import confirmed, tried_in_vain
from tests.tts_workbook.faults.model.findings_model import findings_subject
from tts_workbook.faults.examine import examine
from tts_workbook.faults.model.memory_scale import CAUSE, Loudness, decide, measure
from tts_workbook.faults.selection import select
from tts_workbook.lab.lab import Lab
from tts_workbook.measure.anatomy import anatomy


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


# --- every module that takes the memory in --------------------------------------------------------


def test_the_memory_of_the_findings_own_model_is_made_quiet_everywhere():
    bench = Lab(findings_subject(), steps=48)
    found = measure(bench)
    # expanded in bare code, it enters four projections: w_k and w_v of each decoder layer
    names = {taker.name for taker in anatomy(bench).takers}
    assert {f"decoder.layers.{i}.cross_attn.w_{x}" for i in (0, 1) for x in "kv"} <= names
    assert found.memory == "encoder" and found.size == pytest.approx(512**0.5, rel=0.1)
    assert (found.n_loud, found.n_still_loud) == (9, 0)


def test_the_memory_of_the_findings_own_model_is_confirmed_and_that_of_its_twin_is_not():
    bench = Lab(findings_subject(), steps=48)
    found = examine(CAUSE, bench)
    assert (found.level, found.where) == ("confirmed", "encoder")
    accepted = select(bench).of("model.memory_scale")
    assert accepted.before.final > 0.5 > 0.35 > accepted.after.final
    twin = examine(CAUSE, Lab(findings_subject(norm=True), steps=48))
    assert twin.level == "excluded" and not select(bench).cut_short


class Heads(nn.Module):
    """Two layers of attention with `nn.MultiheadAttention`, each given the memory by bare code."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(
            nn.MultiheadAttention(16, 2, batch_first=True) for _ in range(2)
        )

    def forward(self, said, memory):
        for layer in self.layers:
            said = said + layer(said, memory, memory, need_weights=False)[0]
        return said


@dataclasses.dataclass
class Encoded:
    loss: torch.Tensor | None
    hidden: torch.Tensor


class Wrapping(nn.Module):
    """Gives its memory inside a dataclass, a mapping or a tuple."""

    def __init__(self, gain, kind):
        super().__init__()
        self.gain, self.kind = gain, kind

    def forward(self, x):
        hidden = self.gain * x
        return {
            "dataclass": Encoded(None, hidden),
            "mapping": {"lengths": torch.ones(2), "hidden": [hidden]},
            "tuple": (None, hidden),
        }[self.kind]


def unwrapped(value):
    if isinstance(value, Encoded):
        return value.hidden
    return value["hidden"][0] if isinstance(value, dict) else value[1]


class Attending(Speaker):
    """Attention of frames to the memory, whose module wraps it."""

    def __init__(self, given_as="dataclass", gain=60.0):
        super().__init__(memory=lambda: Wrapping(gain, given_as))
        self.heads = Heads()

    def encode(self, text):
        return unwrapped(super().encode(text))

    def forward(self, batch):
        said = self.history(nn.functional.pad(batch["mel"], (0, 0, 1, -1)))
        return self.out(self.heads(said, self.encode(batch["text"])).tanh())


@pytest.mark.parametrize(
    "given_as, place",
    # the first number of the mapping is not the memory: it is reached where it is taken in
    [("dataclass", "memory"), ("tuple", "memory"), ("mapping", "heads")],
)
def test_a_memory_inside_another_value_is_made_quiet(given_as, place):
    found = measure(speaker_lab(with_parts(Attending, given_as=given_as)))
    assert found.memory == "memory" and found.changed_at == (place,)
    assert found.n_loud >= 3 and found.n_still_loud == 0


class Aside(Attending):
    """Keeps its memory where no module gives it: a loud copy is made by bare code."""

    def forward(self, batch):
        said = self.history(nn.functional.pad(batch["mel"], (0, 0, 1, -1)))
        memory = self.encode(batch["text"])
        loud = memory.detach().abs().amax() + memory
        return self.out(self.heads(said, loud).tanh())


def test_a_memory_that_bare_code_makes_loud_again_is_made_quiet_where_it_is_taken_in():
    found = measure(speaker_lab(with_parts(Aside, given_as="tuple")))
    assert found.loud and found.n_still_loud == 0 and found.changed_at


LOUD = Loudness("encoder", 20.0, 1.0, ("encoder",), 4, 4, 0)


@pytest.mark.parametrize(
    "numbers, wanted",
    [
        (LOUD, None),  # the paired run decides
        (dataclasses.replace(LOUD, memory=""), ("undecided", "no memory")),
        (dataclasses.replace(LOUD, changed_at=(), n_still_loud=3), ("undecided", "stays loud")),
        (dataclasses.replace(LOUD, size=1.0, changed_at=()), None),
    ],
)
def test_an_instrument_that_does_not_act_rules_nothing_out(numbers, wanted):
    decision = decide(numbers)
    assert (decision and (decision.level, decision.reason)) == wanted
