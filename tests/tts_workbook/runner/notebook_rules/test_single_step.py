"""What notebook 02 rules: a model of the user's by itself, the presets by the findings' claims."""

import dataclasses

import pytest

from tests.tts_workbook.diagnosis.tiny_subject import Tiny, lab
from tts_workbook.faults.finding import Finding
from tts_workbook.measure.activations import Scales
from tts_workbook.measure.memory_response import CrossAttentionState
from tts_workbook.measure.module_audit import ModuleAudit, audit_modules
from tts_workbook.measure.optimizer_parity import StopPrecision
from tts_workbook.measure.scale_pairs import ScalePair
from tts_workbook.measure.step_parity import StepDifference
from tts_workbook.measure.updates_without import UpdateWithout
from tts_workbook.runner.notebook_rules.single_step import PAIR, PAIR_CLAIMS, OneStep, rule

MODULES = (
    "text_embedding",
    "encoder.layers.0.self_attention",
    "mel_projection_in",
    "decoder.norm",
    "mel_projection_out",
)
SAME = StepDifference(0.0, 0.0, 1.0, 0.0, {}, {})


def audit(text=1.0, decoder=2.0, duration=0.9):
    norm = {path: text if path.startswith(("text", "enc")) else decoder for path in MODULES}
    share = {
        "mel": {path: 1 - duration for path in MODULES},
        "duration": dict.fromkeys(MODULES, duration),
    }
    return ModuleAudit(
        modules={path: [f"{path}.weight"] for path in MODULES},
        norm={"mel": norm, "duration": norm, "total": norm},
        weights={"mel": 1.0, "duration": 1.0},
        unshown=0.0,
        share=share,
        cosine={},
        unreached=(),
        n_trained=len(MODULES),
        update_ratio=dict.fromkeys(MODULES, 1e-3),
    )


def both(value):
    return {name: value for name in PAIR}


def measured(**changes):
    """Both presets as a sound step is measured, eight pairs that differ as expected."""
    state = CrossAttentionState(1.0, 3.0, [1.0], [2.0], [0.8], [1.5], {}, 1.0, 1.0, 1.0)
    scales = Scales(
        {"memory": 3.0, "mel_projection_in": 1.0, "decoder.layers.0.cross_attention": 2.0},
        {},
        {},
        0.5,
    )
    left_out = UpdateWithout(16, {}, {"duration": {"mel_projection_in": 0.2}})
    low = dataclasses.replace(SAME, gradient=0.02)
    keys = [(name, precision) for name in PAIR for precision in ("bf16", "fp16")]
    floors = {"weights rounded": low, "gradient rounded": dataclasses.replace(SAME, gradient=1e-3)}
    pair = ScalePair(-0.5, 0.0, -1.5, 0.5, 0.3, 0.6, 0.1)
    values = dict(
        audits=both(audit()),
        where="clip, profile quick, seed 0",
        over_batch=both(audit()),
        n_clips=32,
        text_share=both(0.4),
        mel_path=both({"decoder.norm.weight": 1.0}),
        still={"healthy": {1.0: 1.0, 0.2: 0.5, 0.0: 0.01}},
        without=both({16: left_out}),
        clip_gaps=both({"no clip": 0.3, "clip 1.0, nudged": 0.001}),
        scales=both(scales),
        memory=both(state),
        parity={key: low for key in keys},
        floors={key: floors for key in keys},
        stop={
            (name, label, "bf16"): StopPrecision(1.0, 1.01, 1e-3, 1e-5)
            for name in PAIR
            for label in ("fresh", "trained")
        },
        ways={"checkpointing, dropout 0": SAME, "loss scale 1,024": SAME},
        accumulated=SAME,
        n_parts=4,
        cleared={"zeros": 0.0, "nothing": 1e-3},
        adamw=both(1e-5),
        pairs=[dataclasses.replace(pair, thinnest=-1.5 - 0.01 * index) for index in range(8)],
    )
    return OneStep(**{**values, **changes})


def verdicts(found):
    return {item.id: item.verdict for item in rule(found).items}


def test_a_sound_step_refutes_every_claim_of_a_difference():
    found = verdicts(measured())
    assert set(PAIR_CLAIMS) < set(found) and len(found) == 21
    for name in ("fixed_grad_scaler", "difference_gradient_checkpointing", "accumulation"):
        assert found[name] == "refuted"
    assert found["step_3"] == found["question_3"] == found["fixed_clipping"] == "supported"
    assert found["suspect_1_first_step"] == found["scale_thins_the_mel_path"] == "supported"
    assert found["scale_starves_text"] == "refuted"
    assert found["tiny_mel_gradient"] == "refuted"


