"""The main job, for real: `tts-workbook run` in the quick profile on the default clip, and what it
must show.

The scientific thresholds live here, not in the notebooks. One run serves every test; it takes
minutes.
"""

import json
import re
import subprocess
import sys

import pytest

from tts_workbook.pages.findings_tables import SEED_ITEMS

# in the order in which they run
NOTEBOOKS = ("01", "02", "03", "04", "05", "06", "07", "08", "09")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """(run folder, completed process) of one quick run, as `make workbook` makes it."""
    out = tmp_path_factory.mktemp("quick") / "run"
    process = subprocess.run(
        [
            sys.executable,
            "-m",
            "tts_workbook.cli",
            "run",
            "--profile",
            "quick",
            "--out",
            str(out),
        ],
        capture_output=True,
        text=True,
        cwd=tmp_path_factory.mktemp("elsewhere"),
        timeout=1800,
    )
    assert process.returncode == 0, process.stdout[-4000:] + process.stderr[-4000:]
    return out, process


def verdict(run, number):
    return json.loads((run[0] / "verdicts" / f"{number}.json").read_text())


def metrics(run, number):
    return verdict(run, number)["metrics"]


def test_the_run_is_complete_and_ends_with_the_report(run):
    out, process = run
    record = json.loads((out / "run.json").read_text())
    assert record["status"] == "complete"
    assert process.stdout.strip().splitlines()[-1] == str(out / "report.html")
    assert sorted(file.stem[:2] for file in (out / "notebooks").glob("*.ipynb")) == sorted(
        NOTEBOOKS
    )
    assert not list(out.rglob(".*.part")) and not (out / "failed").exists()


def test_healthy_overfits_the_clip_teacher_forced_and_free_running_and_reads(run):
    found = metrics(run, "03")
    assert found["healthy_tf_l1"] <= 0.10
    assert found["healthy_fr_l1"] <= 0.20
    assert found["healthy_text_use"] >= 1.5
    assert found["copy_previous_l1"] < found["best_constant_l1"]


def test_removing_only_the_memory_norm_makes_the_text_useless_and_the_audio_garbage(run):
    found = metrics(run, "03")
    assert found["no_norm_text_use"] < 1.1
    assert found["no_norm_fr_l1"] >= 5 * found["healthy_fr_l1"]
    # teacher-forced it looks as if it learned
    assert found["no_norm_tf_l1"] < 0.5 * found["best_constant_l1"]


def test_the_seed_run_is_measured(run):
    found = metrics(run, "03")
    assert {"seed_tf_over_constant", "seed_time_variance_share", "seed_plateau_steps"} <= set(found)
    assert 0 < found["seed_tf_over_constant"] < 2 and 0 <= found["seed_time_variance_share"] <= 1


def test_free_running_audio_is_as_intelligible_as_its_copy_synthesis(run):
    found = metrics(run, "07")
    assert found["stoi_fr"] >= 0.90
    assert found["wer_fr"] <= found["wer_copy"] + 1 / found["words"]
    assert found["wer_no_norm_fr"] >= found["wer_fr"] + 1 / found["words"]
    assert found["words"] == 8 and found["wer_recording"] < 0.5


def test_the_seeds_history_layout_alone_spoils_a_sound_model(run):
    found = metrics(run, "07")
    assert found["fr_l1_seed_layout"] >= 3 * found["fr_l1_train_layout"]
    assert found["fr_l1_train_layout"] == pytest.approx(
        metrics(run, "03")["healthy_fr_l1"], rel=1e-3
    )
    assert found["parity_train_layout"] < 1e-3 < found["parity_seed_layout"]


