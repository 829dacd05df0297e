"""Results are complete or not there; a kill loses only what was running; workers give the bits of
one process.
"""

import dataclasses
import importlib.util
import json
import multiprocessing
import os
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from tests.tts_workbook.trials.trial_builders import (
    PATIENCE,
    a_failure_lets_what_runs_end_and_starts_nothing,
    an_interrupt_waits_for_nothing,
    made_result,
    numbers,
    obey,
    short_corpus,
    smoke_trial,
    started,
    three_trials,
)
from tts_core.errors import WorkbookError
from tts_workbook.trials import executors
from tts_workbook.trials.executors import choose_executor, processors, run_trials
from tts_workbook.trials.store import Store
from tts_workbook.trials.threads import one_thread

# Stores one result, says which workers there are, and waits to be killed.
KILLED = """
import multiprocessing, sys, time
from tests.tts_workbook.trials.trial_builders import three_trials
from tts_workbook.trials.executors import run_trials
from tts_workbook.trials.store import Store

def wait(done, total, result):
    print("PIDS", *[child.pid for child in multiprocessing.active_children()], flush=True)
    time.sleep(600)

if __name__ == "__main__":
    store, executor = Store(sys.argv[1]), sys.argv[2]
    run_trials(three_trials(), store, executor=executor, n_workers=2, on_result=wait)
"""


@pytest.fixture(scope="module")
def trials():
    return three_trials()


@pytest.fixture(scope="module")
def uninterrupted(trials, tmp_path_factory):
    store = Store(tmp_path_factory.mktemp("inline"))
    return [numbers(result) for result in run_trials(trials, store, executor="inline")]


def test_a_stored_result_comes_back_whole_and_nothing_else_is_left(tmp_path):
    store, result = (
        Store(tmp_path / "new" / "folder"),
        made_result("base", outcome=0.25, leave_step=None),
    )
    assert store.get(result.trial) is None
    store.put(result)
    store.put(result)
    assert store.get(result.trial) == result
    assert [file.name for file in store.folder.iterdir()] == [f"{result.digest}.json"]


def test_two_writers_of_one_trial_do_no_harm(tmp_path):
    store, result = Store(tmp_path), made_result("base", outcome=0.25)

    def write(_):
        for _ in range(80):
            store.put(result)
            assert store.get(result.trial) == result

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(write, range(2)))  # raises what a writer raised
    assert [file.name for file in tmp_path.iterdir()] == [f"{result.digest}.json"]


@pytest.mark.parametrize(
    "content", ["", '{"digest": "0", "trial": ', '{"digest": "0"}', "[1]", "null"]
)
def test_a_broken_file_is_named(tmp_path, content):
    store, result = Store(tmp_path), made_result("base")
    store.path(result.trial).write_text(content)
    with pytest.raises(WorkbookError, match=f"{result.digest}.json: "):
        store.get(result.trial)


def test_a_recorded_result_counts_and_a_stored_one_comes_before_it(tmp_path):
    recorded = made_result("base", outcome=1.0)
    store = Store(tmp_path, recorded=[recorded])
    other = made_result("base", seed=1).trial
    assert store.get(recorded.trial) == recorded and store.missing(
        [recorded.trial, other, other]
    ) == [other]
    store.put(made_result("base", outcome=2.0))
    assert store.get(recorded.trial).measures["outcome"] == 2.0


def test_results_come_in_order_each_trial_is_run_once_and_told_once(
    trials, uninterrupted, tmp_path
):
    told = []
    asked = [trials[2], trials[0], trials[2]]
    results = run_trials(
        asked, Store(tmp_path), executor="inline", on_result=lambda *news: told.append(news)
    )
    assert [numbers(result) for result in results] == [
        uninterrupted[2],
        uninterrupted[0],
        uninterrupted[2],
    ]
    assert [(done, total, result.trial) for done, total, result in told] == [
        (1, 2, trials[2]),
        (2, 2, trials[0]),
    ]


def test_workers_give_the_same_bits(trials, uninterrupted, tmp_path):
    results = run_trials(trials, Store(tmp_path), executor="workers", n_workers=2)
    assert [numbers(result) for result in results] == uninterrupted
    assert {result.provenance["threads"] for result in results} == {1}


def test_a_trial_has_one_thread_and_the_caller_keeps_its_own(trials, tmp_path):
    torch.set_num_threads(2)
    result = run_trials(trials[:1], Store(tmp_path), executor="inline")[0]
    assert result.provenance["threads"] == 1 and torch.get_num_threads() == 2
    with pytest.raises(RuntimeError, match="inside"), one_thread():
        raise RuntimeError("inside")
    assert torch.get_num_threads() == 2


