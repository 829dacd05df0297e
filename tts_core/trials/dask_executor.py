"""Trials on Dask distributed, on one machine or on many: the same frozen trials, the same bits, the same store.

What travels is text: a trial as JSON under its digest, its result back. No class of ours is unpickled, so the scheduler does
without this package, and a worker that lacks it, or has another version of it, can say so itself.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import logging
import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from tts_core.errors import WorkbookError
from tts_core.file_hashes import hash_package
from tts_core.trials.run import Result, result_from_dict, run_trial
from tts_core.trials.threads import one_thread
from tts_core.trials.trial import Trial, trial_from_dict

if TYPE_CHECKING:
    from distributed import Client, Future, SpecCluster

CONNECT_PATIENCE = 15.0   # seconds until a scheduler must have answered
WORKER_PATIENCE = 60.0    # seconds without a single worker after which this gives up
LOOK_EVERY = 2.0          # seconds between two looks at the workers
POLL = 0.02               # seconds between two looks at what has ended
RESOURCE = "GPU"          # what a worker announces with `dask worker --resources GPU=1`
GO_ON = "finished trials are stored; run the same command again to go on"


def in_dask(trials: Sequence[Trial], n_workers: int, scheduler: str = "") -> Iterator[Result]:
    """Results of distinct `trials`, each as it ends.

    `scheduler`: an address such as tcp://10.0.0.5:8786; "" starts `n_workers` one-thread processes here (with CUDA one per
    device) and ends them afterwards. Dask runs a trial again whose worker died. Raises WorkbookError when the `cluster` extra
    is missing, the scheduler does not answer or goes away, there is no worker, too many workers died under a trial, or a
    worker cannot run trials: it says which one and why.
    """
    if not trials:
        return
    try:
        import distributed
    except ModuleNotFoundError as error:
        raise WorkbookError(f"executor=dask needs {error.name}; install it with: pip install "
                            "'tts-overfit-workbook[cluster]'") from None
    version = fingerprint()["tts_core"]
    by_key = {f"tts-{trial.digest}-{version}": trial for trial in trials}      # two clients that ask for the same share it
    with ExitStack() as stack:
        address = scheduler or stack.enter_context(local_cluster(min(n_workers, len(trials)))).scheduler_address
        client = stack.enter_context(_connect(address))
        try:
            wanted = {RESOURCE: 1} if any(map(_has_gpu, _wait_for_workers(client, address))) else None
            futures = client.map(_errand(), [json.dumps(_absolute(trial).to_dict()) for trial in trials], key=list(by_key),
                                 wanted=fingerprint(), resources=wanted)
            for future in _as_they_end(client, futures, address, wanted):
                trial = by_key[future.key]
                yield dataclasses.replace(_result(future, trial), trial=trial)      # its name and paths may be another client's
                future.release()
        except (OSError, distributed.client.CancelledError) as error:
            raise WorkbookError(f"the Dask scheduler at {address} went away ({' '.join(str(error).split())}); {GO_ON}") from error


@contextmanager
def local_cluster(n_workers: int) -> Iterator[SpecCluster]:
    """One-thread worker processes on this machine; with CUDA one per device, which it alone sees and announces."""
    import dask
    from distributed import Nanny, Scheduler, SpecCluster
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    devices = [visible[i] if i < len(visible) and visible[i] else str(i) for i in range(torch.cuda.device_count())]
    own = [{"env": {"CUDA_VISIBLE_DEVICES": device}, "resources": {RESOURCE: 1}} for device in devices] or [{}] * n_workers
    quiet = {"silence_logs": logging.CRITICAL}      # a worker's traceback in a notebook's output is taken for the notebook's
    here = {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0"}
    workers = {i: {"cls": Nanny, "options": {**here, **quiet, "nthreads": 1, "memory_limit": None, **one}}
               for i, one in enumerate(own)}
    patient = {"distributed.deploy.lost-worker-timeout": "10 minutes"}     # on a busy machine 15 s are not enough to restart one
    with dask.config.set(patient), SpecCluster(
            scheduler={"cls": Scheduler, "options": {**here, "port": 0}}, workers=workers, **quiet) as cluster:
        yield cluster


@functools.cache
def fingerprint() -> dict[str, str]:
    """What client and worker must have in common for the same bits."""
    return {"tts_core": hash_package()[:12], "torch": torch.__version__.split("+")[0]}     # +cpu or +cu130 may differ


# --- in the client ------------------------------------------------------------------------------------------------------

def _connect(address: str) -> Client:
    from distributed import Client
    try:
        return Client(address, timeout=CONNECT_PATIENCE, set_as_default=False)
    except (OSError, ValueError) as error:
        raise WorkbookError(f"no Dask scheduler answers at {address} ({error}); start one with `dask scheduler` and give the "
                            "address that it prints, or leave scheduler out: trials then run on this machine") from error


def _resources(client: Client) -> list[dict[str, float]]:
    """What each worker announces."""
    return client.run_on_scheduler(lambda dask_scheduler: [dict(one.resources) for one in dask_scheduler.workers.values()])


def _has_gpu(resources: dict[str, float]) -> bool:
    return resources.get(RESOURCE, 0) >= 1


def _wait_for_workers(client: Client, address: str) -> list[dict[str, float]]:
    until = time.monotonic() + WORKER_PATIENCE
    while not (found := _resources(client)):
        if time.monotonic() > until:
            raise WorkbookError(f"the Dask scheduler at {address} has had no worker for {WORKER_PATIENCE:g} s; start some with "
                                f"`dask worker {address} --nthreads 1` and run the same command again")
        time.sleep(min(LOOK_EVERY, WORKER_PATIENCE))
    return found


def _as_they_end(client: Client, futures: Sequence[Future], address: str, wanted: dict | None) -> Iterator[Future]:
    """Futures in the order in which they end; an error when for long there is no worker that could end one."""
    from distributed import as_completed
    ended = as_completed(futures, loop=client.loop)
    looked = alive = time.monotonic()
    while not ended.is_empty():
        if ended.has_ready():
            yield from ended.next_batch(block=False)
            continue
        time.sleep(POLL)
        now = time.monotonic()
        if now - looked >= LOOK_EVERY:
            looked = now
            alive = now if any(wanted is None or _has_gpu(one) for one in _resources(client)) else alive
            if now - alive > WORKER_PATIENCE:
                raise WorkbookError(f"the Dask scheduler at {address} has had no worker{' with a GPU' if wanted else ''} for "
                                    f"{WORKER_PATIENCE:g} s; start some; {GO_ON}")


def _result(future: Future, trial: Trial) -> Result:
    from distributed import KilledWorker
    try:
        return result_from_dict(json.loads(future.result()))
    except KilledWorker as error:
        raise WorkbookError(f"workers that died with trial {trial.name!r} ({trial.digest}): {error.allowed_failures + 1}, the "
                            f"last one {error.last_worker.address} (out of memory, or at a time limit?); {GO_ON}") from error
    except ImportError as error:     # of the errand, where WorkbookError does not exist
        raise WorkbookError(str(error)) from error


def _absolute(trial: Trial) -> Trial:
    """The same trial with folders that mean the same in a process with another current folder."""
    clips = tuple(dataclasses.replace(clip, root=os.path.abspath(clip.root)) for clip in trial.clips)
    return dataclasses.replace(trial, clips=clips)


# --- in a worker --------------------------------------------------------------------------------------------------------

def _errand() -> Callable[[str, dict], str]:
    """The function that travels: made inside a function, it is pickled by value and needs nothing of ours to be unpickled."""
    def errand(trial: str, wanted: dict) -> str:
        try:
            from tts_core.trials.dask_executor import run_here
        except ImportError as error:
            import socket

            from distributed import get_worker
            raise ImportError(f"Dask worker {get_worker().name} ({get_worker().address}, on {socket.gethostname()}) cannot run "
                              f"trials: {error}; install there the same version of tts-overfit-workbook") from None
        return run_here(trial, wanted)
    return errand


def run_here(trial: str, wanted: dict[str, str]) -> str:
    """JSON of the result of a trial's JSON, in the thread of a Dask worker. Raises WorkbookError naming the worker."""
    from distributed import get_worker
    worker = get_worker()
    where = f"Dask worker {worker.name} ({worker.address}, on {socket.gethostname()})"
    if fingerprint() != wanted:
        differ = ", ".join(f"{name} {fingerprint().get(name)} instead of {value}" for name, value in wanted.items()
                           if fingerprint().get(name) != value)
        raise WorkbookError(f"{where} has another version than this process: {differ} (tts_core: the hash of its source); "
                            "install the same version there and restart the worker")
    if worker.state.nthreads != 1:
        raise WorkbookError(f"{where} has {worker.state.nthreads} threads, but a trial needs a process of its own (random "
                            "numbers belong to the process); start workers with --nthreads 1 --nworkers N")
    frozen = trial_from_dict(json.loads(trial))
    for root in dict.fromkeys(clip.root for clip in frozen.clips):
        if not Path(root).is_dir():
            raise WorkbookError(f"{where}: there is no folder {root}, from which trial {frozen.name!r} takes its clips; copy or "
                                "mount it there under the same path")
    try:
        with one_thread():
            result = run_trial(frozen)
    except (WorkbookError, ImportError, OSError) as error:
        raise WorkbookError(f"{where}: {error}") from error
    result = dataclasses.replace(result, provenance={**result.provenance, "worker": str(worker.name)})
    return json.dumps(result.to_dict(), allow_nan=False)
