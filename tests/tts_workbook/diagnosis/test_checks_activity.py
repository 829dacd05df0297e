"""Units that never fire, an output that cannot reach its targets, and norms that differ between the
modes.
"""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests.tts_workbook.diagnosis.tiny_speaker import (
    Branch,
    D,
    Gain,
    Speaker,
    adam,
    blamed,
    findings,
    speaker_lab,
    spoken,
    with_parts,
)
from tests.tts_workbook.diagnosis.tiny_subject import M
from tts_workbook.faults.checks.activity import (
    DEAD_SHARE,
    MOST_FORWARDS,
    dead_share,
    dead_shares,
    forwards_to_settle,
)

# --- model.dead_units -----------------------------------------------------------------------------


def prenet(bias=0.0, share=1.0, kind=nn.ReLU, width=32):
    """A pre-net whose first units have another bias."""

    def build():
        layers = nn.Sequential(nn.Linear(D, width), kind(), nn.Linear(width, D))
        with torch.no_grad():
            layers[0].bias[: round(share * width)] += bias
        return layers

    return build


def dead(bench):
    return findings(bench, "activity")["model.dead_units"]


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
    """The living units fire along the whole clip; they do not hide the others."""
    found = dead(speaker_lab(with_parts(prenet=prenet(-30.0, share=share))))
    assert (found.level, found.where) == ("confirmed", "prenet.0")
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
    assert (
        found := dead(speaker_lab(with_parts(prenet=ConvPrenet)))
    ).level == "confirmed" and found.where == "prenet.wide"


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


# --- model.output_range ---------------------------------------------------------------------------


class Through(Speaker):
    """The frame passes a function."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, batch):
        return self.function(super().forward(batch))


def in_range(bench):
    return findings(bench, "model")["model.output_range"]


@pytest.mark.parametrize(
    "function",
    [lambda mel: 0.5 * mel.tanh(), torch.relu, lambda mel: mel.clamp(max=1.0), torch.sigmoid],
    ids=["tanh", "ReLU", "clamp", "sigmoid"],
)
def test_an_output_that_cannot_reach_its_targets(function):
    found = in_range(speaker_lab(with_parts(Through, function=function)))
    assert (found.level, found.where) == ("confirmed", "after out")
    assert found.evidence["share of target values out of reach"] > 0.02


@pytest.mark.parametrize(
    "function",
    [lambda mel: 10.0 * mel.tanh(), lambda mel: mel.clamp(-4.0, 4.0), F.leaky_relu],
    ids=["wide tanh", "clamp beyond the targets", "leaky"],
)
def test_silent_where_every_target_is_within_reach(function):
    assert in_range(speaker_lab(with_parts(Through, function=function))).level == "excluded"


def test_a_relu_over_targets_without_a_sign_is_silent():
    batch = {**spoken(), "mel": spoken()["mel"].abs()}
    assert (
        in_range(speaker_lab(with_parts(Through, function=torch.relu), batch=batch)).level
        == "excluded"
    )


PLATEAUS = {
    "a small learning rate": dict(make_optimizer=adam(1e-5)),
    "a decay": dict(make_optimizer=adam(decay=20.0)),
    "a loud memory": dict(build=with_parts(memory=lambda: Gain(100.0))),
    "raw targets": dict(batch=spoken(-5.0, 2.0)),
}


@pytest.mark.parametrize("name", PLATEAUS)
def test_a_plateau_from_another_cause_is_no_range(name):
    bench = speaker_lab(**PLATEAUS[name])
    assert not bench.course().learnt and in_range(bench).level == "excluded"


# --- model.norm_mode ------------------------------------------------------------------------------


class Normed(Speaker):
    """BatchNorm before the output, of this momentum."""

    def __init__(self, momentum=0.1, **parts):
        super().__init__(batch_norm=True, **parts)
        self.norm.momentum = momentum


def modes(bench):
    return findings(bench, "activity")["model.norm_mode"]


@pytest.mark.parametrize("momentum", [1e-4, 0.0])
def test_statistics_that_never_arrive(momentum):
    found = modes(speaker_lab(with_parts(Normed, momentum=momentum)))
    assert (found.level, found.where) == ("confirmed", "norm")
    gap = (
        found.evidence[f"with running statistics after {MOST_FORWARDS} forwards more"]
        - found.evidence["with batch statistics then"]
    )
    assert gap > 0.2


@pytest.mark.parametrize("momentum, n_forwards", [(0.02, 300), (0.01, 600)])
def test_statistics_that_only_lag_behind_the_weights_are_silent(momentum, n_forwards):
    """Apart when training ends, together once the weights are held for as long as their momentum
    needs.
    """
    found = modes(speaker_lab(with_parts(Normed, momentum=momentum)))
    evidence = found.evidence
    assert (
        evidence["TF L1 / best constant with running statistics"]
        - evidence["with batch statistics"]
        > 0.1
    )
    assert found.level == "excluded" and "only lagged" in found.experiment
    assert (
        evidence[f"with running statistics after {n_forwards} forwards more"]
        - evidence["with batch statistics then"]
        < 0.1
    )


def test_the_slowest_momentum_says_how_long_statistics_settle():
    assert forwards_to_settle([nn.BatchNorm1d(D), nn.BatchNorm1d(D, momentum=0.5)]) == 60
    assert forwards_to_settle([nn.BatchNorm1d(D, momentum=None)]) == MOST_FORWARDS


def test_judging_the_statistics_leaves_the_trained_model_alone():
    bench = speaker_lab(with_parts(Normed, momentum=0.02))
    before = {name: value.clone() for name, value in bench.course().model.state_dict().items()}
    modes(bench)
    assert all(
        torch.equal(value, before[name])
        for name, value in bench.course().model.state_dict().items()
    )


SOUND = {
    "usual momentum": with_parts(Normed),
    "LayerNorm": with_parts(layers=lambda: [nn.LayerNorm(D)]),
    "dropout beside it": with_parts(Normed, dropout=0.3),
}


@pytest.mark.parametrize("name", SOUND)
def test_silent_where_both_modes_agree(name):
    assert modes(speaker_lab(SOUND[name])).level == "excluded"


def test_a_loud_memory_behind_a_batch_norm_is_no_fault_of_the_norm():
    bench = speaker_lab(with_parts(Normed, memory=lambda: Gain(100.0)), make_optimizer=adam(0.03))
    assert blamed(findings(bench, "activity", "learning")) == {"model.memory_scale"}


def test_the_tiny_batch_is_what_these_tests_say_of_it():
    assert (
        spoken()["mel"].shape == (2, 16, M)
        and spoken()["mel"].amin() < -2.0
        and spoken()["mel"].abs().amax() < 4.0
    )
