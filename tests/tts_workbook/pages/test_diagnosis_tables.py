"""A diagnosis in a notebook: numbers beside yardsticks, every cause answered for, texts escaped."""

from dataclasses import replace

from tts_workbook.diagnosis.diagnosis_report import Report
from tts_workbook.faults.finding import Finding
from tts_workbook.pages.diagnosis_page import diagnosis_page
from tts_workbook.pages.diagnosis_tables import answered_html, causes_html, headline_html

EVIL = "<script>alert(1)</script>"
ENTRIES = (
    Finding(
        "optimizer.missing_parameters",
        "confirmed",
        f"look {EVIL}",
        {"tensors left out": 16.0, "first": EVIL},
        "encoder",
        0.3,
    ),
    Finding("loop.no_step", "excluded", "hash the weights"),
    Finding("data.silence", "not applicable", "supply Subject.audio"),
)
REPORT = Report(
    ENTRIES,
    {"TF L1 / best constant": 0.25, "text use": 1.0, "something new": 3.0},
    True,
    12.4,
    {"as it is": [(10, 0.8), (20, 0.25)]},
)


def test_every_number_has_its_yardstick_and_one_that_is_new_has_none():
    page = headline_html(REPORT)
    assert (
        "0.25" in page
        and "asks for less than 0.5" in page
        and "the text is ignored" in page
        and "something new" in page
        and ">12<" in page
    )


def test_causes_carry_place_level_evidence_experiment_and_fix():
    page = causes_html(REPORT.findings)
    for words in (
        "optimizer.missing_parameters: parameters that the optimiser does not hold, at encoder",
        "confirmed",
        "tensors left out 16",
        "model.parameters()",
    ):
        assert words in page, words
    assert EVIL not in page and "&lt;script&gt;" in page
    assert "No cause was found" in causes_html([])


def test_every_level_is_counted_with_its_causes():
    page = answered_html(REPORT)
    for level, count, cause in (
        ("confirmed", 1, "optimizer.missing_parameters"),
        ("excluded", 1, "loop.no_step"),
        ("undecided", 0, "–"),
    ):
        assert f">{level}</td>" in page and f">{count}</td>" in page and cause in page


def test_the_page_of_a_diagnosis_has_the_yardsticks_too():
    assert "asks for less than 0.5" in diagnosis_page(REPORT, "Diagnosis")


def test_a_report_without_a_training_run_has_a_page_without_their_picture():
    page = diagnosis_page(replace(REPORT, courses={}), "Diagnosis")
    assert "optimizer.missing_parameters" in page and "data:image/png" not in page
    assert "data:image/png" in diagnosis_page(
        replace(REPORT, courses={"as it is": [(1, 0.9), (2, 0.4)]}), "Diagnosis"
    )


def test_the_runs_that_mend_are_those_of_confirmed_findings_alone_whatever_their_names_say():
    slower, rate = "rate × 0.1 + a + b as the one factor", "norm of the memory"
    report = replace(
        REPORT,
        entries=(
            replace(ENTRIES[0], mended_by=(slower,)),
            Finding("model.memory_scale", "confirmed", "look", mended_by=(rate,)),
            Finding("optimizer.weight_decay", "excluded", "no decay", mended_by=("no decay",)),
        ),
        changes={
            "as it is": (),
            "one": (slower,),
            "two": ("no decay",),
            "three": (slower, rate),
            "four": (rate, "no decay"),
        },
    )
    assert report.mending_courses == ["one", "three"]