def test_each_cause_of_garbage_audio_is_told_from_the_others(run):
    found, items = (
        metrics(run, "07"),
        {item["id"]: item["verdict"] for item in verdict(run, "07")["items"]},
    )
    # it can follow itself
    assert found["healthy_self_fed_1"] < found["healthy_self_fed_64"] < 0.2
    assert (
        found["no_norm_self_fed_64"] >= 5 * found["healthy_self_fed_64"]
        and found["no_norm_self_fed_64"] > 1.5 * found["no_norm_self_fed_1"]
    )
    # one cause hides the other
    assert items["garbage_audio_interaction"] == "refuted" and found["interaction"] < 0.5
    assert items["garbage_audio_recipe"] == "supported" and found["recipe_clips"] == 5
    # the ceiling is the whole of it
    assert abs(found["recipe_stoi_loss_no_ceiling"]) < 0.05 < found["recipe_stoi_loss"]
    assert (
        items["garbage_audio_full_inference"] == "refuted"
        and abs(found["healthy_inferred_frames_off"]) <= 5
    )
    assert found["stop_healthy_free_running_bce"] < 0.5 * found["stop_constant_bce"]
    assert (
        found["stoi_trained_on_uniform_durations"] >= 0.9 and found["uniform_training_fr_l1"] <= 0.2
    )
    assert (
        found["stoi_boundaries_off_by_10_ms"]
        > found["stoi_warped_uniform_durations"]
        > found["stoi_no_norm_free_running"]
    )


def test_the_audit_reaches_everything_and_shows_the_scale_of_the_memory(run):
    found = metrics(run, "02")
    assert found["unreached_modules"] == 0 and found["clips_in_batch"] == 32
    assert found["seed_memory_std"] > 8 * found["healthy_memory_std"]
    assert found["seed_cross_over_input"] > 3 * found["healthy_cross_over_input"]


def test_the_audit_rules_on_the_list_now_fixed_and_on_the_memorys_scale(run):
    found, items = metrics(run, "02"), {item["id"]: item for item in verdict(run, "02")["items"]}
    fixed = ("mixed_precision", "grad_scaler", "loss_fp32", "optimizer_settings", "zero_grad")
    for name in (
        *(f"fixed_{name}" for name in fixed),
        "difference_gradient_checkpointing",
        "accumulation",
    ):
        assert items[name]["verdict"] == "refuted", name  # none of them changes the step
    assert (
        found["checkpointing"]
        == found["loss_scale"]
        == found["zeros_or_none"]
        == 0.0
        < found["gradients_not_cleared"]
    )
    assert (
        found["pairs"] == 8
        and items["question_3"]["verdict"] == items["step_3"]["verdict"] == "supported"
    )
    assert (
        items["suspect_1_first_step"]["verdict"]
        == items["scale_thins_the_mel_path"]["verdict"]
        == "supported"
    )
    # the gradient to the text does not die of the scale
    assert items["scale_starves_text"]["verdict"] == "refuted"
    assert all(
        items[name]["interval"]
        for name in ("suspect_1_first_step", "scale_starves_text", "text_gradient_at_start")
    )
    assert found["duration_through_clip"] > 0.1 and found["clip_gap_control"] < found["clip_gap"]


def test_copies_change_nothing_and_dropout_noise_falls_as_one_over_the_root(run):
    found, items = (
        metrics(run, "04"),
        {item["id"]: item["verdict"] for item in verdict(run, "04")["items"]},
    )
    assert items["duplicates_change_nothing"] == "supported"
    assert found["copies_fp64"] < 1e-9 and found["copies_fp32"] < 1e-5
    assert -0.6 < found["seed_noise_slope"] < -0.4 and -0.6 < found["healthy_noise_slope"] < -0.4
    # batch size 1 does not break a sound model
    assert items["question_2"] == "refuted"


def test_no_learning_rate_makes_the_failing_model_read(run):
    items = {item["id"]: item for item in verdict(run, "05")["items"]}
    assert (
        items["learning_rate_repairs_seed"]["verdict"] == "refuted"
        and items["learning_rate_repairs_seed"]["effect"] == 0
    )
    assert items["best_cell_by_free_running"]["verdict"] == "supported"


