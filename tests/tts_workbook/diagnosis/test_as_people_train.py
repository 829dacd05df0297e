"""Autocast with a loss scaler, accumulation, compiled models, two processes, a GPU: planted causes
come out as on the plain loop, and states are kept.
"""

import os
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from torch import nn

from benchmarks.planted import ours
from benchmarks.planted.architecture import draw_setting
from benchmarks.planted.plants import generic_plants
from tests.conftest import ROOT
from tests.tts_workbook.diagnosis.tiny_speaker import (
    Gain,
    Speaker,
    adam,
    speaker_lab,
    spoken,
    with_parts,
)
from tests.tts_workbook.diagnosis.tiny_subject import losses, split
from tts_workbook.diagnosis.diagnose import diagnose, investigate
from tts_workbook.faults.optimizer.averaged_weights import plant as averaged
from tts_workbook.faults.optimizer.schedule import plant as scheduled
from tts_workbook.faults.planting import Setting
from tts_workbook.lab.lab import Lab
from tts_workbook.subject.isolation import placed_like

STEPS = 48
LOOPS = ("plain", "bf16 autocast", "fp16 autocast with a scaler", "accumulation")


def train_step(kind, scaler, zero=True, step=True, clip=1.0):
    """The loops that people write, and what may be missing in them."""

    def run(model, optimizer, batch):
        if zero:
            optimizer.zero_grad()
        parts = split(batch) if kind == "accumulation" else [batch]
        dtype = torch.float16 if "fp16" in kind else torch.bfloat16
        for part in parts:
            with torch.autocast(batch["mel"].device.type, dtype, enabled="autocast" in kind):
                total = losses(model, part)["total"] / len(parts)
            scaler.scale(total).backward()
        if step:
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(model.parameters(), clip)
            scaler.step(optimizer)
            scaler.update()

    return run


def loop_of(kind, device="cpu", **missing):
    """A train step with a scaler of its own."""
    scaler = torch.amp.GradScaler(device, enabled="scaler" in kind)
    return train_step(kind, scaler, **missing)


def trained_by(kind, missing=None, **fields):
    return speaker_lab(train_step=loop_of(kind, **(missing or {})), steps=STEPS, **fields)


def without_encoder(model):
    left_out = {id(p) for p in model.encoder.parameters()}
    return torch.optim.AdamW([p for p in model.parameters() if id(p) not in left_out], lr=0.01)


class Detached(Speaker):
    def encode(self, text):
        return super().encode(text).detach()


class Seeing(Speaker):
    """The output looks at the frame that it predicts."""

    def forward(self, batch):
        return super().forward(batch) + self.history(batch["mel"])[..., :4]


def on_top(plant):
    """A plant of the catalogue, on the speaker with this loop."""

    def lab(kind):
        clean = trained_by(kind).subject
        return Lab(plant(lambda setting: clean, Setting(0)), steps=STEPS)

    return lab


FAULTS = {
    "optimizer.lr_too_small": lambda kind: trained_by(kind, make_optimizer=adam(1e-5)),
    "optimizer.lr_too_large": lambda kind: trained_by(kind, make_optimizer=adam(3.0)),
    "optimizer.weight_decay": lambda kind: trained_by(kind, make_optimizer=adam(decay=20.0)),
    "optimizer.missing_parameters": lambda kind: trained_by(kind, make_optimizer=without_encoder),
    "optimizer.schedule": on_top(scheduled),
    "optimizer.averaged_weights": on_top(averaged),
    "model.memory_scale": lambda kind: trained_by(
        kind, build=with_parts(memory=lambda: Gain(1000.0))
    ),
    "model.encoder_detached": lambda kind: trained_by(kind, build=Detached),
    "loop.no_zero_grad": lambda kind: trained_by(kind, missing=dict(zero=False)),
    "loop.no_step": lambda kind: trained_by(kind, missing=dict(step=False)),
}


# what is left of the gradient before is divided by the scale of 65,536 at each step
HARMLESS = [("loop.no_zero_grad", "fp16 autocast with a scaler")]


@pytest.mark.full
@pytest.mark.parametrize(
    "cause, kind",
    [(cause, kind) for cause in FAULTS for kind in LOOPS if (cause, kind) not in HARMLESS],
)
def test_a_planted_cause_comes_out_in_every_loop(cause, kind):
    report = investigate(FAULTS[cause](kind))
    assert report.findings[0].cause == cause and report.findings[0].level == "confirmed"


