"""Batches beside single clips: matched budgets, the interval's known coverage, verdicts that flip
with the numbers.
"""

import dataclasses
import itertools

import numpy as np
import pytest

from tests.conftest import ROOT, make_experiment
from tts_core.config import AudioConfig, preset
from tts_core.errors import WorkbookError, or_reason
from tts_core.speech.dataset import load_corpus
from tts_workbook.corpus.reading import read_corpus
from tts_workbook.measure.trajectory import PLATEAU_BAND
from tts_workbook.trials.batch_comparison import (
    BatchRun,
    LivePlan,
    batch_runs,
    bundled_frames,
    clips_of_one_voice,
    compare_arms,
    copies_name,
    copy_trials,
    corpus_comparison,
    frames_of,
    judge_batch_of_one,
    largest_corpus,
    recorded_study,
)
from tts_workbook.trials.clip_choice import several_clips
from tts_workbook.trials.paired_effects import MARGINS
from tts_workbook.trials.study_records import write_study_record
from tts_workbook.trials.trial import ClipReference, Trial
from tts_workbook.trials.trial_result import TrialResult


def result(arm, contents, curve, seed=0, batch_size=None, copies=1, failed="", **measures):
    """A result as a record holds it, of clips with these contents."""
    experiment = make_experiment("seed", steps=len(curve))
    experiment = dataclasses.replace(experiment, fit=dataclasses.replace(experiment.fit, seed=seed))
    clips = tuple(
        ClipReference("nowhere", f"clip-{content}", "en", content) for content in contents
    )
    trial = Trial(experiment, clips, ("_", "a"), copies=copies, batch_size=batch_size, name=arm)
    return TrialResult(trial, measures, {"over_constant": list(curve)}, failed)


def study(single=1.5, distinct=1.5, n_single=8, n_distinct=4, steps=20, spread=0.01):
    """Flat curves at `single` and `distinct`, each run a little apart; batches see 32 times the
    frames.
    """
    runs = [
        BatchRun("single", f"single {i}", 1, (single + spread * i,) * (2 * steps), 2 * steps, 100.0)
        for i in range(n_single)
    ]
    return runs + [
        BatchRun("distinct", f"distinct {i}", 32, (distinct + spread * i,) * steps, steps, 3200.0)
        for i in range(n_distinct)
    ]


def test_a_mean_to_a_step_may_end_within_a_step():
    run = BatchRun("single", "", 1, (4.0, 2.0, 1.0), 3, 10.0)
    assert run.mean_to_step(3) == pytest.approx(7 / 3) and run.mean_to_step(2) == pytest.approx(3)
    assert run.mean_to_step(2.5) == pytest.approx((4 + 2 + 0.5) / 2.5)
    assert run.mean_to_step(0.4) == 4.0 and run.frames == 30
    assert run.end_at(3) == 1.0 and run.end_at(2) == 2.0


def test_a_run_that_stopped_early_counts_as_no_better_than_the_constant_from_there_on():
    run = BatchRun("single", "", 1, (4.0, 0.5), 4, None)
    assert run.mean_to_step(4) == pytest.approx((4 + 0.5 + 1 + 1) / 4)
    assert run.end_at(4) >= 1 and BatchRun("single", "", 1, (), 4, None).mean_to_step(4) == 1.0


def test_frames_of_a_step_count_copies_and_batches():
    frames = {"a": 100, "b": 300}
    runs = batch_runs(
        [
            result("one", "a", [1.0]),
            result("two", "ab", [1.0]),
            result("four", "a", [1.0], copies=4),
            result("three", "ab", [1.0], batch_size=1),
            result("five", "az", [1.0]),
        ],
        frames,
    )
    assert [run.frames_per_step for run in runs] == [100, 400, 400, 200, None]
    assert [run.clips for run in runs] == [1, 2, 1, 2, 2] and runs[0].label == "one, clip-a, seed 0"


