"""What notebook 05 rules of a model of the user's; the presets' claims are flipped in
tests/notebooks/test_sweep_notebook.py.
"""

import math

import pytest

from tts_workbook.runner.notebook_rules.learning_rate import Sweeps, rule
from tts_workbook.trials.subject_sweep import AS_IT_IS, OwnOptimizer, SubjectSweep, swept_changes
from tts_workbook.trials.subject_trial import SubjectChanges, SubjectTrial
from tts_workbook.trials.trial_result import TrialResult

FASTER, SLOWER = SubjectChanges(10.0), SubjectChanges(0.1)
WHERE = "mine.py:a, profile smoke, seed 0"


def result(changes, error, broke=""):
    trial = SubjectTrial("mine.py:a", "0" * 16, 60, changes)
    measures = {"outcome": 1.0, "tf_over_constant": 0.5, "fr_over_constant": error}
    if broke:
        measures = dict.fromkeys(measures)
    curves = {"steps": [4, 8], "tf_over_constant": [1.0, 0.5]}
    return TrialResult(trial, measures, curves, broke)


def sweep(own, faster, slower=1.5):
    errors = {AS_IT_IS: own, FASTER: faster, SLOWER: slower}
    broke = {changes: "broke" * math.isnan(error) for changes, error in errors.items()}
    results = {changes: result(changes, error, broke[changes]) for changes, error in errors.items()}
    return SubjectSweep(OwnOptimizer(0.004, 0.01), 60, results)


def ruled(**own):
    ruling = rule(Sweeps(where=WHERE, own=own))
    return ruling, {item.id: item for item in ruling.items}


@pytest.mark.parametrize(
    "own, faster, verdict, words",
    [
        (1.0, 0.4, "supported", "the best cell, learning rate × 10, has 0.400; as it is 1.000."),
        (1.0, 0.97, "refuted", "as it is 1.000, within the margin of 0.1."),
        (0.4, 0.9, "refuted", "the best cell is the subject as it is."),
        # a subject that breaks as it is: any cell that holds is better
        (math.nan, 0.9, "supported", "as it is it breaks; 1 of 3 trainings broke."),
    ],
)
def test_another_rate_is_better_only_beyond_the_margin(own, faster, verdict, words):
    ruling, items = ruled(**{"mine.py:a": sweep(own, faster)})
    assert items["another_rate_learns_better"].verdict == verdict
    assert words in ruling.answer and ruling.answer.startswith("mine.py:a: By FR L1")
    assert ruling.answer.endswith("One seed, one batch: this describes the grid and no more.")
    assert ruling.metrics["trainings"] == 3


def test_where_every_training_broke_nothing_is_ruled():
    ruling, items = ruled(**{"mine.py:a": sweep(math.nan, math.nan, math.nan)})
    assert items["another_rate_learns_better"].verdict == "undecided"
    assert "every training of the grid broke" in ruling.answer


def test_a_subject_without_a_sweep_says_why():
    ruling = rule(Sweeps(where=WHERE, lacking={"mine.py:a": "no step was seen"}))
    assert ruling.answer == "mine.py:a: no sweep: not judged: no step was seen."
    assert ruling.items[0].verdict == "undecided" and "no step" in ruling.items[0].provenance


def test_several_subjects_have_items_and_metrics_of_their_own():
    ruling, items = ruled(**{"a.py:a": sweep(1.0, 0.4), "b.py:b": sweep(0.4, 1.0)})
    assert {item.verdict for item in items.values()} == {"supported", "refuted"}
    assert {"a_py_a_trainings", "b_py_b_trainings"} <= set(ruling.metrics)


def test_the_grid_has_a_row_per_rate_and_a_column_per_decay():
    found = sweep(1.0, 0.4)
    rates, decays = found.axes
    assert rates == pytest.approx([0.0004, 0.004, 0.04]) and decays == [0.01]
    grid = found.grids()["FR L1 / best constant"]
    assert grid[:, 0].tolist() == [1.5, 1.0, 0.4] and found.best == FASTER
    assert found.curves()["as it is"] == [(4, 1.0), (8, 0.5)]


def test_decay_is_taken_away_only_where_there_is_one():
    assert len(swept_changes(OwnOptimizer(0.1, 0.01), "quick")) == 6
    assert len(swept_changes(OwnOptimizer(0.1, 0.0), "quick")) == 3
    assert len(swept_changes(OwnOptimizer(0.1, 0.01), "smoke")) == 3
