"""Checkpointing, and weights that are not loaded."""

import functools

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from tests.tts_workbook.diagnosis.tiny_subject import Tiny, lab
from tts_workbook.faults.checks import restart
from tts_workbook.faults.checks.registry import CHECKS


def findings(bench):
    """Cause -> finding, of the checks that are no file of their own yet."""
    mine = [check for check in CHECKS if check.run.__module__.endswith(".restart")]
    return {finding.cause: finding for check in mine for finding in check.findings(bench)}


def only(bench, cause):
    """The finding of `cause`, the only one that is blamed, and confirmed."""
    found = findings(bench)
    assert {
        name for name, finding in found.items() if finding.level in ("confirmed", "suspected")
    } == {cause}
    assert found[cause].level == "confirmed" and found[cause].fix and found[cause].strength > 0
    return found[cause]


# --- loop.checkpointing ---------------------------------------------------------------------------


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


# --- loop.weights_not_loaded ----------------------------------------------------------------------


@functools.cache
def trained_state():
    return lab().course().model.state_dict()


def loading(state, strict=False, reset=False):
    def build():
        model = Tiny()
        model.load_state_dict(state, strict=strict)
        if reset:
            model.out.reset_parameters()
        return model

    return build


@pytest.mark.parametrize(
    "rename",
    [
        lambda name: f"module.{name}",
        lambda name: name.replace("encoder.", "enc."),
        lambda name: name.replace("out.", "_orig_mod.out."),
    ],
    ids=["all", "encoder", "out"],
)
def test_weights_not_loaded(rename):
    state = {rename(name): value for name, value in trained_state().items()}
    only(lab(build=loading(state), checkpoint=state), "loop.weights_not_loaded")


def test_weights_in_a_nested_file_are_not_loaded():
    only(
        lab(checkpoint={"model": trained_state(), "step": torch.tensor(3)}),
        "loop.weights_not_loaded",
    )


def test_weights_drawn_anew_after_loading():
    finding = only(
        lab(build=loading(trained_state(), reset=True), checkpoint=trained_state()),
        "loop.weights_not_loaded",
    )
    assert finding.where == "out"


def test_a_constant_tensor_proves_no_loading():
    assert restart.arrived(torch.arange(3.0), torch.arange(3.0)) and not restart.arrived(
        torch.arange(3.0), torch.ones(3)
    )
    assert not restart.arrived(torch.ones(3), torch.ones(3))


@pytest.mark.parametrize(
    ("build", "prefix"),
    [
        (Tiny, ""),
        (lambda: loading(trained_state())(), ""),
        (lambda: loading(trained_state())(), "module."),
    ],
    ids=["fresh model", "build loads", "build mends the names"],
)
def test_silent_where_weights_arrive(build, prefix):
    state = {prefix + name: value for name, value in trained_state().items()}
    assert (
        findings(lab(checkpoint=state, build=build))["loop.weights_not_loaded"].level == "excluded"
    )
