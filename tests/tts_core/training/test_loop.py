"""fit: learns, stops, resumes to the same bits, and its checkpoints are complete or absent."""

import dataclasses
import json
import math

import pytest
import torch

from tests.conftest import make_batch, make_experiment, make_model
from tts_core.errors import WorkbookError
from tts_core.metrics.free_running import measure_gap
from tts_core.training import checkpoint
from tts_core.training.checkpoint import load_model, load_training
from tts_core.training.loop import fit
from tts_core.training.state import start_training

# Losses of 20 steps on the synthetic batch, one thread, fp32; a change here is a change of the
# training code.
GOLDEN = {1: 2.64849, 2: 1.44832, 5: 0.88881, 10: 0.82576, 20: 0.63505}


def start(experiment, batch):
    return start_training(experiment, make_model(experiment, batch))


def test_stopping_and_resuming_equals_not_stopping_bitwise(batch, tmp_path):
    experiment = make_experiment(dropout=0.2, steps=9)
    other = make_batch([[3, 3], [6, 2, 2]], seed=7)

    def order(step):
        return [batch, other][step % 2]

    whole = fit(start(experiment, batch), order)
    fit(start(experiment, batch), order, until=4, checkpoint=tmp_path / "state.safetensors")
    torch.manual_seed(99)  # the caller's generator must not matter
    resumed = load_training(
        tmp_path / "state.safetensors",
        start_training(experiment, make_model(experiment, batch, seed=5)),
    )
    assert resumed.step == 4
    fit(resumed, order)
    assert resumed.history == whole.history
    for name, weight in whole.model.state_dict().items():
        assert torch.equal(weight, resumed.model.state_dict()[name]), name


def test_until_zero_trains_nothing(batch):
    assert fit(start(make_experiment(steps=3), batch), batch, until=0).step == 0


def test_fit_leaves_the_callers_generator_alone(batch):
    before = torch.get_rng_state()
    fit(start(make_experiment(dropout=0.5, steps=2), batch), batch)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_stop_leaves_a_usable_model(batch, tmp_path):
    experiment = make_experiment(steps=50)
    training = fit(
        start(experiment, batch),
        batch,
        on_step=lambda step, report: step == 3,
        checkpoint=tmp_path / "c.safetensors",
    )
    assert training.step == 3
    loaded = load_model(tmp_path / "c.safetensors")
    assert (
        loaded.experiment == experiment and len(loaded.history) == 3 and not loaded.model.training
    )
    assert math.isfinite(measure_gap(loaded.model, batch).fr_l1)


def test_tiny_overfit_is_judged_free_running():
    batch = make_batch([[4, 6, 3, 7, 4]], seed=3)
    experiment = make_experiment(lr=3e-3, steps=300)
    training = fit(start(experiment, batch), batch)
    gap = measure_gap(training.model, batch)
    first = training.history[0]["mel_l1"]
    assert gap.tf_l1 < 0.1 * first and gap.fr_l1 < 0.15 * first


def test_golden_losses(batch):
    training = fit(start(make_experiment(dropout=0.1), batch), batch)
    seen = {step: training.history[step - 1]["total"] for step in GOLDEN}
    assert seen == pytest.approx(GOLDEN, rel=1e-3)


def test_checkpoint_of_another_configuration_names_what_differs(batch, tmp_path):
    experiment = make_experiment(steps=1)
    fit(start(experiment, batch), batch, checkpoint=tmp_path / "c.safetensors")
    other = make_experiment(lr=0.5, steps=1, go_frame="silence")
    with pytest.raises(
        WorkbookError,
        match=(
            r"c\.safetensors.*model\.go_frame: checkpoint 'zero', wanted 'silence'.*optimizer\.lr:"
            r" checkpoint 0\.002, wanted 0\.5"
        ),
    ):
        load_training(tmp_path / "c.safetensors", start_training(other, make_model(other, batch)))
    longer = dataclasses.replace(experiment, fit=dataclasses.replace(experiment.fit, steps=2))
    assert (
        fit(
            load_training(
                tmp_path / "c.safetensors", start_training(longer, make_model(longer, batch))
            ),
            batch,
        ).step
        == 2
    )


