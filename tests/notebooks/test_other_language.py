"""The whole workbook on Russian speech without TextGrids: it finishes, and says everywhere that durations are not measured."""

import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from tests.conftest import ROOT


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    out = tmp_path_factory.mktemp("russian") / "run"
    process = subprocess.run([sys.executable, "-m", "tts_core.workbook.cli", "run", "--profile", "smoke", "--data",
                              str(ROOT / "data_samples" / "russian"), "--out", str(out)], capture_output=True, text=True, timeout=900)
    assert process.returncode == 0, process.stdout[-3000:] + process.stderr[-3000:]
    return out


def test_every_notebook_finishes_and_every_answer_carries_the_warning(out):
    for number in ("01", "02", "03", "07"):
        answer = json.loads((out / "verdicts" / f"{number}.json").read_text())["answer"]
        assert answer.startswith("UNIFORM DURATIONS, not measured: "), number
    assert json.loads((out / "run.json").read_text())["status"] == "complete"


def test_every_figure_wears_the_banner(out):
    figures = sorted((out / "figures").glob("*.png"))
    assert len(figures) >= 20
    for file in figures:
        red, green, blue = np.asarray(Image.open(file).convert("RGB"))[8, 5].tolist()
        assert red > 150 and green < 60 and blue < 80, file.name


def test_what_a_recogniser_of_english_cannot_judge_is_left_out_not_invented(out):
    metrics = json.loads((out / "verdicts" / "07.json").read_text())["metrics"]
    assert "stoi_fr" in metrics and not any(name.startswith("wer") for name in metrics)


def test_a_model_that_learned_nothing_leaves_the_causes_undecided(out):
    """Twenty smoke steps make no sound twin: removing a norm from it decides nothing."""
    items = {item["id"]: item["verdict"] for number in ("03", "07")
             for item in json.loads((out / "verdicts" / f"{number}.json").read_text())["items"]}
    assert items["overfit_gate"] == "refuted"
    assert {items[name] for name in ("memory_norm_run", "garbage_audio_memory", "garbage_audio_layout", "seed_plateau_run")} == {"undecided"}
