"""THE train step: it moves every weight, accumulates exactly, and refuses what is not finite."""

import math

import pytest
import torch

from tests.conftest import make_batch, make_experiment, make_model
from tts_core.errors import WorkbookError
from tts_core.speech.batch import Batch
from tts_core.training.precision import choose_precision
from tts_core.training.state import start_training
from tts_core.training.step import train_step


def run_step(training, batches, **options):
    precision = choose_precision(training.experiment.fit.precision)
    return train_step(
        training.model,
        training.optimizer,
        batches,
        training.experiment.loss,
        precision,
        training.scaler,
        **options,
    )


def test_every_parameter_moves(batch):
    experiment = make_experiment()
    training = start_training(experiment, make_model(experiment, batch))
    before = {name: p.detach().clone() for name, p in training.model.named_parameters()}
    run_step(training, batch)
    still = [name for name, p in training.model.named_parameters() if torch.equal(p, before[name])]
    assert still == []
    # zero_grad(set_to_none=True)
    assert all(p.grad is None for p in training.model.parameters())


def test_step_is_autograd_plus_clip_plus_adamw(batch):
    """The step against the same thing written out with torch alone."""
    experiment = make_experiment()
    training = start_training(experiment, make_model(experiment, batch))
    report = run_step(training, batch, clip_norm=0.5)

    model = make_model(experiment, batch)
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=experiment.optimizer.lr,
        weight_decay=experiment.optimizer.weight_decay,
    )
    output, valid = model(batch), batch.mel_mask
    target = model.normaliser.normalise(batch.mel)
    last = torch.zeros_like(output.stop_logits)
    last[torch.arange(2), batch.mel_lengths - 1] = 1.0
    duration_error = (output.log_durations - batch.durations.float().log1p())[batch.phoneme_mask]
    loss = (
        (output.model_mel - target)[valid].abs().mean()
        + duration_error.square().mean()
        + 0.1
        * torch.nn.functional.binary_cross_entropy_with_logits(
            output.stop_logits[valid], last[valid]
        )
    )
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
    optimizer.step()
    assert report.total == pytest.approx(float(loss.detach()), rel=1e-5)
    assert report.gradient_norm == pytest.approx(float(norm), rel=1e-4) and report.clipped
    pairs = zip(training.model.named_parameters(), model.parameters(), strict=True)
    for (name, ours), theirs in pairs:
        # no gradient but rounding, which Adam turns into full steps
        if not name.endswith("key.bias"):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5, msg=name)


def test_accumulation_over_micro_batches_equals_one_big_batch():
    """Clips of different length: the mean must run over frames, not over micro-batches."""
    whole = make_batch([[2, 3, 4], [5, 1, 4, 4], [9]])
    parts = [single(whole, index) for index in range(3)]
    results = []
    for batches in ([whole], parts):
        experiment = make_experiment()
        training = start_training(experiment, make_model(experiment, whole).double())
        results.append(
            (
                run_step(training, [double(b) for b in batches], clip_norm=None),
                dict(training.model.named_parameters()),
            )
        )
    (a, weights_a), (b, weights_b) = results
    assert a.gradient_norm == pytest.approx(b.gradient_norm, rel=1e-6)
    assert (a.mel, a.duration, a.stop, a.total, a.valid_frames) == pytest.approx(
        (b.mel, b.duration, b.stop, b.total, b.valid_frames), rel=1e-6
    )
    for name, weight in weights_a.items():
        # no gradient but rounding, which Adam turns into full steps
        if not name.endswith("key.bias"):
            torch.testing.assert_close(weight, weights_b[name], rtol=1e-4, atol=1e-6)


def test_non_finite_loss_names_the_first_module(batch):
    experiment = make_experiment()
    training = start_training(experiment, make_model(experiment, batch))
    with torch.no_grad():
        training.model.decoder.layers[0].feed_forward[0].weight[0, 0] = math.inf
    with pytest.raises(
        WorkbookError, match=r"clip0.*not finite.*decoder\.layers\.0\.feed_forward\.0 \(Linear\)"
    ):
        run_step(training, batch)


