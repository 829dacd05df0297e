"""What notebook 04 rules: the presets by copies and records, a model of the user's by itself."""

import pytest
import torch

from tests.tts_workbook.diagnosis.tiny_subject import lab, losses
from tts_workbook.measure.duplication import (
    Duplication,
    GradientNoise,
    beside_rounding,
    measure_duplication,
)
from tts_workbook.measure.padding import measure_padding
from tts_workbook.measure.supply import NotMeasured
from tts_workbook.runner.notebook_rules.copies_and_batches import COMPARED, CopiesAndBatches, rule
from tts_workbook.trials.batch_comparison import BatchComparison, BatchOfOne

NOISE = {
    k: GradientNoise(k, 10, 1 / k**0.5, {"weight": torch.ones(1, dtype=torch.float64)})
    for k in (1, 4)
}


def measured(change=0.0, **changes):
    """Both presets, with copies that change every tensor by `change`; nothing is recorded."""
    copied = {
        (name, dtype, k): Duplication(k, kind, change, change, {"weight": change}, ())
        for name in ("seed", "healthy")
        for dtype, kind in (("fp64", torch.float64), ("fp32", torch.float32))
        for k in (1, 2)
    }
    values = dict(
        where="clip, profile quick, seed 0",
        dropout=0.1,
        copied=copied,
        noise={"seed": NOISE, "healthy": NOISE},
        compared={name: None for name in COMPARED},
        reasons={name: "`make evidence` makes it" for name in COMPARED},
        why_not="`make evidence` makes it",
    )
    return CopiesAndBatches(**{**values, **changes})


def items_of(found):
    return {item.id: item for item in rule(found).items}


def test_without_records_copies_are_ruled_on_and_the_rest_is_undecided_with_the_reason():
    ruling, items = rule(measured()), items_of(measured())
    assert items["duplicates_change_nothing"].verdict == "supported"
    for name in (*COMPARED, "question_2"):
        assert items[name].verdict == "undecided" and "make evidence" in items[name].provenance
    assert ruling.answer.count("undecided") == 3 and "its mean stays" in ruling.answer
    assert ruling.metrics["seed_noise_slope"] < -0.4


@pytest.mark.parametrize("change, verdict", [(1e-10, "supported"), (1e-8, "refuted")])
def test_a_tensor_that_moves_in_fp64_refutes(change, verdict):
    assert items_of(measured(change))["duplicates_change_nothing"].verdict == verdict


@pytest.mark.parametrize(
    "batch, single, verdict",
    [(1.0, 1.5, "supported"), (1.5, 1.0, "refuted"), (1.0, 1.0, "refuted")],
)
def test_recorded_batches_flip_claim_and_sentence(batch, single, verdict):
    compared = BatchComparison("steps", 400, (batch,) * 4, (single,) * 8, 0, 0)
    found = measured(compared={name: compared for name in COMPARED}, origin={"commit": "abc123"})
    items = items_of(found)
    assert items["difference_batch_size"].verdict == items["question_1"].verdict == verdict
    assert "abc123" in items["question_1"].provenance
    words = {"supported": "clips lower the loss", "refuted": "clips do not lower the loss"}
    assert words[verdict] in rule(found).answer


@pytest.mark.parametrize("verdict, words", [("refuted", "does not break"), ("supported", "breaks")])
def test_sound_runs_decide_about_batch_size_one(verdict, words):
    found = measured(alone=BatchOfOne((0.1,) * 8, 0.1, (0.1, 0.1), verdict))
    assert items_of(found)["question_2"].verdict == verdict
    assert f"batch size 1 {words} learning" in rule(found).answer


# --- a model of the user's ------------------------------------------------------------------------


def pad(batch, n):
    mel = torch.nn.functional.pad(batch["mel"], (0, 0, 0, n))
    return {**batch, "mel": mel}


def copies_of(opened):
    single = {k: measure_duplication(opened, k, torch.float32) for k in (2, 8)}
    return beside_rounding(opened, single)


def alone(opened, **changes):
    values = dict(
        copies={"mine.py:a": copies_of(opened)},
        padding={"mine.py:a": measure_padding(opened).equivalence},
    )
    where = "mine.py:a, profile smoke, seed 0"
    return CopiesAndBatches(where=where, dropout=0.1, **{**values, **changes})


def test_a_sound_model_of_ones_own_bears_copies_and_padding():
    ruling = rule(alone(lab(pad=pad)))
    assert ruling.answer.startswith("mine.py:a: Copies change nothing beyond rounding")
    assert {item.id: item.verdict for item in ruling.items} == {
        "copies_change_nothing": "supported",
        "padding_changes_nothing": "supported",
    }
    assert ruling.metrics["copies_8_gradient"] <= ruling.metrics["copies_bar"] < 1e-3
    assert "padding_8_loss" in ruling.metrics


def test_a_sum_over_clips_and_a_mean_over_padding_are_caught():
    def summed(model, batch):
        terms = losses(model, batch)
        return {"mel": terms["mel"], "total": terms["total"] * len(batch["lengths"])}

    def over_padding(model, batch):
        error = (model(batch).float() - batch["mel"]).abs().mean()
        return {"mel": error, "total": error}

    ruling = rule(alone(lab(pad=pad, losses=summed)))
    assert "Copies CHANGE loss or gradient" in ruling.answer
    changes = [ruling.metrics[f"copies_{k}_loss"] for k in (2, 8)]
    assert changes == pytest.approx([1, 7], rel=1e-4)
    items = {item.id: item.verdict for item in ruling.items}
    assert items == {"copies_change_nothing": "refuted", "padding_changes_nothing": "supported"}
    items = items_of(alone(lab(pad=pad, losses=over_padding)))
    assert items["padding_changes_nothing"].verdict == "refuted"
    assert items["copies_change_nothing"].verdict == "supported"


def test_what_was_not_measured_is_undecided_with_what_to_supply():
    with pytest.raises(NotMeasured, match=r"supply Subject\.pad = \(batch, n\)") as reason:
        measure_padding(lab())
    found = alone(lab(pad=pad), padding={}, no_padding={"mine.py:a": str(reason.value)})
    item = items_of(found)["padding_changes_nothing"]
    assert item.verdict == "undecided" and item.provenance.startswith("not judged: supply Subject.")
    assert "Padded frames are not judged: supply Subject.pad" in rule(found).answer


def test_several_subjects_have_items_and_metrics_of_their_own():
    one = copies_of(lab())
    lacking = {"a.py:a": "supply it", "b.py:b": "supply it"}
    found = measured(copies={"a.py:a": one, "b.py:b": one}, no_padding=lacking)
    ruling = rule(found)
    ids = [item.id for item in ruling.items]
    assert len(set(ids)) == len(ids) == 9 and "copies_change_nothing_a_py_a" in ids
    assert {"copies_fp64", "a_py_a_copies_bar", "b_py_b_copies_bar"} <= set(ruling.metrics)
