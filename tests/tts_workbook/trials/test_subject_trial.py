"""A trial of a Subject: frozen with its source, the same numbers wherever it runs, refused where
the source is not the same.
"""

import dataclasses
import json
import os
import shutil
import sys

import pytest
import torch

from tests.tts_workbook.trials.subject_files import write_subject
from tests.tts_workbook.trials.trial_builders import numbers, short_corpus, smoke_trial
from tts_core.errors import WorkbookError
from tts_workbook.lab.lab import Lab
from tts_workbook.measure.headline import generated, text_use
from tts_workbook.subject.loading import load_subject
from tts_workbook.trials.executors import run_trials
from tts_workbook.trials.fresh_subject import fresh_subject
from tts_workbook.trials.run_trial import run_trial
from tts_workbook.trials.store import Store
from tts_workbook.trials.subject_trial import (
    SubjectChanges,
    SubjectTrial,
    changes_from_dict,
    make_subject_trial,
)
from tts_workbook.trials.trial_result import SUBJECT_MEASURES, any_trial_from_dict

STEPS = 16
FASTER = SubjectChanges(learning_rate_times=10.0)
UNDECAYED = SubjectChanges(weight_decay=0.0)


@pytest.fixture
def address(tmp_path):
    return write_subject(tmp_path / "mine")


def test_the_digest_knows_source_changes_steps_and_seed_and_nothing_else(address, tmp_path):
    trial = make_subject_trial(address, STEPS)
    others = [
        make_subject_trial(address, STEPS + 1),
        make_subject_trial(address, STEPS, seed=1),
        make_subject_trial(address, STEPS, FASTER),
        make_subject_trial(address, STEPS, UNDECAYED),
        make_subject_trial(write_subject(tmp_path / "changed", loss_scale=2.0), STEPS),
        dataclasses.replace(trial, address=trial.address.replace(":subject", ":other")),
    ]
    assert len({one.digest for one in (trial, *others)}) == len(others) + 1
    elsewhere = make_subject_trial(write_subject(tmp_path / "elsewhere"), STEPS, name="there")
    assert elsewhere.address != trial.address and elsewhere.digest == trial.digest


def test_an_imported_file_is_part_of_the_source(address, tmp_path):
    before = make_subject_trial(address, STEPS)
    model = tmp_path / "mine" / "speaker_model.py"
    model.write_text(model.read_text().replace("Dropout(0.1)", "Dropout(0.2)"))
    after = make_subject_trial(address, STEPS)
    assert before.source != after.source and before.digest != after.digest
    with pytest.raises(WorkbookError, match=f"{after.source} instead of {before.source}"):
        run_trial(before)


def test_a_relative_address_is_frozen_as_an_absolute_one(address, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path / "mine")
    assert make_subject_trial("speaker.py:subject", STEPS) == make_subject_trial(address, STEPS)
    with pytest.raises(WorkbookError, match="there is no such file or module here"):
        make_subject_trial("nobody.py:subject", STEPS)


def test_changes_are_data(address):
    both = SubjectChanges(10.0, 0.0)
    assert both.to_dict() == {"learning_rate_times": 10.0, "weight_decay": 0.0}
    assert changes_from_dict(both.to_dict()) == both and SubjectChanges().to_dict() == {}
    assert [len(one.of_the_run) for one in (SubjectChanges(), FASTER, both)] == [0, 1, 2]
    assert both.label == "learning rate × 10 + weight decay 0"
    assert SubjectChanges().label == "as it is"
    for values, said in (
        ({"colour": 1.0}, "unknown change colour; known changes are learning_rate_times, weight"),
        ({"learning_rate_times": 0.0}, r"learning_rate_times = 0\.0"),
        ({"weight_decay": 0.1}, r"weight_decay = 0\.1, but it can only be taken away"),
    ):
        with pytest.raises(WorkbookError, match=said):
            changes_from_dict(values)
    with pytest.raises(WorkbookError, match="steps = 15, but its curve is judged 16 times"):
        make_subject_trial(address, 15)


def test_trials_of_both_kinds_survive_json(address):
    corpus = short_corpus()
    for trial in (make_subject_trial(address, STEPS, FASTER, name="fast"), smoke_trial(corpus)):
        stored = json.loads(json.dumps(trial.to_dict()))
        assert any_trial_from_dict(stored) == trial
        assert any_trial_from_dict(stored).digest == trial.digest
    stored = {**make_subject_trial(address, STEPS).to_dict(), "colour": "blue"}
    with pytest.raises(WorkbookError, match="unknown key colour"):
        any_trial_from_dict(stored)


def test_a_trial_measures_what_the_laboratory_does(address):
    """By the subject's own step, with the changes in effect."""
    trial = make_subject_trial(address, STEPS, SubjectChanges(10.0, 0.0), seed=3)
    result = run_trial(trial)
    with fresh_subject(trial) as subject:
        lab = Lab(subject, seed=3, steps=STEPS)
        course = lab.course(*trial.changes.of_the_run)
        expected = {
            "best_constant": lab.best_constant,
            "outcome": course.outcome,
            "tf_over_constant": course.final,
            "fr_over_constant": lab.error(generated(lab, course.model)),
            "text_use": text_use(lab, course.model),
        }
    assert not result.failed and set(result.measures) == set(SUBJECT_MEASURES)
    assert {name: result.measures[name] for name in expected} == expected
    assert result.curves == {"steps": list(course.steps), "tf_over_constant": list(course.tf)}
    as_it_is = run_trial(make_subject_trial(address, STEPS, seed=3))
    assert as_it_is.curves != result.curves


