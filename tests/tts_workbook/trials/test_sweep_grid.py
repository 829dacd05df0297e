"""A sweep's grids hold the numbers of its trials in their places; what failed is neither a number
nor the best.
"""

import dataclasses

import numpy as np
import pytest

from tests.tts_workbook.trials.trial_builders import short_corpus
from tts_core.config import SEED_LR
from tts_core.errors import WorkbookError
from tts_workbook.trials.sweep_grid import (
    Sweep,
    SweepCell,
    best,
    by_cell,
    choice_cost,
    curves,
    decay_spread,
    default_sweep,
    grid,
    measured,
    reading,
    sweep_trials,
    value,
)
from tts_workbook.trials.trial_result import TrialResult

SWEEP = Sweep(
    presets=("healthy", "seed"),
    lrs=(1e-3, 1e-4),
    weight_decays=(0.01, 0.0),
    seeds=(0, 1),
    profile="smoke",
    steps=5,
)


@pytest.fixture(scope="module")
def trials():
    corpus = short_corpus()
    return sweep_trials(SWEEP, corpus.clips, corpus.vocabulary)


def table_of(trials, measures, failed=()):
    """`measures(cell, seed)` -> the measures of that trial; `failed` holds (cell, seed)."""
    cells = SWEEP.cells * len(SWEEP.seeds)
    return by_cell(
        SWEEP,
        [
            TrialResult(
                trial,
                {"outcome": 1.0} if (cell, seed) in failed else measures(cell, seed),
                {"over_constant": [1.5, 1.0]},
                "it broke" if (cell, seed) in failed else "",
            )
            for cell, trial in zip(cells, trials, strict=True)
            for seed in [trial.experiment.fit.seed]
        ],
    )


def level(cell, seed):
    """A different number everywhere; the lowest error lies at healthy, 1e-3, 0.01."""
    error = (
        0.3
        + 2.0 * (cell.preset == "seed")
        + 0.1 * (cell.lr < 5e-4)
        + 0.02 * (cell.weight_decay == 0)
        + 0.01 * seed
    )
    return {
        "outcome": error,
        "tf_over_constant": error / 2,
        "fr_over_constant": error,
        "fr_l1": error * 1.2,
        "text_use": 1.0 if cell.preset == "seed" else 2.0,
    }


def test_the_quick_grid_holds_the_rates_of_the_findings_and_fits_its_budget():
    sweep = default_sweep("quick", seed=3)
    assert {SEED_LR, 4e-4, 5e-4} < set(sweep.lrs) and {0.0, 0.01} < set(sweep.weight_decays)
    assert pytest.approx(4e-4, rel=0.02) == SEED_LR * 32**0.5
    assert sweep.seeds == (3,) and sweep.presets == ("healthy", "seed") and len(sweep.cells) == 30
    assert len(default_sweep("smoke").cells) == 8 and default_sweep("smoke").steps < 20
    assert default_sweep("quick", steps=7, precision="bf16").steps == 7
    with pytest.raises(WorkbookError, match="profile = 'slow'"):
        default_sweep("slow")


def test_every_cell_and_seed_is_one_trial_with_its_own_numbers(trials):
    assert len(trials) == 16 == len({trial.digest for trial in trials})
    for cell, trial in zip(SWEEP.cells * 2, trials, strict=True):
        experiment = trial.experiment
        assert (experiment.optimizer.lr, experiment.optimizer.weight_decay) == (
            cell.lr,
            cell.weight_decay,
        )
        assert (
            experiment.model.memory_norm == (cell.preset == "healthy") and trial.name == cell.label
        )
        assert (experiment.fit.steps, experiment.model.hidden_dim) == (5, 32)
    # a run cut short leaves whole grids
    assert [trial.experiment.fit.seed for trial in trials] == [0] * 8 + [1] * 8


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"lrs": ()}, "Sweep.lrs"),
        ({"seeds": (0, 0)}, "none twice"),
        ({"presets": ("sick",)}, "no sick"),
    ],
)
def test_a_sweep_that_makes_no_sense_is_refused(changes, said):
    with pytest.raises(WorkbookError, match=said):
        dataclasses.replace(SWEEP, **changes)


def test_a_grid_is_the_mean_over_the_seeds_with_both_axes_rising(trials):
    table = table_of(trials, level)
    expected = [[0.3 + 0.1 * slow + 0.02 * bare + 0.005 for bare in (1, 0)] for slow in (1, 0)]
    assert grid(table, "healthy", "fr_over_constant") == pytest.approx(np.array(expected))
    assert grid(table, "seed", "text_use") == pytest.approx(np.ones((2, 2)))
    with pytest.raises(
        WorkbookError, match="no preset 'no_norm' in the table; there are healthy, seed"
    ):
        grid(table, "no_norm", "text_use")
    del table[SweepCell("seed", 1e-3, 0.01)]
    with pytest.raises(
        WorkbookError,
        match=r"of seed is not complete: seed, lr 0\.001, weight decay 0\.01 is missing",
    ):
        grid(table, "seed", "text_use")


