"""From a frozen trial to numbers: what the curve says, what a failed training leaves, what a result
survives.
"""

import json
import math

import pytest

from tests.tts_workbook.trials.trial_builders import made_result, numbers, short_corpus, smoke_trial
from tts_core.errors import WorkbookError
from tts_workbook.trials.run_preset_trial import leave_step, outcome, run_preset_trial
from tts_workbook.trials.trial_result import PRESET_MEASURES, result_from_dict


@pytest.fixture(scope="module")
def corpus():
    return short_corpus()


def test_the_line_is_left_by_ten_steps_below_the_band():
    assert leave_step([2.0] * 5 + [0.94] * 10) == 6
    assert leave_step([2.0] * 5 + [0.94] * 9) is None
    assert leave_step([0.5] * 9 + [0.96] + [0.5] * 10) == 11  # a visit does not count
    assert leave_step([0.95] * 30) is None  # the band's edge is on the line
    assert leave_step([]) is None


def test_outcome_is_the_mean_over_the_budget_and_always_defined():
    assert outcome([3.0, 1.0], 2) == 2.0
    # missing steps: at best the line
    assert outcome([0.5, 0.4], 4) == pytest.approx((0.9 + 2 * 1.0) / 4)
    # or as bad as the last one made
    assert outcome([0.5, 7.0], 4) == pytest.approx((7.5 + 2 * 7.0) / 4)
    assert outcome([], 10) == 1.0


def test_a_sound_trial_has_every_measure_and_a_curve(corpus):
    result = run_preset_trial(smoke_trial(corpus, steps=12))
    assert not result.failed and set(PRESET_MEASURES) == set(result.measures)
    assert len(result.curves["over_constant"]) == 12 and result.curves["share_steps"] == [1, 10]
    m = result.measures
    assert m["outcome"] == pytest.approx(sum(result.curves["over_constant"]) / 12, abs=1e-4)
    assert m["fr_over_constant"] == pytest.approx(m["fr_l1"] / m["best_constant"], rel=1e-4)
    assert m["tf_l1"] > 0 and m["text_use"] > 0 and m["copy_previous"] < m["best_constant"]
    assert result.provenance["torch"] and result.provenance["threads"] == 1


def test_the_seed_layout_is_judged_on_the_same_weights(corpus):
    """`generation_layout` needs no arm of its own."""
    plain, layout = (
        run_preset_trial(smoke_trial(corpus, changes={"model.generation_layout": name})).measures
        for name in ("train", "seed")
    )
    assert (
        plain["fr_l1"]
        == layout["fr_l1"]
        != plain["fr_l1_seed_layout"]
        == layout["fr_l1_seed_layout"]
    )


def test_a_training_that_breaks_is_a_result_with_its_reason(corpus):
    result = run_preset_trial(
        smoke_trial(corpus, steps=20, lr=1e6, changes={"optimizer.clip_norm": None})
    )
    made = len(result.curves["over_constant"])
    assert "not finite" in result.failed or "gradient" in result.failed
    assert 0 < made < 20 and "tf_l1" not in result.measures
    # NaN after the step that broke the model
    assert result.curves["shares"] == [] == result.curves["share_steps"]
    assert math.isfinite(result.measures["outcome"]) and result.measures["outcome"] >= 1.0
    assert result.measures["leave_step"] is None
    assert result_from_dict(json.loads(json.dumps(result.to_dict(), allow_nan=False))) == result


def test_a_model_that_breaks_at_the_last_step_has_no_judgement_but_can_be_stored(corpus):
    result = run_preset_trial(smoke_trial(corpus, steps=1, lr=1e6))
    assert len(result.curves["over_constant"]) == 1
    assert [result.measures[name] for name in ("tf_l1", "fr_over_constant", "text_use")] == [
        None
    ] * 3
    assert result_from_dict(json.loads(json.dumps(result.to_dict(), allow_nan=False))) == result


def test_the_same_trial_gives_the_same_bits_whatever_ran_before(corpus):
    trial = smoke_trial(corpus, "seed", steps=4, changes={"model.dropout": 0.2})
    first = run_preset_trial(trial)
    run_preset_trial(smoke_trial(corpus, steps=1, seed=9))
    assert numbers(run_preset_trial(trial)) == numbers(first)


def test_a_result_survives_json_and_is_refused_under_a_foreign_digest():
    result = made_result("base", outcome=0.5, fr_l1=None)
    stored = json.loads(json.dumps(result.to_dict()))
    assert result_from_dict(stored) == result
    with pytest.raises(
        WorkbookError, match=f"stored under digest 0000, but its trial has {result.digest}"
    ):
        result_from_dict({**stored, "digest": "0000"})
    with pytest.raises(WorkbookError, match="not a trial's result"):
        result_from_dict({name: value for name, value in stored.items() if name != "trial"})
    with pytest.raises(WorkbookError, match="not a trial's result"):
        result_from_dict({**stored, "colour": "blue"})