def test_a_killed_worker_is_said_and_what_was_finished_is_kept(trials, uninterrupted, tmp_path):
    def kill(done, total, result):
        for child in multiprocessing.active_children():
            os.kill(child.pid, signal.SIGKILL)

    store, slow = Store(tmp_path), smoke_trial(short_corpus(), steps=2000, seed=8)
    with pytest.raises(WorkbookError, match="a worker process was killed"):
        run_trials([trials[0], slow], store, executor="workers", n_workers=1, on_result=kill)
    assert numbers(store.get(trials[0])) == uninterrupted[0] and store.get(slow) is None


def test_what_runs_when_a_trial_fails_is_stored_and_nothing_else_starts(tmp_path, monkeypatch):
    monkeypatch.setattr(executors, "run_trial", obey)
    a_failure_lets_what_runs_end_and_starts_nothing(tmp_path, "workers")


def test_an_interrupted_run_waits_for_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(executors, "run_trial", obey)
    an_interrupt_waits_for_nothing(tmp_path, "workers")
    assert not multiprocessing.active_children()


@pytest.mark.parametrize(
    "executor",
    [
        "inline",
        "workers",
        pytest.param(
            "dask",
            marks=pytest.mark.skipif(
                importlib.util.find_spec("distributed") is None, reason="needs the cluster extra"
            ),
        ),
    ],
)
def test_a_killed_run_goes_on_where_it_was(trials, uninterrupted, tmp_path, executor):
    script, folder = tmp_path / "killed.py", tmp_path / "trials"
    script.write_text(KILLED)
    process = started(script, str(folder), executor)
    workers = [int(pid) for pid in process.stdout.readline().split()[1:]]
    process.kill()
    process.wait()
    kept = {
        file.name: (file.stat().st_ino, file.stat().st_mtime_ns) for file in folder.glob("*.json")
    }
    assert len(kept) == 1 and len(workers) == (0 if executor == "inline" else 2)
    told = []
    results = run_trials(
        trials, Store(folder), executor="inline", on_result=lambda done, *_: told.append(done)
    )
    assert told == [2, 3] and [numbers(result) for result in results] == uninterrupted
    for name, before in kept.items():
        assert ((folder / name).stat().st_ino, (folder / name).stat().st_mtime_ns) == before
    assert len(list(folder.glob("*.json"))) == 3
    for pid in workers:  # they end with their parent, killed or not
        wait_until_gone(pid)


def wait_until_gone(pid: int) -> None:
    until = time.monotonic() + PATIENCE
    while (
        Path(f"/proc/{pid}").exists()
        and "Z (zombie)" not in Path(f"/proc/{pid}/status").read_text()
    ):
        assert time.monotonic() < until, f"process {pid} is still there"
        time.sleep(0.05)


def test_a_clip_that_is_gone_ends_the_run_and_what_was_finished_is_kept(trials, tmp_path):
    gone = dataclasses.replace(
        trials[1], clips=(dataclasses.replace(trials[1].clips[0], content="f" * 12),)
    )
    store = Store(tmp_path)
    with pytest.raises(WorkbookError, match="make the trial anew"):
        run_trials([trials[0], gone, trials[2]], store, executor="inline")
    assert store.get(trials[0]) is not None and store.get(trials[2]) is None
    assert json.loads(store.path(trials[0]).read_text())["digest"] == trials[0].digest


def test_auto_takes_workers_only_where_they_help(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert [choose_executor("auto", *pair) for pair in ((2, 2), (1, 2), (2, 1))] == [
        "workers",
        "inline",
        "inline",
    ]
    assert (
        choose_executor("inline", 9, 9) == "inline"
        and choose_executor("workers", 1, 1) == "workers"
    )
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_executor("auto", 2, 2) == "inline"
    with pytest.raises(
        WorkbookError, match="executor 'slurm': it must be one of auto, inline, workers, dask"
    ):
        choose_executor("slurm", 1, 1)


@pytest.mark.parametrize(
    "quota, wanted",
    [
        ("max 100000", 8),
        ("150000 100000", 2),
        ("50000 100000", 1),
        ("900000 100000", 8),
        ("", 8),
        (None, 8),
    ],
)
def test_a_container_has_no_more_processors_than_its_share_of_time_pays_for(
    quota, wanted, tmp_path, monkeypatch
):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    if quota is not None:
        (tmp_path / "cpu.max").write_text(f"{quota}\n")
    assert processors(tmp_path / "cpu.max") == wanted


def test_dask_needs_its_extra_and_a_scheduler_needs_dask(trials, tmp_path, monkeypatch):
    assert choose_executor("dask", 1, 1) == "dask"
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(
        WorkbookError,
        match=r"needs distributed; install it with: pip install 'tts-overfit-workbook\[cluster\]'",
    ):
        run_trials(trials, Store(tmp_path), executor="dask")
    with pytest.raises(
        WorkbookError,
        match="scheduler = 'tcp://a:1' goes with executor = 'dask' alone, but executor is 'auto'",
    ):
        run_trials(trials, Store(tmp_path), scheduler="tcp://a:1")
