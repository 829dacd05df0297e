"""What the benchmarks count: the work of a step against PyTorch's own counter, memory against what
is known.
"""

import dataclasses
from types import SimpleNamespace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import corpus_training
from benchmarks.contenders import Contender, our_step, plain_step, tacotron_step
from benchmarks.scaling import Machine, best_arm, checks, fit_here
from benchmarks.step import RESULT, WRITTEN
from benchmarks.timing import interleaved_medians, saved_bytes
from benchmarks.work import work
from tests.conftest import make_batch, make_experiment, make_model
from tts_core.atomic_files import read_json
from tts_core.errors import WorkbookError
from tts_core.training.corpus.options import TrainConfig
from tts_core.training.losses import losses


@pytest.mark.parametrize("n_clips", [1, 3])
def test_the_counted_work_is_pytorchs_own_count(n_clips):
    """But for attention, of which we count the half that the causal mask leaves, and for the
    backward passes that nothing needs.
    """
    batch = make_batch([[7, 12, 9, 5, 20, 11]] * n_clips)
    model = make_model(make_experiment(dropout=0.0), batch)
    for layer in (*model.encoder.layers, *model.decoder.layers):
        for name, module in layer.named_children():
            if name.endswith("attention"):
                # scores as plain products, which the counter sees on every device
                module.record = True
    with FlopCounterMode(display=False) as counter:
        losses(model, batch)["total"].backward()
    counted = work(model.config, 0, n_clips, batch.phonemes.shape[1], batch.mel.shape[1])
    # self-attention computed whole is twice its causal half
    whole = counted.linear + counted.attention * 4 / 3
    assert counter.get_total_flops() == pytest.approx(whole, rel=0.1)


def test_saved_bytes_counts_what_backward_keeps_once():
    x = torch.ones(10, 10, requires_grad=True)
    assert saved_bytes(lambda: x.sin().sum()) == 400  # the input of sin
    # one storage, however often it is kept
    assert saved_bytes(lambda: (x.sin() + x.sin()).sum()) == 400
    assert saved_bytes(lambda: (x + 1).sum()) == 0


def test_contenders_take_turns():
    calls = []
    seconds = interleaved_medians(
        {name: lambda name=name: calls.append(name) for name in "ab"}, repeats=2
    )
    assert (
        calls == ["a", "b"] * 3
        and set(seconds) == {"a", "b"}
        and all(value >= 0 for value in seconds.values())
    )


def test_a_contender_is_known_by_its_fields_and_recorded_by_its_label():
    ours = Contender("ours", "bf16", micro_batches=4)
    assert ours.label == "ours, bf16, 4 micro-batches"
    assert ours.counterpart.label == "nn.Transformer, bf16, 4 micro-batches"
    assert Contender("ours", compiled=True).label == "ours, fp32, compiled"
    assert Contender("ours", keys_by_phoneme=True).label == "ours, fp32, keys by phoneme"
    assert Contender("Tacotron 2").label == "Tacotron 2"


def test_the_recorded_steps_are_still_found_by_their_labels():
    measured = read_json(RESULT)["cpu"]
    for row in measured["steps"]:
        assert best_arm(row) in row["operations"] and WRITTEN in row["frames_per_second"]
    assert 0 < fit_here(measured).share < 1


def measured_rows(share, bandwidth):
    """Rows of `step.py` on a machine of which the estimate's formula is true."""
    rows = []
    for profile, clips, operations, n_parameters in (
        ("seed", 32, 2e12, 4.6e7),
        ("seed", 1, 5e10, 4.6e7),
        ("quick", 32, 2e11, 3e6),
        ("quick", 1, 4e9, 3e6),
    ):
        arms = {"ours, fp32": operations * 1.5} | (
            {"ours, fp32, 4 micro-batches": operations} if clips > 1 else {}
        )
        seconds = {
            arm: value / (share * 1e11) + 36 * n_parameters / bandwidth
            for arm, value in arms.items()
        }
        rows.append(
            {
                "profile": profile,
                "clips": clips,
                "valid_frames": 1000,
                "operations": arms,
                "parameters": n_parameters,
                "parameter_bytes": 36 * n_parameters,
                "frames_per_second": {arm: 1000 / value for arm, value in seconds.items()},
            }
        )
    return {"matmul_peak": {"fp32": 1e11}, "bandwidth": bandwidth, "steps": rows}


