"""No verdict is a constant: every claim can come out supported and refuted, by its numbers
alone.
"""

import dataclasses

import pytest

from tts_core.config import AudioConfig, preset
from tts_core.speech.bundled import bundled_voice
from tts_core.speech.dataset import load_corpus
from tts_workbook.runner.notebook_rules.ablation import (
    CLAIMS,
    against,
    answer,
    recorded_studies,
    rule,
    single_factors,
)
from tts_workbook.runner.notebook_rules.effect_items import effect_item, unanimous_item
from tts_workbook.runner.verdicts import Item
from tts_workbook.trials.executors import run_trials
from tts_workbook.trials.paired_effects import MARGINS, effect
from tts_workbook.trials.store import Store
from tts_workbook.trials.studies import PAIR_CLIPS, STUDIES, study_trials
from tts_workbook.trials.study_arms import change
from tts_workbook.trials.study_records import read_study_record, write_study_record
from tts_workbook.trials.trial import make_trial
from tts_workbook.trials.trial_result import TrialResult

MEASURES = {
    "outcome": 0.8,
    "final_over_constant": 0.8,
    "fr_over_constant": 0.8,
    "fr_seed_layout_over_constant": 0.8,
    "text_use": 1.0,
    "stoi": 0.8,
    "stoi_seed_layout": 0.8,
    "wer": 0.3,
    "wer_seed_layout": 0.3,
    "plateau_steps": 0.0,
    "plateau_first": None,
    "leave_step": 100.0,
}


@pytest.fixture(scope="module")
def records():
    """Every study with numbers that say nothing: all arms alike."""
    return {
        name: [
            TrialResult(dataclasses.replace(trial, name=arm), dict(MEASURES), {})
            for arm, trial in study_trials(study)
        ]
        for name, study in STUDIES.items()
    }


def moved(records, study, arms, measures):
    """The records with `measures` (name -> summand or value for None) changed in some arms; pairs
    differ a little.
    """
    results = [
        (
            dataclasses.replace(
                result,
                measures={
                    **result.measures,
                    **{
                        name: (
                            value
                            if result.measures[name] is None or name.startswith("plateau")
                            else result.measures[name]
                            + value
                            + 0.001 * result.trial.experiment.fit.seed
                        )
                        for name, value in measures.items()
                    },
                },
            )
            if result.trial.name in arms
            else result
        )
        for result in records[study]
    ]
    return {**records, study: results}


def verdict_on(records, id):
    return next(item for item in rule(records) if item.id == id).verdict


# id -> (study, arm, measure, sign of the change that supports the claim)
EFFECTS = {
    "theory_1": ("theories", "theory_1_four_copies", "outcome", -1),
    "theory_2": ("theories", "theory_2_custom_initialisation", "outcome", 1),
    "theory_3": ("theories", "theory_3_lr_4e-4", "outcome", -1),
    "theory_3_lr_5e_4": ("theories", "theory_3_lr_5e-4", "outcome", -1),
    "theory_3_free_running": ("theories", "theory_3_lr_5e-4", "fr_over_constant", -1),
    "theory_4": ("theories", "theory_4_no_weight_decay", "outcome", -1),
    "theory_5": ("theories", "theory_5_half_the_frames_hidden", "outcome", -1),
    "theory_5_text_use": ("repairs", "history_dropout", "text_use", 1),
    "step_1": ("seed_size", "base", "final_over_constant", 1),
    "step_2": ("theories", "theory_4_no_weight_decay", "fr_over_constant", -1),
    "question_4": ("breaks", "learning_rate", "outcome", 1),
    "difference_initialisation": ("breaks", "duration_initialisation", "outcome", 1),
    "fixed_clipping_trained": ("theories", "difference_no_clipping", "outcome", 1),
    "fixed_mixed_precision_trained": ("theories", "difference_bf16", "outcome", 1),
    "suspect_1": ("repairs", "memory_norm", "text_use", 1),
    "suspect_1_scale": ("repairs", "memory_scale", "text_use", 1),
    "suspect_2": ("theories", "theory_3_lr_4e-4", "text_use", 1),
    "suspect_3": ("theories", "theory_2_custom_initialisation", "outcome", 1),
    "memory_norm_at_7e_5": ("theories", "memory_norm", "outcome", -1),
    "garbage_audio": ("breaks", "memory_norm", "fr_over_constant", 1),
    "garbage_audio_words": ("breaks", "memory_norm", "wer", 1),
    "garbage_audio_stoi": ("breaks", "memory_norm", "stoi", -1),
    "garbage_audio_layout": ("breaks", "base", "fr_seed_layout_over_constant", 1),
    "garbage_audio_layout_words": ("breaks", "base", "wer_seed_layout", 1),
    "garbage_audio_layout_stoi": ("breaks", "base", "stoi_seed_layout", -1),
    "garbage_audio_interaction": ("breaks", "memory_norm", "fr_seed_layout_over_constant", 1),
    "norm_by_standardisation_repair": (
        "repairs",
        "memory_norm and standardise_targets",
        "outcome",
        1,
    ),
    "norm_by_standardisation_break": (
        "breaks",
        "memory_norm and standardise_targets",
        "fr_over_constant",
        1,
    ),
}