def test_the_live_pair_agrees_with_the_recorded_rulings(run):
    found, items = metrics(run, "06"), {item["id"]: item for item in verdict(run, "06")["items"]}
    assert found["live_fr_over_constant"] > 0.5 and found["live_text_use"] < -0.5
    assert (
        items["live_pair_memory_norm"]["verdict"]
        == items["garbage_audio"]["verdict"]
        == items["garbage_audio_words"]["verdict"]
        == "supported"
    )
    assert (
        items["theory_3"]["verdict"] == "supported"
        and items["theory_3_free_running"]["verdict"] == "refuted"
    )
    # the repair, in the failing model
    assert items["suspect_1"]["verdict"] == items["suspect_1_scale"]["verdict"] == "supported"
    assert items["suspect_2"]["verdict"] == items["theory_5_text_use"]["verdict"] == "refuted"
    assert (
        items["theory_4"]["verdict"]
        == items["step_2"]["verdict"]
        == items["difference_initialisation"]["verdict"]
        == "refuted"
    )
    assert all(
        items[name]["n"] == 8 and items[name]["interval"]
        for name in ("garbage_audio", "theory_1", "theory_2", "theory_3", "theory_4")
    )


def test_a_model_that_is_not_ours_is_healthy_and_its_planted_fault_is_named_though_the_loss_falls(
    run,
):
    found, items = (
        metrics(run, "08"),
        {item["id"]: item["verdict"] for item in verdict(run, "08")["items"]},
    )
    assert (
        items["diagnosis_healthy"]
        == items["diagnosis_planted"]
        == items["diagnosis_planted_is_silent"]
        == "supported"
    )
    assert found["sound_findings"] == 0 and found["planted_rank"] == 1
    assert max(found["sound_tf_over_constant"], found["planted_tf_over_constant"]) < 0.5
    page = (run[0] / "diagnosis" / "tacotron2_with_one_fault.html").read_text()
    assert (
        "optimizer.missing_parameters, confirmed, at <code>encoder</code>" in page
        and not re.search(r"<script|src=.http", page)
    )
    assert "named by the diagnosis" in verdict(run, "09")["answer"]


def test_findings_come_from_the_verdicts(run):
    items = [item for number in NOTEBOOKS[:-1] for item in verdict(run, number)["items"]]
    found = metrics(run, "09")
    assert (
        found["items"] == len(items) == found["supported"] + found["refuted"] + found["undecided"]
    )
    # every item of the findings is ruled on by some notebook
    assert set(SEED_ITEMS) <= {item["id"] for item in items}


def test_the_report_is_self_contained_and_shows_every_figure_and_player(run):
    out, _ = run
    report = (out / "report.html").read_text()
    assert "INCOMPLETE" not in report
    figures = [
        entry
        for file in sorted((out / "figures").glob("*.json"))
        for entry in json.loads(file.read_text())
    ]
    sounds = [
        entry
        for file in sorted((out / "audio").glob("*.json"))
        for entry in json.loads(file.read_text())
    ]
    assert len(figures) >= 20 and len(sounds) >= 10
    assert report.count("<img") == len(figures) and report.count("<audio") == len(sounds)
    assert not re.findall(r"(?:src|href)=[\"'](?!data:|#)", report)
    assert not re.search(r"<script", report)


def test_figures_and_sounds_are_not_empty(run):
    import matplotlib.image
    import soundfile

    out, _ = run
    for file in (out / "figures").glob("*.png"):
        picture = matplotlib.image.imread(file)
        assert picture.shape[1] > 400 and picture[..., :3].std() > 0.02, file.name
    for file in (out / "audio").glob("*.wav"):
        samples, rate = soundfile.read(file)
        assert rate == 22_050 and 0.001 < abs(samples).max() <= 1.0, file.name


def test_sentences_are_computed_from_the_numbers(run):
    assert f"TF L1 {metrics(run, '03')['healthy_tf_l1']:.3f}" in verdict(run, "03")["answer"]
    assert f"STOI {metrics(run, '07')['stoi_fr']:.3f}" in verdict(run, "07")["answer"]


def test_executed_notebooks_hold_pictures_and_players(run):
    out, _ = run
    for name, pictures, players in (
        ("01_check_data", 10, 1),
        ("03_overfit_one_clip", 8, 0),
        ("07_listen", 3, 1),
        ("08_diagnose_your_model", 2, 0),
    ):
        cells = json.loads((out / "notebooks" / f"{name}.ipynb").read_text())["cells"]
        data = [
            output["data"]
            for cell in cells
            for output in cell.get("outputs", [])
            if "data" in output
        ]
        assert sum("image/png" in entry for entry in data) >= pictures, name
        assert sum("<audio" in "".join(entry.get("text/html", "")) for entry in data) >= players, (
            name
        )