def test_the_estimate_finds_the_share_of_a_machine_that_is_as_it_supposes():
    measured = measured_rows(share=0.6, bandwidth=2e10)
    here = fit_here(measured)
    assert here.share == pytest.approx(0.6)
    assert [row["estimated"] for row in checks(measured, here)] == pytest.approx(
        [row["measured"] for row in checks(measured, here)]
    )
    assert best_arm(measured["steps"][0]) == "ours, fp32, 4 micro-batches"


def test_devices_divide_the_products_and_pay_for_the_gradients():
    one, eight = Machine(1e12, 1e11, 0.5), Machine(1e12, 1e11, 0.5, devices=8, link=1e10)
    assert one.step_seconds(1e12, 1e9, 10**7) == pytest.approx(2 + 0.01)
    slow = Machine(1e12, 1e11, 0.5, launch=1e-3)
    # nothing to compute, much to launch
    assert slow.step_seconds(1e6, 0.0, 1, n_launches=2000) == pytest.approx(2.0)
    assert eight.step_seconds(1e12, 1e9, 10**7) == pytest.approx(
        0.25 + 0.01 + 2 * 7 / 8 * 4e7 / 1e10
    )


def test_contenders_make_one_optimiser_step_each(monkeypatch):
    """Micro-batches too: four steps would be another training, with the optimiser's work four
    times.
    """
    batches = [make_batch([[7, 12, 9]]), make_batch([[5, 20], [6, 8, 2]], seed=2)]
    steps, step = [], torch.optim.AdamW.step
    monkeypatch.setattr(
        torch.optim.AdamW,
        "step",
        lambda optimizer, *given: (steps.append(optimizer), step(optimizer, *given)),
    )
    experiment = make_experiment(dropout=0.0)
    for contender in (
        our_step(experiment, make_model(experiment, batches[0]), batches),
        plain_step(experiment.model, batches),
        plain_step(experiment.model, batches[1:], "bf16"),
        tacotron_step(experiment.model.vocab_size, batches[1]),
    ):
        steps.clear()
        contender()
        assert len(steps) == 1


def test_micro_batches_of_the_plain_transformer_are_one_batch_but_for_rounding(monkeypatch):
    """Or the peers would be measured on another optimiser step than ours."""
    rows = [[7, 12, 9], [5, 20, 4]]
    whole, parts = make_batch(rows), [make_batch(rows[:1]), make_batch(rows[1:])]
    parts = [
        dataclasses.replace(
            part, phonemes=whole.phonemes[i : i + 1], mel=whole.mel[i : i + 1, : part.mel.shape[1]]
        )
        for i, part in enumerate(parts)
    ]
    gradients = []
    monkeypatch.setattr(
        torch.optim.AdamW,
        "step",
        lambda optimizer: gradients.append(
            [p.grad.clone() for p in optimizer.param_groups[0]["params"]]
        ),
    )
    for batches in ([whole], parts):
        torch.manual_seed(3)
        plain_step(make_experiment(dropout=0.0).model, batches)()
    for one, several in zip(*gradients, strict=True):
        assert torch.allclose(one, several, atol=1e-6)
    assert any(one.abs().max() > 1e-3 for one in gradients[0])


def test_hours_of_a_training_are_its_frames_over_its_pace():
    """Two epochs of three clips, two a step: the log's lines tell how fast, the plan how much."""
    item = [SimpleNamespace(n_frames=frames) for frames in (100, 200, 300)]
    train = TrainConfig(batch_clips=2, steps=4, warmup_steps=0)
    log = [{"step": 2, "frames_per_second": 600.0}, {"step": 4, "frames_per_second": 300.0}]
    assert corpus_training.training_hours(train, SimpleNamespace(train=item), log) == pytest.approx(
        (600 / 600 + 600 / 300) / 3600
    )


def test_word_error_rates_count_by_words_and_a_clip_without_speech_counts_whole():
    rows = {
        "a": {"words": 1, "fr_wer": 0.0},
        "b": {"words": 3, "fr_wer": 1 / 3, "inference_wer": 0.0},
    }
    assert corpus_training.weighted(rows, "fr_wer") == pytest.approx(1 / 4)
    # "a" said nothing
    assert corpus_training.weighted(rows, "inference_wer") == pytest.approx(1 / 4)
    assert corpus_training.weighted({}, "fr_wer") is None


def test_a_run_that_never_validated_is_refused(tmp_path):
    with pytest.raises(WorkbookError, match=r"no best\.safetensors"):
        corpus_training.judge_run(tmp_path, tmp_path)
