"""Where trials run: in this process, in one-thread worker processes side by side, or on Dask. All
give the same bits.

A trial always runs with one thread: results then do not depend on how many processors there are. On
two processors two such workers finish twice as many small trainings as one does
(benchmarks/results/executors.json).
"""

from __future__ import annotations

import math
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from multiprocessing.connection import Connection
from multiprocessing.connection import wait as wait_for_one_of
from pathlib import Path

import torch

from tts_core.errors import WorkbookError
from tts_workbook.trials.run_trial import run_trial
from tts_workbook.trials.store import Store
from tts_workbook.trials.threads import one_thread, settle_thread
from tts_workbook.trials.trial_result import AnyTrial, TrialResult

EXECUTORS = ("auto", "inline", "workers", "dask")
# "150000 100000": 1.5 processors; "max 100000": all of them
CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")
# told of every trial that ends: trials done, trials in all, the newest result
OnResult = Callable[[int, int, TrialResult], None]
Results = Generator[TrialResult, None, None]  # as they end


def choose_executor(executor: str, n_trials: int, n_workers: int) -> str:
    """`auto` takes workers where there are two trials and two processors or more, and no CUDA
    device to share.
    """
    if executor not in EXECUTORS:
        raise WorkbookError(f"executor {executor!r}: it must be one of {', '.join(EXECUTORS)}")
    if executor != "auto":
        return executor
    several = n_trials > 1 and n_workers > 1
    return "workers" if several and not torch.cuda.is_available() else "inline"


def run_trials(
    trials: Sequence[AnyTrial],
    store: Store,
    *,
    executor: str = "auto",
    n_workers: int | None = None,
    scheduler: str = "",
    on_result: OnResult | None = None,
) -> list[TrialResult]:
    """Results of all `trials`, in their order; those in `store` are not run again, the others are
    stored as they end.

    `scheduler`: the address of a Dask scheduler, with executor="dask" only; "" is a local cluster
    of `n_workers`. A kill loses at most what was running. Raises WorkbookError when a worker
    process dies (Dask first tries the trial on others), or when a trial cannot be run at all (its
    clip is gone); what was finished until then is stored, and so is what runs at that time on other
    workers. After KeyboardInterrupt nothing is waited for.
    """
    if scheduler and executor != "dask":
        raise WorkbookError(
            f"scheduler = {scheduler!r} goes with executor = 'dask' alone, but executor is"
            f" {executor!r}"
        )
    missing = store.missing(trials)
    distinct = len({trial.digest for trial in trials})
    done = distinct - len(missing)
    n_workers = n_workers or processors()
    chosen = choose_executor(executor, len(missing), n_workers)
    run = {"inline": _inline, "workers": _in_workers, "dask": _in_dask}[chosen]
    # its processes end here, also after an error of on_result
    with closing(run(missing, n_workers, scheduler)) as results:
        for result in results:
            store.put(result)
            done += 1
            if on_result is not None:
                on_result(done, distinct, result)
    return [_stored(store, trial) for trial in trials]


def _stored(store: Store, trial: AnyTrial) -> TrialResult:
    """Raises WorkbookError where another process has taken the result away meanwhile."""
    result = store.get(trial)
    if result is None:
        raise WorkbookError(f"{store.path(trial)}: stored a moment ago, and gone; run it again")
    return result


def processors(cpu_quota: Path = CPU_QUOTA) -> int:
    """How many this process may use: those of its affinity, and no more than a container's share of
    time (cgroup v2) pays for.
    """
    found = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        found = len(os.sched_getaffinity(0))
    try:
        quota, period = cpu_quota.read_text().split()
    except (OSError, ValueError):  # not Linux, or no such container
        return found
    if quota == "max":
        return found
    paid_for = math.ceil(int(quota) / int(period))
    return min(found, max(1, paid_for))


def _start_worker(stop: Connection) -> None:
    """A settled thread; and an end when the parent closes its end of `stop`, or is killed and
    cannot do even that.

    An interrupt from the keyboard reaches every process: what becomes of the trials is the parent's
    to say.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    settle_thread()
    parent = multiprocessing.parent_process()
    ends: list[Connection | int] = [stop]
    if parent is not None:
        ends.append(parent.sentinel)

    def end_with_the_parent() -> None:
        wait_for_one_of(ends)
        os._exit(1)

    threading.Thread(target=end_with_the_parent, daemon=True).start()


def _inline(trials: Sequence[AnyTrial], n_workers: int, scheduler: str) -> Results:
    for trial in trials:
        with one_thread():
            result = run_trial(trial)
        yield result


def _in_workers(trials: Sequence[AnyTrial], n_workers: int, scheduler: str) -> Results:
    # a forked child would inherit torch's threads in an unknown state
    context = multiprocessing.get_context("spawn")
    stop, hold = context.Pipe(duplex=False)
    pool = ProcessPoolExecutor(
        n_workers, mp_context=context, initializer=_start_worker, initargs=(stop,)
    )
    try:
        yield from _as_they_end(pool, trials, n_workers)
    except BrokenProcessPool as error:
        raise WorkbookError(
            "a worker process was killed (out of memory?); finished trials are stored, run the same"
            " command again to go on, with executor=inline if it happens again"
        ) from error
    # an interrupt, or a caller that wants no more: nobody would take what still runs
    except BaseException:
        hold.close()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        hold.close()
        stop.close()


def _as_they_end(pool: ProcessPoolExecutor, trials: Sequence[AnyTrial], n_workers: int) -> Results:
    """Results as they end; after an error of those alone that had begun, then the error.

    No more trials than workers are handed out: the pool has no way to take one back.
    """
    waiting = deque(trials)
    running: set[Future[TrialResult]] = set()
    results: list[TrialResult] = []
    errors: list[BaseException] = []
    while True:
        try:
            while waiting and len(running) < n_workers:
                running.add(pool.submit(run_trial, waiting.popleft()))
        except BrokenProcessPool as broken:
            errors.append(broken)
            waiting.clear()
        # only now, so that no worker waits for what the caller does with them
        yield from results
        if not running:
            break
        ended, running = wait(running, return_when=FIRST_COMPLETED)
        results = []
        for future in ended:
            error = future.exception()
            if error is None:
                results.append(future.result())
            else:
                errors.append(error)
        if errors:
            waiting.clear()
    if errors:
        raise errors[0]


def _in_dask(trials: Sequence[AnyTrial], n_workers: int, scheduler: str) -> Results:
    from tts_workbook.trials.dask_executor import in_dask  # only who asks for it needs the extra

    yield from in_dask(trials, n_workers, scheduler)