def test_every_claim_is_covered_here():
    assert {claim.id for claim in CLAIMS} == {*EFFECTS, "sticks_to_the_end"}
    assert len({claim.id for claim in CLAIMS}) == len(CLAIMS)


CLAIMS_THAT_NOTHING_DIFFERS = {"garbage_audio_interaction"}


@pytest.mark.parametrize("id", EFFECTS)
def test_flipping_the_numbers_flips_the_verdict(records, id):
    study, arm, measure, sign = EFFECTS[id]
    moved_verdict, still_verdict = (
        ("refuted", "supported") if id in CLAIMS_THAT_NOTHING_DIFFERS else ("supported", "refuted")
    )
    assert verdict_on(moved(records, study, [arm], {measure: sign * 0.6}), id) == moved_verdict
    assert verdict_on(records, id) == still_verdict


def test_a_loss_that_sticks_to_the_end_is_found_and_one_that_leaves_is_not(records):
    assert verdict_on(records, "sticks_to_the_end") == "refuted"
    stuck = moved(
        records, "dose", ["memory_scale 4"], {"plateau_steps": 700.0, "plateau_first": 101.0}
    )
    assert verdict_on(stuck, "sticks_to_the_end") == "supported"
    left = moved(
        records,
        "dose",
        ["memory_scale 4"],
        {"plateau_steps": 300.0, "plateau_first": 101.0, "final_over_constant": -0.3},
    )
    assert verdict_on(left, "sticks_to_the_end") == "refuted"
    wobbles = moved(
        records,
        "dose",
        ["memory_scale 4"],
        {"plateau_steps": 300.0, "plateau_first": 101.0, "final_over_constant": 0.19},
    )
    assert verdict_on(wobbles, "sticks_to_the_end") == "supported"


def test_few_runs_rule_only_if_they_are_three_and_agree():
    def verdict(*values):
        return unanimous_item(
            "x", "all lie above", values, 0.95, "unit", "source", "more runs"
        ).verdict

    assert verdict(1.0, 1.1, 0.96) == "supported" and verdict(0.5, 0.6, 0.7) == "refuted"
    assert verdict(1.0, 0.9, 1.1) == verdict(1.0, 1.1) == "undecided"


def test_scatter_as_large_as_the_effect_leaves_it_undecided(records):
    results = [
        (
            dataclasses.replace(
                result,
                measures={
                    **result.measures,
                    "outcome": 0.8 + 0.2 * (-1) ** result.trial.experiment.fit.seed,
                },
            )
            if result.trial.name == "theory_4_no_weight_decay"
            else result
        )
        for result in records["theories"]
    ]
    assert verdict_on({**records, "theories": results}, "theory_4") == "undecided"


def test_an_absent_study_leaves_its_items_undecided_with_the_reason(records):
    items = {
        item.id: item for item in rule({name: records[name] for name in ("breaks", "repairs")})
    }
    assert len(items) == len(CLAIMS)
    assert (
        items["theory_1"].verdict == "undecided" and "not measured" in items["theory_1"].provenance
    )
    assert items["garbage_audio"].verdict == "refuted"


def test_single_factors_are_ranked_strongest_first(records):
    harmed = moved(
        moved(records, "breaks", ["memory_norm"], {"fr_over_constant": 0.9}),
        "breaks",
        ["dropout"],
        {"fr_over_constant": 0.4},
    )
    found = single_factors(harmed, "breaks", "fr_over_constant", "increase")
    assert list(found)[:2] == ["memory_norm", "dropout"] and set(found) == set(against("breaks"))
    items = list(found.values())
    assert items[0].id == "breaks_memory_norm_fr_over_constant"
    assert items[0].verdict == "supported" and items[-1].verdict == "refuted"
    assert "by clip" in items[0].provenance and "Holm" in items[0].provenance
    assert single_factors({}, "breaks", "fr_over_constant", "increase") == {}


