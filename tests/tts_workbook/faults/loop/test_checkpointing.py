"""loop.checkpointing fires on checkpointing that kills or changes gradients, not on a right one."""

import pytest
from torch.utils.checkpoint import checkpoint

from tests.tts_workbook.diagnosis.tiny_subject import Tiny, lab
from tests.tts_workbook.faults.one_step import findings, only
from tts_workbook.faults.loop.checkpointing import Gradients, decide, tell


@pytest.mark.parametrize(
    "numbers, wanted",
    [
        (Gradients(0, 0.0, None, (), ""), ("excluded", "", 0.0, "not in use")),
        (Gradients(2, 0.01, False, (), ""), ("excluded", "", 0.0, "same gradients")),
        (Gradients(2, 0.2, True, (), ""), ("confirmed", "", 0.2, "changes gradients")),
        (
            Gradients(2, 0.1, False, ("encoder.0.weight", "encoder.1.bias"), ""),
            ("confirmed", "encoder", 0.5, "changes gradients"),
        ),
        (Gradients(2, 2.0, True, (), ""), ("confirmed", "", 1.0, "changes gradients")),
        (Gradients(2, 0.0, None, (), "no hook"), ("confirmed", "", 0.0, "changes gradients")),
    ],
)
def test_decide(numbers, wanted):
    decision = decide(numbers)
    assert (decision.level, decision.where, decision.strength, decision.reason) == wanted


@pytest.mark.parametrize("with_dropout, end", [(True, "with dropout"), (False, "without dropout")])
def test_tell_says_when_the_gradients_part(with_dropout, end):
    numbers = Gradients(2, 0.2, with_dropout, (), "")
    assert tell(numbers, decide(numbers)).experiment.endswith(f", {end}")


class Checkpointed(Tiny):
    def __init__(self, **options):
        self.options = options
        super().__init__(dropout=0.5)

    def encode(self, text):
        return checkpoint(self.encoder, self.text(text), **self.options)


class Killed(Tiny):
    def encode(self, text):
        return checkpoint(super().encode, text, use_reentrant=True)


@pytest.mark.parametrize("options", [dict(use_reentrant=False), dict(use_reentrant=True)], ids=str)
def test_silent_on_right_checkpointing(options):
    found = findings(lab(build=lambda: Checkpointed(**options)))
    assert {finding.level for finding in found.values()} <= {"excluded", "not applicable"}
    assert found["loop.checkpointing"].evidence["checkpointed calls"] >= 2


@pytest.mark.parametrize(
    "options",
    [
        dict(use_reentrant=False, preserve_rng_state=False),
        dict(use_reentrant=True, preserve_rng_state=False),
    ],
    ids=str,
)
def test_checkpointing_that_draws_another_dropout_mask(options):
    only(lab(build=lambda: Checkpointed(**options)), "loop.checkpointing")


@pytest.mark.filterwarnings("ignore:None of the inputs")
def test_checkpointing_that_kills_gradients():
    finding = only(lab(build=Killed), "loop.checkpointing")
    assert finding.evidence["tensors without gradient"] == 5
