"""data.side_input names the field, the clip and the place of a value that is not finite, or far
from all others; the first such tensor is found wherever it arises.
"""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from tests.tts_workbook.faults.data import tiny_inputs as tiny
from tts_workbook.faults.data.side_input import decide, far_fields
from tts_workbook.faults.examine import examine
from tts_workbook.faults.registry import CAUSES
from tts_workbook.lab.first_non_finite import first_non_finite
from tts_workbook.lab.lab import Lab
from tts_workbook.measure.batch_fields import named_tensors
from tts_workbook.measure.non_finite import NonFinite, NonFiniteInputs
from tts_workbook.subject.isolation import tensors_in

CAUSE = CAUSES["data.side_input"]
PITCH = NonFinite("batch", "pitch", 1, 3, -math.inf)


@pytest.mark.parametrize(
    "numbers, level, where",
    [
        (NonFiniteInputs((), True, ()), "excluded", "batch"),
        (NonFiniteInputs((PITCH,), True, ()), "excluded", "pitch"),
        (NonFiniteInputs((PITCH,), False, ()), "undecided", "pitch"),
        (NonFiniteInputs((PITCH,), False, (PITCH,)), "confirmed", "pitch"),
    ],
)
def test_decide(numbers, level, where):
    decision = decide(numbers)
    assert (decision.level, decision.where) == (level, where)


def with_value(field, place, value):
    batch = tiny.make_batch()
    batch[field][place] = value
    return batch


@pytest.mark.parametrize(
    "field, place, value",
    [
        ("pitch", (1, 3), -math.inf),
        ("pitch", (2, 0), math.nan),
        ("mel", (1, 15), math.nan),  # behind the end of the clip
    ],
)
def test_a_value_that_is_not_finite_is_named(field, place, value):
    batch = with_value(field, place, value)
    if field == "mel":  # read as well as compared
        batch["energy"] = batch.pop("mel").clone()
        batch["mel"] = tiny.make_batch()["mel"]
        field = "energy"
    lab = Lab(
        replace(tiny.subject(batch=batch), losses=losses_with_energy, predict_mel=predicted),
        steps=16,
    )
    found = first_non_finite(lab)
    assert (found.where, found.name, found.clip, found.position) == ("batch", field, *place)
    entry = examine(CAUSE, lab)
    assert entry.level == "confirmed" and entry.where == field
    assert (entry.evidence["clip"], entry.evidence["position"]) == place
    assert entry.evidence["value"] == str(value)


def predicted(model, batch):
    mel = model(batch["text"], batch["speaker"], batch["pitch"])[0]
    return mel + 0.0 * batch["energy"] if "energy" in batch else mel


def losses_with_energy(model, batch):
    error = (predicted(model, batch) - batch["mel"]).abs().mean()
    return {"mel": error, "total": error}


def test_a_mask_of_infinities_is_none():
    batch = tiny.make_batch()
    batch["mask"] = torch.zeros(3, 8).masked_fill(batch["text"] == 0, -math.inf)
    lab = Lab(tiny.subject(batch=batch), steps=16)
    assert first_non_finite(lab) is None
    entry = examine(CAUSE, lab)
    assert entry.level == "excluded" and entry.where == "mask"


def test_a_value_far_from_all_others_is_confirmed_by_a_paired_run():
    faulty = Lab(tiny.subject(batch=with_value("pitch", (0, 2), 1e12)), steps=tiny.STEPS)
    entry = examine(CAUSE, faulty)
    assert entry.level == "confirmed" and entry.where == "pitch" and entry.strength > 0.1
    assert [name for name, *_ in far_fields(faulty)] == ["pitch"]
    clean = tiny.lab()
    assert not far_fields(clean) and examine(CAUSE, clean).level == "excluded"


class Root(tiny.Reader):
    """A gradient that is infinite where the input is zero."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.zeros(()))

    def forward(self, *inputs):
        mel, pitch = super().forward(*inputs)
        return mel + self.scale.square().sqrt(), pitch


class Broken(tiny.Reader):
    """A layer whose weights are no numbers."""

    def __init__(self):
        super().__init__()
        nn.init.constant_(self.body[2].weight, math.nan)


def test_the_first_is_found_in_forward_and_in_backward():
    found = first_non_finite(Lab(tiny.subject(build_model=Broken), steps=16))
    assert (found.where, found.name, found.clip, found.position) == ("forward", "body.2", 0, 0)
    found = first_non_finite(Lab(tiny.subject(build_model=Root), steps=16))
    assert (found.where, found.name) == ("backward", "scale")


def test_the_first_is_found_on_the_way_of_a_course():
    explosive = tiny.subject(make_optimizer=lambda m: torch.optim.SGD(m.parameters(), lr=1e25))
    lab = Lab(explosive, steps=16)
    assert lab.course().broke
    found = first_non_finite(lab)
    assert found.where in ("forward", "backward") and found.name
    assert len(lab.courses) == 1  # watching adds none to what is shown
    assert first_non_finite(tiny.lab()) is None


def test_fields_are_named_in_the_order_of_the_tensors():
    batch = {"a": torch.zeros(1), "b": [torch.ones(2), {"c": torch.zeros(3)}]}
    named = named_tensors(batch)
    assert [name for name, _ in named] == ["a", "b.0", "b.1.c"]
    pairs = zip(named, tensors_in(batch), strict=True)
    assert all(torch.equal(mine, theirs) for (_, mine), theirs in pairs)
    assert named_tensors(torch.zeros(2))[0][0] == "batch"
