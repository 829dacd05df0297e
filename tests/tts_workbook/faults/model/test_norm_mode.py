"""model.norm_mode: running statistics that never arrive, and those that only lag."""

import pytest
import torch
from torch import nn

from tests.tts_workbook.diagnosis.tiny_speaker import (
    D,
    Gain,
    Speaker,
    adam,
    blamed,
    findings,
    speaker_lab,
    with_parts,
)
from tests.tts_workbook.faults.judged import PAIRED
from tts_workbook.faults.model.norm_mode import (
    MOST_FORWARDS,
    BothModes,
    Modes,
    decide,
    forwards_to_settle,
)


class Normed(Speaker):
    """BatchNorm before the output, of this momentum."""

    def __init__(self, momentum=0.1, **parts):
        super().__init__(batch_norm=True, **parts)
        self.norm.momentum = momentum


def modes(bench):
    return findings(bench, "model.norm_mode")["model.norm_mode"]


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
    found = findings(bench, *PAIRED, "model.dead_units", "model.norm_mode")
    assert blamed(found) == {"model.memory_scale"}


APART, ALIKE = BothModes(0.9, 0.3), BothModes(0.32, 0.3)


@pytest.mark.parametrize(
    "numbers, wanted",
    [
        (Modes(""), ("excluded", "", "no running statistics")),
        (Modes("norm", ALIKE), ("excluded", "", "alike")),
        (Modes("norm", APART, 60, ALIKE), ("excluded", "", "only lagged")),
        (Modes("norm", APART, 60, APART), ("confirmed", "norm", "stays apart")),
    ],
)
def test_the_ends_of_both_modes(numbers, wanted):
    decision = decide(numbers)
    assert (decision.level, decision.where, decision.reason) == wanted


@pytest.mark.parametrize(
    "running, batch, apart",
    [(0.45, 0.3, True), (0.38, 0.3, False), (2.2, 2.0, False), (0.1, 0.01, False)],
)
def test_modes_are_apart_by_a_gap_and_by_a_ratio(running, batch, apart):
    assert BothModes(running, batch).apart == apart
