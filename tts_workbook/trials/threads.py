"""The one thread of a trial, settled alike wherever it runs: in this process, a worker or Dask."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


def settle_thread() -> None:
    """One torch thread that flushes denormals: a failing model is full of them, and they cost it
    three times the time.
    """
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)


@contextmanager
def one_thread() -> Iterator[None]:
    """A settled thread inside; the caller's count of threads and torch's default treatment of
    denormals afterwards.
    """
    threads = torch.get_num_threads()
    settle_thread()
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.set_flush_denormal(False)
