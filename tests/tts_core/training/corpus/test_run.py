"""Training on a corpus: exact resume, in one process and after SIGKILL, under torchrun too; what it
writes; what it refuses.
"""

import contextlib
import dataclasses
import json
import math
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch

from tests.corpora import TEXT_0880, make_corpus
from tests.tts_core.training.corpus.tiny_corpus import make_tiny_corpus
from tts_core.errors import WorkbookError
from tts_core.folder_lock import lock_folder
from tts_core.training.checkpoint import load_model
from tts_core.training.corpus import continuation
from tts_core.training.corpus import samples as samples_module
from tts_core.training.corpus import train_corpus as run_module
from tts_core.training.corpus.command import main
from tts_core.training.corpus.extensions import Extensions
from tts_core.training.corpus.options import RunConfig, TrainConfig
from tts_core.training.corpus.train_corpus import train_on_corpus

ROOT = Path(__file__).resolve().parents[4]
TRAIN = TrainConfig(
    profile="smoke", steps=12, warmup_steps=3, batch_clips=8, pool_batches=2, dropout=0.2, seed=5
)
TIMES = {"seconds", "frames_per_second", "wait_share"}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return make_tiny_corpus(tmp_path_factory.mktemp("tiny") / "corpus", 30)


@pytest.fixture
def settings(data, tmp_path) -> RunConfig:
    return RunConfig(
        data=data,
        out=tmp_path / "out",
        cache=data.parent / "cache",
        device="cpu",
        held_out_clips=4,
        workers=0,
        log_every=1,
        validate_every=6,
        checkpoint_every=4,
        sample_every=100,
        sample_clips=1,
        figures=False,
    )


def quiet(line: str) -> None:
    pass