def test_matched_steps_compare_the_steps_that_all_runs_have_and_matched_frames_the_frames():
    runs = [
        BatchRun("single", "", 1, tuple(np.linspace(4, 0, 100)), 100, 100.0),
        BatchRun("distinct", "", 32, tuple(np.linspace(4, 2, 50)), 50, 1000.0),
    ]
    steps, frames = (
        compare_arms(runs, "distinct"),
        compare_arms(runs, "distinct", by="frames"),
    )
    assert steps.budget == 50 and steps.single == pytest.approx(
        (np.mean(np.linspace(4, 0, 100)[:50]),)
    )
    assert frames.budget == 10_000 and frames.single == pytest.approx((2.0,))
    # 10 of its steps see 10,000 frames
    assert frames.batch == pytest.approx((np.mean(np.linspace(4, 2, 50)[:10]),))


def test_who_ends_the_budget_below_the_line_is_counted():
    line = 1 - PLATEAU_BAND
    comparison = compare_arms(
        study(single=line - 0.001, distinct=line + 0.001, spread=0), "distinct"
    )
    assert (comparison.single_below, comparison.batch_below) == (8, 0)


@pytest.mark.parametrize(
    ("distinct", "verdict"), [(1.3, "supported"), (1.5, "undecided"), (1.7, "refuted")]
)
def test_the_verdict_follows_the_numbers(distinct, verdict):
    assert compare_arms(study(distinct=distinct), "distinct").verdict == verdict


def test_equal_runs_are_refuted_within_the_margin_and_too_few_rule_nothing():
    assert compare_arms(study(spread=0.001), "distinct").verdict == "refuted"
    few = compare_arms(study(distinct=0.5, n_single=4, n_distinct=1), "distinct")
    assert few.coverage == pytest.approx(1 - 2 / 5) and few.verdict == "undecided"
    assert max(few.interval) < -MARGINS["outcome"]  # it is the coverage alone that stops it


@pytest.mark.parametrize(("n_batch", "n_single"), [(4, 8), (2, 8), (1, 4)])
def test_the_coverage_of_the_range_of_differences_is_exact(n_batch, n_single):
    """Of all ways to deal n + m equal draws to the two arms, the interval misses zero in 1 -
    coverage of them.
    """
    missed = []
    for chosen in itertools.combinations(range(n_batch + n_single), n_batch):
        runs = [
            BatchRun("distinct" if number in chosen else "single", "", 1, (float(number),), 1, None)
            for number in range(n_batch + n_single)
        ]
        comparison = compare_arms(runs, "distinct")
        missed.append(not comparison.interval[0] <= 0 <= comparison.interval[1])
    assert 1 - sum(missed) / len(missed) == pytest.approx(comparison.coverage)


def test_what_is_not_there_is_named():
    with pytest.raises(WorkbookError, match=r"no run of 'distinct'.*recorded arms: single"):
        compare_arms([run for run in study() if run.arm == "single"], "distinct")
    with pytest.raises(WorkbookError, match="recorded arms: none at all"):
        compare_arms([], "distinct")
    with pytest.raises(WorkbookError, match="frames of 'corpus' cannot be counted"):
        compare_arms(
            [*study(), BatchRun("corpus", "", 524, (1.0,), 1, None)], "corpus", by="frames"
        )
    assert or_reason(lambda: compare_arms([], "distinct"))[0] is None
    assert or_reason(lambda: 3) == (3, "")


def test_a_corpus_of_fewer_than_500_prompts_says_nothing():
    corpus = [BatchRun("corpus", "", 499, (0.1,) * 40, 40, None) for _ in range(2)]
    with pytest.raises(WorkbookError, match="has 499 prompts, and 500 are wanted"):
        corpus_comparison(study() + corpus)
    large = [BatchRun("corpus", "", 500, (0.1,) * 40, 40, None) for _ in range(2)]
    found = corpus_comparison(study() + corpus + large)
    assert found.verdict == "supported" and len(found.batch) == 2 and found.coverage > 0.95
    assert largest_corpus(study() + corpus + large) == 500 and largest_corpus(study()) == 0


