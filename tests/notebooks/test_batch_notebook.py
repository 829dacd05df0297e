"""Notebook 04 at smoke size, cell by cell: without a record claims stay undecided, and flipped
numbers flip them.
"""

import dataclasses
import json

import pytest

from tests.conftest import ROOT, make_experiment
from tts_workbook.trials import batch_comparison, executors
from tts_workbook.trials.trial import ClipReference, Trial
from tts_workbook.trials.trial_result import TrialResult

NOTEBOOK = ROOT / "notebooks" / "04_duplicate_batch.ipynb"
ORIGIN = {
    "date": "2026-11-23",
    "device": "a toaster",
    "commit": "abc123",
    "command": "python benchmarks/evidence.py",
}


def cells():
    written = json.loads(NOTEBOOK.read_text())["cells"]
    return ["".join(cell["source"]) for cell in written if cell["cell_type"] == "code"]


@pytest.fixture(scope="module")
def notebook(tmp_path_factory):
    """run(record) executes what rests on records and returns the verdict; what comes before is
    executed once.
    """
    patch = pytest.MonkeyPatch()
    out = tmp_path_factory.mktemp("batches")
    for name, value in {
        "PROFILE": "smoke",
        "OUT": str(out),
        "EXECUTOR": "dask",
        "SCHEDULER": "tcp://head:8786",
    }.items():
        patch.setenv(f"TTS_WORKBOOK_{name}", value)
    trained = executors.run_trials

    def inline(trials, store, **options):
        # as the parameters say
        assert (options.pop("executor"), options.pop("scheduler")) == ("dask", "tcp://head:8786")
        return trained(trials, store, executor="inline", **options)

    patch.setattr(executors, "run_trials", inline)
    plan = batch_comparison.LivePlan((1, 2), 2, 2, 2, 1, 2, 2, (1, 2))
    patch.setattr(batch_comparison.LivePlan, "of", classmethod(lambda cls, profile: plan))
    values: dict = {"__name__": "notebook"}
    first = next(i for i, cell in enumerate(cells()) if 'recorded_study("batches")' in cell)
    for cell in cells()[:first]:
        exec(cell, values)

    def run(record):
        values["recorded_study"] = lambda study: record.get(study, ([], {}))
        for cell in cells()[first:]:
            exec(cell, values)
        verdict = json.loads((out / "verdicts" / "04.json").read_text())
        return verdict, {item["id"]: item for item in verdict["items"]}

    yield run
    patch.undo()


def study(single, batch, corpus=None, n_corpus=500):
    """A record of 8 single clips, 4 batches and 2 corpora whose loss stays at these multiples of
    the best constant.
    """

    def result(arm, clips, level, i, batch_size=None):
        experiment = make_experiment("seed", steps=20)
        experiment = dataclasses.replace(
            experiment, fit=dataclasses.replace(experiment.fit, seed=i)
        )
        references = tuple(
            ClipReference("nowhere", f"{arm}-{n}", "en", f"{arm}{n}") for n in range(clips)
        )
        return TrialResult(
            Trial(experiment, references, ("_",), batch_size=batch_size, name=arm),
            {},
            {"over_constant": [level + 0.001 * i] * 20},
        )

    results = [result("single", 1, single, i) for i in range(8)] + [
        result("distinct", 32, batch, i) for i in range(4)
    ]
    if corpus is not None:
        results += [result("corpus", n_corpus, corpus, i, batch_size=32) for i in range(2)]
    return {"batches": (results, ORIGIN)}


def sound(error):
    trial = study(1, 1)["batches"][0][0].trial
    measures = {"tf_over_constant": error / 2, "fr_over_constant": error}
    one = TrialResult(dataclasses.replace(trial, name="base"), measures, {"over_constant": [1.0]})
    return {"breaks": ([one] * 8, ORIGIN)}


def test_without_records_copies_are_ruled_live_and_the_rest_is_undecided_with_the_reason(notebook):
    verdict, items = notebook({})
    copies = items["duplicates_change_nothing"]
    assert copies["verdict"] == "supported" and copies["effect"] <= 1e-9
    others = [item for name, item in items.items() if name != "duplicates_change_nothing"]
    assert len(others) == 4 and {item["verdict"] for item in others} == {"undecided"}
    assert all(
        "make evidence" in item["provenance"] or "evidence.py" in item["provenance"]
        for item in others
    )
    assert verdict["answer"].count("undecided") == 3 and "change nothing" in verdict["answer"]
    assert verdict["metrics"]["seed_noise_k1"] > verdict["metrics"]["seed_noise_k2"] > 0


@pytest.mark.parametrize(
    ("single", "batch", "verdict", "words"),
    [
        (1.5, 1.0, "supported", "clips lower the loss"),
        (1.0, 1.5, "refuted", "clips do not lower the loss"),
        (1.0, 1.0, "refuted", "clips do not lower the loss"),
        (1.05, 1.0, "undecided", "clips leave it open"),
    ],
)
def test_flipped_curves_flip_verdict_and_sentence(notebook, single, batch, verdict, words):
    written, items = notebook(study(single, batch))
    assert items["difference_batch_size"]["verdict"] == verdict and words in written["answer"]
    assert items["difference_batch_size"]["effect"] == pytest.approx(batch - single, abs=0.003)
    assert "abc123" in items["difference_batch_size"]["provenance"]
    frames = items["difference_batch_size_frames"]
    assert frames["verdict"] == "undecided" and "cannot be counted" in frames["provenance"]


def test_the_corpus_rules_only_with_500_prompts(notebook):
    _, few = notebook(study(1.5, 1.5, corpus=0.5, n_corpus=499))
    assert (
        few["question_1"]["verdict"] == "undecided"
        and "499 prompts" in few["question_1"]["provenance"]
    )
    written, many = notebook(study(1.5, 1.5, corpus=0.5))
    assert many["question_1"]["verdict"] == "supported"
    assert "Over 500 prompts, real training's batches lower" in written["answer"]
    assert notebook(study(1.5, 1.5, corpus=1.5))[1]["question_1"]["verdict"] == "refuted"


def test_sound_runs_decide_about_batch_size_one(notebook):
    written, items = notebook(sound(0.07))
    assert (
        items["question_2"]["verdict"] == "refuted"
        and "batch size 1 does not break learning" in written["answer"]
    )
    written, items = notebook(sound(0.9))
    assert (
        items["question_2"]["verdict"] == "supported"
        and "batch size 1 breaks learning" in written["answer"]
    )
