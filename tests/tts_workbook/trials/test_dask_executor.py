"""A real scheduler and worker processes: the bits of one process, nothing lost and nothing stored
twice, whatever dies.
"""

import dataclasses
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import contextmanager

import pytest
import torch

from tests.conftest import ROOT
from tests.tts_workbook.trials.subject_files import write_subject
from tests.tts_workbook.trials.trial_builders import (
    PATIENCE,
    a_failure_lets_what_runs_end_and_starts_nothing,
    an_interrupt_waits_for_nothing,
    numbers,
    short_corpus,
    smoke_trial,
    started,
    three_trials,
    told,
)
from tts_core.errors import WorkbookError
from tts_workbook.trials import dask_executor
from tts_workbook.trials.executors import run_trials
from tts_workbook.trials.store import Store
from tts_workbook.trials.subject_trial import make_subject_trial

dask = pytest.importorskip("dask", reason="needs the cluster extra")
distributed = pytest.importorskip(
    "distributed", reason="needs the cluster extra: pip install -e '.[cluster]'"
)

# Runs the slow and one short trial, says that one is stored, and waits to be killed.
CLIENT = """
import sys, time
from tests.tts_workbook.trials.test_dask_executor import slow_trial
from tests.tts_workbook.trials.trial_builders import three_trials
from tts_workbook.trials.executors import run_trials
from tts_workbook.trials.store import Store

def wait(done, total, result):
    print("STORED", flush=True)
    time.sleep(600)

if __name__ == "__main__":
    asked, store = [slow_trial(), three_trials()[0]], Store(sys.argv[1])
    run_trials(asked, store, executor="dask", scheduler=sys.argv[2], on_result=wait)
"""
WORKER = "from distributed.cli.dask_worker import main; main()"
NO_PACKAGE = "import sys; sys.modules['tts_core'] = None; "
OTHER_VERSION = "from tts_workbook import source_hash; source_hash.hash_source = lambda: 'f' * 64; "

# A worker on which trials never end, ready without torch.
ASLEEP = (
    "import sys, time, types; sys.modules['tts_workbook.trials.dask_executor'] = "
    "types.SimpleNamespace(run_here=lambda trial, wanted: time.sleep(600)); "
)

# A worker where every trial does what its name says.
OBEDIENT = """
import dataclasses, json
from distributed import get_worker
from tests.tts_workbook.trials.trial_builders import obey
from tts_workbook.trials import dask_executor
from tts_workbook.trials.trial import trial_from_dict

def run_here(trial, wanted):
    result = obey(trial_from_dict(json.loads(trial)))
    where = {"worker": str(get_worker().name)}
    return json.dumps(dataclasses.replace(result, provenance=where).to_dict())

dask_executor.run_here = run_here
"""


def slow_trial(steps=1000):
    """Far longer than all of the three together, which have 4 steps each."""
    return smoke_trial(short_corpus(), steps=steps, seed=7, name="slow")


@pytest.fixture(scope="module")
def short():
    return three_trials()


@pytest.fixture(scope="module")
def slow():
    return slow_trial()


@pytest.fixture(scope="module")
def inline(short, slow, tmp_path_factory):
    """Digest -> what one process gives."""
    results = run_trials(
        [*short, slow], Store(tmp_path_factory.mktemp("inline")), executor="inline"
    )
    return {result.digest: numbers(result) for result in results}


@pytest.fixture(scope="module")
def two_workers():
    with dask_executor.local_cluster(2) as cluster:
        yield cluster


@pytest.fixture
def cluster(two_workers):
    """Two workers, also after a test that killed one."""
    wait_for_workers(two_workers.scheduler_address, 2)
    return two_workers


@pytest.fixture
def obedient(tmp_path):
    """The file that makes a worker obedient; those of a local cluster are so already."""
    path = tmp_path / "obedient.py"
    path.write_text(OBEDIENT)
    with dask.config.set({"distributed.worker.preload": [str(path)]}):
        yield path


