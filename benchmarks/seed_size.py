"""Train `seed`, `no_norm` and `healthy` at the size of the findings on the default clip, and record what happens.

    python benchmarks/seed_size.py [--steps 300] [--force]

One arm after another, one thread each, two arms side by side; an arm that is recorded under the same configuration,
source and data is skipped, so the command resumes. Results: `results/seed_size.json`, drawn in notebook 03.
"""

from __future__ import annotations

import argparse
import datetime
import json
import multiprocessing
import platform
import sys
from pathlib import Path

import torch

from tts_core.config import PRESETS, SEED_LR, preset
from tts_core.model.tts import build_model
from tts_core.probes.free_running import measure_gap
from tts_core.probes.text_use import measure_text_use
from tts_core.probes.trajectory import record_trajectory
from tts_core.speech.batch import collate
from tts_core.speech.dataset import load_corpus
from tts_core.training.loop import fit, start_training
from tts_core.workbook.atomic import read_json, write_json
from tts_core.workbook.environment import commit, versions

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "benchmarks" / "results" / "seed_size.json"


def processor() -> str:
    """Model name of the processor, as the kernel gives it."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor())


def run_arm(name: str, steps: int) -> tuple[str, dict]:
    """Train one arm and measure it. Returns its name and its record."""
    torch.set_num_threads(1)
    corpus = load_corpus(ROOT / "data_samples" / "librivox", preset(name, 1, "seed").audio, only="0930")
    clip = corpus.clips[0]
    experiment = preset(name, corpus.vocabulary.get_vocab_size(), "seed", steps=steps, lr=SEED_LR)
    batch = collate([clip], experiment.audio.silence)
    model = build_model(experiment.model, experiment.audio, [clip.mel], experiment.fit.seed)
    trajectory, on_step = record_trajectory(model, batch, share_every=5, also=lambda step, report: print(
        f"{name} {step}/{steps} mel L1 {report.mel_l1:.3f}, gradient norm {report.gradient_norm:.1f}", flush=True) if step % 10 == 0 else None)
    training = fit(start_training(experiment, model), batch, on_step=on_step)
    train_layout, own_layout = (measure_gap(model, batch, layout) for layout in ("train", None))
    use = measure_text_use(model, batch, corpus.vocabulary.pause_id)
    length, first = trajectory.plateau
    return name, {
        "experiment": experiment.to_dict(), "digest": experiment.digest, "clip": clip.id, "frames": len(clip.mel),
        "best_constant": trajectory.best_constant, "steps": trajectory.steps, "mel_l1": trajectory.mel_l1,
        "over_constant": trajectory.over_constant, "time_variance_share": trajectory.shares,
        "time_variance_share_steps": trajectory.share_steps, "duration_loss": trajectory.duration,
        "gradient_norm": trajectory.gradient_norm, "clipped_share": sum(row["clipped"] for row in training.history) / steps,
        "final": {"tf_l1": train_layout.tf_l1, "fr_l1_train_layout": train_layout.fr_l1, "fr_l1_own_layout": own_layout.fr_l1,
                  "text_use": use.ratio, "plateau_steps": length, "plateau_first_step": first,
                  "plateau_share": trajectory.plateau_share, "share_at_line": trajectory.share_at_line},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--force", action="store_true", help="recompute arms that are recorded already")
    arguments = parser.parse_args()
    record = read_json(RESULT) if RESULT.exists() else {"runs": {}}
    todo = []
    for name in PRESETS:
        vocab_size = record["runs"].get(name, {}).get("experiment", {}).get("model", {}).get("vocab_size", 1)
        wanted = preset(name, vocab_size, "seed", steps=arguments.steps, lr=SEED_LR).digest
        if arguments.force or record["runs"].get(name, {}).get("digest") != wanted:
            todo.append((name, arguments.steps))
    print(f"recorded already: {sorted(set(PRESETS) - {name for name, _ in todo})}; to compute: {[name for name, _ in todo]}")
    with multiprocessing.get_context("spawn").Pool(2, maxtasksperchild=1) as pool:
        for name, run in pool.starmap(run_arm, todo, chunksize=1):
            record["runs"][name] = run
    record["clip_norm"] = 1.0
    record["provenance"] = {"command": "python benchmarks/seed_size.py" + "".join(f" {word}" for word in sys.argv[1:]),
                            "commit": commit(ROOT), "device": f"cpu, {processor()}, 1 thread per arm",
                            "date": datetime.date.today().isoformat(),
                            "versions": {name: versions()[name] for name in ("python", "torch", "torchaudio", "numpy")}}
    write_json(RESULT, record)
    for name, run in record["runs"].items():
        print(name, json.dumps(run["final"]))


if __name__ == "__main__":
    main()