@pytest.mark.parametrize("cause", ["optimizer.missing_parameters", "loop.no_step"])
def test_a_planted_cause_comes_out_behind_a_scaler(cause):
    report = investigate(FAULTS[cause]("fp16 autocast with a scaler"))
    assert [found.cause for found in report.findings] == [cause]


@pytest.mark.parametrize("kind", LOOPS)
def test_a_sound_loop_is_not_accused(kind):
    report = investigate(trained_by(kind))
    assert report.healthy and not report.findings and not report.undecided


def test_states_are_as_they_were():
    """Random streams, the loss scaler, autocast, modes, hooks on every module, grad mode."""
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**12, growth_interval=2)
    bench = speaker_lab(
        train_step=train_step("fp16 autocast with a scaler", scaler), build=lambda: Speaker()
    )
    torch.manual_seed(3)
    before, randomness = scaler.state_dict(), torch.get_rng_state()
    batch = {name: value.clone() for name, value in bench.subject.batch.items()}
    report = diagnose(bench.subject, steps=STEPS)
    assert report.healthy and bench.subject.train_step is not None
    assert scaler.state_dict() == before and scaler._scale is None
    assert torch.equal(torch.get_rng_state(), randomness)
    assert all(torch.equal(value, bench.subject.batch[name]) for name, value in batch.items())
    assert not torch.is_autocast_enabled("cpu") and torch.is_grad_enabled()
    everywhere = torch.nn.modules.module
    assert not everywhere._global_forward_hooks and not everywhere._global_forward_pre_hooks


# --- the same on our own model ------------------------------------------------------------


def ours_by(loop):
    """The builder of our model with another loop: fp16 autocast with a scaler, or two passes over
    the batch for each step.
    """

    def build(setting, **parts):
        subject = ours.build(setting, **parts)
        is_scaled = loop == "scaler"
        scaler = torch.amp.GradScaler("cpu", enabled=is_scaled)
        n_passes = 1 if is_scaled else 2

        def run(model, optimizer, batch):
            optimizer.zero_grad(set_to_none=True)
            for _ in range(n_passes):
                with torch.autocast("cpu", torch.float16, enabled=is_scaled):
                    total = subject.losses(model, batch)["total"] / n_passes
                scaler.scale(total).backward()
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            scaler.step(optimizer)
            scaler.update()

        return replace(subject, train_step=run)

    return build


# those that take seconds each; the tiny speaker has all of them in every loop
@pytest.mark.full
@pytest.mark.parametrize(
    "cause, loop",
    [
        (None, "scaler"),
        ("data.duration_sum", "scaler"),
        ("data.token_collapse", "scaler"),
        ("optimizer.missing_parameters", "scaler"),
        (None, "accumulation"),
        ("optimizer.weight_decay", "accumulation"),
        ("loss.wrong_reduction", "accumulation"),
    ],
)
def test_our_model_is_diagnosed_in_other_loops(cause, loop):
    build = ours_by(loop)
    needs = {} if cause is None else ours.ARCHITECTURE.required(cause)
    setting = draw_setting(0, max_seconds=ours.ARCHITECTURE.max_seconds, **needs)
    subject = build(setting) if cause is None else generic_plants(build)[cause](setting)
    report = investigate(Lab(subject, steps=64))
    assert [found.cause for found in report.findings[:1]] == ([] if cause is None else [cause])


# --- compiled -------------------------------------------------------------------------------------


def compiled(**parts):
    """Compiled where it is built, by the backend that needs no compiler: inductor runs as little,
    for code runs as it is written while it is diagnosed.
    """
    return lambda: torch.compile(Speaker(**parts), backend="eager")


def test_a_compiled_model_is_seen_through():
    report = investigate(speaker_lab(compiled(), steps=STEPS))
    assert report.healthy and not report.findings and not report.undecided
    loud = investigate(speaker_lab(compiled(memory=lambda: Gain(1000.0)), steps=STEPS))
    assert [found.cause for found in loud.findings] == ["model.memory_scale"]
    # what is compiled afterwards is compiled again
    calls = []

    def backend(graph, inputs):
        calls.append(graph)
        return graph.forward

    torch.compile(nn.Linear(2, 2), backend=backend)(torch.zeros(1, 2))
    assert len(calls) == 1


# --- two processes --------------------------------------------------------------------------------

