"""The subjects of a notebook: opened by one function, measured one by one, told what they lack."""

import pytest
import torch

from tests.tts_workbook.runner.subject_builders import write_subject
from tts_core.errors import WorkbookError
from tts_workbook.measure.equivalence import compare_batches
from tts_workbook.measure.module_audit import audit_modules
from tts_workbook.measure.supply import own_parts, required
from tts_workbook.runner.notebook import Notebook
from tts_workbook.runner.studied import measure_each, open_subjects
from tts_workbook.subject.subject import SubjectError
from tts_workbook.trials.preset_arm import build_arm


@pytest.fixture(scope="module")
def mine(tmp_path_factory):
    return write_subject(tmp_path_factory.mktemp("mine"))


@pytest.fixture(autouse=True)
def fresh_modules(monkeypatch):
    """A kernel loads the user's modules once; here every test is a kernel of its own."""
    import sys

    for name in ("mine", "parts"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield
    for name in ("mine", "parts"):
        sys.modules.pop(name, None)


def opened(tmp_path, names, **parameters):
    values = {"out": str(tmp_path / "out"), "profile": "smoke", "subjects": names, **parameters}
    return open_subjects(Notebook("02", "Does it?", values), ("healthy", "seed"), n_clips=3)


def test_presets_and_models_of_ones_own_stand_side_by_side(mine, tmp_path):
    studied = opened(tmp_path, f"no_norm,{mine}:subject")
    assert list(studied.subjects) == ["no_norm", "mine.py:subject"]
    assert list(studied.presets) == ["no_norm"] and list(studied.others) == ["mine.py:subject"]
    assert len(studied.clips) == 3 and studied.clips[0].id in studied.where
    several = studied.over(studied.clips)
    assert list(several) == ["no_norm"] and len(several["no_norm"].lengths) == 3
    assert list(opened(tmp_path, "").subjects) == ["healthy", "seed"]


def test_a_preset_as_subject_is_the_arm_to_the_last_bit(tmp_path):
    """Same weights, same batch, same losses, and THE train step."""
    for name, here in opened(tmp_path, "").presets.items():
        studied = opened(tmp_path, name, seed=3)
        here = studied.subjects[name]
        arm = build_arm(name, studied.clips[:1], studied.vocabulary, "smoke", seed=3)
        model, batch, experiment = own_parts(here)
        assert experiment == arm.experiment and torch.equal(batch.mel, arm.batch.mel)
        for (path, ours), theirs in zip(
            model.named_parameters(), arm.model.parameters(), strict=True
        ):
            assert torch.equal(ours, theirs), path
        assert torch.equal(here.predict(model, field="mel"), arm.model.eval()(batch).model_mel)


def test_what_a_subject_lacks_is_told_with_what_it_has_to_be(mine, tmp_path, capsys):
    studied = opened(tmp_path, f"{mine}:bare,{mine}:breaks_off,healthy")

    def copied(one):
        duplicate = required(one, "duplicate")
        return compare_batches(one, {2: duplicate(one.batch, 2)}, "duplicate")

    assert list(measure_each(studied.subjects, copied, "copies")) == ["healthy"]
    said = capsys.readouterr().out
    assert (
        "mine.py:bare: copies: not judged: supply Subject.duplicate = (batch, k) -> the batch with"
        " every clip k times" in said
    )
    assert "mine.py:breaks_off: copies: not judged: KeyError: 'nothing'" in said
    assert list(measure_each(studied.subjects, own_parts, "our step")) == ["healthy"]
    assert "our step: not judged: supply a preset" in capsys.readouterr().out
    assert list(measure_each(studied.subjects, audit_modules, "step")) == list(studied.subjects)
    with pytest.raises(ZeroDivisionError):  # of a preset it is an error of ours
        measure_each(studied.presets, lambda one: 1 / 0, "nothing")


def test_mistakes_are_named_before_anything_is_measured(mine, tmp_path):
    for name, complaint in (("missing", "no 'missing'"), ("number", "is a int")):
        with pytest.raises(WorkbookError, match=complaint):
            opened(tmp_path, f"{mine}:{name}")
    with pytest.raises(SubjectError, match=r"Subject\.predict_mel"):
        opened(tmp_path, f"{mine}:no_mel")
    with pytest.raises(WorkbookError, match="subjects = 'mine', but it must be healthy, no_norm"):
        Notebook("03", "Can it?", {"out": str(tmp_path / "out"), "subjects": "mine"})