@pytest.mark.parametrize(
    "changes, id, verdict",
    [
        (dict(ways={"checkpointing": dataclasses.replace(SAME, gradient=1e-3), "loss scale": SAME}),
         "difference_gradient_checkpointing", "supported"),
        (dict(accumulated=dataclasses.replace(SAME, gradient=1e-3)), "accumulation", "supported"),
        (dict(n_parts=1), "accumulation", "undecided"),
        (dict(cleared={"zeros": 1e-3, "nothing": 1e-3}), "fixed_zero_grad", "supported"),
        # the control does not see what piles up
        (dict(cleared={"zeros": 0.0, "nothing": 0.0}), "fixed_zero_grad", "undecided"),
        (dict(clip_gaps=both({"no clip": 0.3, "clip 1.0, nudged": 0.2})),
         "fixed_clipping", "undecided"),
        (dict(clip_gaps=both({"no clip": 0.0, "clip 1.0, nudged": 0.0})),
         "fixed_clipping", "refuted"),
        (dict(adamw=both(0.1)), "fixed_optimizer_settings", "supported"),
        (dict(n_clips=2), "step_4", "undecided"),
        (dict(mel_path=both({"decoder.norm.weight": 0.0})), "question_3", "refuted"),
        (dict(audits=both(audit(decoder=0.0))), "step_3", "refuted"),
        (dict(audits=both(audit(duration=0.3))),
         "duration_rules_the_text_side", "refuted"),
        (dict(still={"healthy": {1.0: 1.0, 0.0: 0.5}}), "tiny_mel_gradient", "undecided"),
    ],
)  # fmt: skip
def test_each_claim_turns_with_its_number(changes, id, verdict):
    assert verdicts(measured())[id] != verdict
    assert verdicts(measured(**changes))[id] == verdict


def test_a_model_of_ones_own_is_ruled_on_by_itself():
    findings = (
        Finding("loop.no_step", "excluded", "weights before and after", {"calls": 2.0}),
        Finding("loop.accumulation", "confirmed", "two halves", where="step", strength=1.0),
        Finding("loop.weights_not_loaded", "not applicable", "not applicable: supply it"),
    )
    where = "mine.py:subject, profile smoke, seed 0"
    found = OneStep(
        {"mine.py:subject": audit_modules(lab())}, where, findings={"mine.py:subject": findings}
    )
    ruling = rule(found)
    assert ruling.answer.startswith("mine.py:subject: At fresh weights the gradient reaches all")
    assert ruling.answer.endswith("1 are ruled out. Confirmed: loop.accumulation.")
    by_id = {item.id: item for item in ruling.items}
    assert by_id["gradient_reaches_everything"].verdict == "supported"
    assert by_id["loop_no_step"].verdict == "supported"
    assert by_id["loop_no_step"].provenance == "excluded. weights before and after: calls 2"
    assert by_id["loop_accumulation"].verdict == "refuted"
    assert "Fix: " in by_id["loop_accumulation"].provenance
    assert by_id["loop_weights_not_loaded"].provenance == "not applicable: supply it"
    assert ruling.metrics["unreached_tensors"] == 0
    assert 0 < ruling.metrics["smallest_update_ratio"] <= ruling.metrics["largest_update_ratio"] < 1


def test_a_layer_that_nothing_runs_through_is_named():
    import torch

    class WithSpare(Tiny):
        def __init__(self):
            super().__init__()
            self.spare = torch.nn.Linear(4, 4)

    ruling = rule(OneStep({"a": audit_modules(lab(WithSpare))}, "a, profile smoke, seed 0"))
    assert ruling.metrics["unreached_tensors"] == 2
    assert ruling.items[0].verdict == "refuted"
    assert "misses 2 of" in ruling.answer and "spare.weight first" in ruling.answer


def test_a_gradient_that_is_not_finite_decides_nothing():
    def broken(model, batch):
        total = model(batch).float().mean() * float("nan")
        return {"mel": total, "total": total}

    ruling = rule(OneStep({"a": audit_modules(lab(losses=broken))}, "a, profile smoke, seed 0"))
    assert "the gradient is not finite, and no optimiser step was seen" in ruling.answer
    assert ruling.items[0].verdict == "undecided"


def test_several_subjects_stand_side_by_side_with_names_of_their_own():
    two = dict.fromkeys(("a.py:one", "b.py:two"), audit_modules(lab()))
    ruling = rule(OneStep(two, "a.py:one, b.py:two, profile smoke, seed 0"))
    assert {"a_py_one_trained_tensors", "b_py_two_trained_tensors"} <= set(ruling.metrics)
    assert len({item.id for item in ruling.items}) == 2
    beside = rule(measured(audits={**both(audit()), "a.py:one": audit()}))
    assert {"clips_in_batch", "a_py_one_trained_tensors"} <= set(beside.metrics)
    assert beside.items[-1].id == "gradient_reaches_everything"