PROGRAM = """
import sys
import torch
import torch.distributed as dist
from datetime import timedelta
from torch.nn.parallel import DistributedDataParallel
from tests.tts_workbook.diagnosis.tiny_speaker import Gain, Speaker, speaker_lab
from tts_workbook.diagnosis.diagnose import investigate

torch.set_num_threads(1)
rank, meeting = int(sys.argv[1]), sys.argv[2]
dist.init_process_group(
    "gloo", init_method=f"file://{meeting}", rank=rank, world_size=2,
    timeout=timedelta(seconds=120),
)


def found(**parts):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    report = investigate(
        speaker_lab(lambda: DistributedDataParallel(Speaker(**parts)), steps=48)
    )
    assert torch.equal(before, torch.get_rng_state())
    return [one.cause for one in report.findings], len(report.undecided), report.passed


said = [found(), found(memory=lambda: Gain(1000.0))]
dist.barrier()
dist.destroy_process_group()
print(said)
"""


@pytest.mark.full
@pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch has no distributed")
def test_two_processes_diagnose_the_same_model(tmp_path):
    """Each rank diagnoses the batch that both have, so that their collectives meet."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(rank), str(tmp_path / "meeting")],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        outputs = [rank.communicate(timeout=300) for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    assert [rank.returncode for rank in ranks] == [0, 0], outputs
    wanted = [([], 0, True), (["model.memory_scale"], 0, True)]
    said = [eval(output.strip().splitlines()[-1]) for output, _ in outputs]
    assert said[0] == said[1]
    assert [causes for causes, _, _ in said[0]] == [causes for causes, _, _ in wanted]
    assert said[0][0] == wanted[0]


# --- a GPU ----------------------------------------------------------------------------------------

ELSEWHERE = """
import os
from dataclasses import replace
import torch
from tests.tts_workbook import pretend_device
from tests.tts_workbook.diagnosis.test_observe import step_with
from tests.tts_workbook.diagnosis.tiny_speaker import Gain, speaker_lab, with_parts
from tts_workbook.diagnosis.diagnose import investigate
from tts_workbook.lab.lab import Lab

torch.set_num_threads(1)
library = pretend_device.register()


def said(**fields):
    subject = speaker_lab(**fields).subject
    batch = {name: pretend_device.Far(value) for name, value in subject.batch.items()}
    build = subject.build_model
    moved = replace(subject, batch=batch, build_model=lambda: pretend_device.to_far(build()))
    with pretend_device.Pretending():
        report = investigate(Lab(moved, steps=16))
    broken = [one.experiment for one in report.undecided if "could not run" in one.experiment]
    return [one.cause for one in report.findings], broken


# a step that leaves its gradients: those are what a marker is laid into
found = [said(train_step=step_with()), said(build=with_parts(memory=lambda: Gain(1000.0)))]
print(found, flush=True)
# the threads of a backend that is no real one abort the interpreter's own way out
os._exit(0)
"""


@pytest.mark.full
def test_nothing_is_measured_on_the_wrong_device():
    """On a device that is not the CPU's, without the hardware: tests/tts_workbook/pretend_device.py
    refuses what a GPU refuses.
    """
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    run = subprocess.run(
        [sys.executable, "-c", ELSEWHERE],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert eval(run.stdout.strip().splitlines()[-1]) == [([], []), (["model.memory_scale"], [])]


def test_drawn_batches_come_to_where_the_batch_is():
    """A loader's batches lie on the CPU; lengths that stay there do so."""
    batch = {**spoken(), "mel": spoken()["mel"].to("meta")}
    drawn = placed_like(batch, spoken())
    assert {name: value.device.type for name, value in drawn.items()} == {
        "text": "cpu",
        "mel": "meta",
        "lengths": "cpu",
    }
    assert placed_like(batch, other := {"text": spoken()["text"]}) is other


needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")


def on_gpu(bench):
    """The subject with model and batch on the GPU."""
    subject, build_model = bench.subject, bench.subject.build_model
    batch = {name: value.cuda() for name, value in subject.batch.items()}
    return replace(subject, build_model=lambda: build_model().cuda(), batch=batch)


@needs_gpu
@pytest.mark.parametrize("cause", [None, *FAULTS])
def test_a_subject_on_the_gpu_is_diagnosed_there(cause):
    if cause is None:
        kind = "fp16 autocast with a scaler"
        subject = replace(on_gpu(trained_by(kind)), train_step=loop_of(kind, "cuda"))
    else:
        subject = on_gpu(FAULTS[cause]("bf16 autocast"))
    before = torch.cuda.get_rng_state()
    report = diagnose(subject, steps=STEPS)
    assert [found.cause for found in report.findings[:1]] == ([] if cause is None else [cause])
    assert not [found for found in report.undecided if "could not run" in found.experiment]
    assert torch.equal(before, torch.cuda.get_rng_state())
    assert subject.batch["mel"].is_cuda and spoken()["mel"].device.type == "cpu"