def test_one_failed_seed_makes_the_cell_a_failed_one_and_it_is_never_the_best(trials):
    best_cell = SweepCell("healthy", 1e-3, 0.01)
    table = table_of(trials, level, failed={(best_cell, 1)})
    assert np.isnan(grid(table, "healthy", "fr_over_constant")).tolist() == [
        [False, False],
        [False, True],
    ]
    assert np.isnan(grid(table, "healthy", "outcome"))[1, 1]  # though that measure exists
    assert best(table_of(trials, level)) == best_cell
    assert best(table) == SweepCell("healthy", 1e-3, 0.0)
    everything = {(cell, seed) for cell in SWEEP.cells for seed in SWEEP.seeds}
    broken = table_of(trials, level, failed=everything)
    assert (
        best(broken) is None
        and choice_cost(broken, "seed") is None
        and decay_spread(broken) is None
    )
    assert not reading(broken, "seed")


def test_a_measure_that_does_not_exist_counts_as_failed(trials):
    table = table_of(
        trials, lambda cell, seed: {**level(cell, seed), "text_use": None if seed else 2.0}
    )
    assert np.isnan(grid(table, "healthy", "text_use")).all() and value([], "text_use") is None


def test_equal_cells_go_to_the_lower_rate_then_the_lower_decay_and_presets_rank_on_their_own(
    trials,
):
    table = table_of(trials, lambda cell, seed: {"fr_l1": 1.0, "fr_over_constant": 0.5})
    assert best(table) == SweepCell("healthy", 1e-4, 0.0) and best(
        table, preset_name="seed"
    ) == SweepCell("seed", 1e-4, 0.0)
    assert best(table_of(trials, level), "fr_over_constant", "seed") == SweepCell(
        "seed", 1e-3, 0.01
    )


def test_reading_wants_both_text_use_and_a_free_running_error_below_half(trials):
    table = table_of(trials, level)
    assert set(reading(table, "healthy")) == {
        cell for cell in SWEEP.cells if cell.preset == "healthy"
    }
    assert not reading(table, "seed")
    assert not reading(
        table_of(trials, lambda c, s: {"text_use": 2.0, "fr_over_constant": 0.5}), "healthy"
    )
    assert not reading(
        table_of(trials, lambda c, s: {"text_use": 1.1, "fr_over_constant": 0.1}), "healthy"
    )


def test_what_weight_decay_alone_moves_is_compared_at_one_learning_rate(trials):
    assert decay_spread(table_of(trials, level)) == (pytest.approx(0.02), "healthy", 1e-3, True)
    found = decay_spread(
        table_of(trials, lambda c, s: {"outcome": 1.0 + (c == SweepCell("seed", 1e-4, 0.01))})
    )
    assert found == (1.0, "seed", 1e-4, True)


@pytest.mark.parametrize(
    "values, ordered",
    [
        ((1.0, 1.1, 1.3), True),
        ((1.3, 1.1, 1.0), True),
        ((1.1, 1.3, 1.0), False),
        ((1.0, 1.0, 1.3), True),
    ],
)
def test_a_spread_that_does_not_follow_the_decay_is_told_from_one_that_does(values, ordered):
    corpus, decays = short_corpus(), (0.0, 0.01, 0.1)
    sweep = Sweep(("seed",), (1e-3,), decays[::-1], (0,), "smoke", 5)
    results = [
        TrialResult(
            trial,
            {
                "outcome": dict(zip(decays, values, strict=True))[
                    trial.experiment.optimizer.weight_decay
                ]
            },
            {},
        )
        for trial in sweep_trials(sweep, corpus.clips, corpus.vocabulary)
    ]
    assert decay_spread(by_cell(sweep, results)) == (pytest.approx(0.3), "seed", 1e-3, ordered)


def test_choosing_by_the_loss_costs_what_the_chosen_cell_free_runs_worse(trials):
    chosen = SweepCell("seed", 1e-4, 0.0)
    table = table_of(
        trials,
        lambda cell, seed: {
            "tf_over_constant": 0.1 if cell == chosen else 0.2,
            "fr_over_constant": 2.5 if cell == chosen else 0.5,
        },
    )
    assert choice_cost(table, "seed") == pytest.approx(2.0) and choice_cost(table, "healthy") == 0.0


def test_results_in_another_order_or_number_are_refused(trials):
    results = [TrialResult(trial, {}, {"over_constant": []}) for trial in trials]
    with pytest.raises(WorkbookError, match="15 results, but the sweep has 16 trials"):
        by_cell(SWEEP, results[1:])
    with pytest.raises(WorkbookError, match="in the order of sweep_trials"):
        by_cell(SWEEP, results[::-1])


def test_lines_and_curves_say_what_failed(trials):
    cell = SweepCell("seed", 1e-3, 0.01)
    table = table_of(trials, level, failed={(cell, 0)})
    assert measured(table[cell][0]) == f"{cell.label}: FAILED after 2 of 5 steps: it broke"
    assert measured(table[cell][1]).endswith("TF 1.15, FR 2.31 of best constant, text use 1.00")
    nothing = dict.fromkeys(("tf_over_constant", "fr_over_constant", "text_use"))
    silent = dataclasses.replace(table[cell][1], measures=nothing)
    assert "FAILED at its last step" in measured(silent)
    drawn = curves(table)
    assert list(drawn) == ["healthy", "seed"] and [len(runs) for runs in drawn.values()] == [8, 8]
    assert [run["failed"] for run in drawn["seed"]].count(True) == 1 and drawn["seed"][0][
        "over_constant"
    ] == [1.5, 1.0]
