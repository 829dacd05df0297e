"""The whole diagnosis on a sound model and on planted faults, its report, the commands, and the
pages.
"""

import json
from dataclasses import replace

import pytest
from safetensors.torch import save_file

from benchmarks.planted import ours
from benchmarks.planted.architecture import draw_setting
from tts_core.errors import WorkbookError
from tts_workbook import Finding, cli, diagnose
from tts_workbook.diagnosis.diagnosis_report import Report, merged
from tts_workbook.diagnosis.subject_state import judge_state
from tts_workbook.diagnosis.triage import triage
from tts_workbook.faults.cause import AREAS
from tts_workbook.faults.examine import examine
from tts_workbook.faults.registry import CAUSES
from tts_workbook.lab import budget
from tts_workbook.lab.lab import Lab
from tts_workbook.measure.headline import Headline
from tts_workbook.pages.diagnosis_page import diagnosis_page, triage_page
from tts_workbook.subject.loading import load_subject
from tts_workbook.subject.subject import SubjectError

N_STEPS = 80
WELL = judge_state(Headline(1.0, copied=0.3, teacher_forced=0.1, free_running=0.2, text_use=1.5))
SHORT = budget.Budget("fast", least=N_STEPS, most=N_STEPS, course=1.0, total=1e9)


@pytest.fixture(autouse=True)
def short_courses(monkeypatch):
    monkeypatch.setitem(budget.BUDGETS, "fast", (SHORT, SHORT))


@pytest.fixture(scope="module")
def clean():
    return ours.ARCHITECTURE.clean(draw_setting(1, n_clips=8))


@pytest.fixture(scope="module")
def healthy_report(clean):
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(budget.BUDGETS, "fast", (SHORT, SHORT))
        return diagnose(clean)


def test_a_sound_model_is_healthy_and_every_cause_is_answered_for(healthy_report):
    assert healthy_report.healthy, str(healthy_report)
    assert {entry.cause for entry in healthy_report.entries} == set(CAUSES)
    assert all(entry.experiment for entry in healthy_report.entries)
    assert (
        healthy_report.headline["TF L1 / best constant"] < 0.5
        and healthy_report.headline["text use"] > 1.05
    )


def test_a_loud_memory_is_found_by_its_one_factor_and_nothing_else_is_blamed():
    report = diagnose(ours.ARCHITECTURE.plants["model.memory_scale"](draw_setting(0, n_clips=8)))
    first = report.findings[0]
    assert (first.cause, first.level) == (
        "model.memory_scale",
        "confirmed",
    ) and first.where == "memory_positions"
    assert first.evidence["after"] < first.evidence["mean TF L1 / best constant before"] - 0.1
    assert {found.cause for found in report.at("confirmed")} == {"model.memory_scale"}
    assert "LayerNorm" in first.fix and not report.healthy


def test_an_absent_part_is_named(clean):
    bare = replace(clean, pad=None, pad_text=None, audio=None, generate=None, continue_from=None)
    lab = Lab(bare)
    said = []
    for cause in CAUSES.values():
        if all(one.needs and not bare.has(*one.needs) for one in cause.experiments):
            said.append(examine(cause, lab))
    assert {"loss.padding_included", "generation.layout", "data.mel_recipe"} <= {
        finding.cause for finding in said
    }
    assert all(
        finding.level == "not applicable" and "supply Subject." in finding.experiment
        for finding in said
    )


def test_a_path_that_cannot_be_tried_is_undecided_and_named(clean):
    """Padding is heard in training alone where the subject pads nothing itself."""
    bare = replace(clean, pad=None, pad_text=None)
    found = examine(CAUSES["model.padding_mask"], Lab(bare))
    assert found.level == "undecided"
    assert "supply Subject.pad and supply Subject.pad_text" in found.experiment


def test_a_part_that_raises_is_undecided_and_the_rest_goes_on(clean):
    def broken(batch, n):
        raise IndexError("too few frames")

    lab = Lab(replace(clean, pad=broken))
    said = [
        examine(CAUSES[cause], lab) for cause in ("model.padding_mask", "loss.padding_included")
    ]
    assert {finding.level for finding in said} == {"undecided"}
    assert "too few frames" in said[0].experiment


