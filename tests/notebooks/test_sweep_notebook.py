"""Notebook 05 at smoke size: killed and resumed it keeps what was finished, and flipped numbers
flip its verdicts.
"""

import json
import subprocess
import sys
import time

import pytest

from tests.conftest import ROOT
from tts_workbook.trials import executors, lr_range
from tts_workbook.trials.trial_result import TrialResult

PATIENCE = 300  # seconds until the first training is stored, on a busy machine
ITEMS = {
    "learning_rate_repairs_seed",
    "best_cell_by_free_running",
    "weight_decay_matters",
    "tf_choice_costs_healthy",
    "tf_choice_costs_seed",
}


def state_of(folder):
    """Which file each stored training is, and when it was written."""
    return {
        file.name: (file.stat().st_ino, file.stat().st_mtime_ns) for file in folder.glob("*.json")
    }


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """(run folder, the trainings stored when it was killed)."""
    out = tmp_path_factory.mktemp("sweep") / "run"
    command = [
        sys.executable,
        "-m",
        "tts_workbook.cli",
        "run",
        "--profile",
        "smoke",
        "--only",
        "05",
        "--out",
        str(out),
        "-p",
        "executor=inline",
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until = time.monotonic() + PATIENCE
    while not state_of(out / "trials") and process.poll() is None and time.monotonic() < until:
        time.sleep(0.02)
    process.kill()
    process.wait()
    kept = state_of(out / "trials")
    again = subprocess.run([*command, "--resume"], capture_output=True, text=True, timeout=900)
    assert again.returncode == 0, again.stdout[-3000:] + again.stderr[-3000:]
    return out, kept


def test_finished_trainings_are_taken_up_and_only_the_others_run(run):
    out, kept = run
    after = state_of(out / "trials")
    assert 1 <= len(kept) < 8 == len(after)
    assert {name: after[name] for name in kept} == kept
    cells = json.loads((out / "notebooks" / "05_sweep_lr_wd.ipynb").read_text())["cells"]
    printed = "".join(
        "".join(output.get("text", "")) for cell in cells for output in cell.get("outputs", [])
    )
    assert "are in the store already" in printed and "; 0 are in the store already" not in printed


def test_the_verdict_says_what_a_sweep_in_which_nothing_learns_can_say(run):
    verdict = json.loads((run[0] / "verdicts" / "05.json").read_text())
    items = {item["id"]: item for item in verdict["items"]}
    assert set(items) == ITEMS and {item["verdict"] for item in items.values()} == {"undecided"}
    assert all(item["n"] == 1 and item["refuting_experiment"] for item in items.values())
    assert verdict["metrics"]["trainings"] == 8 and verdict["metrics"]["failed"] == 0
    assert (
        f"FR {verdict['metrics']['seed_best_fr_over_constant']:.2f} of best constant"
        in verdict["answer"]
    )


def test_the_run_shows_the_range_test_the_heatmaps_and_the_curves(run):
    figures = json.loads((run[0] / "figures" / "05.json").read_text())
    assert [figure["name"] for figure in figures] == ["lr_range", "heatmaps", "curves"]
    rows = [json.loads(line) for line in (run[0] / "metrics" / "05.jsonl").read_text().splitlines()]
    assert len(rows) == 8 == len({row["digest"] for row in rows}) and all(
        row["failed"] == "" for row in rows
    )
    assert {f"{row['digest']}.json" for row in rows} == {
        file.name for file in (run[0] / "trials").glob("*.json")
    }


def measures(error, use, outcome=1.0, tf=0.5):
    return {"outcome": outcome, "tf_over_constant": tf, "fr_over_constant": error, "text_use": use}


def sound_reads(name, options):
    return measures(0.2, 2.0) if name == "healthy" else measures(1.5, 1.0)


def both_read(name, options):
    return (
        measures(0.2, 2.0)
        if name == "healthy"
        else measures(0.25 if options.lr == 1e-3 else 3.0, 2.0)
    )


def decay_moves_and_loss_misleads(name, options):
    return measures(
        0.2 if options.weight_decay else 0.45,
        2.0,
        outcome=1.0 + options.weight_decay * 10,
        tf=0.5 if options.weight_decay else 0.1,
    )


def nothing_trains(name, options):
    return {"outcome": 1.0}


@pytest.fixture
def verdict_of(monkeypatch, tmp_path):
    """Execute the notebook with trainings that give these measures; returns (its verdict, its
    items' verdicts).
    """
    cells = json.loads((ROOT / "notebooks" / "05_sweep_lr_wd.ipynb").read_text())["cells"]
    for name, value in {
        "PROFILE": "smoke",
        "OUT": str(tmp_path),
        "EXECUTOR": "dask",
        "SCHEDULER": "tcp://head:8786",
    }.items():
        monkeypatch.setenv(f"TTS_WORKBOOK_{name}", value)
    curve = lr_range.LrRange(1.2, (1e-4, 1e-3), (1.0, 0.9), None)
    monkeypatch.setattr(lr_range, "lr_range_test", lambda arm, steps: curve)

    def execute(numbers):
        def made(trials, store, **options):
            # as the parameters say
            assert options["executor"] == "dask" and options["scheduler"] == "tcp://head:8786"
            found = [
                numbers(trial.name.split(",")[0], trial.experiment.optimizer) for trial in trials
            ]
            return [
                TrialResult(
                    trial,
                    one,
                    {"over_constant": [1.5, 1.0] * (len(one) > 1)},
                    "broke" * (len(one) == 1),
                )
                for trial, one in zip(trials, found, strict=True)
            ]

        monkeypatch.setattr(executors, "run_trials", made)
        values = {"__name__": "notebook"}
        for cell in cells:
            if cell["cell_type"] == "code":
                exec("".join(cell["source"]), values)
        verdict = json.loads((tmp_path / "verdicts" / "05.json").read_text())
        return verdict, {item["id"]: item["verdict"] for item in verdict["items"]}

    return execute


@pytest.mark.parametrize(
    "numbers, expected, opening",
    [
        (
            sound_reads,
            {
                "learning_rate_repairs_seed": "refuted",
                "best_cell_by_free_running": "supported",
                "weight_decay_matters": "refuted",
                "tf_choice_costs_healthy": "refuted",
            },
            "No: ",
        ),
        (
            both_read,
            {
                "learning_rate_repairs_seed": "supported",
                "best_cell_by_free_running": "refuted",
                "weight_decay_matters": "refuted",
                "tf_choice_costs_seed": "supported",
            },
            "Yes, here: ",
        ),
        (
            decay_moves_and_loss_misleads,
            {"weight_decay_matters": "supported", "tf_choice_costs_healthy": "supported"},
            "Yes, here: ",
        ),
        (nothing_trains, dict.fromkeys(ITEMS, "undecided"), "Undecided: "),
    ],
)
def test_flipping_the_numbers_flips_the_verdicts_and_the_sentence(
    verdict_of, numbers, expected, opening
):
    verdict, items = verdict_of(numbers)
    assert {name: items[name] for name in expected} == expected and verdict["answer"].startswith(
        opening
    )
    if numbers is nothing_trains:
        assert (
            "none, every training failed" in verdict["answer"]
            and "8 of 8 trainings failed" in verdict["answer"]
        )
