"""Trials on Dask distributed, on one machine or on many: the same frozen trials, the same bits, the
same store.

What travels is text: a trial as JSON under its digest, its result back. No class of ours is
unpickled, so the scheduler does without this package, and a worker that lacks it, or has another
version of it, can say so itself.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import logging
import os
import socket
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from tts_core.errors import WorkbookError
from tts_workbook.source_hash import hash_source
from tts_workbook.trials.run_trial import run_trial
from tts_workbook.trials.threads import one_thread
from tts_workbook.trials.trial import Trial
from tts_workbook.trials.trial_result import (
    AnyTrial,
    TrialResult,
    any_trial_from_dict,
    result_from_dict,
)

if TYPE_CHECKING:
    from distributed import Client, Future, SpecCluster

CONNECT_PATIENCE = 15.0  # seconds until a scheduler must have answered
WORKER_PATIENCE = 60.0  # seconds without a single worker after which this gives up
LOOK_EVERY = 2.0  # seconds between two looks at the workers
POLL = 0.02  # seconds between two looks at what has ended
RESOURCE = "GPU"  # what a worker announces with `dask worker --resources GPU=1`
Resources = dict[str, float]  # what a worker announces, or a trial asks for
ON_GPU: Resources = {RESOURCE: 1}  # what a trial asks for where a worker announces one
GO_ON = "finished trials are stored; run the same command again to go on"


def in_dask(
    trials: Sequence[AnyTrial], n_workers: int, scheduler: str = ""
) -> Iterator[TrialResult]:
    """Results of distinct `trials`, each as it ends.

    `scheduler`: an address such as tcp://10.0.0.5:8786; "" starts `n_workers` one-thread processes
    here (with CUDA one per device) and ends them afterwards. Dask runs a trial again whose worker
    died. Raises WorkbookError when the `cluster` extra is missing, the scheduler does not answer or
    goes away, there is no worker, too many workers died under a trial, or a worker cannot run
    trials: it says which one and why. Trials that run when one fails end first, and no other
    starts.
    """
    if not trials:
        return
    try:
        import distributed
    except ModuleNotFoundError as error:
        raise WorkbookError(
            f"executor=dask needs {error.name}; install it with: pip install "
            "'tts-overfit-workbook[cluster]'"
        ) from None
    version = fingerprint()["tts_workbook"]
    # two clients that ask for the same share it
    by_key = {f"tts-{trial.digest}-{version}": trial for trial in trials}
    with ExitStack() as stack:
        address = scheduler
        if not address:
            cluster = stack.enter_context(local_cluster(min(n_workers, len(trials))))
            address = cluster.scheduler_address
        client = stack.enter_context(_connect(address))
        errors: list[Exception] = []
        try:
            yield from _as_they_end(client, address, by_key, errors)
        except (OSError, distributed.client.CancelledError) as error:
            reason = " ".join(str(error).split())
            errors.append(
                WorkbookError(f"the Dask scheduler at {address} went away ({reason}); {GO_ON}")
            )
        except WorkbookError as error:
            errors.append(error)
        if errors:
            raise errors[0]


@contextmanager
def local_cluster(n_workers: int) -> Iterator[SpecCluster]:
    """One-thread worker processes on this machine; with CUDA one per device, which it alone sees
    and announces.
    """
    import dask
    from distributed import Nanny, Scheduler, SpecCluster

    own: list[dict[str, Any]] = [
        {"env": {"CUDA_VISIBLE_DEVICES": device}, "resources": ON_GPU}
        for device in _visible_devices()
    ]
    own = own or [{}] * n_workers
    # a worker's traceback in a notebook's output is taken for the notebook's
    quiet = {"silence_logs": logging.CRITICAL}
    here = {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0"}
    workers = {
        i: {"cls": Nanny, "options": {**here, **quiet, "nthreads": 1, "memory_limit": None, **one}}
        for i, one in enumerate(own)
    }
    # on a busy machine 15 s are not enough to restart one
    patient = {"distributed.deploy.lost-worker-timeout": "10 minutes"}
    with (
        dask.config.set(patient),
        SpecCluster(
            scheduler={"cls": Scheduler, "options": {**here, "port": 0}}, workers=workers, **quiet
        ) as cluster,
    ):
        yield cluster


def _visible_devices() -> list[str]:
    """The CUDA devices that this process sees, by the names that CUDA_VISIBLE_DEVICES gives."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    numbers = range(torch.cuda.device_count())
    return [visible[i] if i < len(visible) and visible[i] else str(i) for i in numbers]


