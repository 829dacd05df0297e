"""What is compared with what: every switch is turned, every trial of a study is another one, pairs
are enough.
"""

import dataclasses
from itertools import chain
from pathlib import Path

import pytest

from tests.tts_workbook.trials.trial_builders import short_corpus
from tts_core.config import SEED_LR, SWITCHES, AudioConfig, preset
from tts_core.errors import WorkbookError
from tts_workbook.trials.studies import BATCH_ARMS, N_SINGLE, STUDIES, batch_trials, study_trials
from tts_workbook.trials.study_arms import (
    BREAKS,
    REPAIRS,
    THEORIES,
    ArmSpec,
    change,
    experiment_of,
    trial_of,
)
from tts_workbook.trials.trial_result import PRESET_MEASURES


@pytest.fixture(scope="module")
def drawn():
    """(arm, trial) of every study, by its name."""
    return {name: list(study_trials(study)) for name, study in STUDIES.items()}


def test_a_change_touches_the_named_field_and_nothing_else():
    base = preset("seed", 12, "smoke")
    changed = change(
        base, {"model.memory_norm": True, "optimizer.weight_decay": 0.0, "audio": "standard"}
    )
    assert changed.model == dataclasses.replace(base.model, memory_norm=True)
    assert changed.optimizer == dataclasses.replace(base.optimizer, weight_decay=0.0)
    assert changed.audio == AudioConfig() != base.audio and changed.fit == base.fit
    assert change(changed, {"audio": "seed"}).audio == base.audio


@pytest.mark.parametrize(
    "name", ["model.memry_norm", "modle.memory_norm", "memory_norm", "digest.x", "model."]
)
def test_a_change_of_what_is_not_there_is_refused(name):
    with pytest.raises(WorkbookError, match=f"change '{name}': no such field; write section.field"):
        change(preset("seed", 12, "smoke"), {name: 1})


def test_every_named_switch_is_turned_by_a_repair_or_a_break():
    turned = {field.removeprefix("model.") for field in chain(*REPAIRS.values(), *BREAKS.values())}
    # no arm: every trial is judged in both layouts
    assert set(SWITCHES) - turned == {"generation_layout"}
    assert {"fr_l1", "fr_l1_seed_layout"} <= set(PRESET_MEASURES)


@pytest.mark.parametrize("base, arms", [("failing", REPAIRS), ("sound", BREAKS)])
def test_every_repair_and_break_changes_its_base(base, arms):
    for name, changes in arms.items():
        assert experiment_of(ArmSpec(base, changes), 12, 0) != experiment_of(
            ArmSpec(base), 12, 0
        ), name


def test_the_theories_are_those_of_the_findings():
    base = experiment_of(ArmSpec("findings"), 12, 0)
    assert (base.optimizer.lr, base.optimizer.weight_decay, base.model.memory_norm) == (
        SEED_LR,
        0.01,
        False,
    )
    assert base.optimizer.clip_norm == 1.0 and base.model.duration_initialisation == "default"
    assert THEORIES["theory_1_four_copies"].copies == 4
    scaled = experiment_of(THEORIES["theory_3_lr_4e-4"], 12, 0).optimizer.lr
    assert scaled == pytest.approx(SEED_LR * 32**0.5, rel=0.02)
    assert experiment_of(THEORIES["theory_4_no_weight_decay"], 12, 0).optimizer.weight_decay == 0.0


@pytest.mark.parametrize("name", STUDIES)
def test_every_trial_of_a_study_is_another_one_and_has_its_base_beside_it(drawn, name):
    study, trials = STUDIES[name], drawn[name]
    assert len(trials) == len(study.arms) * len(study.clips) * len(study.seeds)
    assert len({trial.digest for _, trial in trials}) == len(trials)
    places = {(arm, trial.clips[0].id, trial.experiment.fit.seed) for arm, trial in trials}
    for arm, spec in study.arms.items():
        against = spec.against or study.base
        assert against in study.arms
        for _, clip in study.clips:
            assert {(one, clip, seed) for one in (arm, against) for seed in study.seeds} <= places


@pytest.mark.parametrize("name", ["theories", "breaks", "repairs"])
def test_a_ruling_study_has_eight_pairs_or_more_over_two_voices(name):
    study = STUDIES[name]
    assert (
        len(study.clips) * len(study.seeds) >= 8 and len({voice for voice, _ in study.clips}) == 2
    )


def test_a_study_at_scale_has_at_least_three_seeds_and_the_size_of_the_findings(drawn):
    sizes = {(trial.experiment.model.hidden_dim, trial.steps) for _, trial in drawn["seed_size"]}
    assert sizes == {(512, 800)} and len(STUDIES["seed_size"].seeds) >= 3
    assert all(
        trial.experiment.model.hidden_dim >= 192 for trials in drawn.values() for _, trial in trials
    )


def test_arms_and_base_have_the_same_budget(drawn):
    """Except the arm whose base is not the study's, and that base."""
    for name, study in STUDIES.items():
        steps = {arm: trial.steps for arm, trial in drawn[name]}
        for arm, spec in study.arms.items():
            if spec.against:
                assert steps[arm] == steps[spec.against], (name, arm)
            elif arm not in {other.against for other in study.arms.values()}:
                assert steps[arm] == steps[study.base], (name, arm)


def test_batches_of_distinct_clips_stand_beside_single_clips_of_the_same_voice():
    trials = list(batch_trials(None))
    single = [trial for arm, trial in trials if arm == "single"]
    distinct = [trial for arm, trial in trials if arm == "distinct"]
    assert len(single) == N_SINGLE and {len(trial.clips) for trial in single} == {1}
    assert {len(trial.clips) for trial in distinct} == {32}
    assert len({trial.digest for trial in distinct}) == len(distinct)
    assert {Path(trial.clips[0].root).name for trial in single + distinct} == {"allison"}
    assert {trial.experiment.optimizer.lr for trial in single + distinct} == {SEED_LR}
    assert {"single", "distinct"} <= set(BATCH_ARMS)


def test_an_arms_trial_carries_its_name_copies_and_steps():
    corpus = short_corpus()
    spec = ArmSpec("sound", {"model.dropout": 0.1}, copies=2, steps=7, listen=True)
    trial = trial_of("twice", spec, corpus.clips, corpus.vocabulary, 3)
    assert (trial.name, trial.copies, trial.steps, trial.listen, trial.experiment.fit.seed) == (
        "twice",
        2,
        7,
        True,
        3,
    )
    assert trial.experiment.model.dropout == 0.1 and trial.experiment.fit.precision == "fp32"
