"""model.dead_units: units that never fire, and layers that only look like it."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests.tts_workbook.diagnosis.tiny_speaker import (
    Branch,
    D,
    Speaker,
    findings,
    speaker_lab,
    with_parts,
)
from tts_workbook.faults.model.dead_units import (
    DEAD_SHARE,
    Redrawn,
    Units,
    dead_share,
    dead_shares,
    decide,
)


def prenet(bias=0.0, share=1.0, kind=nn.ReLU, width=32):
    """A pre-net whose first units have another bias."""

    def build():
        layers = nn.Sequential(nn.Linear(D, width), kind(), nn.Linear(width, D))
        with torch.no_grad():
            layers[0].bias[: round(share * width)] += bias
        return layers

    return build


def dead(bench):
    return findings(bench, "model.dead_units")["model.dead_units"]


@pytest.mark.parametrize("bias", [-3.0, -30.0])
def test_a_layer_that_never_fires(bias):
    found = dead(speaker_lab(with_parts(prenet=prenet(bias))))
    assert (found.level, found.where) == ("confirmed", "prenet.0")
    assert (
        found.evidence["dead share of the worst layer, fresh"] == 1.0
        and found.evidence["after re-initialising"] < 0.1
    )
    assert found.evidence["outcome re-initialised"] < found.evidence["outcome as it is"] - 0.1


@pytest.mark.parametrize("share", [0.75, 0.95])
def test_a_layer_that_is_dead_for_the_most_part(share):
    """The living units fire along the whole clip; they do not hide the others. They harm this run
    little, so that it may be suspected only.
    """
    found = dead(speaker_lab(with_parts(prenet=prenet(-30.0, share=share))))
    assert found.level in ("confirmed", "suspected") and found.where == "prenet.0"
    assert (
        0.7 < found.evidence["dead share of the worst layer, fresh"] < 1.0
        and found.evidence["after training"] >= DEAD_SHARE
    )


class ConvPrenet(nn.Module):
    """A rectified convolution over (B, C, T), most of whose channels are dead."""

    def __init__(self):
        super().__init__()
        self.wide, self.narrow = nn.Conv1d(D, 32, 3, padding=2), nn.Linear(32, D)
        with torch.no_grad():
            self.wide.bias[:26] -= 30.0

    def forward(self, x):
        return self.narrow(self.wide(x.transpose(1, 2))[..., : x.shape[1]].relu().transpose(1, 2))


def test_channels_of_a_convolution_are_units_too():
    found = dead(speaker_lab(with_parts(prenet=ConvPrenet)))
    assert found.level in ("confirmed", "suspected") and found.where == "prenet.wide"


class SilentBranch(Branch):
    """A residual branch whose last layer starts at zero, as many do on purpose."""

    def __init__(self):
        super().__init__()
        nn.init.zeros_(self.down.weight), nn.init.zeros_(self.down.bias)


class SilentOutput(Speaker):
    def __init__(self):
        super().__init__()
        nn.init.zeros_(self.out.weight), nn.init.zeros_(self.out.bias)


@pytest.mark.parametrize(
    "kind",
    [with_parts(layers=lambda: [SilentBranch(), SilentBranch()]), SilentOutput],
    ids=["branches", "output"],
)
def test_layers_that_start_at_zero_are_not_dead(kind):
    assert dead(speaker_lab(kind)).level == "excluded"


class Bare(nn.Module):
    """A layer that has no default initialisation to go back to."""

    def __init__(self):
        super().__init__()
        self.weight, self.bias = (
            nn.Parameter(torch.randn(D, D) / D**0.5),
            nn.Parameter(torch.full((D,), -30.0)),
        )

    def forward(self, x):
        return (x @ self.weight + self.bias).relu()


def test_a_layer_that_cannot_be_drawn_anew_is_not_confirmed():
    assert dead(speaker_lab(with_parts(prenet=Bare))).level != "confirmed"


def sparse(x):
    """The two largest of 32 units fire, so each is silent on most frames."""
    return x * (x >= x.topk(2, dim=-1).values[..., -1:])


class Sparse(nn.Module):
    def forward(self, x):
        return sparse(x.relu())


ALIVE = {
    "ReLU": prenet(),
    "leaky, far below zero": prenet(-30.0, kind=nn.LeakyReLU),
    "sparse": prenet(kind=Sparse),
    "a third of the units": prenet(-30.0, share=0.3),
    "sigmoid, far below zero": prenet(-10.0, kind=nn.Sigmoid),
}


@pytest.mark.parametrize("name", ALIVE)
def test_silent_where_units_live(name):
    found = dead(speaker_lab(with_parts(prenet=ALIVE[name])))
    assert (
        found.level == "excluded"
        and found.evidence["dead share of the worst layer, fresh"] < DEAD_SHARE
    )


def test_most_units_are_silent_on_any_one_frame_of_a_sparse_layer():
    x = sparse(torch.randn(40, 32).relu())
    assert (
        (x == 0).float().mean() > 0.9
        and dead_share(x) < 0.2
        and dead_share(torch.zeros(40, 32)) == 1.0
    )


class OneHot(Speaker):
    """Reads a table of 64 symbols of which a clip has eight: the others are no units."""

    def __init__(self):
        super().__init__()
        self.wide = nn.Linear(64, D)

    def encode(self, text):
        return super().encode(text) + self.wide(F.one_hot(text, 64).float())


def test_symbols_that_do_not_occur_are_no_dead_units():
    bench = speaker_lab(OneHot)
    assert (
        "input of wide" not in dead_shares(bench, bench.model) and dead(bench).level == "excluded"
    )


def units(fresh=0.9, trained=0.9, revived=0.1, gain=0.3):
    redrawn = Redrawn(revived, outcome=1.0, outcome_redrawn=1.0 - gain)
    return Units("prenet.1", fresh, trained, "prenet.0", redrawn=redrawn)


@pytest.mark.parametrize(
    "numbers, wanted",
    [
        (Units(), ("excluded", "", "alive")),
        (Units("prenet.1", 0.5, 0.9), ("excluded", "", "alive")),
        (
            Units("prenet.1", 1.0, 1.0, "prenet.0", starts_at_zero=True),
            ("excluded", "", "starts at zero"),
        ),
        (Units("prenet.1", 1.0, 1.0), ("suspected", "prenet.1", "cannot be drawn anew")),
        (units(), ("confirmed", "prenet.0", "revived")),
        # the paired run shows no harm
        (units(gain=0.05), ("suspected", "prenet.0", "revived, no harm")),
        (units(gain=-0.01), ("suspected", "prenet.0", "revived, no harm")),
        (units(gain=-0.03), ("excluded", "prenet.0", "redrawn in vain")),
        # training wakes them up: it has to gain then
        (units(trained=0.1, gain=0.05), ("excluded", "prenet.0", "redrawn in vain")),
        (units(trained=0.1, gain=0.15), ("confirmed", "prenet.0", "revived")),
        (units(revived=0.5), ("excluded", "prenet.0", "redrawn in vain")),
    ],
)
def test_the_ends_of_dead_units(numbers, wanted):
    decision = decide(numbers)
    assert (decision.level, decision.where, decision.reason) == wanted