def log(out: Path, name: str = "train") -> list[dict]:
    lines = [json.loads(line) for line in (out / f"{name}.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in TIMES} for line in lines]


def assert_same_bits(a: Path, b: Path) -> None:
    """Weights, moments of the optimiser and notes, of the last checkpoint and of the best, and
    logs.
    """
    from safetensors import safe_open

    for checkpoint in ("last.safetensors", "best.safetensors"):
        with safe_open(a / checkpoint, "pt") as first, safe_open(b / checkpoint, "pt") as second:
            names = first.keys()
            assert names == second.keys()
            assert any(".exp_avg" in name for name in names)
            for name in names:
                if not name.startswith("rng."):
                    assert torch.equal(first.get_tensor(name), second.get_tensor(name)), (
                        checkpoint,
                        name,
                    )
            headers = [json.loads(file.metadata()["header"]) for file in (first, second)]
        assert headers[0] == headers[1], checkpoint
    assert log(a) == log(b) and log(a, "validation") == log(b, "validation")


def notes_of(checkpoint: Path) -> dict:
    return load_model(checkpoint).notes


def rewrite_notes(checkpoint: Path, change) -> None:
    """The checkpoint with `change` made to its notes: one of another version of the package."""
    from safetensors import safe_open
    from safetensors.torch import save_file

    with safe_open(checkpoint, "pt") as file:
        names, metadata = file.keys(), file.metadata()
        tensors = {name: file.get_tensor(name) for name in names}
    header = json.loads(metadata["header"])
    change(header["notes"])
    save_file(tensors, checkpoint, {**metadata, "header": json.dumps(header)})


def test_two_trainings_do_not_write_to_one_folder(settings, monkeypatch):
    monkeypatch.setattr(continuation, "LOCK_PATIENCE", 0.2)
    settings.out.mkdir(parents=True)
    held = lock_folder(settings.out, "training")
    with pytest.raises(
        WorkbookError, match=r"another training .* is writing to .*out.* another --out"
    ):
        train_on_corpus(TRAIN, settings, say=quiet)
    held.release()
    assert not (settings.out / "last.safetensors").exists()
    train_on_corpus(dataclasses.replace(TRAIN, steps=4), settings, say=quiet)
    lock_folder(settings.out, "training").release()  # and the training gives it back


HOLDER = """
import sys
from pathlib import Path
from tts_core.folder_lock import lock_folder
held = lock_folder(Path(sys.argv[1]), "training")
print("held", flush=True)
input()
"""


def another_process_holds(folder: Path) -> subprocess.Popen:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "held\n"
    return process


def test_a_training_waits_for_what_a_killed_one_left_behind_and_then_reads_the_checkpoint(settings):
    """What a killed training forked may hold the folder for some seconds more; a training that does
    end writes its last step.
    """
    train = dataclasses.replace(TRAIN, steps=4)
    other = dataclasses.replace(settings, out=settings.out.with_name("other"))
    train_on_corpus(train, other, say=quiet)
    settings.out.mkdir()
    left_behind = another_process_holds(settings.out)
    with pytest.raises(WorkbookError, match="is writing to"):
        lock_folder(settings.out, "training")
    with pytest.raises(WorkbookError, match="is writing to"):
        lock_folder(settings.out, "training", patience=0.3)

    def end():
        (other.out / "last.safetensors").rename(settings.out / "last.safetensors")
        left_behind.communicate("\n")

    timer = threading.Timer(3.0, end)
    timer.start()
    said = []
    train_on_corpus(train, settings, say=said.append)
    timer.join()
    assert "from step 4 to 4" in said[0]


def test_a_killed_holder_frees_the_folder(tmp_path):
    process = another_process_holds(tmp_path)
    with pytest.raises(WorkbookError, match="is writing to"):
        lock_folder(tmp_path, "training")
    process.kill()
    process.wait()
    lock_folder(tmp_path, "training", patience=5).release()


# validated at 6, which was the best; saved at 8
@pytest.mark.parametrize("micro_batches, stop_in, goes_on_from", ((1, 8, 6), (2, 11, 8)))
def test_a_run_that_died_goes_on_to_the_same_bits(
    settings, tmp_path, monkeypatch, micro_batches, stop_in, goes_on_from
):
    settings = dataclasses.replace(settings, micro_batches=micro_batches)
    whole = dataclasses.replace(settings, out=tmp_path / "whole")
    train_on_corpus(TRAIN, whole, say=quiet)
    step, calls = run_module.train_step, iter(range(1, 100))

    def dies(*arguments, **options):
        if next(calls) == stop_in:
            raise RuntimeError("power cut")
        return step(*arguments, **options)

    monkeypatch.setattr(run_module, "train_step", dies)
    with pytest.raises(RuntimeError, match="power cut"):
        train_on_corpus(TRAIN, settings, say=quiet)
    # lines behind the last checkpoint
    assert log(settings.out)[-1]["step"] == stop_in - 1 > goes_on_from
    monkeypatch.setattr(run_module, "train_step", step)
    # the caller's generator must not matter
    torch.manual_seed(99)
    said = []
    train_on_corpus(TRAIN, settings, say=said.append)
    assert f"from step {goes_on_from} to 12" in said[0]
    assert_same_bits(settings.out, whole.out)
    assert [line["step"] for line in log(settings.out)] == list(range(1, 13))


# step -> error: the best so far at 3, 6 and 12
FREE_RUNNING = {3: 3.0, 6: 2.0, 9: 2.5, 12: 1.5}


@pytest.fixture
def judged(monkeypatch, settings) -> RunConfig:
    """Validations find FREE_RUNNING; checkpoints are written at 8 and 12 besides."""
    rate, validate, begun = run_module.learning_rate, run_module.validate, []
    monkeypatch.setattr(
        run_module,
        "learning_rate",
        lambda train, peak, step: begun.append(step + 1) or rate(train, peak, step),
    )
    monkeypatch.setattr(
        run_module,
        "validate",
        lambda *arguments: dataclasses.replace(validate(*arguments), fr_l1=FREE_RUNNING[begun[-1]]),
    )
    return dataclasses.replace(settings, validate_every=3, checkpoint_every=8)


@pytest.mark.parametrize("cut, made", (("best", 3), ("last", 6), ("best", 6), ("best", 12)))
def test_log_notes_and_files_agree_wherever_the_writing_was_cut(
    judged, tmp_path, monkeypatch, cut, made
):
    """Killed before one of the two checkpoints of a step that is the best so far; then once more,
    before the first step is made.
    """
    whole = dataclasses.replace(judged, out=tmp_path / "whole")
    train_on_corpus(TRAIN, whole, say=quiet)
    save = run_module.save_training

    def dies(path, training):
        if path.stem == cut and training.notes["step"] == made:
            raise RuntimeError("power cut")
        save(path, training)

    with monkeypatch.context() as patched, pytest.raises(RuntimeError, match="power cut"):
        patched.setattr(run_module, "save_training", dies)
        train_on_corpus(TRAIN, judged, say=quiet)
    with monkeypatch.context() as patched, contextlib.suppress(InterruptedError):
        patched.setattr(
            run_module._Loop, "go", lambda loop: (_ for _ in ()).throw(InterruptedError)
        )
        train_on_corpus(TRAIN, judged, say=quiet)
    last, best = (notes_of(judged.out / f"{name}.safetensors") for name in ("last", "best"))
    assert best["best"] == last["best"] and best["step"] == best["best"]["step"] <= last["step"]
    assert (
        min(log(judged.out, "validation"), key=lambda line: line["fr_l1"])["step"] == best["step"]
    )
    train_on_corpus(TRAIN, judged, say=quiet)
    assert_same_bits(judged.out, whole.out)


@pytest.mark.parametrize("clips, older, best", ((4, False, 6), (3, False, 9), (4, True, 6)))
def test_the_best_is_the_best_on_the_same_clips(judged, monkeypatch, clips, older, best):
    """Stopped after 8 steps and continued with `clips` to validate on: at 9 the error is higher
    than at 6, on other clips it is the first.
    """
    with monkeypatch.context() as patched, pytest.raises(KeyError):
        patched.delitem(FREE_RUNNING, 9)
        train_on_corpus(TRAIN, judged, say=quiet)
    if older:  # such checkpoints do not say which clips
        rewrite_notes(judged.out / "last.safetensors", lambda notes: notes["best"].pop("clip_set"))
    with monkeypatch.context() as patched, pytest.raises(KeyError):
        patched.delitem(FREE_RUNNING, 12)
        train_on_corpus(TRAIN, dataclasses.replace(judged, validation_clips=clips), say=quiet)
    assert notes_of(judged.out / "best.safetensors")["step"] == best
    assert len({line["clip_set"] for line in log(judged.out, "validation")}) == (
        1 if clips == 4 else 2
    )


def test_an_error_that_is_not_finite_is_never_the_best(judged, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setitem(FREE_RUNNING, 12, math.nan)
        train_on_corpus(TRAIN, judged, say=quiet)
    assert notes_of(judged.out / "best.safetensors")["best"]["step"] == 6
    assert log(judged.out, "validation")[-1]["fr_l1"] is None


def test_the_samples_of_a_step_are_there_before_it_counts_as_done(judged, monkeypatch):
    """6 is the best so far, so that its checkpoint is written; it must not be before the samples,
    which would then never be made.
    """
    made = []

    def dies_once(model, corpus, items, folder, *rest):
        made.append(folder.name)
        if len(made) == 1:
            raise RuntimeError("power cut")

    monkeypatch.setattr(run_module, "write_samples", dies_once)
    judged = dataclasses.replace(judged, sample_every=6)
    with pytest.raises(RuntimeError, match="power cut"):
        train_on_corpus(TRAIN, judged, say=quiet)
    train_on_corpus(TRAIN, judged, say=quiet)
    assert made == ["step_0000006", "step_0000006", "step_0000012"]


def test_times_are_those_of_the_steps_alone(judged, monkeypatch):
    """A clock that goes 1 s whenever it is read, and 1000 s in each validation and each
    checkpoint.
    """
    clock, validate, save = [0.0], run_module.validate, run_module.save_training

    def passes(seconds, then=lambda *arguments: None):
        def ask(*arguments):
            clock[0] += seconds
            return then(*arguments)

        return ask

    monkeypatch.setattr(
        run_module, "time", SimpleNamespace(perf_counter=lambda: passes(1)() or clock[0])
    )
    monkeypatch.setattr(run_module, "validate", passes(1000, validate))
    monkeypatch.setattr(run_module, "save_training", passes(1000, save))
    train_on_corpus(TRAIN, dataclasses.replace(judged, log_every=4), say=quiet)
    lines = [json.loads(line) for line in (judged.out / "train.jsonl").read_text().splitlines()]
    assert [(line["step"], line["seconds"], line["wait_share"]) for line in lines] == [
        (1, 2, 0.5),
        (4, 6, 0.5),
        (8, 8, 0.5),
        (12, 8, 0.5),
    ]
    assert lines[0]["frames_per_second"] == lines[0]["valid_frames"] / 2


def test_what_is_trained_is_validated_logged_and_sampled(settings):
    settings = dataclasses.replace(settings, figures=True, sample_every=6)
    training = train_on_corpus(dataclasses.replace(TRAIN, lr=3e-3), settings, say=quiet)
    lines, validations = log(settings.out), log(settings.out, "validation")
    assert lines[-1]["mel"] < 0.9 * lines[0]["mel"] and training.notes["step"] == 12
    assert [line["lr"] for line in lines[:3]] == pytest.approx([1e-3, 2e-3, 3e-3]) and lines[-1][
        "lr"
    ] == pytest.approx(1.5e-4)
    assert [line["step"] for line in validations] == [6, 12]
    for line in validations:
        assert line["clips"] == 4 and line["fr_over_constant"] == pytest.approx(
            line["fr_l1"] / line["best_constant_l1"]
        )
        assert all(
            line[name] > 0
            for name in ("tf_l1", "fr_l1", "text_use", "copy_previous_l1", "duration", "stop")
        )
    samples = settings.out / "samples" / "step_0000012"
    (arrays,) = samples.glob("*.npz")
    with np.load(arrays) as found:
        n_frames = found["durations"].sum()
        assert found["target"].shape == found["free_running"].shape == (n_frames, 80)
        assert found["attention"].shape == (1, n_frames, n_frames)
        assert np.allclose(found["attention"].astype(float).sum(axis=2), 1, atol=0.01)
    samples_of, rate = soundfile.read(samples / f"{arrays.stem}.free_running.wav")
    assert rate == 22_050 and len(samples_of) == (n_frames - 1) * 256
    for name in ("mels", "alignment"):
        assert (samples / f"{arrays.stem}.{name}.png").read_bytes()[:4] == b"\x89PNG"
    loaded = load_model(settings.out / "best.safetensors")
    best = min(validations, key=lambda line: line["fr_l1"])
    assert (
        loaded.notes["best"] == {name: best[name] for name in ("step", "fr_l1", "clip_set")}
        and loaded.notes["step"] == best["step"]
    )
    assert len(loaded.notes["symbols"]) == loaded.experiment.model.vocab_size


def test_micro_batches_and_loader_processes_change_no_number_beyond_rounding(settings, tmp_path):
    train = dataclasses.replace(TRAIN, dropout=0.0, steps=4)
    train_on_corpus(train, settings, say=quiet)
    parted = dataclasses.replace(settings, out=tmp_path / "parted", micro_batches=3, workers=1)
    train_on_corpus(train, parted, say=quiet)
    for a, b in zip(log(settings.out), log(parted.out), strict=True):
        assert a["valid_frames"] == b["valid_frames"] and a["total"] == pytest.approx(
            b["total"], rel=1e-3
        )


def test_another_configuration_and_other_data_are_refused_by_name(settings, data, tmp_path):
    train = dataclasses.replace(TRAIN, steps=4)
    train_on_corpus(train, settings, say=quiet)
    # how it is watched may change
    train_on_corpus(train, dataclasses.replace(settings, log_every=2), say=quiet)
    with pytest.raises(
        WorkbookError, match=r"last\.safetensors.*batch_clips was 8, is 6.*another --out"
    ):
        train_on_corpus(dataclasses.replace(train, batch_clips=6), settings, say=quiet)
    with pytest.raises(WorkbookError, match="steps was 4, is 8"):
        # the schedule would be another
        train_on_corpus(dataclasses.replace(train, steps=8), settings, say=quiet)
    with pytest.raises(WorkbookError, match="content_hash was"):
        train_on_corpus(train, dataclasses.replace(settings, held_out_clips=5), say=quiet)


def test_a_setting_newer_than_a_checkpoint_had_its_default_and_a_lost_one_is_refused(settings):
    """history_dropout and decoder_adds_memory came later, and what was done before is their
    default.
    """
    train, checkpoint = dataclasses.replace(TRAIN, steps=4), settings.out / "last.safetensors"
    train_on_corpus(train, settings, say=quiet)
    rewrite_notes(checkpoint, lambda notes: notes["train"].pop("decoder_adds_memory"))
    train_on_corpus(train, settings, say=quiet)
    rewrite_notes(checkpoint, lambda notes: notes["train"].pop("pool_batches"))
    with pytest.raises(WorkbookError, match="pool_batches was 50, is 2"):
        train_on_corpus(train, settings, say=quiet)
    rewrite_notes(
        checkpoint, lambda notes: notes["train"].update(teacher_forcing=0.9, pool_batches=2)
    )
    with pytest.raises(WorkbookError, match=r"teacher_forcing was 0.9, is no setting any more"):
        train_on_corpus(train, settings, say=quiet)
    # another kind of checkpoint
    rewrite_notes(checkpoint, lambda notes: (notes.pop("train"), notes.pop("content_hash")))
    with pytest.raises(WorkbookError, match="content_hash was None"):
        train_on_corpus(train, settings, say=quiet)


def test_audio_that_is_not_finite_is_noted_and_stops_nothing(settings, monkeypatch):
    monkeypatch.setattr(
        samples_module, "griffin_lim", lambda mel, audio: np.full(1000, np.nan, np.float32)
    )
    train_on_corpus(dataclasses.replace(TRAIN, steps=4), settings, say=quiet)
    (notes,) = json.loads(
        (settings.out / "samples" / "step_0000004" / "notes.json").read_text()
    ).values()
    assert (
        "1000 non-finite samples" in notes["target.wav"]
        and "1000 non-finite samples" in notes["free_running.wav"]
    )


def test_tensorboard_is_optional_and_its_absence_names_the_extra(settings, monkeypatch):
    train = dataclasses.replace(TRAIN, steps=4)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(WorkbookError, match=r"--tensorboard.*tts-overfit-workbook\[tensorboard\]"):
        train_on_corpus(train, dataclasses.replace(settings, tensorboard=True), say=quiet)
    train_on_corpus(train, settings, say=quiet)


def test_missing_matplotlib_is_said_before_anything_is_computed(settings, monkeypatch):
    monkeypatch.setitem(sys.modules, "tts_workbook.viz.mel_plots", None)
    monkeypatch.delitem(sys.modules, "tts_workbook.viz.sample_pictures", raising=False)
    with pytest.raises(WorkbookError, match=r"figures need .*\[notebooks\].*--no-figures"):
        train_on_corpus(TRAIN, dataclasses.replace(settings, figures=True), say=quiet)
    assert not settings.out.exists()


def test_the_core_alone_writes_audio_and_arrays_and_says_that_nothing_draws(settings):
    said = []
    settings = dataclasses.replace(settings, figures=True)
    train_on_corpus(
        dataclasses.replace(TRAIN, steps=4), settings, say=said.append, extensions=Extensions()
    )
    samples = settings.out / "samples" / "step_0000004"
    assert {path.suffix for path in samples.iterdir()} == {".npz", ".wav", ".json"}
    assert any("no pictures" in line for line in said)


def test_the_command_draws_with_what_is_installed(settings, capsys):
    settings = dataclasses.replace(settings, figures=True)
    flags = command(settings, dataclasses.replace(TRAIN, steps=4))
    assert main(flags[flags.index("tts_core.training.train") + 1 :]) == 0
    assert "trained 4 steps" in capsys.readouterr().out
    samples = settings.out / "samples" / "step_0000004"
    assert {path.name.split(".", 1)[1] for path in samples.glob("*.png")} == {
        "mels.png",
        "alignment.png",
    }


def test_pictures_are_drawn_by_whoever_is_handed_over(settings):
    drawn = []

    def draw(sample):
        drawn.append(sample)
        yield "mine", b"picture"
        raise WorkbookError("no more")

    train_on_corpus(
        dataclasses.replace(TRAIN, steps=4),
        dataclasses.replace(settings, figures=True),
        say=quiet,
        extensions=Extensions(draw_sample=draw),
    )
    (sample,) = drawn
    samples = settings.out / "samples" / "step_0000004"
    assert (samples / f"{sample.clip_id}.mine.png").read_bytes() == b"picture"
    assert sample.target.shape == sample.free_running.shape == (sample.durations.sum(), 80)
    (note,) = json.loads((samples / "notes.json").read_text()).values()
    assert note["figures"] == "no more"


def test_clips_without_textgrids_are_aligned_by_what_is_installed_or_left_out_with_the_way_out(
    tmp_path, settings
):
    root = make_corpus(
        tmp_path / "english", "".join(f"c{i}|{TEXT_0880}\n" for i in range(2)), "c0", "c1"
    )
    settings = dataclasses.replace(settings, data=root, held_out_clips=1)
    train = dataclasses.replace(TRAIN, steps=4)
    with pytest.raises(WorkbookError, match=r"c0.TextGrid: .*needs an aligner.*alignments"):
        train_on_corpus(train, settings, say=quiet, extensions=Extensions())
    said = []
    train_on_corpus(train, settings, say=said.append)
    assert "1 clips to train on, 1 held out, 0 rejected" in said[0]


# --- real processes, really killed ----------------------------------------------------------------


def command(settings: RunConfig, train: TrainConfig, *launcher: str) -> list[str]:
    flags = []
    for config in (settings, train):
        for field in dataclasses.fields(config):
            value, name = getattr(config, field.name), field.name.replace("_", "-")
            flags += (
                [f"--{'' if value else 'no-'}{name}"]
                if isinstance(value, bool)
                else [f"--{name}", str(value).replace("None", "none")]
            )
    return [sys.executable, *launcher, "-m", "tts_core.training.train", *flags]


def start(arguments: list[str], settings: RunConfig) -> subprocess.Popen:
    settings.out.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        arguments,
        cwd=settings.out.parent,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=(settings.out.parent / "stderr").open("wb"),
        start_new_session=True,
    )


def wait_for(path: Path, process: subprocess.Popen, seconds: float = 240) -> None:
    deadline = time.monotonic() + seconds
    while not path.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    assert path.exists(), (path.parents[1] / "stderr").read_text()


def test_kill_minus_9_and_the_same_command_give_the_bits_of_a_run_that_was_left_alone(
    settings, tmp_path
):
    train = dataclasses.replace(TRAIN, steps=60)
    settings = dataclasses.replace(settings, validate_every=30, threads=1, log_every=7, workers=1)
    arguments = command(settings, train)
    process = start(arguments, settings)
    wait_for(settings.out / "last.safetensors", process)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL  # it had not ended by itself
    assert load_model(settings.out / "last.safetensors").notes["step"] < 60
    process = start(arguments, settings)
    assert process.wait(240) == 0, (tmp_path / "stderr").read_text()
    whole = dataclasses.replace(settings, out=tmp_path / "whole")
    train_on_corpus(train, whole, say=quiet)
    assert_same_bits(settings.out, whole.out)


def test_two_processes_one_of_them_killed_end_as_one_process_does(settings, tmp_path):
    """torchrun with gloo: unequal shares, two micro-batches; killed, started again, compared with
    one uninterrupted process.
    """
    train = dataclasses.replace(TRAIN, steps=60, dropout=0.0, lr=3e-4)
    settings = dataclasses.replace(settings, validate_every=30, threads=1, micro_batches=2)
    arguments = command(
        settings, train, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"
    )
    process = start(arguments, settings)
    wait_for(settings.out / "last.safetensors", process)
    os.kill(process_of_rank(1, process.pid), signal.SIGKILL)
    # torchrun ends the other one and says so
    assert process.wait(240) != 0
    assert load_model(settings.out / "last.safetensors").notes["step"] < 60
    process = start(arguments, settings)
    assert process.wait(240) == 0, (tmp_path / "stderr").read_text()
    one = dataclasses.replace(settings, out=tmp_path / "one", micro_batches=1)
    train_on_corpus(train, one, say=quiet)
    assert [line["step"] for line in log(settings.out)] == list(range(1, 61))
    for both, single in zip(log(settings.out), log(one.out), strict=True):
        assert both["valid_frames"] == single["valid_frames"] and both["lr"] == single["lr"]
        assert both["total"] == pytest.approx(single["total"], rel=5e-3)
    for both, single in zip(
        log(settings.out, "validation"), log(one.out, "validation"), strict=True
    ):
        assert all(
            both.pop(name) == single.pop(name) for name in ("clips", "clip_set", "frames")
        ) and both == pytest.approx(single, rel=2e-2)


def test_processes_that_find_different_checkpoints_say_so_instead_of_training(settings, tmp_path):
    """Two machines whose --out is not one disk: only the first one's has the checkpoint."""
    train = dataclasses.replace(TRAIN, steps=4)
    train_on_corpus(train, settings, say=quiet)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    joined = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "TORCHELASTIC_RUN_ID": "test",
    }
    processes = [
        subprocess.Popen(
            command(dataclasses.replace(settings, out=out), train),
            env={**joined, "RANK": rank, "LOCAL_RANK": rank},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank, out in (("0", settings.out), ("1", tmp_path / "elsewhere"))
    ]
    for process in processes:
        errors = process.communicate(timeout=240)[1]
        assert process.returncode == 2, errors
        assert re.search(
            r"did not load the same checkpoint: process 0 is at step 4 \(sha256 \w{12}\); process 1"
            r" found none. .*one --out",
            errors,
        )
    assert not (tmp_path / "elsewhere").exists()


def process_of_rank(rank: int, launcher: int) -> int:
    import psutil

    for child in psutil.Process(launcher).children(recursive=True):
        if child.environ().get("RANK") == str(rank):
            return child.pid
    raise AssertionError(f"no process of rank {rank}")
