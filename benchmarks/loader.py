"""Does the loader keep ahead of the train step? Share of the time that training waits for data, by
number of loader processes.

    python benchmarks/loader.py [--profile quick] [--clips 400] [--batch-clips 32] [--steps 12]
    [--repeats 3]

A synthetic corpus with the lengths of read sentences (2 to 8 s), its features cached beforehand.
The arms take turns, A B C A B C …, and medians are compared: batches that lie in memory already
(what no loader can beat), and 0, 1 and 2 loader processes. Results: `results/loader_PROFILE.json`.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # a script has its own folder there, not the repository

from benchmarks.timing import provenance
from tests.tts_core.training.corpus.tiny_corpus import make_tiny_corpus
from tts_core.atomic_files import write_json
from tts_core.config import AudioConfig
from tts_core.speech.batch import Batch
from tts_core.training.corpus.continuation import start_or_continue
from tts_core.training.corpus.feature_cache import FeatureCache
from tts_core.training.corpus.options import RunConfig, TrainConfig
from tts_core.training.corpus.prepared_corpus import TrainingCorpus, load_ahead, open_corpus
from tts_core.training.corpus.sampler import BatchPlan
from tts_core.training.precision import choose_precision, training_device
from tts_core.training.state import Training
from tts_core.training.step import train_step

ARMS = {"in memory": None, "0 workers": 0, "1 worker": 1, "2 workers": 2}
WARM_UP = 2  # steps that are not counted: the loader's processes start meanwhile


def train(training: Training, batches: Iterator[Batch], device: str) -> tuple[float, float]:
    """Share of the time spent waiting for `batches`, and valid frames per second, of all steps
    after the warm-up.
    """
    precision, experiment = choose_precision("auto", device), training.experiment
    waited = frames = 0.0
    begin = now = time.perf_counter()
    for step, batch in enumerate(batches):
        if step == WARM_UP:
            waited = frames = 0.0
            begin = now
        waited += time.perf_counter() - now
        frames += train_step(
            training.model,
            training.optimizer,
            batch.to(device),
            experiment.loss,
            precision,
            training.scaler,
        ).valid_frames
        now = time.perf_counter()
    return waited / (now - begin), frames / (now - begin)


def measure(
    corpus: TrainingCorpus,
    plan: BatchPlan,
    config: TrainConfig,
    run: RunConfig,
    workers: int | None,
    steps: int,
    device: str,
) -> tuple[float, float]:
    """One arm, with a fresh model."""
    training = start_or_continue(config, run, corpus, device)
    batches = load_ahead(corpus, plan.parts(0, steps + WARM_UP), workers or 0)
    return train(training, iter(list(batches)) if workers is None else batches, device)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--profile", default="quick", choices=("smoke", "quick", "seed"))
    parser.add_argument("--clips", type=int, default=400)
    parser.add_argument("--batch-clips", type=int, default=32)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, help="default: benchmarks/results/loader_PROFILE.json")
    arguments = parser.parse_args()
    device = training_device()
    config = TrainConfig(profile=arguments.profile, batch_clips=arguments.batch_clips)
    found: dict[str, list[tuple[float, float]]] = {arm: [] for arm in ARMS}
    with tempfile.TemporaryDirectory(prefix="tts-loader-") as temporary:
        root = make_tiny_corpus(Path(temporary) / "corpus", arguments.clips, seconds=(2.0, 8.0))
        run = RunConfig(data=root, out=Path(temporary) / "out", cache=Path(temporary) / "features")
        corpus = open_corpus(root, AudioConfig(), FeatureCache(run.cache))
        plan = BatchPlan(
            [item.n_frames for item in corpus.train], config.batch_clips, config.pool_batches
        )
        for _ in range(arguments.repeats):
            for arm, workers in ARMS.items():
                found[arm].append(
                    measure(corpus, plan, config, run, workers, arguments.steps, device)
                )
    rows = {}
    for arm, runs in found.items():
        waits, rates = zip(*runs, strict=True)
        rows[arm] = {
            "wait_share": statistics.median(waits),
            "frames_per_second": statistics.median(rates),
        }
    for arm, row in rows.items():
        row["speed_over_in_memory"] = (
            row["frames_per_second"] / rows["in memory"]["frames_per_second"]
        )
        print(
            f"{arm:10} {row['wait_share']:6.2%} of the time waiting, {row['frames_per_second']:.0f}"
            f" valid frames/s, {row['speed_over_in_memory']:.3f} of batches in memory"
        )
    write_json(
        arguments.out or ROOT / "benchmarks" / "results" / f"loader_{arguments.profile}.json",
        {
            "rows": rows,
            "provenance": provenance(
                "loader.py",
                profile=arguments.profile,
                clips=arguments.clips,
                batch_clips=arguments.batch_clips,
                steps=arguments.steps,
                repeats=arguments.repeats,
            ),
        },
    )


if __name__ == "__main__":
    main()