class CountingStore(Store):
    """Knows how often each digest was put."""

    def __init__(self, folder):
        super().__init__(folder)
        self.puts = Counter()

    def put(self, result):
        self.puts[result.digest] += 1
        super().put(result)


def wait_for_workers(address, n):
    with distributed.Client(address, set_as_default=False) as client:
        client.wait_for_workers(n, timeout=PATIENCE)


def wait_for(path):
    until = time.monotonic() + PATIENCE
    while not path.exists():
        assert time.monotonic() < until, f"{path} does not come"
        time.sleep(0.02)


@contextmanager
def worker_process(address, *options, before="", n_workers=1):
    """A worker of its own, once the scheduler knows it; `before` is Python that it runs first."""
    command = [
        sys.executable,
        "-c",
        before + WORKER,
        address,
        "--no-nanny",
        "--no-dashboard",
        *options,
    ]
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for_workers(address, n_workers)
        yield process
    finally:
        process.kill()
        process.wait()


def kill_worker_of(cluster, trial):
    """SIGKILL the process that has `trial`; its nanny starts another one."""
    with distributed.Client(cluster.scheduler_address, set_as_default=False) as client:
        address = next(
            where
            for where, keys in client.processing().items()
            if any(trial.digest in key for key in keys)
        )
    os.kill(
        next(nanny.pid for nanny in cluster.workers.values() if nanny.worker_address == address),
        signal.SIGKILL,
    )


def test_results_are_those_of_one_process_and_a_straggler_keeps_nobody_waiting(
    cluster, short, slow, inline, tmp_path
):
    store, told = CountingStore(tmp_path), []

    def tell(done, total, result):
        told.append((done, total, result.trial.name, store.get(slow) is not None))

    asked = [slow, *short, short[0]]
    results = run_trials(
        asked, store, executor="dask", scheduler=cluster.scheduler_address, on_result=tell
    )
    assert [numbers(result) for result in results] == [inline[trial.digest] for trial in asked]
    assert told == [(1, 4, "", False), (2, 4, "", False), (3, 4, "", False), (4, 4, "slow", True)]
    assert set(store.puts.values()) == {1} and len(list(tmp_path.iterdir())) == 4
    assert {
        (result.provenance["threads"], result.provenance["denormals"]) for result in results
    } == {(1, "flushed")}
    assert {result.provenance["worker"] for result in results} == {"0", "1"}


def test_a_trial_whose_worker_is_killed_runs_again_and_is_stored_once(
    cluster, short, slow, inline, tmp_path
):
    store, killed = CountingStore(tmp_path), []

    def kill(done, total, result):
        if result.digest == short[0].digest:
            kill_worker_of(cluster, slow)
            killed.append(store.get(slow))

    results = run_trials(
        [slow, short[0]],
        store,
        executor="dask",
        scheduler=cluster.scheduler_address,
        on_result=kill,
    )
    assert killed == [None]
    assert [numbers(result) for result in results] == [inline[slow.digest], inline[short[0].digest]]
    assert set(store.puts.values()) == {1} and len(list(tmp_path.iterdir())) == 2


def test_a_trial_that_kills_its_workers_is_given_up_with_its_name(
    cluster, short, slow, tmp_path, monkeypatch
):
    monkeypatch.setattr(cluster.scheduler, "allowed_failures", 0)
    store = Store(tmp_path)
    complaint = (
        rf"workers that died with trial 'slow' \({slow.digest}\): 1, the last one tcp://.*run the"
        r" same command again"
    )
    with pytest.raises(WorkbookError, match=complaint):
        run_trials(
            [slow, short[0]],
            store,
            executor="dask",
            scheduler=cluster.scheduler_address,
            on_result=lambda *_: kill_worker_of(cluster, slow),
        )
    assert store.get(short[0]) is not None and store.get(slow) is None