def sound(errors, failed=0, n_clips=1):
    return [
        result(
            "base",
            "ab"[:n_clips],
            [1.0],
            seed=i,
            failed="not finite" if i < failed else "",
            tf_over_constant=error / 2,
            fr_over_constant=error,
        )
        for i, error in enumerate(errors)
    ]


def test_batch_size_one_is_judged_by_the_worse_error_of_sound_runs():
    errors = [0.06, 0.07, 0.08, 0.05, 0.09, 0.06, 0.07, 0.1]
    found = judge_batch_of_one(sound(errors))
    assert found.errors == tuple(errors) and found.verdict == "refuted" and found.interval[1] < 0.1
    assert judge_batch_of_one(sound([0.9 + error for error in errors])).verdict == "supported"
    assert judge_batch_of_one(sound([0.1, 0.9] * 4)).verdict == "undecided"
    broken = judge_batch_of_one(sound(errors, failed=4))
    assert broken.errors[:4] == (1.0,) * 4 and broken.verdict == "undecided"


def test_only_single_clips_without_copies_count_as_batch_size_one():
    with pytest.raises(
        WorkbookError, match="7 runs of a sound model at batch size 1, and 8 are wanted"
    ):
        judge_batch_of_one(sound([0.1] * 7) + sound([0.1] * 3, n_clips=2))
    with pytest.raises(WorkbookError, match="0 runs"):
        judge_batch_of_one([result("base", "a", [1.0], copies=2, seed=i) for i in range(9)])


def test_a_record_is_read_where_there_is_one_and_a_broken_one_is_loud(tmp_path):
    assert recorded_study("batches", tmp_path) == ([], {})
    write_study_record("batches", [result("single", "a", [2.0, 1.0])], {"date": "today"}, tmp_path)
    results, provenance = recorded_study("batches", tmp_path)
    assert provenance == {"date": "today"} and results[0].curves["over_constant"] == [2.0, 1.0]
    (tmp_path / "batches.json").write_text("{")
    with pytest.raises(WorkbookError, match="not a recorded study"):
        recorded_study("batches", tmp_path)


def test_frames_of_bundled_clips_are_counted_and_others_are_not_guessed():
    clips = read_corpus(ROOT / "data_samples" / "russian", AudioConfig(), limit=2).clips
    references = tuple(ClipReference.of(clip) for clip in clips)
    elsewhere = ClipReference("russian", clips[0].id, "ru", "anothersound")
    portable = tuple(dataclasses.replace(reference, root="russian") for reference in references)
    one = result("single", "a", [1.0])
    known = dataclasses.replace(one, trial=dataclasses.replace(one.trial, clips=portable))
    other = dataclasses.replace(one, trial=dataclasses.replace(one.trial, clips=(elsewhere,)))
    frames = bundled_frames([known, other])
    assert frames == frames_of(clips)
    per_step = [run.frames_per_step for run in batch_runs([known, other], frames)]
    assert per_step == [sum(len(clip.mel) for clip in clips), None]


def test_the_clips_of_a_batch_come_from_one_folder():
    folder = ROOT / "data_samples" / "librivox"
    first = load_corpus(folder, AudioConfig(), limit=1).clips[0]
    clips, vocabulary, _ = several_clips(folder, first, 12)
    # 7 of 12
    assert {clip.path.parent.parent.name for clip in clips_of_one_voice(clips, 12)} == {"allison"}
    assert (
        clips_of_one_voice(clips[:5], 3) == clips[:3]
        and clips_of_one_voice(clips[:1], 32) == clips[:1]
    )
    plan = LivePlan.of("smoke")
    experiment = preset("seed", vocabulary.get_vocab_size(), "smoke", steps=2)
    trials = copy_trials(first, vocabulary, {"seed": experiment}, plan.copies)
    assert [(trial.copies, trial.name) for trial in trials] == [
        (2, "seed, 2 copies"),
        (1, "seed, 1 copy"),
    ]
    assert copies_name("healthy", 4) == "healthy, 4 copies"