def test_the_answer_names_the_strongest_confirmed_break_and_repair_and_counts_the_claims():
    def ruled(id, verdict, effect=None, interval=None):
        return Item(id, "a claim", verdict, effect, interval=interval, refuting_experiment="x")

    breaks = {
        "go_frame": ruled("a", "undecided", 2.0, (0.0, 4.0)),
        "memory_norm": ruled("b", "supported", 1.16, (0.99, 1.32)),
        "dropout": ruled("c", "supported", 0.4, (0.3, 0.5)),
    }
    repairs = {"memory_scale": ruled("d", "supported", 0.69, (0.43, 0.96))}
    said = answer([ruled("e", "refuted")], breaks, repairs)
    assert "strongest single break is memory norm: it raises the free-running error by 1.16" in said
    assert "is memory scale: text use +0.69 (95 %: +0.43 to +0.96)" in said
    assert "Of 5 claims 3 are supported, 1 refuted, 1 undecided." in said
    assert answer([], {}, {}) == (
        "No single break was confirmed. No single repair made the failing model read."
        " Of 0 claims 0 are supported, 0 refuted, 0 undecided."
    )


def test_the_recorded_studies_are_whole_or_said_to_be_absent():
    records, provenance, absent = recorded_studies(STUDIES)
    assert set(records) | set(absent) == set(STUDIES)
    for name, results in records.items():
        assert {"command", "commit", "device", "date", "versions"} <= set(provenance[name])
        assert all(result.measures["outcome"] is not None for result in results)
        assert not any("/" in clip.root for result in results for clip in result.trial.clips)


def test_a_study_without_one_of_its_arms_is_said_to_be_half_recorded(
    records, tmp_path, monkeypatch
):
    whole = [
        dataclasses.replace(result, provenance={"device": "cpu"}) for result in records["breaks"]
    ]
    monkeypatch.setattr(
        "tts_workbook.runner.notebook_rules.ablation.read_study_record",
        lambda name: read_study_record(name, tmp_path),
    )
    write_study_record(
        "breaks",
        [result for result in whole if result.trial.name != "dropout"],
        {"command": "x"},
        tmp_path,
    )
    found, _, absent = recorded_studies(["breaks", "dose"])
    assert (
        found == {}
        and "half recorded, without dropout" in absent["breaks"]
        and "no recorded study" in absent["dose"]
    )
    write_study_record("breaks", whole, {"command": "x"}, tmp_path)
    assert set(recorded_studies(["breaks"])[0]) == {"breaks"}


def test_two_verdicts_recomputed_from_scratch_follow_the_training(tmp_path):
    """Eight pairs at smoke size: copies of the clip change nothing (refuted), a working learning
    rate does (supported).
    """
    trials = []
    for voice, clip_id in PAIR_CLIPS:
        corpus = load_corpus(bundled_voice(voice), AudioConfig(), only=clip_id)
        for seed in range(4):
            base = preset(
                "healthy",
                corpus.vocabulary.get_vocab_size(),
                "smoke",
                steps=12,
                lr=1e-5,
                seed=seed,
                precision="fp32",
            )
            for name, experiment, copies in (
                ("base", base, 1),
                ("copies", base, 2),
                ("rate", change(base, {"optimizer.lr": 5e-3}), 1),
            ):
                trials.append(
                    make_trial(
                        corpus.clips, corpus.vocabulary, experiment, copies=copies, name=name
                    )
                )
    results = run_trials(trials, Store(tmp_path), executor="inline")
    copies = effect_item(
        "theory_1",
        "copies lower the curve",
        effect(results, "copies", "base"),
        "decrease",
        "smoke",
        "more",
    )
    rate = effect_item(
        "theory_3",
        "a higher rate lowers the curve",
        effect(results, "rate", "base"),
        "decrease",
        "smoke",
        "more",
    )
    assert copies.verdict == "refuted" and abs(copies.effect) < 1e-4 and copies.n == 8
    assert rate.verdict == "supported" and rate.interval[1] < -MARGINS["outcome"]
    turned = effect_item(
        "theory_3",
        "a higher rate lowers the curve",
        effect(results, "base", "rate"),
        "decrease",
        "smoke",
        "more",
    )
    assert turned.verdict == "refuted"