def test_a_worker_that_dies_is_not_laid_to_the_charge_of_trials_that_had_not_begun(
    obedient, tmp_path, monkeypatch
):
    # a worker that announces GPU=1: the scheduler holds nothing back
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    asked = [told(f"die {tmp_path / f'dead_{seed}'}", seed) for seed in range(3)]
    with dask_executor.local_cluster(1) as cluster:
        # so many as each trial has on its own account
        monkeypatch.setattr(cluster.scheduler, "allowed_failures", 1)
        results = run_trials(
            asked, Store(tmp_path / "trials"), executor="dask", scheduler=cluster.scheduler_address
        )
    assert [result.trial for result in results] == asked


def test_what_runs_when_a_trial_fails_is_stored_and_nothing_else_starts(obedient, tmp_path):
    a_failure_lets_what_runs_end_and_starts_nothing(tmp_path, "dask")


def test_an_interrupted_run_waits_for_nothing(obedient, tmp_path):
    an_interrupt_waits_for_nothing(tmp_path, "dask")


def test_a_killed_client_loses_nothing_and_repeats_nothing_that_is_stored(
    cluster, short, slow, inline, tmp_path
):
    script, folder = tmp_path / "client.py", tmp_path / "trials"
    script.write_text(CLIENT)
    process = started(script, str(folder), cluster.scheduler_address)
    assert process.stdout.readline() == "STORED\n"
    process.kill()
    process.wait()
    kept = {file.name: file.stat().st_mtime_ns for file in folder.glob("*.json")}
    assert list(kept) == [f"{short[0].digest}.json"]
    store, told = CountingStore(folder), []
    asked = [slow, *short[:2]]
    results = run_trials(
        asked,
        store,
        executor="dask",
        scheduler=cluster.scheduler_address,
        on_result=lambda done, *_: told.append(done),
    )
    assert [numbers(result) for result in results] == [inline[trial.digest] for trial in asked]
    assert told == [2, 3] and store.puts == {slow.digest: 1, short[1].digest: 1}
    assert (folder / f"{short[0].digest}.json").stat().st_mtime_ns == kept[
        f"{short[0].digest}.json"
    ]