def test_non_finite_gradient_names_the_parameter_and_updates_nothing(batch):
    experiment = make_experiment()
    training = start_training(experiment, make_model(experiment, batch))
    training.model.mel_projection_out.bias.register_hook(lambda gradient: gradient * math.nan)
    before = training.model.text_embedding.weight.detach().clone()
    with pytest.raises(WorkbookError, match=r"gradient of mel_projection_out\.bias"):
        run_step(training, batch)
    assert torch.equal(training.model.text_embedding.weight, before)


@pytest.mark.parametrize("precision, tolerance", (("bf16", 0.03), ("fp16", 0.01)))
def test_low_precision_step_agrees_with_fp32_and_keeps_fp32_weights(batch, precision, tolerance):
    reports = {}
    for name in ("fp32", precision):
        experiment = make_experiment()
        experiment = type(experiment)(
            **{**vars(experiment), "fit": type(experiment.fit)(precision=name)}
        )
        training = start_training(experiment, make_model(experiment, batch))
        if name == "fp16":
            # the default, 65536, overflows this first step
            training.scaler = torch.amp.GradScaler("cpu", init_scale=256.0)
        reports[name] = run_step(training, batch)
        assert all(p.dtype == torch.float32 for p in training.model.parameters())
    assert reports[precision].mel_l1 == pytest.approx(reports["fp32"].mel_l1, rel=tolerance)
    assert reports[precision].gradient_norm == pytest.approx(
        reports["fp32"].gradient_norm, rel=5 * tolerance
    )
    assert reports["fp32"].loss_scale == 1.0


def test_overflowing_scaled_gradients_skip_the_step_and_lower_the_scale(batch):
    experiment = make_experiment()
    experiment = type(experiment)(
        **{**vars(experiment), "fit": type(experiment.fit)(precision="fp16")}
    )
    training = start_training(experiment, make_model(experiment, batch))
    training.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40)
    before = training.model.text_embedding.weight.detach().clone()
    report = run_step(training, batch)
    assert report.skipped and training.scaler.get_scale() == 2.0**39
    assert torch.equal(training.model.text_embedding.weight, before)


def test_loss_scale_changes_no_update(batch):
    """Clipping happens after unscaling: the same update at scale 1 and 1024."""
    weights = []
    for scale in (1.0, 1024.0):
        experiment = make_experiment()
        training = start_training(experiment, make_model(experiment, batch))
        training.scaler = torch.amp.GradScaler("cpu", init_scale=scale)
        report = run_step(training, batch, clip_norm=0.1)
        weights.append(
            (report.gradient_norm, training.model.mel_projection_out.weight.detach().clone())
        )
    assert weights[0][0] == pytest.approx(weights[1][0], rel=1e-6)
    torch.testing.assert_close(weights[0][1], weights[1][1], rtol=1e-6, atol=1e-8)


def test_precision_is_chosen_as_in_the_findings(monkeypatch):
    assert (
        choose_precision("auto", "cpu").name == "fp32"
        and choose_precision("auto", "mps").name == "fp32"
    )
    for supported, name in ((True, "bf16"), (False, "fp16")):
        monkeypatch.setattr(
            torch.cuda,
            "is_bf16_supported",
            lambda including_emulation=True, supported=supported: supported,
        )
        assert choose_precision("auto", "cuda").name == name
    assert choose_precision("bf16", "cpu").name == "bf16"
    with pytest.raises(WorkbookError, match="'bf61' is unknown"):
        choose_precision("bf61")
    with pytest.raises(WorkbookError, match="MPS"):
        choose_precision("fp16", "mps")


def single(batch: Batch, index: int) -> Batch:
    frames, phonemes = int(batch.mel_lengths[index]), int(batch.phoneme_lengths[index])
    pick = slice(index, index + 1)
    return Batch(
        phonemes=batch.phonemes[pick, :phonemes],
        phoneme_lengths=batch.phoneme_lengths[pick],
        durations=batch.durations[pick, :phonemes],
        mel=batch.mel[pick, :frames],
        mel_lengths=batch.mel_lengths[pick],
        ids=batch.ids[pick],
        pad_value=batch.pad_value,
    )


def double(batch: Batch) -> Batch:
    return Batch(**{**vars(batch), "mel": batch.mel.double()})
