"""Each notebook's study of a subject: what it measures, what it says of parts that are absent, and
faults that it must show.
"""

import json

import pytest

from tests.conftest import ROOT
from tests.tts_workbook.runner.subject_builders import write_subject
from tts_core.errors import WorkbookError
from tts_workbook.runner.notebook import Notebook
from tts_workbook.runner.verdicts import read_verdict
from tts_workbook.subject.subject import SubjectError


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


def studied(mine, out, number, name="subject", **parameters):
    """The verdict of notebook `number` on a subject of mine.py, and its items by id."""
    given = {"out": str(out), "profile": "smoke", **parameters}
    execute_cells(number, {**given, "subjects": f"{mine}:{name}"})
    verdict = read_verdict(out / "verdicts" / f"{number}.json")
    return verdict, {item["id"]: item for item in verdict["items"]}


def execute_cells(number, parameters):
    """The cells of the notebook, in this process, with these parameters."""
    file = next((ROOT / "notebooks").glob(f"{number}_*.ipynb"))
    written = json.loads(file.read_text())["cells"]
    values = {"__name__": "notebook"}
    for cell in written:
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]), values)
            if "parameters" in cell["metadata"].get("tags", []):
                values |= parameters


def pictures(out, number):
    file = out / "figures" / f"{number}.json"
    return [entry["name"] for entry in json.loads(file.read_text())] if file.exists() else []


def test_overfitting_is_judged_beside_its_yardsticks_and_can_be_heard(mine, tmp_path):
    out = tmp_path / "out"
    verdict, items = studied(mine, out, "03", steps=300)
    metrics = verdict["metrics"]
    assert metrics["steps"] == 300 and metrics["teacher_forced"] < 0.9 and metrics["text_use"] > 1.0
    assert metrics["teacher_forced_text_shuffled"] == pytest.approx(
        metrics["teacher_forced"] * metrics["text_use"]
    )
    assert metrics["free_running"] >= metrics["teacher_forced"]
    assert (
        items["overfit_gate"]["effect"] == metrics["teacher_forced"]
        and items["overfit_gate"]["threshold"] == 0.5
    )
    assert items["overfit_free_running"]["threshold"] == metrics["copy_previous"]
    assert pictures(out, "03") == ["own_course_1", "own_judged_1", "own_mels_1", "seed_size"]
    assert list(verdict["provenance"]["artefacts"]) == ["checkpoints/subject.safetensors"]
    curve = [json.loads(line) for line in (out / "metrics" / "03.jsonl").read_text().splitlines()]
    assert (
        len(curve) == 16
        and curve[-1]["step"] == 300
        and curve[-1]["tf_over_constant"] == metrics["teacher_forced"]
    )

    heard, items = studied(mine, out, "07")
    assert heard["metrics"]["TF_L1_best_constant"] == pytest.approx(
        metrics["teacher_forced"], rel=1e-4
    )
    assert heard["metrics"]["FR_L1_best_constant"] == pytest.approx(
        metrics["free_running"], rel=1e-4
    )
    assert (
        items["weights_restored"]["verdict"] == "supported"
        and items["generation_fed_as_training"]["verdict"] == "supported"
    )
    # its recording was made by its vocoder
    assert items["copy_synthesis"]["effect"] == pytest.approx(1.0, abs=1e-6)
    assert all(
        0 < heard["metrics"][f"stoi_{name}"] < 1 for name in ("teacher_forced", "free_running")
    )
    sounds = [entry["name"] for entry in json.loads((out / "audio" / "07.json").read_text())]
    assert sounds == [
        "subject_recording",
        "subject_copy_synthesis",
        "subject_teacher_forced",
        "subject_free_running",
    ]
    assert pictures(out, "07") == ["own_mels_1", "own_intelligibility_1"]
    assert "Not applicable without Subject.infer." in heard["answer"]


def test_a_model_that_its_state_dict_does_not_hold_and_a_wrong_history_show_when_it_is_heard(
    mine, tmp_path
):
    studied(mine, tmp_path / "hidden", "03", "hidden", steps=200)
    _, items = studied(mine, tmp_path / "hidden", "07", "hidden")
    assert (
        items["weights_restored"]["verdict"] == "refuted"
        and items["weights_restored"]["effect"] > 0.01
    )
    studied(mine, tmp_path / "layout", "03", "wrong_layout", steps=200)
    heard, items = studied(mine, tmp_path / "layout", "07", "wrong_layout")
    assert (
        items["generation_fed_as_training"]["verdict"] == "refuted"
        and "away from teacher forcing" in heard["answer"]
    )


def test_a_training_that_breaks_is_a_result(mine, tmp_path):
    out = tmp_path / "out"
    verdict, items = studied(mine, out, "03", "diverges")
    assert (
        items["overfit_gate"]["verdict"] == "refuted"
        and "The training broke: step" in verdict["answer"]
    )
    assert items["overfit_free_running"]["provenance"] == "the training broke: nothing to judge"
    heard, items = studied(mine, out, "07", "diverges")
    assert "left no model" in heard["answer"] and items["understood"]["verdict"] == "undecided"


def test_an_absent_part_is_named_with_what_it_has_to_be(mine, tmp_path, capsys):
    out = tmp_path / "out"
    said = {}
    for number in ("03", "07"):
        verdict, items = studied(mine, out, number, "bare")
        said |= {
            name: item["provenance"]
            for name, item in items.items()
            if item["verdict"] == "undecided"
        }
    for id, field in (
        ("overfit_free_running", "generate"),
        ("text_used", "shuffle_text"),
        ("generation_fed_as_training", "continue_from"),
        ("copy_synthesis", "vocode"),
        ("understood", "generate"),
    ):
        assert ": supply Subject." in said[id] and f"Subject.{field} = " in said[id]
    assert (
        "Not applicable without Subject.audio" in verdict["answer"]
        and said["text_used"] in capsys.readouterr().out
    )


def test_a_loss_that_is_not_finite_is_reported_by_every_notebook(mine, tmp_path):
    answers = {
        number: studied(mine, tmp_path / "out", number, "not_finite")[0]["answer"]
        for number in ("03", "07")
    }
    assert (
        "The training broke: step 1: the loss is not finite: nan" in answers["03"]
        and "left no model" in answers["07"]
    )


def test_parts_that_raise_leave_the_rest_standing(mine, tmp_path):
    studied(mine, tmp_path / "out", "03", "breaks_off")
    _, items = studied(mine, tmp_path / "out", "07", "breaks_off")
    assert "could not be measured: IndexError" in items["generation_fed_as_training"]["provenance"]
    assert items["copy_synthesis"]["verdict"] == "supported"


def test_mistakes_are_named_before_anything_is_measured(mine, tmp_path):
    for name, complaint in (("missing", "no 'missing'"), ("number", "is a int")):
        with pytest.raises(WorkbookError, match=complaint):
            studied(mine, tmp_path / "out", "03", name)
    with pytest.raises(SubjectError, match=r"Subject\.predict_mel"):
        studied(mine, tmp_path / "out", "03", "no_mel")
    with pytest.raises(WorkbookError, match="judged 16 times"):
        studied(mine, tmp_path / "out", "03", steps=5)
    with pytest.raises(WorkbookError, match="Run notebook 03 first"):
        studied(mine, tmp_path / "out", "07")
    with pytest.raises(
        WorkbookError, match=r"subject = 'mine', but it must be package\.module:name"
    ):
        Notebook("03", "Can it?", {"out": str(tmp_path / "out"), "subject": "mine"})
