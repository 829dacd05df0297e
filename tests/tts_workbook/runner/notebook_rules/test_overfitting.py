"""What notebook 03 rules: the presets by the clip, a model of the user's by its own batch."""

import dataclasses
import math

import pytest
import torch

from tts_core.metrics.free_running import Gap
from tts_core.metrics.text_use import TextUse
from tts_workbook.measure.trajectory import Trajectory
from tts_workbook.runner.notebook_rules.overfitting import Overfits, OwnTraining, rule
from tts_workbook.trials.preset_arm import ModelJudgement


def outcome(tf=0.1, fr=0.2, use=2.0):
    mel = torch.zeros(1, 4, 2)
    gap = Gap(tf, fr, mel, mel, torch.zeros(4), torch.zeros(4))
    return ModelJudgement(gap, gap, TextUse(tf, use * tf, use))


def course(level, n=60):
    fields = {field.name for field in dataclasses.fields(Trajectory)}
    values = dict(best_constant=1.0, steps=list(range(1, n + 1)), mel_l1=[level] * n)
    values |= dict(shares=[0.5] * n, share_steps=list(range(1, n + 1)), snapshots={})
    return Trajectory(**{name: value for name, value in values.items() if name in fields})


def measured(healthy=None, no_norm=None, **changes):
    values = dict(
        where="clip, profile quick, seed 0",
        baselines={"best_constant": 1.0, "copy_previous": 0.5},
        outcomes={
            "healthy": healthy or outcome(),
            "no_norm": no_norm or outcome(0.4, 1.5, 1.0),
            "seed": outcome(0.9, 1.5, 1.0),
        },
        trajectories={name: course(0.98) for name in ("healthy", "no_norm", "seed")},
        text_share=dict.fromkeys(("healthy", "no_norm", "seed"), 0.1),
        from_previous=0.1,
    )
    return Overfits(**{**values, **changes})


def verdicts(found):
    return {item.id: item.verdict for item in rule(found).items}


def test_a_sound_model_passes_the_gate_and_its_twin_without_the_norm_ignores_the_text():
    ruling = rule(measured())
    assert verdicts(measured()) == {
        "overfit_gate": "supported",
        "memory_norm_run": "supported",
        "seed_plateau_run": "supported",
    }
    assert ruling.answer.startswith("Yes: healthy reaches TF L1 0.100, FR L1 0.200")
    assert "(7.5 times)" in ruling.answer and "sits on the best-constant line" in ruling.answer
    assert ruling.metrics["no_norm_from_previous_l1"] == 0.1


@pytest.mark.parametrize(
    "changes, id, verdict",
    [
        (dict(healthy=outcome(fr=0.6)), "overfit_gate", "refuted"),
        (dict(healthy=outcome(use=1.0)), "overfit_gate", "refuted"),
        # a sound twin first
        (dict(healthy=outcome(fr=0.6)), "memory_norm_run", "undecided"),
        (dict(no_norm=outcome(use=2.0)), "memory_norm_run", "refuted"),
        (dict(stopped={"healthy": "healthy was stopped"}), "overfit_gate", "undecided"),
        (dict(stopped={"no_norm": "no_norm was stopped"}), "memory_norm_run", "undecided"),
        (dict(stopped={"seed": "seed was stopped"}), "seed_plateau_run", "undecided"),
    ],
)
def test_each_claim_turns_with_its_number(changes, id, verdict):
    assert verdicts(measured())[id] != verdict
    assert verdicts(measured(**changes))[id] == verdict


def test_a_preset_alone_is_ruled_on_as_far_as_it_goes():
    found = measured(outcomes={"healthy": outcome()}, text_share={"healthy": 0.1})
    assert verdicts(found) == {"overfit_gate": "supported"}


# --- a model of the user's ------------------------------------------------------------------------


def own(tf=0.2, fr=0.3, use=2.0, broke="", lacking=None):
    return OwnTraining(
        n_steps=120,
        seed=0,
        broke=broke,
        best_constant=0.8,
        copy_previous=0.6,
        update_ratio=1e-3,
        teacher_forced=tf,
        free_running=fr,
        text_use=use,
        frames_generated=None if fr is None else 1.0,
        lacking=lacking or {},
    )


def alone(one):
    return Overfits(where="mine.py:a, profile smoke, seed 0", own={"mine.py:a": one})


def test_a_model_of_ones_own_is_judged_beside_its_yardsticks():
    ruling = rule(alone(own()))
    assert set(verdicts(alone(own())).values()) == {"supported"}
    assert ruling.answer.startswith("mine.py:a: It learns its batch in 120 steps")
    assert ruling.metrics["teacher_forced_text_shuffled"] == pytest.approx(0.4)
    worse = verdicts(alone(own(tf=0.7, fr=0.9, use=1.0)))
    assert set(worse.values()) == {"refuted"}


def test_a_training_that_broke_is_a_result():
    found = alone(own(tf=math.nan, fr=None, use=None, broke="step 1: the loss is nan"))
    items = {item.id: item for item in rule(found).items}
    assert items["overfit_gate"].verdict == "refuted"
    assert items["overfit_free_running"].provenance == "the training broke: nothing to judge"
    assert "The training broke: step 1: the loss is nan." in rule(found).answer
    assert "teacher_forced" not in rule(found).metrics


def test_what_is_lacking_is_said_with_what_to_supply():
    lacking = {"generate": "supply Subject.generate = (model, batch) -> mel"}
    found = alone(own(fr=None, lacking=lacking))
    items = {item.id: item for item in rule(found).items}
    assert items["overfit_free_running"].verdict == "undecided"
    provenance = items["overfit_free_running"].provenance
    assert provenance.startswith("not judged: supply Subject.generate")


def test_several_subjects_have_items_and_metrics_of_their_own():
    two = Overfits(where="x, profile smoke, seed 0", own={"a.py:a": own(), "b.py:b": own()})
    ids = [item.id for item in rule(two).items]
    assert len(set(ids)) == len(ids) == 6 and "a_py_a_steps" in rule(two).metrics
    beside = rule(measured(own={"a.py:a": own()}))
    ids = [item.id for item in beside.items]
    assert len(set(ids)) == len(ids) == 6 and "overfit_gate_a_py_a" in ids