@functools.cache
def fingerprint() -> dict[str, str]:
    """What client and worker must have in common for the same bits."""
    # +cpu or +cu130 may differ
    return {"tts_workbook": hash_source()[:12], "torch": torch.__version__.split("+")[0]}


# --- in the client --------------------------------------------------------------------------------


def _connect(address: str) -> Client:
    from distributed import Client

    try:
        return Client(address, timeout=CONNECT_PATIENCE, set_as_default=False)
    except (OSError, ValueError) as error:
        raise WorkbookError(
            f"no Dask scheduler answers at {address} ({error}); start one with `dask scheduler` and"
            " give the address that it prints, or leave scheduler out: trials then run on this"
            " machine"
        ) from error


def _workers(client: Client) -> list[tuple[int, Resources]]:
    """Each worker's threads, and what it announces."""
    return client.run_on_scheduler(
        lambda dask_scheduler: [
            (one.nthreads, dict(one.resources)) for one in dask_scheduler.workers.values()
        ]
    )


def _places(workers: Sequence[tuple[int, Resources]], resources: Resources | None) -> int:
    """Trials that `workers` can run at the same time: one a thread and, where `resources` asks for
    GPUs, one a GPU.
    """
    places = 0
    for threads, announced in workers:
        gpus = int(announced.get(RESOURCE, 0))
        places += threads if resources is None else min(threads, gpus)
    return places


def _wait_for_workers(client: Client, address: str) -> list[tuple[int, Resources]]:
    until = time.monotonic() + WORKER_PATIENCE
    found = _workers(client)
    while not found:
        if time.monotonic() > until:
            raise WorkbookError(
                f"the Dask scheduler at {address} has had no worker for {WORKER_PATIENCE:g} s;"
                f" start some with `dask worker {address} --nthreads 1` and run the same command"
                " again"
            )
        time.sleep(min(LOOK_EVERY, WORKER_PATIENCE))
        found = _workers(client)
    return found


def _as_they_end(
    client: Client, address: str, trials: dict[str, AnyTrial], errors: list[Exception]
) -> Iterator[TrialResult]:
    """Results of `trials` (by key) as they end; after an error, which goes to `errors`, of those
    alone that had begun.

    A trial is handed out when there is a thread for it and not before: of a worker that dies the
    scheduler blames every trial that lies there, begun or not, and it gives up one that was blamed
    a few times. Raises WorkbookError when for long there has been no worker that could end one.
    """
    waiting = deque(trials)
    # key -> (future, the resources that it asked for)
    running: dict[str, tuple[Future, Resources | None]] = {}
    results: list[TrialResult] = []
    errand = _errand()
    resources: Resources | None = None
    workers, looked = _wait_for_workers(client, address), time.monotonic()
    alive = looked
    while True:
        # no way back: a GPU's worker may only restart
        resources = resources or (ON_GPU if _places(workers, ON_GPU) else None)
        taken = sum(asked == resources for _, asked in running.values())
        free = _places(workers, resources) - taken
        for key in [waiting.popleft() for _ in range(min(free, len(waiting)))]:
            frozen = json.dumps(trials[key].absolute().to_dict())
            future = client.submit(
                errand, frozen, key=key, wanted=fingerprint(), resources=resources
            )
            running[key] = future, resources
        while results:  # only now, so that no worker waits for what the caller does with one
            yield results.pop()
            alive = time.monotonic()
        if not running and not waiting:
            return
        ended = next((key for key, (future, _) in running.items() if future.done()), None)
        if ended is not None:
            _collect(running.pop(ended)[0], trials[ended], results, errors)
            if errors:
                waiting.clear()
        now = time.monotonic()
        if now - looked >= LOOK_EVERY or (ended is not None and waiting):
            workers, looked = _workers(client), now
            asked_for = [resources, *(asked for _, asked in running.values())]
            if any(_places(workers, asked) for asked in asked_for):
                alive = now
            elif now - alive > WORKER_PATIENCE:
                with_gpu = " with a GPU" if resources else ""
                raise WorkbookError(
                    f"the Dask scheduler at {address} has had no worker{with_gpu} for"
                    f" {WORKER_PATIENCE:g} s; start some; {GO_ON}"
                )
        elif ended is None:
            time.sleep(POLL)