def test_the_strongest_level_counts_and_what_is_explained_is_not_blamed():
    weak = Finding("loss.wrong_reduction", "suspected", "look")
    strong = Finding("loss.wrong_reduction", "confirmed", "decide", strength=0.5)
    sign = Finding("loss.padding_included", "confirmed", "pad", strength=1.0)
    entries = merged([weak, strong, sign])
    assert [entry.level for entry in entries] == ["confirmed", "undecided"]
    assert entries[0].fix == CAUSES["loss.wrong_reduction"].fix
    both = merged(
        [
            Finding("generation.exposure_gap", "confirmed", "listen", strength=1.0),
            replace(sign, strength=0.1),
        ]
    )
    assert [entry.cause for entry in both] == ["loss.padding_included", "generation.exposure_gap"]
    drift = merged([Finding("generation.exposure_gap", "confirmed", "listen")])
    drifting = Report(drift, {}, passed=True, seconds=1.0, state=WELL)
    assert drifting.healthy and "exposure_gap" in drifting.verdict
    assert "cannot tell" in Report((), {}, passed=False, seconds=1.0).verdict
    with pytest.raises(ValueError, match=r"no\.such"):
        Finding("no.such", "confirmed", "x")


def test_the_catalogue_is_that_of_the_areas():
    assert set(AREAS) == {cause.split(".")[0] for cause in CAUSES} and len(CAUSES) >= 54


def test_the_page_is_self_contained_and_escapes(healthy_report):
    page = diagnosis_page(healthy_report, "Diagnosis of <script>alert(1)</script>")
    assert (
        "<script" not in page
        and "http" not in page.split("</style>")[1]
        and "data:image/png" in page
    )
    assert healthy_report.verdict in page


SOURCE = """
from benchmarks.planted import ours
from benchmarks.planted.architecture import draw_setting
subject = ours.ARCHITECTURE.clean(draw_setting(1, n_clips=2))
def faulty():
    return ours.ARCHITECTURE.plants["model.no_causal_mask"](draw_setting(1, n_clips=2))
number = 3
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    (tmp_path / "my_subject.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_diagnose_from_the_command_line(module, capsys):
    assert cli.main(["diagnose", "my_subject.py:faulty", "--json", "--html", "out/page.html"]) == 0
    out = json.loads(capsys.readouterr().out)
    assert out["findings"][0]["cause"] == "model.no_causal_mask" and not out["healthy"]
    assert "model.no_causal_mask" in (module / "out" / "page.html").read_text()


@pytest.mark.parametrize(
    "address, said",
    [
        ("my_subject", "package.module:name"),
        ("nowhere.at_all:x", "no module 'nowhere'"),
        ("my_subject.py:missing", "no 'missing'"),
        ("my_subject.py:number", "is a int"),
        ("none.py:x", "no file"),
    ],
)
def test_a_wrong_address_says_what_is_wanted(module, address, said):
    with pytest.raises(WorkbookError, match=said):
        load_subject(address)


def test_triage_shows_a_checkpoint_beside_the_baselines(clean, tmp_path, capsys):
    model = Lab(clean).course().model
    file = tmp_path / "model.safetensors"
    save_file(
        {name: tensor.contiguous().clone() for name, tensor in model.state_dict().items()}, file
    )
    found = triage(replace(clean, checkpoint=str(file)))
    assert found.headline["TF L1 / best constant"] < 0.5 and set(found.sounds) == {
        "recording",
        "copy-synthesis",
        "teacher-forced",
        "free-running",
        "full inference",
    } - set(found.missing)
    page = triage_page(found, "my model")
    assert page.count("<audio") == len(found.sounds) and "http" not in page.split("</style>")[1]
    with pytest.raises(SubjectError, match="checkpoint"):
        triage(clean)
    with pytest.raises(SubjectError, match="do not fit"):
        triage(replace(clean, checkpoint={"other.weight": next(model.parameters())}))