def test_a_checkpoint_from_before_a_switch_has_its_default(batch, tmp_path):
    experiment, path = make_experiment(steps=1), tmp_path / "c.safetensors"
    fit(start(experiment, batch), batch, checkpoint=path)
    tensors, header = checkpoint._read(path)
    del header["experiment"]["model"]["history_dropout"]
    checkpoint._write(path, tensors, header)
    assert load_training(path, start(experiment, batch)).step == 1
    hidden = make_experiment(steps=1, history_dropout=0.5)
    with pytest.raises(WorkbookError, match=r"history_dropout: checkpoint 0.0, wanted 0.5"):
        load_training(path, start(hidden, batch))


def test_pickled_checkpoint_is_refused_without_being_run(batch, tmp_path):
    class Bomb:
        def __reduce__(self):
            return (tmp_path.joinpath("exploded").touch, ())

    path = tmp_path / "model.pt"
    torch.save({"weights": Bomb()}, path)
    with pytest.raises(WorkbookError, match=r"model.pt.*Pickled checkpoints .* refused"):
        load_model(path)
    assert not (tmp_path / "exploded").exists()


def test_foreign_truncated_and_missing_checkpoints_are_named(batch, tmp_path):
    from safetensors.torch import save_file

    save_file({"x": torch.zeros(2)}, tmp_path / "foreign.safetensors")
    with pytest.raises(
        WorkbookError, match=r"foreign.safetensors.*not a checkpoint of this workbook"
    ):
        load_model(tmp_path / "foreign.safetensors")
    with pytest.raises(WorkbookError, match=r"absent.safetensors.*no such checkpoint"):
        load_model(tmp_path / "absent.safetensors")
    experiment = make_experiment(steps=1)
    path = tmp_path / "c.safetensors"
    fit(start(experiment, batch), batch, checkpoint=path)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(WorkbookError, match=r"c.safetensors.*not a safetensors file"):
        load_model(path)


def test_interrupted_save_keeps_the_previous_checkpoint(batch, tmp_path, monkeypatch):
    path = tmp_path / "c.safetensors"
    training = fit(start(make_experiment(steps=3), batch), batch, until=1, checkpoint=path)
    saved = path.read_bytes()

    def full_disk(tensors, filename, metadata):
        filename.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full_disk)
    with pytest.raises(OSError, match="No space left"):
        fit(training, batch, checkpoint=path)
    assert path.read_bytes() == saved and [p.name for p in tmp_path.iterdir()] == ["c.safetensors"]


def test_checkpoint_header_is_plain_json(batch, tmp_path):
    from safetensors import safe_open

    experiment = make_experiment(steps=1)
    fit(start(experiment, batch), batch, checkpoint=tmp_path / "c.safetensors")
    with safe_open(tmp_path / "c.safetensors", framework="pt") as file:
        header = json.loads(file.metadata()["header"])
    assert header["experiment"]["optimizer"]["lr"] == 0.002 and len(header["history"]) == 1


def test_a_compiled_model_trains_to_the_same_losses(batch, monkeypatch):
    """Traced whole, as CUDA graphs need it; the code generator itself is left out, for it needs a
    C++ compiler and minutes.
    """
    asked, compile_model = {}, torch.compile

    def traced(model, **options):
        asked.update(options)
        return compile_model(model, backend="aot_eager", dynamic=False, fullgraph=True)

    experiment = make_experiment(dropout=0.0, steps=5)
    eager = fit(start(experiment, batch), batch)
    monkeypatch.setattr(torch, "compile", traced)
    compiled = fit(start(experiment, batch), batch, compiled=True)
    assert asked == {"mode": "reduce-overhead", "dynamic": False}
    assert [report["total"] for report in compiled.history] == pytest.approx(
        [report["total"] for report in eager.history], rel=1e-4
    )
    # a checkpoint does not know of it
    assert set(compiled.model.state_dict()) == set(eager.model.state_dict())