def _collect(
    future: Future, trial: AnyTrial, results: list[TrialResult], errors: list[Exception]
) -> None:
    """Put what has ended where it belongs; an error of the scheduler's own is raised."""
    from distributed.client import CancelledError

    try:
        # its name and paths may be another client's
        results.append(dataclasses.replace(_result(future, trial), trial=trial))
    except (OSError, CancelledError):
        raise
    except Exception as error:
        errors.append(error)
    future.release()


def _result(future: Future, trial: AnyTrial) -> TrialResult:
    from distributed import KilledWorker

    try:
        return result_from_dict(json.loads(future.result()))
    except KilledWorker as error:
        raise WorkbookError(
            f"workers that died with trial {trial.name!r} ({trial.digest}):"
            f" {error.allowed_failures + 1}, the last one {error.last_worker.address} (out of"
            f" memory, or at a time limit?); {GO_ON}"
        ) from error
    except ImportError as error:  # of the errand, where WorkbookError does not exist
        raise WorkbookError(str(error)) from error


# --- in a worker ----------------------------------------------------------------------------------


def _errand() -> Callable[[str, dict], str]:
    """The function that travels: made inside a function, it is pickled by value and needs nothing
    of ours to be unpickled.
    """

    def errand(trial: str, wanted: dict) -> str:
        try:
            from tts_workbook.trials.dask_executor import run_here
        except ImportError as error:
            import socket

            from distributed import get_worker

            raise ImportError(
                f"Dask worker {get_worker().name} ({get_worker().address}, on"
                f" {socket.gethostname()}) cannot run trials: {error}; install there the same"
                " version of tts-overfit-workbook"
            ) from None
        return run_here(trial, wanted)

    return errand


def run_here(trial: str, wanted: dict[str, str]) -> str:
    """JSON of the result of a trial's JSON, in the thread of a Dask worker. Raises WorkbookError
    naming the worker.
    """
    from distributed import get_worker

    worker = get_worker()
    where = f"Dask worker {worker.name} ({worker.address}, on {socket.gethostname()})"
    here = fingerprint()
    if here != wanted:
        differ = ", ".join(
            f"{name} {here.get(name)} instead of {value}"
            for name, value in wanted.items()
            if here.get(name) != value
        )
        raise WorkbookError(
            f"{where} has another version than this process: {differ} (tts_workbook: the hash of"
            " the source); install the same version there and restart the worker"
        )
    if worker.state.nthreads != 1:
        raise WorkbookError(
            f"{where} has {worker.state.nthreads} threads, but a trial needs a process of its own"
            " (random numbers belong to the process); start workers with --nthreads 1 --nworkers N"
        )
    frozen = any_trial_from_dict(json.loads(trial))
    clips = frozen.clips if isinstance(frozen, Trial) else ()
    for root in dict.fromkeys(clip.root for clip in clips):
        if not Path(root).is_dir():
            raise WorkbookError(
                f"{where}: there is no folder {root}, from which trial {frozen.name!r} takes its"
                " clips; copy or mount it there under the same path"
            )
    try:
        with one_thread():
            result = run_trial(frozen)
    except (WorkbookError, ImportError, OSError) as error:
        raise WorkbookError(f"{where}: {error}") from error
    result = dataclasses.replace(
        result, provenance={**result.provenance, "worker": str(worker.name)}
    )
    return json.dumps(result.to_dict(), allow_nan=False)
