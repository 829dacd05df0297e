"""Small trials on one short clip, results written by hand, and trials that do as they are told
without a training.
"""

import dataclasses
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tts_core.config import AudioConfig, preset
from tts_core.errors import WorkbookError
from tts_core.speech.bundled import bundled_voice
from tts_core.speech.dataset import Corpus, load_corpus
from tts_workbook.trials.executors import run_trials
from tts_workbook.trials.store import Store
from tts_workbook.trials.study_arms import change
from tts_workbook.trials.trial import ClipReference, Trial, make_trial
from tts_workbook.trials.trial_result import TrialResult

SHORT_CLIP = "queue-thankyou"  # 138 frames
VOLATILE = ("seconds",)  # measures that the clock decides
PATIENCE = 240  # seconds until a started process must have shown itself, on a busy machine


def short_corpus(*ids: str) -> Corpus:
    return load_corpus(bundled_voice("allison"), AudioConfig(), ids=list(ids) or [SHORT_CLIP])


def smoke_trial(
    corpus: Corpus,
    preset_name: str = "healthy",
    steps: int = 3,
    lr: float | None = None,
    seed: int = 0,
    changes=None,
    **options,
) -> Trial:
    """A trial of a preset at smoke size over all clips of `corpus`; `changes` as in
    `arms.change`.
    """
    experiment = preset(
        preset_name,
        corpus.vocabulary.get_vocab_size(),
        "smoke",
        steps=steps,
        lr=lr,
        seed=seed,
        precision="fp32",
    )
    return make_trial(corpus.clips, corpus.vocabulary, change(experiment, changes or {}), **options)


def made_result(
    arm: str, clip: str = "a", seed: int = 0, failed: str = "", **measures: float | None
) -> TrialResult:
    """A result that no training made: arm `arm` on clip `clip`."""
    experiment = preset("healthy", 12, "smoke", steps=100, seed=seed)
    trial = Trial(experiment, (ClipReference("voice", clip, "en", "0" * 12),), ("a", "b"), name=arm)
    return TrialResult(trial, dict(measures), {"over_constant": [1.0, 0.5]}, failed)


def numbers(result: TrialResult) -> TrialResult:
    """The result without what the clock, the machine and the thread count say."""
    return dataclasses.replace(
        result,
        provenance={},
        measures={name: value for name, value in result.measures.items() if name not in VOLATILE},
    )


class NoticedError(WorkbookError):
    """Makes `mark` once it has arrived in the process that waits for the trial."""

    def __init__(self, mark: str) -> None:
        super().__init__(f"no luck with {mark}")
        self.mark = mark

    def __reduce__(self):
        return arrived, (self.mark, os.getpid())


def arrived(mark: str, sender: int) -> NoticedError:
    # Dask unpickles an error where it arose too, to see whether it can be
    if os.getpid() != sender:
        Path(mark).touch()
    return NoticedError(mark)


def told(order: str, seed: int) -> Trial:
    """A trial for `obey`. `order` is a verb and the path of a file:
    end (make it and end), fail (with a NoticedError), await (it, for PATIENCE), die (with the
    process, unless the file exists).
    """
    return dataclasses.replace(made_result("", seed=seed).trial, name=order)


def obey(trial: Trial) -> TrialResult:
    """What stands for `run_trial` in a worker process; its result is empty."""
    verb, mark = trial.name.split()
    if verb == "fail":
        raise NoticedError(mark)
    if verb == "await":
        Path(f"{mark}.awaited").touch()
        until = time.monotonic() + PATIENCE
        while not Path(mark).exists() and time.monotonic() < until:
            time.sleep(0.02)
    if verb == "die" and not Path(mark).exists():
        Path(mark).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    Path(mark).touch()
    return TrialResult(trial, {}, {})


def interrupt_when(path: Path) -> None:
    """For a thread: what ctrl-c does to this process, once `path` exists."""
    until = time.monotonic() + PATIENCE
    while not path.exists() and time.monotonic() < until:
        time.sleep(0.02)
    os.kill(os.getpid(), signal.SIGINT)


def three_trials() -> list[Trial]:
    """Of 4 steps each."""
    corpus = short_corpus()
    return [
        smoke_trial(corpus, name, steps=4, seed=seed)
        for name, seed in (("healthy", 0), ("seed", 0), ("healthy", 1))
    ]


# --- what every executor has to do, where `obey` stands for the training --------------------------


def a_failure_lets_what_runs_end_and_starts_nothing(folder: Path, executor: str) -> None:
    """Two workers: one trial fails, one runs meanwhile, three come later."""
    orders = ("fail noticed", "await noticed", "end late_1", "end late_2", "end late_3")
    asked = []
    for seed, order in enumerate(orders):
        verb, mark = order.split()
        asked.append(told(f"{verb} {folder / mark}", seed))
    store = Store(folder / "trials")
    with pytest.raises(NoticedError, match="no luck"):
        run_trials(asked, store, executor=executor, n_workers=2)
    assert store.get(asked[1]) is not None and len(list(store.folder.iterdir())) == 1
    assert not list(folder.glob("late*"))


def an_interrupt_waits_for_nothing(folder: Path, executor: str) -> None:
    """One worker: one trial ends, one never does; then ctrl-c."""
    ended, endless = told(f"end {folder / 'ended'}", 0), told(f"await {folder / 'never'}", 1)
    store, begun = Store(folder / "trials"), time.monotonic()
    interrupt = threading.Thread(target=interrupt_when, args=[folder / "never.awaited"])
    with pytest.raises(KeyboardInterrupt):
        run_trials(
            [ended, endless],
            store,
            executor=executor,
            n_workers=1,
            on_result=lambda *_: interrupt.start(),
        )
    assert time.monotonic() - begun < PATIENCE
    assert store.get(ended) is not None and store.get(endless) is None


def started(script: Path, *arguments: str) -> subprocess.Popen[str]:
    """A process of the Python file `script`, with this repository on its path; its output can be
    read.
    """
    return subprocess.Popen(
        [sys.executable, str(script), *arguments],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
    )
