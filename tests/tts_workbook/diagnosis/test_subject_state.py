"""What a model does is said once: by the report, the triage and the pages alike. NaN decides
nothing.
"""

import json
import math

import pytest

from tts_workbook.diagnosis.diagnosis_report import Report
from tts_workbook.diagnosis.subject_state import LEARNS, READS, SOUNDS, State, advice, judge_state
from tts_workbook.faults.finding import Finding
from tts_workbook.measure.headline import Headline
from tts_workbook.measure.non_finite import NonFinite

SPEAKS = Headline(1.2, copied=0.35, teacher_forced=0.1, free_running=0.2, frames=1.0, text_use=1.6)


def of(**changes):
    return Headline(**{**vars(SPEAKS), **changes})


@pytest.mark.parametrize(
    "changes, answers",
    [
        ({}, ("yes", "yes", "yes")),
        ({"free_running": 0.96}, ("yes", "no", "yes")),
        ({"free_running": 0.5}, ("yes", "no", "yes")),
        ({"text_use": 1.0}, ("yes", "yes", "no")),
        # before it is below the copied frame it may do without its text
        ({"text_use": 1.0, "teacher_forced": 0.33}, ("yes", "yes", "not judged")),
        # what it loses by wrong text it cannot have from elsewhere
        ({"text_use": 2.3, "teacher_forced": 0.49}, ("yes", "yes", "yes")),
        ({"text_use": 1.6, "teacher_forced": 0.81}, ("no", "yes", "not judged")),
        ({"free_running": None, "text_use": None}, ("yes", "not judged", "not judged")),
        ({"teacher_forced": math.nan}, ("no", "yes", "not judged")),
        ({"free_running": math.nan}, ("yes", "no", "yes")),
        ({"text_use": math.nan}, ("yes", "yes", "not judged")),
    ],
)
def test_the_three_answers(changes, answers):
    state = judge_state(of(**changes))
    assert (state.learns.answer, state.sound.answer, state.reads.answer) == answers
    assert state.well == (answers[0] == "yes" and "no" not in answers)


def test_the_answers_say_their_numbers_and_what_is_missing():
    said = str(judge_state(of(free_running=0.96, text_use=None)))
    assert f"{LEARNS}: yes (TF 0.10 of the best constant)" in said
    assert f"{SOUNDS}: no (FR 0.96 of the best constant, wanted below 0.5)" in said
    assert f"{READS}: not judged, supply Subject.shuffle_text" in said
    unsure = judge_state(of(text_use=1.0, teacher_forced=0.33))
    assert "it has not learnt enough (text use 1.000)" in str(unsure)
    assert json.dumps(judge_state(of(free_running=math.nan)).to_dict(), allow_nan=False)


@pytest.mark.parametrize(
    "changes, healthy, verdict",
    [
        ({}, True, "healthy: it learns"),
        ({"text_use": None}, True, "(not judged: reads its text)"),
        ({"free_running": 0.96}, False, "is not sound free-running, and no experiment tells why"),
        ({"text_use": 1.0}, False, "does not use its text, and no experiment tells why"),
    ],
)
def test_what_cannot_be_spoken_is_never_healthy(changes, healthy, verdict):
    report = Report((), {}, passed=True, seconds=1.0, state=judge_state(of(**changes)))
    assert report.healthy == healthy and verdict in report.verdict
    assert str(report).splitlines() == [report.verdict, str(report.state)]


def test_healthy_says_how_much_is_undecided():
    unsure = Finding("data.duration_sum", "undecided", "supply Subject.audio")
    sure = Finding("loop.no_step", "excluded", "seen")
    report = Report((unsure, sure), {}, passed=True, seconds=1.0, state=judge_state(SPEAKS))
    assert report.healthy and report.verdict.endswith("(undecided: 1 of 2 causes)")


def test_a_question_accuses_nobody():
    asked = Finding("model.dropout_always_on", "question", "two eval passes", fix="is it meant?")
    report = Report((asked,), {}, passed=True, seconds=1.0, state=judge_state(SPEAKS))
    assert report.healthy and report.findings == [] and report.questions == [asked]
    assert [one["cause"] for one in report.to_dict()["questions"]] == [asked.cause]


@pytest.mark.parametrize(
    "changes, words",
    [
        ({}, "it has learnt this clip"),
        ({"teacher_forced": 0.81, "text_use": math.nan}, "it has not learnt this clip"),
        ({"text_use": 1.0}, "the text does not matter"),
        ({"free_running": 0.96}, "not from its own (FR 0.96)"),
        ({"free_running": None}, "supply Subject.generate"),
        ({"text_use": None}, "whether it reads its text is not judged, supply"),
        ({"teacher_forced": math.nan}, "not finite"),
    ],
)
def test_the_advice_follows_from_the_state(changes, words):
    said = advice(of(**changes))
    assert words in said
    learnt = "it has learnt this clip" in said
    assert learnt <= judge_state(of(**changes)).well


def test_nothing_is_said_of_what_was_not_measured():
    state = State()
    assert state.not_judged == (LEARNS, SOUNDS, READS) and not state.well


@pytest.mark.parametrize(
    "found, line",
    [
        (
            NonFinite("batch", "pitch", 1, 3, -math.inf),
            "not finite: pitch of the batch holds -inf, clip 1, position 3",
        ),
        (
            NonFinite("forward", "decoder.norm", value=math.nan),
            "not finite: the output of decoder.norm holds nan",
        ),
        (
            NonFinite("backward", "encoder.weight", value=math.nan),
            "not finite: the gradient of encoder.weight holds nan",
        ),
    ],
)
def test_the_first_tensor_that_is_not_finite_is_the_first_line(found, line):
    report = Report((), {}, passed=False, seconds=1.0, non_finite=found)
    assert str(report).splitlines()[0] == line and not report.healthy
    assert json.dumps(report.to_dict(), allow_nan=False)
