"""loop.weights_not_loaded fires on names that do not fit and on weights drawn anew."""

import functools

import pytest
import torch

from tests.tts_workbook.diagnosis.tiny_subject import Tiny, lab
from tests.tts_workbook.faults.one_step import findings, only
from tts_workbook.faults.loop.weights_not_loaded import Anew, Arrivals, Mended, arrived, decide


def lost(n_renamed, before, after):
    """Two of five tensors are lost."""
    mended = Mended(0.4, "module.out.weight", n_renamed, before, after)
    return Arrivals(5, 3, ("out.weight", "out.bias"), 2, mended, None)


def complete(n_loaded, n_fresh, *fresh):
    return Arrivals(5, 5, (), 0, None, Anew(n_loaded, n_fresh, fresh))


@pytest.mark.parametrize(
    "numbers, wanted",
    [
        (lost(2, 1.0, 0.8), ("confirmed", "out", 0.2, "lost")),
        (lost(2, 1.0, 0.95), ("suspected", "out", 0.5, "lost")),
        (lost(0, 1.0, 0.1), ("suspected", "out", 0.5, "lost")),
        (complete(100, 0), ("excluded", "", 0.0, "arrived")),
        (complete(75, 25, "out.weight"), ("confirmed", "out.weight", 0.25, "drawn anew")),
        # nothing came from the file: the caller loads it later
        (complete(0, 100, "out.weight"), ("excluded", "", 0.0, "arrived")),
        (
            complete(75, 25, "out.weight", "text.weight"),
            ("confirmed", "build_model", 0.25, "drawn anew"),
        ),
    ],
)
def test_decide(numbers, wanted):
    decision = decide(numbers)
    assert (decision.level, decision.where, decision.reason) == (wanted[0], wanted[1], wanted[3])
    assert decision.strength == pytest.approx(wanted[2])


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
    assert arrived(torch.arange(3.0), torch.arange(3.0)) and not arrived(
        torch.arange(3.0), torch.ones(3)
    )
    assert not arrived(torch.ones(3), torch.ones(3))


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


class WithTable(Tiny):
    """A table of sinusoids larger than all weights together, as a buffer or a parameter, and an
    output whose weight is also known by another name.
    """

    def __init__(self, as_parameter=False, tied=False):
        super().__init__()
        table = torch.arange(4000.0)[:, None].mul(0.5 ** torch.arange(8)).sin()
        if as_parameter:
            self.table = torch.nn.Parameter(table, requires_grad=False)
        else:
            self.register_buffer("table", table)
        self.register_buffer("ids", torch.arange(4000))
        if tied:
            self.twin = torch.nn.Linear(16, 4)
            self.twin.weight = self.out.weight


def of_table(lose=(), **parts):
    """A checkpoint of a trained `WithTable`, without what `lose` names."""
    state = lab(build=lambda: WithTable(**parts)).course().model.state_dict()
    kept = {name: value for name, value in state.items() if name not in lose}
    return lab(build=lambda: WithTable(**parts), checkpoint=kept)


@pytest.mark.parametrize("as_parameter", [False, True])
@pytest.mark.parametrize("lose", [(), ("table", "ids")])
def test_a_table_that_every_model_has_is_no_weight(as_parameter, lose):
    """In the file or not: it is neither loaded nor lost."""
    bench = of_table(lose, as_parameter=as_parameter)
    assert findings(bench)["loop.weights_not_loaded"].level == "excluded"


@pytest.mark.parametrize("lose", ["out.weight", "twin.weight"])
def test_tied_weights_are_saved_once(lose):
    found = findings(of_table((lose,), tied=True))["loop.weights_not_loaded"]
    assert found.level == "excluded"


def test_a_weight_that_the_file_lacks_is_missed_beside_a_table():
    found = findings(of_table(("history.weight",)))["loop.weights_not_loaded"]
    assert found.level == "suspected" and found.where == "history.weight"
