"""optimizer.lr_too_small and optimizer.lr_too_large: the loss stays above the best constant, or
on it.
"""

import pytest
import torch

from tests.tts_workbook.diagnosis.tiny_subject import lab
from tests.tts_workbook.faults.judged import confirmed, sgd_at, tiny_lab
from tts_workbook.faults.examine import examine
from tts_workbook.faults.optimizer.lr_too_small import ObservedRates, decide_rates
from tts_workbook.faults.registry import CAUSES


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


# --- a rate of zero -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wanted_norm, given_norm, rate, wanted",
    [
        (1.0, 1.0, 0.0, ("confirmed", "make_optimizer", "rate of zero")),
        (1.0, 1.0, 1e-9, None),
        (1.0, 0.0, 0.0, None),  # it is given no gradient: loop.no_step
        (1.0, None, 0.0, None),  # it never stepped: loop.no_step
        (0.0, 1.0, 0.0, None),  # there is no gradient
    ],
)
def test_the_ends_of_the_observed_rates(wanted_norm, given_norm, rate, wanted):
    decision = decide_rates(ObservedRates(3, 3, wanted_norm, given_norm, rate))
    said = decision and (decision.level, decision.where, decision.reason)
    assert said == wanted


def test_a_learning_rate_of_zero_is_no_missing_step():
    bench = lab(make_optimizer=lambda model: torch.optim.SGD(model.parameters(), lr=0.0))
    found = examine(CAUSES["optimizer.lr_too_small"], bench)
    assert (found.level, found.where) == ("confirmed", "make_optimizer")
    assert found.evidence["largest learning rate"] == 0.0 and found.fix and found.strength > 0
    assert examine(CAUSES["loop.no_step"], bench).level == "excluded"
