"""What running trials costs beside the trials: inline, one-thread workers and Dask on the same
short trials.

    python benchmarks/executors.py [--trials 200] [--workers 2] [--steps 200] [--inline 20]

Every executor starts cold, with an empty store; the first `--inline` trials stand for all of them
in one process. Outside the trials: processor time that no trial had, 1 - sum of the trials' own
seconds / (workers x wall clock), with the start of the processes in it. Outside training: the same,
where reading clips, building models and judging count as outside too. The target is below 5 %
outside for 200 trials on 2 workers. Results: `results/executors.json`.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # a script has its own folder there, not the repository

from benchmarks.timing import provenance
from tts_core.atomic_files import write_json
from tts_core.config import AudioConfig, preset
from tts_core.speech.bundled import bundled_voice
from tts_core.speech.dataset import load_corpus
from tts_workbook.trials.executors import run_trials
from tts_workbook.trials.store import Store
from tts_workbook.trials.trial import Trial, make_trial
from tts_workbook.trials.trial_result import TrialResult

RESULT = ROOT / "benchmarks" / "results" / "executors.json"
TARGET = 0.05  # of the processors' time outside the trials
CLIP = "queue-thankyou"  # 138 frames


def short_trials(n: int, steps: int) -> list[Trial]:
    """`n` trainings of the smoke-size model on one short clip, which differ in their seed alone."""
    corpus = load_corpus(bundled_voice("allison"), AudioConfig(), ids=[CLIP])
    size = corpus.vocabulary.get_vocab_size()
    return [
        make_trial(
            corpus.clips,
            corpus.vocabulary,
            preset("healthy", size, "smoke", steps=steps, seed=seed, precision="fp32"),
        )
        for seed in range(n)
    ]


def measure(
    executor: str, trials: Sequence[Trial], n_workers: int
) -> tuple[dict[str, float], list[TrialResult]]:
    """(its row, the results) of one executor on `trials`; `start_seconds` is until the first trial
    began.
    """
    begun: list[float] = []

    def note(done: int, total: int, result: TrialResult) -> None:
        begun.append(time.perf_counter() - start - result.provenance["trial_seconds"])

    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        results = run_trials(
            trials, Store(folder), executor=executor, n_workers=n_workers, on_result=note
        )
        wall = time.perf_counter() - start
    in_trials = sum(result.provenance["trial_seconds"] for result in results)
    in_training = sum(result.measures["seconds"] or 0.0 for result in results)
    return {
        "trials": len(trials),
        "workers": n_workers,
        "seconds": wall,
        "trials_per_second": len(trials) / wall,
        "start_seconds": min(begun),
        "seconds_per_trial": in_trials / len(trials),
        "training_seconds_per_trial": in_training / len(trials),
        "outside_trials": 1 - in_trials / (n_workers * wall),
        "outside_training": 1 - in_training / (n_workers * wall),
    }, results


def same_bits(one: TrialResult, other: TrialResult) -> bool:
    """Whether two results of one trial differ in nothing but what the clock says."""
    by_the_clock = {"seconds": None}
    return one.curves == other.curves and (
        {**one.measures, **by_the_clock} == {**other.measures, **by_the_clock}
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--steps", type=int, default=200, help="of each trial")
    parser.add_argument(
        "--inline", type=int, default=20, help="trials that are also run in this process"
    )
    parser.add_argument("--out", type=Path, default=RESULT)
    arguments = parser.parse_args()
    trials = short_trials(arguments.trials, arguments.steps)
    few = trials[: arguments.inline]
    rows, results = {}, {}
    rows["inline"], results["inline"] = measure("inline", few, 1)
    for executor in ("workers", "dask"):
        rows[executor], results[executor] = measure(executor, trials, arguments.workers)
    inline_rate = rows["inline"]["trials_per_second"]
    for executor, row in rows.items():
        row["throughput_against_inline"] = row["trials_per_second"] / inline_rate
        row["same_bits_as_inline"] = all(map(same_bits, results["inline"], results[executor]))
        print(
            f"{executor:<8} {row['trials']} trials of {row['seconds_per_trial']:.2f} s on"
            f" {row['workers']}: {row['trials_per_second']:.2f} a second,"
            f" {row['throughput_against_inline']:.2f} x inline; {row['outside_trials']:.1%} of the"
            f" time outside the trials (start {row['start_seconds']:.1f} s),"
            f" {row['outside_training']:.1%} outside training; bits"
            f" {'equal' if row['same_bits_as_inline'] else 'DIFFER'}",
            flush=True,
        )
    write_json(
        arguments.out,
        {
            "target_outside": TARGET,
            "steps": arguments.steps,
            "rows": rows,
            "distributed": version("distributed"),
            "provenance": provenance(
                "executors.py",
                trials=arguments.trials,
                workers=arguments.workers,
                steps=arguments.steps,
                inline=arguments.inline,
            ),
        },
    )


if __name__ == "__main__":
    main()
