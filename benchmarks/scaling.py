"""What training costs, from the counted work: a sweep and a corpus of 24 hours, on this machine,
one GPU and eight.

    python benchmarks/scaling.py          (after benchmarks/step.py, whose result it reads)

seconds of a step = operations / (share x peak) + bytes of the optimiser / bandwidth [+ gradients
sent to the other devices]. The share is fitted on ONE measured row of `results/step.json`, seed
size with 32 clips, and checked against the others. For GPUs, peak, bandwidth and link are the data
sheet's, share and seconds per launch are assumed: those rows are computed, not measured. A GPU's
step takes at least as long as its operations take to launch one after the other. Results:
`results/scaling.json`.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch.utils._python_dispatch import TorchDispatchMode

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # a script has its own folder there, not the repository

from benchmarks.contenders import N_PARTS, Contender
from benchmarks.timing import provenance
from benchmarks.work import work
from tts_core.atomic_files import read_json, write_json
from tts_core.config import AudioConfig, ModelConfig, preset
from tts_core.model.tts import TTSModel
from tts_core.speech.batch import Batch
from tts_core.training.losses import losses
from tts_workbook.trials.sweep_grid import default_sweep

RESULTS = ROOT / "benchmarks" / "results"
VOCABULARY = 80
FITTED, CHECKED = ("seed", 32), (("seed", 1), ("quick", 32), ("quick", 1))
# a corpus as LJ Speech (Ito & Johnson 2017)
HOURS, CLIPS, PHONEMES_PER_FRAME = 24, 13_100, 1 / 7
BATCH, EPOCHS = 32, 100
SWEEP_FRAMES = 258  # of the clip that notebook 05 sweeps over


@dataclass(frozen=True)
class Machine:
    """What the estimate knows of a machine."""

    peak: float  # operations per second of large matrix products
    bandwidth: float  # bytes per second of its memory
    share: float  # of the peak that a step's products reach
    devices: int = 1
    link: float = 0.0  # bytes per second from one device to the next
    # seconds that one operation takes to launch, eagerly, while others compute
    launch: float = 0.0

    def step_seconds(
        self, operations: float, parameter_bytes: float, n_parameters: int, n_launches: int = 0
    ) -> float:
        """One optimiser step whose clips are divided among the devices; gradients cross in fp32,
        ring all-reduce, not overlapped.
        """
        crossing = 0.0
        if self.devices > 1:
            crossing = 2 * (self.devices - 1) / self.devices * 4 * n_parameters / self.link
        products = operations / self.devices / (self.share * self.peak)
        computing = products + parameter_bytes / self.bandwidth + crossing
        return max(computing, n_launches * self.launch)


# NVIDIA's data sheet of the H100 SXM: dense BF16, HBM3, NVLink in one direction. 40 % is this
# project's target for a GPU, not a finding.
GPU = Machine(peak=989e12, bandwidth=3.35e12, share=0.4, launch=5e-6)
EIGHT = replace(GPU, devices=8, link=450e9)


def sizes(profile: str) -> tuple[ModelConfig, int]:
    """Configuration and number of parameters at the size of `profile`."""
    config = preset("healthy", VOCABULARY, profile).model
    with torch.device("meta"):
        return config, sum(p.numel() for p in TTSModel(config, AudioConfig()).parameters())


class _Counting(TorchDispatchMode):
    """Counts operations that compute; views launch nothing."""

    n_launches = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.n_launches += not func.is_view
        return func(*args, **(kwargs or {}))


def count_launches(profile: str) -> int:
    """Operations of one forward and backward pass at the depth of `profile`; their number does not
    depend on sizes.
    """
    config, _ = sizes(profile)
    batch = Batch(
        torch.ones(1, 4, dtype=torch.long),
        torch.tensor([4]),
        torch.full((1, 4), 2),
        torch.zeros(1, 8, config.mel_dim),
        torch.tensor([8]),
        ("made up",),
        0.0,
    )
    model = TTSModel(config, AudioConfig()).train()
    with _Counting() as counting:
        losses(model, batch)["total"].backward()
    return counting.n_launches


def fit_here(measured: dict) -> Machine:
    """This machine: its measured peak and bandwidth, and the share that the fitted row leaves once
    the optimiser's bytes are taken off.
    """
    row = row_of(measured, *FITTED)
    arm = best_arm(row)
    peak, bandwidth = measured["matmul_peak"]["fp32"], measured["bandwidth"]
    step_seconds = row["valid_frames"] / row["frames_per_second"][arm]
    seconds = step_seconds - row["parameter_bytes"] / bandwidth
    return Machine(peak, bandwidth, share=row["operations"][arm] / seconds / peak)


def row_of(measured: dict, profile: str, clips: int) -> dict:
    """The measured row of a profile and a number of clips."""
    rows = {(row["profile"], row["clips"]): row for row in measured["steps"]}
    return rows[profile, clips]


def best_arm(row: dict) -> str:
    """The fp32 arm with as little padding as a corpus sorted by length has: in micro-batches where
    there is more than one clip.
    """
    return Contender("ours", "fp32", N_PARTS if row["clips"] > 1 else 1).label


def checks(measured: dict, here: Machine) -> list[dict]:
    """Estimated against measured seconds of the rows that were not fitted."""
    found = []
    for profile, clips in CHECKED:
        row = row_of(measured, profile, clips)
        arm = best_arm(row)
        found.append(
            {
                "profile": profile,
                "clips": clips,
                "arm": arm,
                "estimated": here.step_seconds(
                    row["operations"][arm], row["parameter_bytes"], row["parameters"]
                ),
                "measured": row["valid_frames"] / row["frames_per_second"][arm],
            }
        )
    return found


def costs(profile: str, machine: Machine, measured_step: float | None = None) -> dict[str, float]:
    """Hours of notebook 05's sweep over one clip (its trials share the devices, one each) and of
    EPOCHS over a corpus of HOURS.

    `measured_step`: seconds of a step over one clip, where they were measured; what the estimate
    leaves out is then in the sweep.
    """
    config, n_parameters = sizes(profile)
    frames = round(HOURS * 3600 / AudioConfig().hop_seconds / CLIPS)
    step, one = (
        work(config, n_parameters, clips, max(1, round(length * PHONEMES_PER_FRAME)), length)
        for clips, length in ((BATCH, frames), (1, SWEEP_FRAMES))
    )
    alone, n_launches = replace(machine, devices=1), count_launches(profile)
    estimated_step = alone.step_seconds(
        one.operations, one.parameter_bytes, n_parameters, n_launches
    )
    corpus_step = machine.step_seconds(
        step.operations, step.parameter_bytes, n_parameters, n_launches
    )
    sweep = default_sweep(profile)
    trial = sweep.steps * (measured_step or estimated_step)
    corpus = EPOCHS * CLIPS / BATCH * corpus_step
    return {
        "operations": step.operations,
        "parameter_bytes": step.parameter_bytes,
        "launches": n_launches,
        "sweep_hours": len(sweep.cells) * trial / machine.devices / 3600,
        "corpus_hours": corpus / 3600,
    }


def main() -> None:
    measured = read_json(RESULTS / "step.json")["cpu"]
    here = fit_here(measured)
    print(f"fitted on {FITTED[0]} size, {FITTED[1]} clips: {here.share:.0%} of the peak")
    checked = checks(measured, here)
    for check in checked:
        print(
            f"{check['profile']:5} {check['clips']:>2} clips ({check['arm']}): estimated"
            f" {check['estimated']:.3f} s, measured {check['measured']:.3f} s,"
            f" {check['estimated'] / check['measured']:.2f} of it"
        )
    machines = {
        "this machine, fp32 (estimated)": here,
        "1 GPU, bf16 (computed)": GPU,
        "8 GPUs, bf16 (computed)": EIGHT,
    }
    one_clip = {row["profile"]: row["measured"] for row in checked if row["clips"] == 1}
    table: dict[str, dict[str, dict[str, float]]] = {"quick": {}, "seed": {}}
    for profile, rows in table.items():
        for name, machine in machines.items():
            measured_step = one_clip[profile] if machine is here else None
            row = rows[name] = costs(profile, machine, measured_step)
            print(
                f"{profile:5} {name:30} {row['operations'] / 1e12:6.2f} TFLOP and"
                f" {row['parameter_bytes'] / 1e9:.2f} GB, {row['launches']} launches a step of"
                f" {BATCH} clips; sweep {row['sweep_hours']:9.3f} h; {EPOCHS} epochs of {HOURS} h"
                f" {row['corpus_hours']:9.2f} h"
            )
    write_json(
        RESULTS / "scaling.json",
        {
            "fitted": {"profile": FITTED[0], "clips": FITTED[1], "share": here.share},
            "checks": checked,
            "costs": table,
            "provenance": provenance("scaling.py"),
        },
    )


if __name__ == "__main__":
    main()