@pytest.mark.parametrize(
    "folders",
    [{"one": "one", "two": "two"}, {"one": "both", "two": "both"}],
    ids=["two folders", "one folder"],
)
def test_two_clients_that_ask_for_one_trial_share_its_training(
    cluster, slow, inline, tmp_path, folders
):
    found = {}

    def ask(name):
        # a name is for people: the digest, and so the trial, is the same
        asked = dataclasses.replace(slow, name=name)
        store = Store(tmp_path / folders[name])
        found[name] = run_trials(
            [asked], store, executor="dask", scheduler=cluster.scheduler_address
        )[0]

    threads = [threading.Thread(target=ask, args=[name]) for name in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    # the seconds too, which no two trainings have in common
    assert found["one"].measures == found["two"].measures
    if folders["one"] != folders["two"]:
        assert {name: result.trial.name for name, result in found.items()} == {
            "one": "one",
            "two": "two",
        }
    assert {path.name for path in tmp_path.glob("*/*")} == {f"{slow.digest}.json"}
    assert numbers(dataclasses.replace(found["one"], trial=slow)) == inline[slow.digest]


def test_where_a_worker_announces_a_gpu_every_trial_goes_to_one(cluster, short, inline, tmp_path):
    with worker_process(
        cluster.scheduler_address,
        "--nthreads",
        "1",
        "--resources",
        "GPU=1",
        "--name",
        "gpu",
        n_workers=3,
    ):
        results = run_trials(
            short, Store(tmp_path), executor="dask", scheduler=cluster.scheduler_address
        )
    assert {result.provenance["worker"] for result in results} == {"gpu"}
    assert [numbers(result) for result in results] == [inline[trial.digest] for trial in short]


def test_a_gpu_that_is_announced_in_mid_run_has_every_later_trial(obedient, tmp_path, monkeypatch):
    monkeypatch.setattr(dask_executor, "LOOK_EVERY", 0.2)
    submit, resources = distributed.Client.submit, []
    monkeypatch.setattr(
        distributed.Client,
        "submit",
        lambda *values, **named: (resources.append(named["resources"]), submit(*values, **named))[
            1
        ],
    )
    first, second = tmp_path / "first", tmp_path / "second"
    asked = [
        told(f"await {first}", 0),
        told(f"await {second}", 1),
        told(f"end {tmp_path / 'third'}", 2),
    ]

    def announce(address):
        wait_for(tmp_path / "first.awaited")
        with worker_process(
            address,
            "--nthreads",
            "1",
            "--resources",
            "GPU=1",
            "--name",
            "gpu",
            "--preload",
            str(obedient),
            n_workers=2,
        ):
            wait_for(tmp_path / "second.awaited")
            first.touch()  # now the worker without a GPU has nothing to do
            wait_for(tmp_path / "over")

    with dask_executor.local_cluster(1) as cluster:
        thread = threading.Thread(target=announce, args=[cluster.scheduler_address])
        thread.start()
        results = run_trials(
            asked,
            Store(tmp_path / "trials"),
            executor="dask",
            scheduler=cluster.scheduler_address,
            on_result=lambda *_: second.touch(),
        )
        (tmp_path / "over").touch()
        thread.join()
    assert resources == [None, {"GPU": 1}, {"GPU": 1}]
    assert [result.provenance["worker"] for result in results] == ["0", "gpu", "gpu"]


@pytest.mark.parametrize("visible, wanted", [("", ["0", "1"]), ("3,5", ["3", "5"])])
def test_a_local_cluster_has_one_worker_a_device_that_sees_it_alone(visible, wanted, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    with (
        dask_executor.local_cluster(7) as cluster,
        distributed.Client(cluster.scheduler_address, set_as_default=False) as client,
    ):
        client.wait_for_workers(2, timeout=PATIENCE)
        assert sorted(client.run(os.getenv, "CUDA_VISIBLE_DEVICES").values()) == wanted
        workers = cluster.scheduler.workers.values()
        assert [(one.nthreads, dict(one.resources)) for one in workers] == [(1, {"GPU": 1})] * 2


@pytest.mark.parametrize(
    "before, threads, complaint",
    [
        (
            NO_PACKAGE,
            1,
            "cannot run trials: .*tts_core.*install there the same version of tts-overfit-workbook",
        ),
        (
            OTHER_VERSION,
            1,
            (
                "has another version than this process: tts_workbook f{12} instead of"
                " [0-9a-f]{12} .* install the same"
            ),
        ),
        (
            "",
            2,
            (
                "has 2 threads, but a trial needs a process of its own .* start workers with"
                " --nthreads 1"
            ),
        ),
    ],
    ids=["no package", "another version", "two threads"],
)
def test_a_worker_that_cannot_run_trials_is_named_with_the_way_out(
    short, tmp_path, before, threads, complaint
):
    with dask_executor.local_cluster(0) as empty:
        address = empty.scheduler_address
        with worker_process(address, "--nthreads", str(threads), "--name", "unfit", before=before):
            worker = rf"Dask worker unfit \(tcp://127.0.0.1:\d+, on {socket.gethostname()}\)"
            with pytest.raises(WorkbookError, match=f"{worker} {complaint}"):
                run_trials(short[:1], Store(tmp_path), executor="dask", scheduler=address)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_a_worker_does_not_have_is_named_with_the_worker(cluster, short, tmp_path):
    clip = short[0].clips[0]
    nowhere = dataclasses.replace(
        short[0], clips=(dataclasses.replace(clip, root="/nowhere/voice"),), name="away"
    )
    changed = dataclasses.replace(short[0], clips=(dataclasses.replace(clip, content="f" * 12),))
    for trial, complaint in (
        (
            nowhere,
            "there is no folder /nowhere/voice, from which trial 'away' takes its clips; copy or",
        ),
        (changed, ".* its sound, text or alignment changed; make the trial anew"),
    ):
        with pytest.raises(
            WorkbookError, match=rf"Dask worker [01] \(tcp://[\d.:]+, on .*\): {complaint}"
        ):
            run_trials(
                [trial], Store(tmp_path), executor="dask", scheduler=cluster.scheduler_address
            )


def test_a_subject_is_trained_where_its_files_are_and_elsewhere_the_worker_names_them(
    cluster, tmp_path
):
    address = write_subject(tmp_path / "mine")
    place = address.rpartition(":")[0]
    trials = [make_subject_trial(address, 16, seed=seed) for seed in (0, 1)]
    inline = run_trials(trials, Store(tmp_path / "inline"), executor="inline")
    ask = {"executor": "dask", "scheduler": cluster.scheduler_address}
    on_dask = run_trials(trials, Store(tmp_path / "dask"), **ask)
    assert list(map(numbers, on_dask)) == list(map(numbers, inline))
    here = trials[0].source
    another = dataclasses.replace(trials[0], source="f" * 16)
    gone = dataclasses.replace(trials[0], address="/nowhere/mine.py:subject")
    for trial, complaint in (
        (another, f"{place}: .* has the hash {here} instead of {'f' * 16}"),
        (gone, rf"/nowhere/mine.py: it is not here \(no source instead of {here}\)"),
    ):
        worker = r"Dask worker [01] \(tcp://[\d.:]+, on .*\)"
        with pytest.raises(WorkbookError, match=f"{worker}: {complaint}"):
            run_trials([trial], Store(tmp_path / "none"), **ask)


def test_an_address_where_nothing_answers_is_named(short, tmp_path, monkeypatch):
    monkeypatch.setattr(dask_executor, "CONNECT_PATIENCE", 0.5)
    with socket.socket() as taken:  # bound, but nobody listens
        taken.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(
            WorkbookError,
            match=f"no Dask scheduler answers at {address} .*start one with `dask scheduler`",
        ):
            run_trials(short, Store(tmp_path), executor="dask", scheduler=address)


def test_a_scheduler_without_workers_is_waited_for_only_so_long(slow, tmp_path, monkeypatch):
    monkeypatch.setattr(dask_executor, "WORKER_PATIENCE", 0.5)
    with (
        dask_executor.local_cluster(0) as empty,
        pytest.raises(
            WorkbookError,
            match=f"{empty.scheduler_address} has had no worker for 0.5 s; start some with `dask",
        ),
    ):
        run_trials([slow], Store(tmp_path), executor="dask", scheduler=empty.scheduler_address)


@pytest.mark.parametrize(
    "who, complaint",
    [("worker", "has had no worker for 3 s; start some"), ("scheduler", "went away .*")],
)
def test_what_leaves_in_mid_trial_for_good_is_an_error_and_no_endless_wait(
    who, complaint, slow, tmp_path, monkeypatch
):
    monkeypatch.setattr(dask_executor, "WORKER_PATIENCE", 3.0)
    monkeypatch.setattr(dask_executor, "LOOK_EVERY", 0.2)

    def leave(cluster, worker):
        with distributed.Client(cluster.scheduler_address, set_as_default=False) as client:
            while not any(client.processing().values()):
                time.sleep(0.05)
        worker.kill() if who == "worker" else cluster.sync(cluster.scheduler.close)

    # or it looks 30 s for its closed scheduler
    quick = dask.config.set({"distributed.comm.timeouts.connect": "5s"})
    with (
        quick,
        dask_executor.local_cluster(0) as cluster,
        worker_process(cluster.scheduler_address, before=ASLEEP) as worker,
    ):
        thread = threading.Thread(target=leave, args=[cluster, worker])
        thread.start()
        complaint = rf"the Dask scheduler at tcp://[\d.:]+ {complaint}; finished trials are stored"
        with pytest.raises(WorkbookError, match=complaint):
            run_trials(
                [slow], Store(tmp_path), executor="dask", scheduler=cluster.scheduler_address
            )
        thread.join()