def test_a_training_that_breaks_is_a_result(tmp_path):
    trial = make_subject_trial(write_subject(tmp_path, breaks_at=5), STEPS)
    store = Store(tmp_path / "trials")
    result = run_trials([trial], store, executor="inline")[0]
    assert result.failed == "step 5: no more" and store.get(trial) == result
    assert result.curves["steps"] == [1, 2, 3, 4]
    for name in ("outcome", "tf_over_constant", "fr_over_constant", "text_use"):
        assert result.measures[name] is None


def test_code_that_raises_outside_the_step_is_an_error_that_can_travel(address, tmp_path):
    path = tmp_path / "mine" / "speaker.py"
    source = path.read_text()
    for old, new, said in (
        ("frames = [", "raise TypeError('not mine')\n    frames = [", "raised TypeError: not mine"),
        ("calls = []", "calls = [1][7]", "loading it raised IndexError"),
    ):
        path.write_text(source.replace(old, new))
        with pytest.raises(WorkbookError, match=said):
            run_trial(make_subject_trial(address, STEPS))


def test_inline_and_workers_give_the_same_bits(address, tmp_path):
    """Also where the module draws its batch as it loads and counts its calls: no state is left
    from one trial to the next.
    """
    trials = [
        make_subject_trial(address, STEPS, changes, seed=seed)
        for changes in (SubjectChanges(), FASTER)
        for seed in (0, 1)
    ]
    torch.manual_seed(77)
    inline = run_trials(trials, Store(tmp_path / "inline"), executor="inline")
    backwards = run_trials(trials[::-1], Store(tmp_path / "back"), executor="inline")[::-1]
    workers = run_trials(trials, Store(tmp_path / "workers"), executor="workers", n_workers=2)
    assert list(map(numbers, inline)) == list(map(numbers, workers))
    assert list(map(numbers, inline)) == list(map(numbers, backwards))
    assert len({result.measures["tf_over_constant"] for result in inline}) == len(trials)


def test_trials_of_presets_and_subjects_share_a_store(address, tmp_path):
    trials = [make_subject_trial(address, STEPS), smoke_trial(short_corpus(), steps=2)]
    store = Store(tmp_path / "trials")
    results = run_trials(trials, store, executor="inline")
    assert [result.trial for result in results] == trials and store.missing(trials) == []


def test_the_process_has_its_own_modules_again_and_a_trial_reads_the_files(address, tmp_path):
    """An edited file is what runs, though the process has imported the old one."""
    load_subject(address)
    held, paths = sys.modules["speaker_model"], list(sys.path)
    before = run_trial(make_subject_trial(address, STEPS))
    model = tmp_path / "mine" / "speaker_model.py"
    model.write_text(model.read_text().replace("torch.tanh(", "torch.relu("))
    after = run_trial(make_subject_trial(address, STEPS))
    assert before.curves != after.curves
    assert sys.modules["speaker_model"] is held and sys.path == paths


def test_two_folders_with_files_of_the_same_names_are_told_apart(address, tmp_path):
    other = write_subject(tmp_path / "other")
    model = tmp_path / "other" / "speaker_model.py"
    model.write_text(model.read_text().replace("torch.tanh(", "torch.relu("))
    trials = [make_subject_trial(one, STEPS) for one in (address, other, address)]
    first, second, again = map(run_trial, trials)
    assert first.curves == again.curves != second.curves


def test_a_subject_in_a_module_is_one_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_subject(tmp_path / "voice")
    (tmp_path / "voice" / "__init__.py").touch()
    speaker = tmp_path / "voice" / "speaker.py"
    speaker.write_text(speaker.read_text().replace("from speaker_model", "from .speaker_model"))
    trial = make_subject_trial("voice.speaker:subject", STEPS)
    in_module = run_trial(trial)
    in_file = run_trial(make_subject_trial(write_subject(tmp_path / "flat"), STEPS))
    assert in_module.curves == in_file.curves and "voice" not in sys.modules


def test_a_module_of_the_workbook_has_a_source_and_is_not_read_anew():
    """Or its classes would be others than those that the workbook asks for."""
    trial = make_subject_trial("tts_workbook.subject.subject:Subject", STEPS)
    held = sys.modules["tts_workbook.subject.subject"]
    with pytest.raises(WorkbookError, match="raised TypeError"), fresh_subject(trial):
        pass
    assert sys.modules["tts_workbook.subject.subject"] is held


@pytest.mark.parametrize("executor", ["inline", "workers"])
def test_a_file_that_is_missing_or_another_is_named_with_both_hashes(address, tmp_path, executor):
    trial = make_subject_trial(address, STEPS, name="mine")
    changed = write_subject(tmp_path / "mine", loss_scale=3.0)
    now = make_subject_trial(changed, STEPS).source
    place = address.rpartition(":")[0]
    asked = [trial, dataclasses.replace(trial, seed=1)]
    other = rf"{place}: .*the hash {now} instead of {trial.source}"
    with pytest.raises(WorkbookError, match=other):
        run_trials(asked, Store(tmp_path / "a"), executor=executor, n_workers=2)
    shutil.rmtree(tmp_path / "mine")
    with pytest.raises(
        WorkbookError, match=rf"{place}: it is not here \(no source instead of {trial.source}\)"
    ):
        run_trials(asked, Store(tmp_path / "b"), executor=executor, n_workers=2)


def test_a_stored_result_is_known_by_the_digest_of_its_trial(address, tmp_path):
    store = Store(tmp_path / "trials")
    trial = make_subject_trial(address, STEPS)
    run_trials([trial], store, executor="inline")
    stored = json.loads(store.path(trial).read_text())
    stored["trial"]["seed"] = 9
    store.path(trial).write_text(json.dumps(stored))
    with pytest.raises(WorkbookError, match=f"stored under digest {trial.digest}"):
        store.get(trial)
    assert isinstance(trial, SubjectTrial) and os.path.isabs(trial.address.rpartition(":")[0])
