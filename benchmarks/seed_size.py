"""Train `seed`, `no_norm` and `healthy` at the size of the findings on the default clip, and record
what happens.

    python benchmarks/seed_size.py [--steps 300] [--force]

One thread each, two arms side by side; an arm that is recorded under the same configuration is
skipped, so the command resumes (`--force` recomputes after a change of the code). Results:
`results/seed_size.json`, drawn in notebook 03.
"""

from __future__ import annotations

import argparse
import datetime
import json
import multiprocessing
import sys
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # a script has its own folder there, not the repository

from benchmarks.timing import processor
from tts_core.atomic_files import read_json, write_json
from tts_core.config import (
    PRESETS,
    SEED_LR,
    AudioConfig,
    ExperimentConfig,
    OptimizerConfig,
    from_dict,
    preset,
)
from tts_core.environment import git_commit, versions
from tts_core.speech.dataset import load_corpus
from tts_core.training.step import StepReport
from tts_workbook.trials.preset_arm import build_arm, judge_arm, train_arm

RESULT = ROOT / "benchmarks" / "results" / "seed_size.json"
CLIP_NORM = OptimizerConfig().clip_norm


def run_arm(job: tuple[str, int]) -> tuple[str, dict]:
    """Train one arm and measure it. Returns its name and its record."""
    name, steps = job
    torch.set_num_threads(1)
    corpus = load_corpus(ROOT / "data_samples" / "librivox", AudioConfig(), only="0930")
    arm = build_arm(
        name, corpus.clips, corpus.vocabulary, "seed", steps=steps, lr=SEED_LR, device="cpu"
    )

    def say(step: int, report: StepReport) -> None:
        if step % 10 == 0:
            print(
                f"{name} {step}/{steps} mel L1 {report.mel_l1:.3f}, gradient norm"
                f" {report.gradient_norm:.1f}",
                flush=True,
            )

    clip_norm = arm.experiment.optimizer.clip_norm
    trajectory = train_arm(arm, share_every=5, on_step=say)
    clipped = [norm for norm in trajectory.gradient_norm if clip_norm and norm > clip_norm]
    outcome = judge_arm(arm)
    length, first = trajectory.plateau
    return name, {
        "experiment": arm.experiment.to_dict(),
        "digest": arm.experiment.digest,
        "clip": arm.clip.id,
        "frames": len(arm.clip.mel),
        "best_constant": trajectory.best_constant,
        **trajectory.curves(),
        "clipped_share": len(clipped) / steps,
        "final": {
            "tf_l1": outcome.gap.tf_l1,
            "fr_l1_train_layout": outcome.gap.fr_l1,
            "fr_l1_seed_layout": outcome.seed_layout.fr_l1,
            "text_use": outcome.text_use.ratio,
            "plateau_steps": length,
            "plateau_first_step": first,
            "plateau_share": trajectory.plateau_share,
            "ratio_at_line": trajectory.at_line[0],
            "share_at_line": trajectory.at_line[1],
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument(
        "--force", action="store_true", help="recompute arms that are recorded already"
    )
    arguments = parser.parse_args()
    record = read_json(RESULT) if RESULT.exists() else {"runs": {}}
    todo = []
    for name in PRESETS:
        recorded = record["runs"].get(name)
        done = None if recorded is None else from_dict(ExperimentConfig, recorded["experiment"])
        wanted = preset(
            name, done.model.vocab_size if done else 1, "seed", steps=arguments.steps, lr=SEED_LR
        )
        if arguments.force or done != wanted:
            todo.append((name, arguments.steps))
    names = [name for name, _ in todo]
    print(f"recorded already: {sorted(set(PRESETS) - set(names))}; to compute: {names}")
    record["clip_norm"] = CLIP_NORM
    record["provenance"] = {
        "command": " ".join(["python", "benchmarks/seed_size.py", *sys.argv[1:]]),
        "commit": git_commit(ROOT),
        "device": f"cpu, {processor()}, 1 thread per arm",
        "date": datetime.date.today().isoformat(),
        "versions": {name: versions()[name] for name in ("python", "torch", "torchaudio", "numpy")},
    }
    with multiprocessing.get_context("spawn").Pool(2, maxtasksperchild=1) as pool:
        for name, run in pool.imap_unordered(run_arm, todo):
            record["runs"][name] = {**run, "provenance": record["provenance"]}
            # after every arm: a kill loses at most what was running
            write_json(RESULT, record)
    for name, run in record["runs"].items():
        print(name, json.dumps(run["final"]))


if __name__ == "__main__":
    main()
