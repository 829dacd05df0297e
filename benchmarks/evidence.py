"""Run the studies behind the rulings of notebooks 04, 06 and 09 and record them: hours on 2 cores,
resumable.

    python benchmarks/evidence.py [STUDY ...] [--corpus DIR] [--force] [--executor dask [--scheduler
    ADDRESS]]

Trials run as one-thread workers side by side, or on Dask; each is stored the moment it ends
(runs/evidence), so a kill loses only what was running. A trial recorded under the same digest is
not run again (`--force` runs all anew, after a change of the model or the train step). `--corpus
DIR`: more than 500 prompts made by scripts/build_data_samples.py --all DIR; without it the question
about a whole corpus stays as it was recorded. Results: benchmarks/results/evidence/STUDY.json.
"""

from __future__ import annotations

import argparse
import datetime
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # a script has its own folder there, not the repository

from benchmarks.timing import processor
from tts_core.environment import git_commit, versions
from tts_core.errors import WorkbookError
from tts_workbook.trials.executors import EXECUTORS, processors, run_trials
from tts_workbook.trials.store import Store
from tts_workbook.trials.studies import MIN_CORPUS, STUDIES, batch_trials, study_trials
from tts_workbook.trials.study_records import (
    read_study_record,
    study_record_path,
    write_study_record,
)
from tts_workbook.trials.trial import Trial
from tts_workbook.trials.trial_result import TrialResult

NAMES = (*STUDIES, "batches")


def provenance(study: str, corpus: Path | None, scheduler: str = "") -> dict:
    """Where and with what the results come from."""
    device = (
        "workers of a Dask scheduler, each result says which"
        if scheduler
        else f"cpu, {processor()}, {processors()} one-thread workers"
    )
    with_corpus = " --corpus DIR" if corpus and study == "batches" else ""
    return {
        "command": f"python benchmarks/evidence.py {study}{with_corpus}",
        "commit": git_commit(ROOT),
        "device": device,
        "date": datetime.date.today().isoformat(),
        "versions": {name: versions()[name] for name in ("python", "torch", "torchaudio", "numpy")},
    }


def trials_of(name: str, corpus: Path | None) -> list[Trial]:
    """The trials of one study."""
    pairs = batch_trials(corpus) if name == "batches" else study_trials(STUDIES[name])
    return [trial for _, trial in pairs]


def recorded(name: str) -> list[TrialResult]:
    """What is recorded already; nothing where there is no record yet."""
    return read_study_record(name)[0] if study_record_path(name).exists() else []


def run_study(
    name: str, corpus: Path | None, force: bool, executor: str = "auto", scheduler: str = ""
) -> None:
    """Run what is missing and write the record after every trial: it holds all that is known, even
    after a kill.
    """
    known = [] if force else recorded(name)
    store = Store(ROOT / "runs" / "evidence" / name, known)
    trials = trials_of(name, corpus)
    if force:
        for trial in trials:
            store.path(trial).unlink(missing_ok=True)

    stored = [store.get(trial) for trial in trials]
    done = {result.digest: result for result in stored if result is not None}
    # of a corpus that is not at hand today
    kept = [result for result in known if result.trial.name == "corpus"]

    def write() -> None:
        asked = [done[trial.digest] for trial in trials if trial.digest in done]
        others = [result for result in kept if result.digest not in done]
        write_study_record(name, asked + others, provenance(name, corpus, scheduler))

    def say(n_done: int, total: int, result: TrialResult) -> None:
        done[result.digest] = result
        told = ("outcome", "tf_l1", "fr_l1", "text_use")
        numbers = ", ".join(f"{key} {result.measures.get(key)}" for key in told)
        trial = result.trial
        print(
            f"{datetime.datetime.now():%H:%M:%S} {name} {n_done}/{total} {trial.name}"
            f" {trial.clips[0].id[-14:]} seed {trial.experiment.fit.seed}:"
            f" {result.failed or numbers}",
            flush=True,
        )
        write()

    run_trials(trials, store, executor=executor, scheduler=scheduler, on_result=say)
    write()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "studies", nargs="*", metavar="STUDY", help=f"of {', '.join(NAMES)}; default: all"
    )
    parser.add_argument("--corpus", type=Path, help=f"folder with {MIN_CORPUS} prompts or more")
    parser.add_argument(
        "--force", action="store_true", help="run trials again that are recorded already"
    )
    parser.add_argument("--executor", default="auto", choices=EXECUTORS)
    parser.add_argument(
        "--scheduler",
        default="",
        metavar="ADDRESS",
        help="of Dask, with --executor dask; default: a local cluster",
    )
    arguments = parser.parse_args()
    try:
        unknown = set(arguments.studies) - set(NAMES)
        if unknown:
            raise WorkbookError(
                f"unknown study {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}"
            )
        for name in arguments.studies or NAMES:
            run_study(
                name, arguments.corpus, arguments.force, arguments.executor, arguments.scheduler
            )
    except WorkbookError as error:
        print(f"evidence: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
